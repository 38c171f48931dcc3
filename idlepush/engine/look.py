"""One look at one mailbox: what it works with, and what every step of it shares.

The presence check: a FETCH may answer for a message that was expunged meanwhile with NIL, an empty or even a stand-in
body (seen). So NOOP leaves behind the bodies in the same write, and only what a SEARCH after it still lists is stored.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final, TypeVar

import anyio

from idlepush.engine.budget import Budget
from idlepush.engine.latches import Latches
from idlepush.engine.moves import Moves
from idlepush.engine.observations import Feature, Mirrored, Observe, Phase, Quarantined, Timed
from idlepush.engine.session import SLICE, Session
from idlepush.engine.settings import AccountSettings
from idlepush.imap.responses import Fetch
from idlepush.imap.types import Flags, MailboxName, ModSeq, Uid
from idlepush.imap.uidset import UidSet
from idlepush.store.base import Committed, Mirror, Store
from idlepush.sync.arrivals import BodyRules, Unusable, judge
from idlepush.sync.changes import Begin as BeginChange
from idlepush.sync.changes import BodySlice, ChangeSet, KnownAgain, NewMessage
from idlepush.sync.checkpoint import Hole, Quarantine
from idlepush.sync.events import FoundBy
from idlepush.sync.view import View

WINDOW: Final = 500
"""UIDs asked for at once."""
TRIES: Final = 3
"""A message that is there, but cannot be had so often, is set aside."""
FRESH_AROUND: Final = timedelta(hours=1)

Answer = TypeVar("Answer")


class Duty(StrEnum):
    """Which part of a mailbox's work a look does (`lane`)."""

    ALL = "all"
    NEWS = "news"
    """The backlog is left to the lane."""
    BACKLOG = "backlog"
    """The lane's: what is missing below what EXAMINE showed, and what is heard meanwhile of what is there."""


@dataclass(slots=True)
class Memory:
    """What is known of one mailbox between looks and sessions; all of it can be found out again."""

    generation: int | None = None
    mirror: Mirror | None = None
    """As the last look left it, unless the lane has written since: then the next one asks the store first."""
    closings: int = 0
    """Counts the commits of the lane, each when it begins and when it ends."""
    survey: UidSet | None = None
    """UIDs that exist in the newest holes, as far as `surveyed` goes."""
    surveyed: UidSet = UidSet()
    backlog: int = 0
    """How many messages the survey found."""
    pace: tuple[float, int, float] | None = None
    """When the backlog was told of first, how much of it was left then, and when it was told of last."""
    sizes: dict[Uid, int] = field(default_factory=dict)
    doubts: dict[Uid, tuple[int, int]] = field(default_factory=dict)
    failures: dict[Uid, int] = field(default_factory=dict)
    window: int = WINDOW
    in_flight: UidSet = UidSet()
    """What was asked for and not yet settled: not empty at the start of a look, it is what the last session died of."""
    lists_first: bool = False
    """The last session died of new mail: it is listed before it is fetched, so that it can be taken in parts."""
    counted: tuple[int, int] | None = None
    must_rise: bool = False
    """Something was found to have changed after the mod-sequence that is stored: the next one must be higher."""
    flags_at: float | None = None
    newest_flags_at: float | None = None
    rewinds: int = 0
    resets: list[float] = field(default_factory=list)

    def of(self, generation: int | None) -> None:
        """Forget what was known of another generation."""
        if generation != self.generation:
            fresh = Memory(generation=generation, resets=self.resets, closings=self.closings)
            for name in self.__slots__:
                setattr(self, name, getattr(fresh, name))


@dataclass(frozen=True, slots=True, kw_only=True)
class Mailbox:
    """One mailbox of one account, and how it is to be mirrored."""

    account: str
    name: MailboxName
    rules: BodyRules
    born_watched: bool = False
    """It came to be while the account was watched: its first messages are news, not backlog."""


def body_rules(settings: AccountSettings) -> BodyRules:
    """Return how the messages of an account are to be mirrored."""
    return BodyRules(headers_only=settings.bodies == "headers", longest=settings.max_message_bytes, slice=SLICE)


@dataclass(slots=True)
class Done:
    """What a look did."""

    finished: bool = True
    waits: bool = False
    """What is left waits for the next day."""
    new: int = 0
    moved: int = 0
    flags: int = 0
    expunged: int = 0
    leaving: int = 0
    """How many were found to be gone, and are not expunged before the other mailboxes were looked at."""
    refetched: UidSet = UidSet()
    """What was to be fetched anew, and was asked for."""
    remaining: int = 0
    first_commit_at: float | None = None

    @property
    def changes(self) -> int:
        """How much of the mirror it changed."""
        return self.new + self.moved + self.flags + self.expunged

    def add(self, committed: Committed, at: float) -> None:
        """Count a commit."""
        self.new += committed.new
        self.moved += committed.moved
        self.flags += committed.flags
        self.expunged += committed.expunged
        if self.first_commit_at is None and (committed.new or committed.moved or committed.flags or committed.expunged):
            self.first_commit_at = at


