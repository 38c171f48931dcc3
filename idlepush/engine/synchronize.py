"""Bring the mirror of the selected mailbox up to its server: ask for a step, carry it out, commit, until there is none.

    mirror ← store          what is committed, and nothing else
    step   ← plan(mirror, view)
    answer ← session        FETCH, SEARCH; always looking only (EXAMINE, BODY.PEEK)
    judge, presence check   what is to be stored is there and whole
    commit                  messages, flags, expunges, events and checkpoint in one transaction

Nothing here retries a lost connection: it is raised, and whoever supervises starts a new session, which finds the
checkpoint as it was committed. What is worth keeping between two looks, but not beyond the process, is in `Memory`.

The presence check: a FETCH may answer for a message that was expunged meanwhile with NIL, an empty or even a stand-in
body (seen). So NOOP leaves behind the bodies in the same write, and only what a SEARCH after it still lists is stored.
"""

from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Final, TypeVar, assert_never

import anyio

from idlepush.engine.observations import Backfilling, MailboxReset, Mirrored, Observe, Phase, Quarantined, Timed
from idlepush.engine.session import FLAGS, HEADER, LISTING, LONG_SLICE, SLICE, WHOLE, Session
from idlepush.errors import MailboxUnavailable, Refused
from idlepush.imap.responses import Fetch
from idlepush.imap.types import MAX_UID, Flags, MailboxName, Uid, same_flags
from idlepush.imap.uidset import UidSet
from idlepush.store.base import Committed, Mirror, Store
from idlepush.sync.arrivals import BodyRules, Unusable, judge
from idlepush.sync.changes import Begin as BeginChange
from idlepush.sync.changes import BodySlice, ChangeSet, NewMessage
from idlepush.sync.checkpoint import Hole, Quarantine, holes_of
from idlepush.sync.events import FoundBy
from idlepush.sync.plan import (
    BULK,
    FEW,
    Begin,
    CompareFlags,
    CompareUids,
    ContinueBody,
    FetchNew,
    FillHole,
    ForgetOlder,
    ListNew,
    ResolveNumbers,
    Retry,
    Rewind,
    Seen,
    Standing,
    Step,
    after,
    plan,
)
from idlepush.sync.view import View, merged

WINDOW: Final = 500
"""UIDs asked for at once."""
WINDOW_OCTETS: Final = 4 * 1024 * 1024
"""Octets of bodies asked for at once: what a lost connection may cost, and how long a push may wait."""
COMMIT_OCTETS: Final = 256 * 1024
"""Octets of bodies in one commit."""
FLAGS_WINDOW: Final = 2000
NEWEST_FLAGS: Final = 500

EMPTY_PAUSES: Final = (0.2, 1.0, 5.0)
"""Seconds before asking again where EXISTS was heard and nothing new is there yet (replicas lag)."""
TRIES: Final = 3
"""A message that is there, but cannot be had so often, is set aside."""
FRUITLESS: Final = 3
"""So often in one look EXISTS is believed though nothing new was there."""
RESETS_AN_HOUR: Final = 3
LOOK_IS_OLD: Final = timedelta(minutes=30)
FRESH_AROUND: Final = timedelta(hours=1)

Answer = TypeVar("Answer")

EVERYTHING: Final = UidSet.range(1, MAX_UID)


@dataclass(slots=True)
class Memory:
    """What is known of one mailbox between looks and sessions; all of it can be found out again."""

    generation: int | None = None
    survey: UidSet | None = None
    """UIDs that exist in the newest hole."""
    surveyed: Hole | None = None
    backlog: int = 0
    """How many messages the survey found."""
    sizes: dict[Uid, int] = field(default_factory=dict)
    doubts: dict[Uid, tuple[int, int]] = field(default_factory=dict)
    failures: dict[Uid, int] = field(default_factory=dict)
    window: int = WINDOW
    in_flight: UidSet = UidSet()
    """What was asked for and not yet settled: not empty at the start of a look, it is what the last session died of."""
    lists_first: bool = False
    """The last session died of new mail: it is listed before it is fetched, so that it can be taken in parts."""
    counted: tuple[int, int] | None = None
    flags_at: float | None = None
    newest_flags_at: float | None = None
    rewinds: int = 0
    resets: list[float] = field(default_factory=list)

    def of(self, generation: int | None) -> None:
        """Forget what was known of another generation."""
        if generation != self.generation:
            fresh = Memory(generation=generation, resets=self.resets)
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


