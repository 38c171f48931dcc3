"""The second lane: an account's older messages and long bodies, on a connection of their own.

The connection that idles is never held: what a look leaves over after a turn of a few seconds (holes, parts, what is to
be tried again) the lane takes, opened for it, on a second connection, and closed once all of it is in. Looks on the
first connection then pass over what the lane has, and fetch what is new at once, whatever is still missing below.

    look leaves a backlog ─▶ take(mailbox) ─▶ ┌ examine ─ a turn of its backlog ┐ ─▶ let go ─▶ a full look on the first
                                              └── while there is more of it ────┘

Two sessions write to one mirror. What keeps that right (`sync.md`, modseq and two lanes):

    the lane looks into no UID that its own EXAMINE does not show: another connection may not see it yet, and what a
        SEARCH does not list would be taken for gone
    it looks into what it hears itself, up to a NOOP behind its last commit, so a flag that changes behind its FETCH is
        not lost; but it looks for no news. Where no mod-sequence tells of flags, all are compared once it is done
    its commits lower the mirror's mod-sequence to the one its EXAMINE showed, and a look on the first raises that only
        if the lane has committed nothing since the look began (`Memory.closings`)
    both commit to one generation; after a reset by the first the lane's commits are refused, and it starts anew

Its trouble is its own: a connection that is lost or refused ends no session, it is tried again after a while, and what
it held goes back to turns on the first connection. Where the server refuses a second connection (`[LIMIT]`, `[INUSE]`,
"too many connections"; to some that is a failed login) none is asked for within the hour.
"""

import math
from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import Final

import anyio

from idlepush.engine.budget import Budget
from idlepush.engine.latches import Latches
from idlepush.engine.look import Done, Duty, Look, Mailbox, Memory, body_rules
from idlepush.engine.observations import BugFound, LaneClosed, LaneOpened, LaneWorked, Observe, trace_of
from idlepush.engine.session import Session
from idlepush.engine.settings import AccountSettings
from idlepush.engine.synchronize import FRUITLESS, synchronize
from idlepush.engine.wake import Wake
from idlepush.errors import FailureClass, IdlepushError, MailboxUnavailable, StaleGeneration, Trouble
from idlepush.imap.types import MailboxName
from idlepush.store.base import Store
from idlepush.sync.events import FoundBy

TAKES_AFTER: Final = 2.0
TURN: Final = 30.0
"""Seconds of one mailbox's backlog before the lane examines anew, and looks at the next one."""
REFUSED_FOR: Final = 3600.0
"""Seconds for which no second connection is asked for where the server refused one."""
RESTS_FOR: Final = 600.0
"""Seconds for which the lane rests after it failed again and again."""
MOST_FAILURES: Final = 16
"""So often in a row, without a commit in between, it is tried again soon: a window of 500 is halved nine times before
the message that a server dies of stands alone, and that is asked for three times."""
PAUSE: Final = 8.0
"""Seconds before it is tried again, at most."""
MOST_FRUITLESS: Final = 3
"""So many turns of one mailbox may bring nothing: then what is missing cannot be seen on this connection."""
_REFUSALS: Final = (FailureClass.CAPACITY, FailureClass.RATE_LIMIT, FailureClass.AUTHENTICATION)


