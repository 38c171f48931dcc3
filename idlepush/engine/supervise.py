"""Supervise: the only retry logic. Each account's loop is kept alive; its trouble never reaches another's.

What ends a session is sorted by what helps against it:

    a session that was of use       again within 2 s; the failures are not counted up
    network, timeout, protocol, …   full-jitter exponential backoff, up to 5 minutes
    capacity, rate_limit            longer waits, or as long as the server asks for
    authentication                  at most 3 tries in 10 minutes, then parked until the secret changes
    the store                       every 15 s: whoever makes space is not kept waiting
    a bug                           recorded with its traceback, then like any other failure

Only 5 healthy minutes clear the count.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

import anyio

from idlepush.engine.credentials import Secret, SecretSource, read_secret
from idlepush.engine.observations import (
    BugFound,
    ConnectFailed,
    Observe,
    Restarting,
    State,
    StateChanged,
    StoreTrouble,
    trace_of,
)
from idlepush.engine.refusals import suggested_backoff
from idlepush.engine.watch import Watch
from idlepush.errors import (
    AuthenticationFailed,
    FailureClass,
    SecretUnreadable,
    StoreError,
    Trouble,
)

HEALTHY_AFTER: Final = 300.0
TRIES_BEFORE_PARKING: Final = 3
PARK_WITHIN: Final = 600.0
SECRET_CHECK: Final = 3.0
STORE_PAUSE: Final = 15.0
USEFUL_PAUSE: Final = 2.0


@dataclass(frozen=True, slots=True)
class Backoff:
    """Full jitter (AWS, 2015): anything between nothing and a bound that doubles with each failure. Seconds."""

    first: float = 2.0
    most: float = 300.0

    def delay(self, failures: int, dice: float) -> float:
        """Return the pause after so many failures in a row (from 1); *dice* is within 0..1."""
        # The exponent is bounded: a bound that overflows would end the loop that is meant to go on for ever.
        return dice * min(self.most, self.first * 2.0 ** min(failures - 1, 30))


_BACKOFFS: Final[Mapping[FailureClass, Backoff]] = {
    FailureClass.CAPACITY: Backoff(first=30.0, most=900.0),
    FailureClass.RATE_LIMIT: Backoff(first=120.0, most=3600.0),
    FailureClass.AUTHENTICATION: Backoff(first=20.0, most=120.0),
    FailureClass.TLS: Backoff(first=10.0, most=300.0),
}


@dataclass(slots=True)
class Supervisor:
    """Keeps one account's watch running until it is stopped."""

    watch: Watch
    observe: Observe
    dice: Callable[[], float]
    environment: Mapping[str, str]
    failures: int = 0
    refusals: list[float] = field(default_factory=list)
    stopping: bool = False

    @property
    def account(self) -> str:
        """Its name."""
        return self.watch.settings.name

    def stop(self) -> None:
        """End at the next quiet moment."""
        self.stopping = True
        self.watch.stop()

    async def run(self) -> None:
        """Run sessions, one after the other, until stopped. Nothing but cancellation is ever raised."""
        self._tell(State.STARTING)
        while not self.stopping:
            begun = anyio.current_time()
            try:
                await self.watch.session()
            except (AuthenticationFailed, SecretUnreadable) as refused:
                await self._refused(refused)
            except Trouble as trouble:
                await self._back_off(trouble.failure_class, str(trouble), begun)
            except StoreError as error:
                self.observe(StoreTrouble(account=self.account, reason=str(error)))
                await self._pause(FailureClass.OTHER, f"the store: {error}", STORE_PAUSE)
            except Exception as bug:
                self.observe(BugFound(account=self.account, trace=trace_of(bug)))
                await self._back_off(FailureClass.OTHER, f"a bug: {type(bug).__name__}", begun)

    async def _back_off(self, failure_class: FailureClass, reason: str, begun: float) -> None:
        if anyio.current_time() - begun >= HEALTHY_AFTER and self.watch.synchronized:
            self.failures = 0
        limited = failure_class in (FailureClass.CAPACITY, FailureClass.RATE_LIMIT)
        if self.watch.synchronized and not limited:
            delay = self.dice() * USEFUL_PAUSE
        else:
            self.failures += 1
            delay = _BACKOFFS.get(failure_class, Backoff()).delay(self.failures, self.dice())
        if limited:
            delay = max(delay, 5.0, suggested_backoff(reason) or 0.0)
        await self._pause(failure_class, reason, delay)

    async def _pause(self, failure_class: FailureClass, reason: str, delay: float) -> None:
        if self.stopping:
            return
        if not self.watch.synchronized:
            self.observe(ConnectFailed(account=self.account, failure_class=failure_class, reason=reason))
        throttled = failure_class is FailureClass.RATE_LIMIT
        self._tell(State.THROTTLED if throttled else State.BACKING_OFF, failure_class, reason)
        self.observe(Restarting(account=self.account, failure_class=failure_class, reason=reason, delay=delay))
        await self.watch.wake.wait(at_most=delay)

    # Credentials

    async def _refused(self, refused: Trouble) -> None:
        """Wrong credentials: a few tries, as the server may be wrong; then no more, lest it lock the account."""
        now = anyio.current_time()
        if isinstance(refused, AuthenticationFailed):
            self.refusals = [at for at in self.refusals if at > now - PARK_WITHIN] + [now]
            if len(self.refusals) < TRIES_BEFORE_PARKING:
                delay = _BACKOFFS[FailureClass.AUTHENTICATION].delay(len(self.refusals) + 1, self.dice())
                await self._pause(FailureClass.AUTHENTICATION, str(refused), delay)
                return
        if self.stopping:
            return
        self.observe(
            ConnectFailed(account=self.account, failure_class=FailureClass.AUTHENTICATION, reason=str(refused))
        )
        self._tell(State.PARKED, FailureClass.AUTHENTICATION, str(refused))
        await self._until_changed()
        self.refusals.clear()
        if not self.stopping:
            self._tell(State.STARTING)

    async def _until_changed(self) -> None:
        """Return when the secret is another one, or when an operator says so."""
        source = self.watch.settings.password
        before = await _peek(source, self.environment)
        self.watch.wake.take()
        while not self.stopping:
            # A command may ask a person or a network: it is not run every few seconds.
            pause = SECRET_CHECK if is_cheap(source) else HEALTHY_AFTER
            if await self.watch.wake.wait(at_most=pause):
                return
            if await _peek(source, self.environment) != before:
                return

    def _tell(self, state: State, failure_class: FailureClass | None = None, reason: str | None = None) -> None:
        self.watch.state = state
        self.observe(StateChanged(account=self.account, state=state, failure_class=failure_class, reason=reason))


async def _peek(source: SecretSource, environment: Mapping[str, str]) -> Secret | None:
    try:
        return await read_secret(source, environment)
    except SecretUnreadable:
        return None


def is_cheap(source: SecretSource) -> bool:
    """Tell whether reading *source* costs nothing worth mentioning: a file, a variable or plain text."""
    return type(source).__name__ not in ("CommandSecret", "KeyringSecret")