@dataclass(slots=True)
class Done:
    """What a look did."""

    finished: bool = True
    new: int = 0
    moved: int = 0
    flags: int = 0
    expunged: int = 0
    remaining: int = 0
    first_commit_at: float | None = None

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
    """One look at the selected mailbox. `synchronize` tells the story; each step has a method."""

    session: Session
    store: Store
    mailbox: Mailbox
    memory: Memory
    found_by: FoundBy
    """What a message will say that this look finds; what the server tells of meanwhile is a push."""
    now: Callable[[], datetime]
    observe: Observe
    done: Done = field(default_factory=Done)
    fruitless: int = 0
    """How often in a row EXISTS was heard and nothing was there: a server that says it in every answer."""

    async def synchronize(
        self, *, fresh: bool, flags_due: bool = False, newest_due: bool = False, patience: float | None = None
    ) -> Done:
        """Bring the mirror up to the server; with *patience* (seconds) a backlog may be left for later.

        *fresh*: EXAMINE has just been answered. Everything more urgent than the backlog is always finished.

        Raises:
            MailboxUnavailable: its UIDVALIDITY changes all the time.
            StoreError: a commit failed; nothing of it was written.
            Trouble: the connection is gone.
        """
        ends = None if patience is None else anyio.current_time() + patience
        mirror = await self._mirror()
        self._learn_from_loss()
        seen = Seen(
            uidvalidity=self.view.uidvalidity,
            uidnext=None,
            exists=0,
            fresh=fresh,
            flags_due=flags_due,
            newest_flags_due=newest_due,
        )
        while True:
            seen = self._refreshed(seen)
            if self.fruitless >= FRUITLESS:
                seen = replace(seen, heard=replace(seen.heard, exists=False))
            step = plan(_standing(mirror), seen)
            if step is None:
                break
            if isinstance(step, BULK) and ends is not None and anyio.current_time() >= ends:
                self.done.finished = False
                break
            mirror = await self._carry_out(step, mirror)
            seen = after(step, seen)
            if isinstance(step, CompareUids):
                self.memory.counted = (self.view.exists, mirror.alive + len(mirror.quarantine))
            elif isinstance(step, Begin):
                # All of it will be fetched as it is now: nothing to compare for a while.
                self.memory.flags_at = self.memory.newest_flags_at = anyio.current_time()
            elif isinstance(step, FetchNew | ListNew):
                # What is told of from here on, it tells of its own accord.
                self.found_by = FoundBy.PUSH if self.session.can_idle else FoundBy.POLL
        await self._note_the_look(mirror)
        return self.done

    @property
    def view(self) -> View:
        """The selected mailbox as the session sees it."""
        assert self.session.view is not None
        return self.session.view

    def _refreshed(self, seen: Seen) -> Seen:
        view = self.view
        return replace(
            seen,
            uidvalidity=view.uidvalidity,
            # A server whose UIDNEXT went back twice is not asked for it again: what is there is looked for instead.
            uidnext=view.uidnext if self.memory.rewinds < 2 else None,
            exists=view.exists,
            heard=merged(seen.heard, view.take()),
            counted=self.memory.counted,
            now=self.now(),
        )

    async def _mirror(self) -> Mirror | None:
        mirror = await self.store.mirror(self.mailbox.account, self.mailbox.name)
        self.memory.of(mirror.generation if mirror else None)
        return mirror

    async def _carry_out(self, step: Step, mirror: Mirror | None) -> Mirror:
        if isinstance(step, Begin):
            await self._begin(mirror)
        else:
            assert mirror is not None
            await self._move_on(step, mirror)
        now = await self._mirror()
        assert now is not None
        return now

    async def _move_on(self, step: Step, mirror: Mirror) -> None:
        match step:
            case ResolveNumbers(numbers):
                await self._resolve_numbers(mirror, numbers)
            case Rewind(uidnext):
                await self._rewind(mirror, uidnext)
            case FetchNew(first):
                await self._fetch_new(mirror, first)
            case ListNew(first):
                await self._list_new(mirror, first)
            case CompareFlags(uids, newest):
                await self._compare_flags(mirror, uids, newest=newest)
            case CompareUids():
                await self._compare_uids(mirror)
            case FillHole(hole):
                await self._fill_hole(mirror, hole)
            case ContinueBody(uid):
                await self._continue_body(mirror, uid)
            case Retry(uids):
                await self._retry(mirror, uids)
            case ForgetOlder():
                await self._commit(mirror, forget_older=True)
            case Begin():
                raise AssertionError("a generation is begun before anything else")
            case _:
                assert_never(step)

    # Generations

    async def _begin(self, mirror: Mirror | None) -> None:
        self._bound_resets(mirror)
        uidnext = self.view.uidnext
        if uidnext is None:
            found = await self.session.search(EVERYTHING) if self.view.exists else UidSet()
            uidnext = Uid(found.last + 1) if found else Uid(1)
        found_by = FoundBy.POLL if mirror is None and self.mailbox.born_watched else FoundBy.BACKFILL
        holes = (Hole(Uid(1), Uid(uidnext - 1), found_by),) if uidnext > 1 and self.view.exists else ()
        # The old generation's last look stays: what came after it is news, not backlog.
        looked_at = mirror.looked_at if mirror else None
        begin = BeginChange(uidvalidity=self.view.uidvalidity, high=uidnext, holes=holes)
        await self._commit(mirror, begin=begin, looked_at=looked_at)
        if mirror is not None:
            self.observe(MailboxReset(account=self.mailbox.account, mailbox=self.mailbox.name.text))

    def _bound_resets(self, mirror: Mirror | None) -> None:
        if mirror is None:
            return
        now = anyio.current_time()
        self.memory.resets = [at for at in self.memory.resets if at > now - 3600]
        if len(self.memory.resets) >= RESETS_AN_HOUR:
            raise MailboxUnavailable(
                f"{self.mailbox.name}: its UIDVALIDITY changed {RESETS_AN_HOUR} times within an hour; it is left alone"
            )
        self.memory.resets.append(now)

    async def _rewind(self, mirror: Mirror, uidnext: Uid) -> None:
        """UIDNEXT went back: the same messages without the last ones, or others under the same UIDVALIDITY?"""
        self.memory.rewinds += 1
        found = await self.session.search(EVERYTHING)
        alive = await self.store.uids(mirror.generation)
        for window in (alive & found).chunks(FLAGS_WINDOW):
            listed = await self.session.fetch(window, LISTING)
            known = await self.store.sizes(mirror.generation, window.first, window.last)
            if any(_contradict(said, known.get(uid)) for uid, said in listed.items()):
                await self._begin(mirror)
                return
        high = Uid(max(uidnext, found.last + 1 if found else 1))
        await self._commit(
            mirror, expunged=alive - found, high=high, rewind=True, accounted=UidSet.range(high, MAX_UID)
        )

    # New mail

    async def _fetch_new(self, mirror: Mirror, first: Uid) -> None:
        """Fetch from *first* on with bodies. Few are expected; should it be refused, a listing is taken instead."""
        items = HEADER if self.mailbox.rules.headers_only else WHOLE
        if self.memory.lists_first:
            await self._list_new(mirror, first)
            return
        asked = self.memory.in_flight = UidSet.range(first, MAX_UID)
        mirrored = mirror.alive + len(mirror.quarantine)
        answers: Mapping[Uid, Fetch] = {}
        try:
            for pause in (None, *EMPTY_PAUSES):
                if pause is not None:
                    await anyio.sleep(pause)
                answers = await self._timed(
                    Phase.FETCH, self.session.fetch(asked, items, octets=FEW * SLICE, settle=True)
                )
                if answers or self.view.exists <= mirrored:
                    break
        except Refused:
            self.memory.in_flight = UidSet()
            await self._list_new(mirror, first)
            return
        self.memory.in_flight = UidSet()
        present = await self._present(first, answers)
        self.fruitless = 0 if present else self.fruitless + 1
        messages, _ = self._judged(answers, present, self.found_by, mirror)
        stored = UidSet.from_uids(message.uid for message in messages)
        await self._commit(
            mirror,
            new=messages,
            high=self._top(first, present),
            holes=holes_of(present - stored, self.found_by),
            urgent=True,
        )

    async def _list_new(self, mirror: Mirror, first: Uid) -> None:
        """List what stands from *first* on: many, or on top of a backlog. It becomes a hole of known sizes."""
        asked = UidSet.range(first, MAX_UID)
        try:
            answers = await self.session.fetch(asked, LISTING, octets=self.view.exists * 100)
            present = await self._present(first, answers)
        except Refused:
            # One poisoned message can spoil a listing; SEARCH does not look into messages.
            answers, present = {}, await self.session.search(asked)
        self.memory.sizes.update({uid: said.size for uid, said in answers.items() if said.size is not None})
        self.fruitless = 0 if present else self.fruitless + 1
        high = self._top(first, present)
        await self._commit(mirror, high=high, holes=holes_of(present, self.found_by), urgent=True)

    async def _present(self, first: Uid, answers: Iterable[Uid]) -> UidSet:
        """Return which UIDs from *first* on are there, up to the last one that was told of."""
        top = self._top(first, answers)
        return await self.session.search(UidSet.range(first, top - 1)) if top > first else UidSet()

    def _top(self, first: Uid, uids: Iterable[Uid]) -> Uid:
        """Return the UID above all of *uids* and not below UIDNEXT; one that is only told of raises nothing."""
        return Uid(max((first, self.view.uidnext or first, *(uid + 1 for uid in uids))))

    def _judged(
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

    # The backlog

    async def _fill_hole(self, mirror: Mirror, hole: Hole) -> None:
        """Fetch a window of *hole*, newest first; the UIDs that are not there any more leave it, too."""
        existing = await self._surveyed(hole)
        if not existing:
            await self._commit(mirror, accounted=hole.uids)
            return
        batch = await self._batch(existing)
        if len(batch) == 1 and self.memory.failures.get(batch.first, 0) >= TRIES:
            await self._bisect(mirror, batch, "the connection was lost whenever it was asked for")
            return
        try:
            answers = await self._fetch_batch(batch)
        except Refused as refused:
            self.memory.in_flight = UidSet()
            await self._bisect(mirror, batch, str(refused))
            return
        present = await self.session.search(batch)
        messages, unusable = self._judged(answers, present, hole.found_by, mirror)
        quarantined = self._given_up(mirror, unusable)
        left = UidSet.from_uids(uid for uid in unusable if uid not in quarantined)
        reach = UidSet.range(batch.first, hole.last)
        await self._commit_window(mirror, messages, reach=reach, left=left, quarantined=quarantined)
        self.memory.in_flight = UidSet()
        self.memory.lists_first = False
        self.memory.window = min(WINDOW, self.memory.window * 2)
        self._tell_progress(mirror, existing - batch)

    async def _surveyed(self, hole: Hole) -> UidSet:
        """Return which UIDs exist in *hole*: UIDs are sparse, and a hole may span billions of none."""
        memory = self.memory
        surveyed = memory.surveyed
        if memory.survey is None or surveyed is None or hole.first < surveyed.first or hole.last > surveyed.last:
            memory.survey = await self.session.search(hole.uids)
            memory.surveyed = hole
            memory.backlog = len(memory.survey)
        return memory.survey & hole.uids

    async def _batch(self, existing: UidSet) -> UidSet:
        """Return the newest of *existing* that fit into one window, by count and by what their sizes say."""
        window = existing.newest(self.memory.window)
        unknown = UidSet.from_uids(uid for uid in window if uid not in self.memory.sizes)
        if unknown:
            self.memory.in_flight = window
            try:
                listed = await self.session.fetch(unknown, LISTING, octets=len(unknown) * 200)
            except Refused:
                listed = {}
            self.memory.sizes.update({uid: said.size for uid, said in listed.items() if said.size is not None})
        octets = 0
        chosen: list[Uid] = []
        for uid in reversed(list(window)):
            octets += self._expected(uid)
            if chosen and octets > WINDOW_OCTETS:
                break
            chosen.append(uid)
        return UidSet.from_uids(chosen)

    def _expected(self, uid: Uid) -> int:
        size = self.memory.sizes.get(uid, SLICE)
        return 4096 if self.mailbox.rules.wants_header_only(size) else min(size, SLICE)

    async def _fetch_batch(self, batch: UidSet) -> Mapping[Uid, Fetch]:
        self.memory.in_flight = batch
        sizes, rules = self.memory.sizes, self.mailbox.rules
        headers = UidSet.from_uids(uid for uid in batch if rules.wants_header_only(sizes.get(uid)))
        octets = sum(map(self._expected, batch))
        answers: dict[Uid, Fetch] = {}
        for uids, items in ((batch - headers, WHOLE), (headers, HEADER)):
            if uids:
                answers |= await self._timed(Phase.FETCH, self.session.fetch(uids, items, octets=octets, settle=True))
        return answers

    async def _bisect(self, mirror: Mirror, batch: UidSet, reason: str) -> None:
        """The server refuses *batch*: half of it next time; a single message is set aside."""
        if len(batch) > 1:
            self.memory.window = max(1, len(batch) // 2)
            return
        uid = batch.first
        self.memory.failures[uid] = TRIES
        await self._commit(mirror, quarantined=self._given_up(mirror, {uid: reason}), accounted=batch)
        self.memory.window = min(WINDOW, self.memory.window * 2)

    def _learn_from_loss(self) -> None:
        """A connection that was lost over a window may have died of one message in it: ask for less."""
        lost, self.memory.in_flight = self.memory.in_flight, UidSet()
        if not lost:
            return
        if lost.last == MAX_UID:
            self.memory.lists_first = True
            return
        self.memory.window = max(1, len(lost) // 2)
        if len(lost) == 1:
            self.memory.failures[lost.first] = self.memory.failures.get(lost.first, 0) + 1

    def _given_up(self, mirror: Mirror, unusable: Mapping[Uid, str]) -> dict[Uid, Quarantine]:
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

    async def _commit_window(
        self,
        mirror: Mirror,
        messages: Sequence[NewMessage],
        *,
        reach: UidSet,
        left: UidSet,
        quarantined: Mapping[Uid, Quarantine],
    ) -> None:
        """Commit a window newest first, a bounded piece at a time; each piece takes its own reach out of the hole."""
        top = reach.last
        pieces = list(_pieces(messages))
        for piece in pieces[:-1]:
            bottom = piece[-1].uid
            # The quarantine goes first: a UID may leave its hole only once something else accounts for it.
            await self._commit(mirror, new=piece, accounted=UidSet.range(bottom, top) - left, quarantined=quarantined)
            top, quarantined = Uid(bottom - 1), {}
        rest = pieces[-1] if pieces else []
        await self._commit(mirror, new=rest, accounted=UidSet.range(reach.first, top) - left, quarantined=quarantined)

    def _tell_progress(self, mirror: Mirror, existing: UidSet) -> None:
        # Older holes are not surveyed yet; the rows there can be no more than the server counts and we have not.
        others = 0 if len(mirror.checkpoint.holes) == 1 else max(0, self.view.exists - mirror.alive - len(existing))
        self.done.remaining = len(existing) + others
        self.observe(
            Backfilling(
                account=self.mailbox.account,
                mailbox=self.mailbox.name.text,
                remaining=len(existing),
                total=max(self.memory.backlog, len(existing)),
            )
        )

    # Long bodies and quarantine

    async def _continue_body(self, mirror: Mirror, uid: Uid) -> None:
        """Fetch the next slice of a long body; a slice shorter than asked for is the last."""
        kept, uids = mirror.parts[uid], UidSet.of(uid)
        items = f"(UID BODY.PEEK[]<{kept}.{LONG_SLICE}>)"
        answers = await self._timed(Phase.FETCH, self.session.fetch(uids, items, octets=LONG_SLICE, settle=True))
        if not await self.session.search(uids):
            await self._commit(mirror, expunged=uids)
            return
        said = answers.get(uid)
        sections = [part for part in said.bodies if part.section == ""] if said else []
        if sections and sections[-1].origin is None:
            # The server does not know slices: this is the whole body.
            data, final = (sections[-1].data or b"")[kept:], True
        else:
            data = sections[-1].data or b"" if sections else b""
            final = len(data) < LONG_SLICE
        await self._commit(mirror, slices=[BodySlice(uid=uid, origin=kept, data=data, final=final)])

    async def _retry(self, mirror: Mirror, uids: UidSet) -> None:
        """Ask again for what is in quarantine, one by one: each may be refused."""
        for uid in uids.newest(50):
            one = UidSet.of(uid)
            self.memory.failures[uid] = TRIES
            try:
                answers = await self._fetch_batch(one)
                present = await self.session.search(one)
            except Refused as refused:
                await self._commit(mirror, quarantined=self._given_up(mirror, {uid: str(refused)}))
                continue
            messages, unusable = self._judged(answers, present, FoundBy.AUDIT, mirror)
            released = one if messages or not present else UidSet()
            await self._commit(mirror, new=messages, released=released, quarantined=self._given_up(mirror, unusable))
            self.memory.in_flight = UidSet()

    # Flags and expunges

    async def _resolve_numbers(self, mirror: Mirror, numbers: Iterable[int]) -> None:
        said = await self.session.fetch_numbers(numbers)
        if self.view.heard.expunged:
            # An expunge came between the hint and the question: the numbers may have meant other messages.
            self.view.heard = replace(self.view.heard, any_flags=True)
        await self._commit_flags(mirror, {uid: one.flags for uid, one in said.items() if one.flags is not None})

    async def _compare_flags(self, mirror: Mirror, uids: UidSet | None, *, newest: bool) -> None:
        now = anyio.current_time()
        if uids is None:
            uids = await self.store.uids(mirror.generation)
            if newest:
                uids, self.memory.newest_flags_at = uids.newest(NEWEST_FLAGS), now
            else:
                self.memory.flags_at = self.memory.newest_flags_at = now
        for window in uids.chunks(FLAGS_WINDOW, newest_first=True):
            reach = UidSet.range(window.first, window.last)
            said = await self.session.fetch(reach, FLAGS, octets=len(window) * 200)
            await self._commit_flags(mirror, {uid: one.flags for uid, one in said.items() if one.flags is not None})

    async def _commit_flags(self, mirror: Mirror, said: Mapping[Uid, Flags]) -> None:
        if not said:
            return
        stored = await self.store.flags(mirror.generation, min(said), max(said))
        changed = {uid: flags for uid, flags in said.items() if uid in stored and not same_flags(stored[uid], flags)}
        if changed:
            await self._commit(mirror, flags=changed, urgent=True)

    async def _compare_uids(self, mirror: Mirror) -> None:
        """Ask which UIDs are there. What is mirrored and not there is gone; what is there and not here is missing."""
        found = await self.session.search(EVERYTHING)
        if len(found) != self.view.exists:
            # The answer and EXISTS disagree: what one answer leaves out is not yet gone.
            await self.session.noop()
            found = found | await self.session.search(EVERYTHING)
        alive = await self.store.uids(mirror.generation)
        checkpoint = mirror.checkpoint
        below = found.below(checkpoint.high)
        aside = UidSet.from_uids(mirror.quarantine)
        missing = below - alive - aside - checkpoint.in_holes
        gone = alive - found
        released = aside - found
        if gone or missing or released:
            await self._commit(
                mirror, expunged=gone, released=released, holes=holes_of(missing, FoundBy.AUDIT), urgent=True
            )

    # Committing

    async def _commit(
        self,
        mirror: Mirror | None,
        *,
        begin: BeginChange | None = None,
        new: Sequence[NewMessage] = (),
        slices: Sequence[BodySlice] = (),
        flags: Mapping[Uid, Flags] | None = None,
        expunged: UidSet = UidSet(),
        quarantined: Mapping[Uid, Quarantine] | None = None,
        released: UidSet = UidSet(),
        accounted: UidSet = UidSet(),
        holes: tuple[Hole, ...] = (),
        high: Uid | None = None,
        rewind: bool = False,
        forget_older: bool = False,
        looked_at: datetime | None = None,
        urgent: bool = False,
    ) -> None:
        change = ChangeSet(
            account=self.mailbox.account,
            mailbox=self.mailbox.name,
            generation=mirror.generation if mirror else None,
            begin=begin,
            new=tuple(new),
            slices=tuple(slices),
            flags=flags or {},
            expunged=expunged,
            quarantined=quarantined or {},
            released=released,
            accounted=accounted,
            holes=holes,
            high=high,
            rewind=rewind,
            forget_older=forget_older,
            looked_at=looked_at,
            urgent=urgent,
        )
        committed = await self._timed(Phase.COMMIT, self.store.commit(change))
        self.done.add(committed, anyio.current_time())
        if committed.new:
            found_by = change.new[0].found_by
            self.observe(
                Mirrored(account=change.account, mailbox=change.mailbox.text, found_by=found_by, count=committed.new)
            )
        for message in new:
            for kept in (self.memory.doubts, self.memory.failures, self.memory.sizes):
                kept.pop(message.uid, None)

    async def _timed(self, phase: Phase, work: Awaitable[Answer]) -> Answer:
        begun = anyio.current_time()
        answer = await work
        self.observe(Timed(account=self.mailbox.account, phase=phase, seconds=anyio.current_time() - begun))
        return answer

    async def _note_the_look(self, mirror: Mirror | None) -> None:
        """Remember when the mirror was last equal; seldom, as it is a write that tells nothing."""
        assert mirror is not None
        now = self.now()
        is_old = mirror.looked_at is None or now - mirror.looked_at > LOOK_IS_OLD
        if self.done.finished and is_old:
            await self._commit(mirror, looked_at=now)


def _standing(mirror: Mirror | None) -> Standing | None:
    if mirror is None:
        return None
    return Standing(
        mirror.checkpoint,
        mirror.alive,
        UidSet.from_uids(mirror.parts),
        tuple(mirror.quarantine.items()),
        mirror.older_alive,
    )


def _contradict(said: Fetch, known: tuple[int, datetime | None] | None) -> bool:
    if known is None:
        return False
    size, internal_date = known
    other_size = said.size is not None and said.size != size
    other_date = None not in (said.internal_date, internal_date) and said.internal_date != internal_date
    return other_size or other_date


def _came_since(mirror: Mirror, said: Fetch | None) -> bool:
    """After a reset: the message arrived about when the last good look was, or later; it was never seen before."""
    if mirror.looked_at is None or said is None or said.internal_date is None:
        return False
    return said.internal_date >= mirror.looked_at - FRESH_AROUND


def _pieces(messages: Sequence[NewMessage]) -> Iterator[list[NewMessage]]:
    """Cut *messages* into commits, newest first."""
    piece: list[NewMessage] = []
    octets = 0
    for message in sorted(messages, key=lambda one: -one.uid):
        size = len(message.body or b"")
        if piece and octets + size > COMMIT_OCTETS:
            yield piece
            piece, octets = [], 0
        piece.append(message)
        octets += size
    if piece:
        yield piece
