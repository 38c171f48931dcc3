"""Steps that work off a backlog: windows of holes, slices of long bodies, what was set aside.

A window is bounded by count and by octets. One that the server refuses, or that a connection was lost over, is halved
until the message that is to blame stands alone; that one is set aside and tried again ever more seldom.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Final

import anyio

from idlepush.engine.look import TRIES, WINDOW, Look
from idlepush.engine.observations import Backfilling, Phase
from idlepush.engine.recognize import recognize
from idlepush.engine.session import LONG_SLICE, SLICE
from idlepush.errors import Refused
from idlepush.imap.responses import Fetch
from idlepush.imap.types import MAX_UID, Uid
from idlepush.imap.uidset import UidSet
from idlepush.store.base import Mirror
from idlepush.sync.changes import BodySlice, NewMessage
from idlepush.sync.checkpoint import Hole, Quarantine
from idlepush.sync.events import FoundBy

WINDOW_OCTETS: Final = 4 * 1024 * 1024
"""Octets of bodies asked for at once: what a lost connection may cost, and how long a push may wait."""
PACE_IS_OLD: Final = 600.0
"""Seconds without a window after which the time a backlog takes is estimated anew."""
COMMIT_OCTETS: Final = 256 * 1024
"""Octets of bodies in one commit."""


async def fill_holes(look: Look, mirror: Mirror, holes: Sequence[Hole]) -> None:
    """Fetch a window of *holes*, newest first; the UIDs that are not there any more leave them, too."""
    wanted = UidSet.from_ranges((hole.first, hole.last) for hole in holes)
    existing = await _surveyed(look, wanted)
    if not existing:
        await look.commit(mirror, accounted=wanted)
        return
    further = UidSet()
    if mirror.older_alive:
        # Of a window, what is left is fetched before the next window is looked at.
        window, known = await recognize(look, mirror, existing)
        further = existing - window
        existing, wanted = window - known, wanted.above(window.first - 1) - known
        if not existing:
            await look.commit(mirror, accounted=wanted)
            return
    batch = await _batch(look, existing)
    if len(batch) == 1 and look.memory.failures.get(batch.first, 0) >= TRIES:
        await _bisect(look, mirror, batch, "the connection was lost whenever it was asked for")
        return
    try:
        answers = await _fetch_batch(look, batch)
    except Refused as refused:
        await _bisect(look, mirror, batch, str(refused))
        return
    present = await look.session.search(batch)
    messages, unusable = look.judged(answers, present, holes[0].found_by, mirror)
    if holes[0].found_by is not FoundBy.BACKFILL:
        await look.expect_moves(mirror, messages)
    quarantined = look.given_up(mirror, unusable)
    left = UidSet.from_uids(uid for uid in unusable if uid not in quarantined)
    reach = wanted.above(batch.first - 1)
    await _commit_window(look, mirror, messages, reach=reach, left=left, quarantined=quarantined)
    look.memory.in_flight = UidSet()
    look.memory.lists_first = False
    look.memory.window = min(WINDOW, look.memory.window * 2)
    _tell_progress(look, mirror, (existing - batch) | left | further)


async def _surveyed(look: Look, wanted: UidSet) -> UidSet:
    """Return which UIDs of *wanted* exist: UIDs are sparse, and a hole may span billions of none."""
    memory = look.memory
    if memory.survey is None or wanted - memory.surveyed:
        memory.survey = await look.session.search(wanted)
        memory.surveyed = wanted
        memory.backlog = len(memory.survey)
    return memory.survey & wanted


async def _batch(look: Look, existing: UidSet) -> UidSet:
    """Return the newest of *existing* that fit into one window, by count and by what their sizes say."""
    window = existing.newest(look.memory.window)
    unknown = UidSet.from_uids(uid for uid in window if uid not in look.memory.sizes)
    if unknown:
        look.memory.in_flight = window
        try:
            listed = await look.session.fetch(unknown, look.session.listing_items, octets=len(unknown) * 200)
        except Refused:
            listed = {}
        look.memory.sizes.update({uid: said.size for uid, said in listed.items() if said.size is not None})
    octets = 0
    chosen: list[Uid] = []
    for uid in reversed(list(window)):
        octets += _expected(look, uid)
        if chosen and octets > WINDOW_OCTETS:
            break
        chosen.append(uid)
    return UidSet.from_uids(chosen)


def _expected(look: Look, uid: Uid) -> int:
    size = look.memory.sizes.get(uid, SLICE)
    return 4096 if look.mailbox.rules.wants_header_only(size) else min(size, SLICE)


async def _fetch_batch(look: Look, batch: UidSet) -> Mapping[Uid, Fetch]:
    look.memory.in_flight = batch
    sizes, rules = look.memory.sizes, look.mailbox.rules
    headers = UidSet.from_uids(uid for uid in batch if rules.wants_header_only(sizes.get(uid)))
    octets = sum(_expected(look, uid) for uid in batch)
    answers: dict[Uid, Fetch] = {}
    try:
        for uids, items in (
            (batch - headers, look.session.whole_items),
            (headers, look.session.outline_items),
        ):
            if uids:
                answers |= await look.timed(Phase.FETCH, look.session.fetch(uids, items, octets=octets, settle=True))
    except Refused:
        look.memory.in_flight = UidSet()  # settled: it was answered, and nobody died of it
        raise
    return answers


async def _bisect(look: Look, mirror: Mirror, batch: UidSet, reason: str) -> None:
    """The server refuses *batch*: half of it next time; a single message is set aside."""
    if len(batch) > 1:
        look.memory.window = max(1, len(batch) // 2)
        return
    uid = batch.first
    look.memory.failures[uid] = TRIES
    await look.commit(mirror, quarantined=look.given_up(mirror, {uid: reason}), accounted=batch)
    look.memory.window = min(WINDOW, look.memory.window * 2)


def learn_from_loss(look: Look) -> None:
    """A connection that was lost over a window may have died of one message in it: ask for less."""
    lost, look.memory.in_flight = look.memory.in_flight, UidSet()
    if not lost:
        return
    if lost.last == MAX_UID:
        look.memory.lists_first = True
        return
    look.memory.window = max(1, len(lost) // 2)
    if len(lost) == 1:
        look.memory.failures[lost.first] = look.memory.failures.get(lost.first, 0) + 1


async def _commit_window(
    look: Look,
    mirror: Mirror,
    messages: Sequence[NewMessage],
    *,
    reach: UidSet,
    left: UidSet,
    quarantined: Mapping[Uid, Quarantine],
) -> None:
    """Commit a window newest first, a bounded piece at a time; each takes its own reach out of the holes."""
    top = reach.last
    pieces = list(_pieces(messages))
    for piece in pieces[:-1]:
        bottom = piece[-1].uid
        # The quarantine goes first: a UID may leave its hole only once something else accounts for it.
        await look.commit(
            mirror, new=piece, accounted=(reach & UidSet.range(bottom, top)) - left, quarantined=quarantined
        )
        top, quarantined = Uid(bottom - 1), {}
    rest = pieces[-1] if pieces else []
    await look.commit(mirror, new=rest, accounted=(reach & UidSet.range(1, top)) - left, quarantined=quarantined)


def _tell_progress(look: Look, mirror: Mirror, existing: UidSet) -> None:
    # Older holes are not surveyed yet; the rows there can be no more than the server counts and we have not.
    others = 0 if len(mirror.checkpoint.holes) == 1 else max(0, look.view.exists - mirror.alive - len(existing))
    look.done.remaining = len(existing) + others
    now = anyio.current_time()
    pace = look.memory.pace
    if pace is None or pace[1] < len(existing) or now - pace[2] > PACE_IS_OLD:
        pace = (now, len(existing), now)
    began, left, _ = pace
    look.memory.pace = (began, left, now) if existing else None
    fetched = left - len(existing)
    look.observe(
        Backfilling(
            account=look.mailbox.account,
            mailbox=look.mailbox.name.text,
            remaining=len(existing),
            total=max(look.memory.backlog, len(existing)),
            eta=(now - began) / fetched * len(existing) if fetched and existing else None,
        )
    )


async def continue_body(look: Look, mirror: Mirror, uid: Uid) -> None:
    """Fetch the next slice of a long body; a slice shorter than asked for is the last."""
    kept, uids = mirror.parts[uid], UidSet.of(uid)
    items = f"(UID BODY.PEEK[]<{kept}.{LONG_SLICE}>)"
    answers = await look.timed(Phase.FETCH, look.session.fetch(uids, items, octets=LONG_SLICE, settle=True))
    if not await look.session.search(uids):
        await look.commit(mirror, expunged=uids)
        return
    said = answers.get(uid)
    sections = [part for part in said.bodies if part.section == ""] if said else []
    if sections and sections[-1].origin is None:
        # The server does not know slices: this is the whole body.
        data, final = (sections[-1].data or b"")[kept:], True
    else:
        data = sections[-1].data or b"" if sections else b""
        final = len(data) < LONG_SLICE
    await look.commit(mirror, slices=[BodySlice(uid=uid, origin=kept, data=data, final=final)])


async def retry(look: Look, mirror: Mirror, uids: UidSet) -> None:
    """Ask again for what is in quarantine, one by one: each may be refused."""
    for uid in uids.newest(50):
        one = UidSet.of(uid)
        look.memory.failures[uid] = TRIES
        try:
            answers = await _fetch_batch(look, one)
            present = await look.session.search(one)
        except Refused as refused:
            await look.commit(mirror, quarantined=look.given_up(mirror, {uid: str(refused)}))
            continue
        messages, unusable = look.judged(answers, present, FoundBy.AUDIT, mirror)
        released = one if messages or not present else UidSet()
        await look.commit(mirror, new=messages, released=released, quarantined=look.given_up(mirror, unusable))
        look.memory.in_flight = UidSet()


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
