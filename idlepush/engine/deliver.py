"""Deliver: the event log's way out. One loop for each sink, which nothing but its own trouble holds up.

    cursor ─▶ read the log behind it ─▶ sink ─▶ move the cursor ┐
       └───────────────────── for ever ─────────────────────────┘

At least once, in the order of the log: the cursor is moved when the sink has what it was given, and not before. It is
written down once the log has been quiet for a second, and each thousand events where it never is: a commit for every
push would be one more fsync for each, and what is delivered twice after a crash does no harm by the sinks' promise.

A sink that fails waits and begins again, from its cursor, ever more seldom up to every 30 s. Nothing in the mirror
waits for it: the log is the queue, on the disk.
"""

from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Final, Protocol

import anyio

from idlepush.engine.observations import BugFound, Delivered, Observe, SinkReady, SinkTrouble, trace_of
from idlepush.engine.supervise import Backoff
from idlepush.errors import SinkFailed, StoreError
from idlepush.store.base import Store
from idlepush.sync.events import Event

PAGE: Final = 1000
QUIET: Final = 1.0
"""Seconds without an event after which the cursor is written down."""
LAST_WORDS: Final = 2.0
"""Seconds that a loop which ends may take to write its cursor down."""
BACKOFF: Final = Backoff(first=1.0, most=30.0)


class Sink(Protocol):
    """A receiver of one account's events. Each of these may raise SinkFailed; anything else is a bug."""

    @property
    def name(self) -> str:
        """What kind it is: the `sink` of metrics, one of a closed set."""
        ...

    @property
    def account(self) -> str:
        """Whose events it takes."""
        ...

    async def first(self) -> int:
        """Get ready for a log that was never delivered here; return the position behind which to begin."""
        ...

    async def begin(self, cursor: int) -> int:
        """Get ready to take what is behind *cursor*: at the start, and again after each failure.

        Return the position behind which to go on: *cursor*, or a later one where the sink caught up by itself.
        """
        ...

    async def take(self, events: Sequence[Event]) -> None:
        """Have *events*, for good when this returns. The same may come again; then nothing is done twice."""
        ...


class Deliver:
    """The loop of one sink. `dice` is within 0..1."""

    def __init__(self, sink: Sink, store: Store, observe: Observe, dice: Callable[[], float]) -> None:
        self.sink = sink
        self.position = 0
        """What the sink has: the cursor, as it would be written down now."""
        self._store = store
        self._observe = observe
        self._dice = dice
        self._has_news = False
        """The sink has more than what is written down."""
        self._was_of_use = False

    async def run(self) -> None:
        """Deliver for ever. Nothing but cancellation is ever raised."""
        failures = 0
        while True:
            self._was_of_use = False
            try:
                await self._deliver()
            except (SinkFailed, StoreError) as error:
                reason = str(error)
            except Exception as bug:
                self._observe(BugFound(account=self.sink.account, trace=trace_of(bug)))
                reason = f"a bug: {type(bug).__name__}"
            finally:
                with anyio.move_on_after(LAST_WORDS, shield=True):
                    await self._try_to_write()
            failures = 1 if self._was_of_use else failures + 1
            self._observe(SinkTrouble(account=self.sink.account, sink=self.sink.name, reason=reason))
            # Never at once: what helps a full disk is time.
            await anyio.sleep(BACKOFF.first + BACKOFF.delay(failures, self._dice()))

    async def _deliver(self) -> None:
        cursor = await self._store.cursor(self.sink.name, self.sink.account)
        if cursor is None:
            cursor = await self.sink.first()
            await self._store.move_cursor(cursor, self.sink.name, self.sink.account)
        self.position = cursor
        self.position = await self.sink.begin(cursor)
        self._has_news = self.position != cursor
        self._observe(SinkReady(account=self.sink.account, sink=self.sink.name))
        while True:
            events = await self._store.events(self.position, limit=PAGE)
            if not events:
                await self._wait()
                continue
            mine = [event for event in events if event.account == self.sink.account]
            if mine:
                await self.sink.take(mine)
                self._has_news = self._was_of_use = True
                self._observe(Delivered(account=self.sink.account, sink=self.sink.name, count=len(mine)))
            self.position = events[-1].position
            if self.position - cursor >= PAGE:
                cursor, self._has_news = self.position, True
                await self._try_to_write()

    async def _wait(self) -> None:
        """Return when the log has more."""
        with anyio.move_on_after(QUIET) as pause:
            await self._store.wait_beyond(self.position)
        if pause.cancelled_caught:
            await self._try_to_write()
            await self._store.wait_beyond(self.position)

    async def _try_to_write(self) -> None:
        """Write the cursor down; where the store cannot be written just now, some events will come again."""
        if self._has_news:
            with suppress(StoreError):
                await self._store.move_cursor(self.position, self.sink.name, self.sink.account)
                self._has_news = False