class Lane:
    """The second connection of one account, there while there is a backlog; it outlives the sessions of the first."""

    def __init__(
        self,
        settings: AccountSettings,
        *,
        budget: Budget,
        store: Store,
        latches: Latches,
        open_session: Callable[[], Awaitable[Session]],
        memory: Callable[[MailboxName], Memory],
        ended: Wake,
        now: Callable[[], datetime],
        observe: Observe,
    ) -> None:
        """*memory* is what the first connection knows of a mailbox; *ended* is set when something is let go of."""
        self.after = TAKES_AFTER
        """Seconds of a turn on the first connection after which it is to have the rest."""
        self._account = settings.name
        self._store = store
        self._rules = body_rules(settings)
        self._latches = latches
        self._budget = budget
        self._open_session = open_session
        self._memory_beside = memory
        self._ended = ended
        self._now = now
        self._observe = observe
        self._is_allowed = settings.connections > 1
        self._held: dict[MailboxName, int] = {}  # in the order they were taken, and what is left of each
        self._let_go: set[MailboxName] = set()
        self._memories: dict[MailboxName, Memory] = {}
        self._fruitless: dict[MailboxName, int] = {}
        self._failures = 0
        self._again_at = -math.inf
        self._wanted = anyio.Event()
        self._is_running = False

    # What the first connection asks of it

    @property
    def is_ready(self) -> bool:
        """There may be a second connection, as far as is known."""
        return self._is_allowed and self._is_running and anyio.current_time() >= self._again_at

    def take(self, name: MailboxName, remaining: int) -> bool:
        """Take over the backlog of *name*; False where the lane cannot, or not now."""
        if not self.is_ready:
            return False
        self._held.setdefault(name, remaining)
        self._wanted.set()
        return True

    def holds(self, name: MailboxName) -> bool:
        """Tell whether the lane has the backlog of *name*."""
        return name in self._held

    def remaining(self, name: MailboxName) -> int:
        """Return about how many messages of *name* it still has to fetch."""
        return self._held.get(name, 0)

    def take_let_go(self) -> set[MailboxName]:
        """Return the mailboxes it has let go of since this was asked last: they are to be looked at."""
        names, self._let_go = self._let_go, set()
        return names

    async def run(self) -> None:
        """Work whenever something is taken; until it is cancelled. Nothing is raised."""
        self._is_running = True
        try:
            while True:
                await self._wanted.wait()
                self._wanted = anyio.Event()
                while self._held:
                    await self._work_until_trouble()
        finally:
            self._is_running = False
            self._held.clear()
            self._let_go.clear()

    # One session

    async def _work_until_trouble(self) -> None:
        reason: str | None = None
        session: Session | None = None
        try:
            session = await self._open_session()
            self._observe(LaneOpened(account=self._account))
            await self._work(session)
            self._failures = 0
        except IdlepushError as trouble:
            reason = str(trouble)
            await self._learn(trouble, opened=session is not None)
        except Exception as bug:
            self._observe(BugFound(account=self._account, trace=trace_of(bug)))
            reason = f"a bug: {type(bug).__name__}"
            self._rest(RESTS_FOR)
        finally:
            with anyio.CancelScope(shield=True):
                if session is not None:
                    await (session.logout() if reason is None else session.aclose())
            self._observe(LaneClosed(account=self._account, reason=reason))

    async def _learn(self, trouble: IdlepushError, *, opened: bool) -> None:
        """Try again soon, for one message may be to blame and the window is halved; or leave it to the first."""
        self._failures += 1
        if not isinstance(trouble, Trouble) or self._failures >= MOST_FAILURES:
            self._rest(RESTS_FOR)
        elif trouble.failure_class in _REFUSALS:
            self._rest(REFUSED_FOR)
        elif not opened and self._failures > 1:
            self._rest(RESTS_FOR)
        else:
            await anyio.sleep(min(2.0**self._failures, PAUSE))

    def _rest(self, seconds: float) -> None:
        self._failures = 0
        self._again_at = anyio.current_time() + seconds
        for name in [*self._held]:
            self._release(name)

    def _release(self, name: MailboxName) -> None:
        """What is left of *name*, if anything, is the first connection's again."""
        self._held.pop(name, None)
        self._fruitless.pop(name, None)
        self._memory_beside(name).flags_at = None
        self._let_go.add(name)
        self._ended.set()

    # Its work

    async def _work(self, session: Session) -> None:
        """Work off all that is held, a turn at a time each."""
        while self._held:
            for name in [*self._held]:
                try:
                    await self._turn(session, name)
                except (MailboxUnavailable, StaleGeneration):
                    self._release(name)

    async def _turn(self, session: Session, name: MailboxName) -> None:
        begun, octets = anyio.current_time(), session.octets_received
        view = await session.examine(name)
        mirror = await self._store.mirror(self._account, name)
        if mirror is None or mirror.checkpoint.uidvalidity != view.uidvalidity or view.uidnext is None:
            self._release(name)
            return
        look = Look(
            session=session,
            store=self._store,
            mailbox=Mailbox(account=self._account, name=name, rules=self._rules),
            memory=self._memories.setdefault(name, Memory()),
            found_by=FoundBy.BACKFILL,
            now=self._now,
            observe=self._observe,
            latches=self._latches,
            duty=Duty.BACKLOG,
            budget=self._budget,
            counted=octets,
            beside=self._memory_beside(name),
        )
        done = await synchronize(look, fresh=False, patience=TURN)
        for _ in range(FRUITLESS):  # unless the server says something in every answer
            await session.noop()
            if not view.heard.is_of_the_mirrored:
                break
            await synchronize(look, fresh=False, patience=0)
        self._observe(
            LaneWorked(
                account=self._account,
                mailbox=name.text,
                seconds=anyio.current_time() - begun,
                octets=session.octets_received - octets,
            )
        )
        await self._budget.save()
        await self._judge(name, done, commits=look.commits)

    async def _judge(self, name: MailboxName, done: Done, *, commits: int) -> None:
        """Let go of what is done, and of what cannot be seen here."""
        if commits:
            self._failures = 0
            self._fruitless.pop(name, None)
        if name in self._held:
            self._held[name] = done.remaining
        mirror = await self._store.mirror(self._account, name)
        if done.waits:
            self._release(name)
        elif mirror is None or not (mirror.checkpoint.holes or mirror.parts):
            self._memories.pop(name, None)
            self._release(name)
        elif done.finished and not commits:
            self._fruitless[name] = self._fruitless.get(name, 0) + 1
            if self._fruitless[name] >= MOST_FRUITLESS:
                self._release(name)
                self._again_at = anyio.current_time() + RESTS_FOR
            else:
                await anyio.sleep(1.0)