@dataclass(slots=True, kw_only=True)
class Look:
    """One look at the selected mailbox, in progress."""

    session: Session
    store: Store
    mailbox: Mailbox
    memory: Memory
    found_by: FoundBy
    """What a message will say that EXAMINE shows."""
    now: Callable[[], datetime]
    observe: Observe
    latches: Latches
    told_by: FoundBy = FoundBy.PUSH
    """What a message will say that the server tells of meanwhile."""
    duty: Duty = Duty.ALL
    beside: Memory | None = None
    """To the lane: what the first connection knows of the mailbox."""
    closings: int = 0
    """The memory's `closings` from before EXAMINE."""
    read_at: int = 0
    """The memory's `closings` from before the mirror was read."""
    budget: Budget | None = None
    counted: int = 0
    """Octets the session had received when they were counted last."""
    is_compared: bool = False
    """What EXAMINE's mod-sequence promised was compared, though the mirror's could not be raised to it."""
    commits: int = 0
    began: float = field(default_factory=anyio.current_time)
    moves: Moves | None = None
    """What is leaving the account's mailboxes; None where it has only one."""
    done: Done = field(default_factory=Done)
    examined: bool = False
    """The mailbox was examined anew in this look, and what that showed is still to be looked into."""
    fruitless: int = 0
    """How often in a row EXISTS was heard and nothing was there: a server that says it in every answer."""
    echoes: dict[str, int] = field(default_factory=dict)
    """The same of every other kind of hint."""

    @property
    def view(self) -> View:
        """The selected mailbox as the session sees it."""
        assert self.session.view is not None
        return self.session.view

    def distrust(self, feature: Feature, reason: str) -> None:
        """Do without *feature*, now and for a day."""
        self.latches.distrust(feature, f"{self.mailbox.name}: {reason}")
        self.session.forgo(feature)

    @property
    def saves_octets(self) -> bool:
        """What is not new waits for another day, for nothing of the budget is left."""
        if self.budget is None:
            return False
        received = self.session.octets_received
        self.budget.spend(received - self.counted)
        self.counted = received
        return self.budget.is_spent

    async def reload(self) -> Mirror | None:
        self.read_at = self.memory.closings
        mirror = await self.store.mirror(self.mailbox.account, self.mailbox.name)
        self.memory.of(mirror.generation if mirror else None)
        return mirror and await self._without_leaving(mirror)

    async def _without_leaving(self, mirror: Mirror) -> Mirror:
        leaving = self.leaving(mirror)
        if self.moves is None or not leaving:
            return mirror
        alive = mirror.alive - len(leaving & await self.store.uids(mirror.generation))
        modseq = self.moves.modseq_of(mirror.generation) or mirror.checkpoint.modseq
        return replace(mirror, alive=alive, checkpoint=replace(mirror.checkpoint, modseq=modseq))

    def leaving(self, mirror: Mirror) -> UidSet:
        """What is known to be gone and not expunged yet."""
        return self.moves.leaving_from(mirror.generation) if self.moves is not None else UidSet()

    async def alive(self, mirror: Mirror) -> UidSet:
        """Return the UIDs that are mirrored, less those that are leaving."""
        return await self.store.uids(mirror.generation) - self.leaving(mirror)

    async def expect_moves(self, mirror: Mirror, arrived: Sequence[NewMessage]) -> None:
        """Find out which of what *arrived* was moved here: to be asked before it is committed."""
        # Gmail shows each message in several mailboxes at once: there a twin says nothing.
        if self.moves is None or mirror.older_alive or not arrived or "X-GM-EXT-1" in self.session.capabilities:
            return
        if await self.moves.expect(self.session, self.store, self.mailbox.account, self.mailbox.name, arrived):
            self.examined = True

    def judged(
        self, answers: Mapping[Uid, Fetch], present: UidSet, found_by: FoundBy, mirror: Mirror
    ) -> tuple[list[NewMessage], dict[Uid, str]]:
        """Return the messages that can be stored, oldest first, and the UIDs that are there but cannot, with why."""
        begun = self.now()  # the loop's clock stands still while nothing is awaited
        messages: list[NewMessage] = []
        unusable: dict[Uid, str] = {}
        for uid in present:
            said = answers.get(uid)
            initial = found_by is FoundBy.BACKFILL and not _came_since(mirror, said)
            verdict = judge(
                said, self.mailbox.rules, found_by=found_by, initial=initial, doubt=self.memory.doubts.get(uid)
            )
            if isinstance(verdict, Unusable):
                unusable[uid] = verdict.reason
                if verdict.doubt is not None:
                    self.memory.doubts[uid] = verdict.doubt
            else:
                messages.append(verdict)
        seconds = max(0.0, (self.now() - begun).total_seconds())
        self.observe(Timed(account=self.mailbox.account, phase=Phase.PARSE, seconds=seconds))
        return messages, unusable

    def given_up(self, mirror: Mirror, unusable: Mapping[Uid, str]) -> dict[Uid, Quarantine]:
        """Return those of *unusable* that were tried often enough, to be tried again ever more seldom."""
        quarantined = {}
        for uid, reason in unusable.items():
            failures = self.memory.failures[uid] = self.memory.failures.get(uid, 0) + 1
            if failures < TRIES:
                continue
            before = mirror.quarantine.get(uid)
            tries = before.tries + 1 if before else 1
            pause = min(timedelta(days=1), timedelta(minutes=5) * 12 ** (tries - 1))
            quarantined[uid] = Quarantine(reason, tries, self.now() + pause)
            self.observe(
                Quarantined(account=self.mailbox.account, mailbox=self.mailbox.name.text, uid=uid, reason=reason)
            )
        return quarantined

    async def commit(
        self,
        mirror: Mirror | None,
        *,
        begin: BeginChange | None = None,
        new: Sequence[NewMessage] = (),
        known_again: Sequence[KnownAgain] = (),
        replaced: Sequence[NewMessage] = (),
        slices: Sequence[BodySlice] = (),
        flags: Mapping[Uid, Flags] | None = None,
        modseqs: Mapping[Uid, ModSeq] | None = None,
        expunged: UidSet = UidSet(),
        quarantined: Mapping[Uid, Quarantine] | None = None,
        released: UidSet = UidSet(),
        accounted: UidSet = UidSet(),
        holes: tuple[Hole, ...] = (),
        high: Uid | None = None,
        rewind: bool = False,
        modseq: ModSeq | None = None,
        forget_modseq: bool = False,
        forget_older: bool = False,
        looked_at: datetime | None = None,
        audited_at: datetime | None = None,
        urgent: bool = False,
    ) -> Committed:
        change = ChangeSet(
            account=self.mailbox.account,
            mailbox=self.mailbox.name,
            generation=mirror.generation if mirror else None,
            begin=begin,
            new=tuple(new),
            known_again=tuple(known_again),
            replaced=tuple(replaced),
            slices=tuple(slices),
            flags=flags or {},
            modseqs=modseqs or {},
            expunged=expunged,
            leaving=self.moves.leaving if self.moves is not None and new else {},
            quarantined=quarantined or {},
            released=released,
            accounted=accounted,
            holes=holes,
            high=high,
            rewind=rewind,
            modseq=modseq,
            # Flags behind a FETCH of the lane may have changed since; no later number may pass over that.
            modseq_at_most=self.view.highestmodseq if self.duty is Duty.BACKLOG and (new or known_again) else None,
            forget_modseq=forget_modseq,
            forget_older=forget_older,
            looked_at=looked_at,
            audited_at=audited_at,
            urgent=urgent,
        )
        self._closing()
        try:
            committed = await self.timed(Phase.COMMIT, self.store.commit(change))
        finally:
            self._closing()
        self.commits += 1
        self.done.add(committed, anyio.current_time())
        if committed.new:
            found_by = change.new[0].found_by
            self.observe(
                Mirrored(account=change.account, mailbox=change.mailbox.text, found_by=found_by, count=committed.new)
            )
        for message in new:
            for kept in (self.memory.doubts, self.memory.failures, self.memory.sizes):
                kept.pop(message.uid, None)
        return committed

    def _closing(self) -> None:
        """A commit of the lane begins, or has ended: whatever the first has read of the mirror may be of before it."""
        if self.beside is not None:
            self.beside.closings += 1
            self.beside.mirror = None

    async def timed(self, phase: Phase, work: Awaitable[Answer]) -> Answer:
        begun = anyio.current_time()
        answer = await work
        self.observe(Timed(account=self.mailbox.account, phase=phase, seconds=anyio.current_time() - begun))
        return answer


def _came_since(mirror: Mirror, said: Fetch | None) -> bool:
    """After a reset: the message arrived about when the last good look was, or later; it was never seen before."""
    if mirror.looked_at is None or said is None:
        return False
    dates = [date for date in (said.internal_date, said.save_date) if date is not None]
    return any(date >= mirror.looked_at - FRESH_AROUND for date in dates)
