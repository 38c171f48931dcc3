"""Steps that compare: flags and expunges of what is mirrored.

Three ways, each the fallback of the one before, all with the same outcome: EXAMINE with QRESYNC has told what changed
and what is gone beside its answer; CHANGEDSINCE asks for it; or all flags and UIDs are compared. What is told to have
vanished is believed only once a SEARCH does not list it either: there are servers that lie (iCloud lost people's mail
for years in a client that believed it), and one that is caught is not asked again for a while.
"""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Final

import anyio

from idlepush.engine.look import Duty, Look
from idlepush.engine.observations import Feature
from idlepush.imap.responses import Fetch
from idlepush.imap.types import MAX_UID, Flags, ModSeq, Uid, same_flags
from idlepush.imap.uidset import UidSet
from idlepush.store.base import Mirror
from idlepush.sync.checkpoint import holes_of
from idlepush.sync.events import FoundBy
from idlepush.sync.plan import CompareAll, CompareFlags, CompareSince, CompareUids

WINDOW: Final = 2000
"""Messages whose flags are asked for, or changed by one commit, at once."""
NEWEST_FLAGS: Final = 500
EVERYTHING: Final = UidSet.range(1, MAX_UID)


async def resolve_numbers(look: Look, mirror: Mirror, numbers: Iterable[int]) -> None:
    said = await look.session.fetch_numbers(numbers)
    if look.view.heard.expunged or look.view.heard.vanished:
        # An expunge came between the hint and the question: the numbers may have meant other messages.
        look.view.heard = replace(look.view.heard, any_flags=True)
    await _commit_answers(look, mirror, said)


async def compare(look: Look, mirror: Mirror, step: CompareFlags | CompareUids | CompareSince | CompareAll) -> None:
    match step:
        case CompareFlags(uids, newest):
            await _compare_flags(look, mirror, uids, newest=newest)
        case CompareUids(uids) if uids is not None:
            await _compare_vanished(look, mirror, uids)
        case CompareUids():
            await _compare_uids(look, mirror)
        case CompareSince(modseq):
            await _compare_since(look, mirror, modseq)
        case CompareAll():
            await _compare_flags(look, mirror, None, newest=False)
            await _compare_uids(look, mirror, was_told=False)
            await _raise_modseq(look, mirror)


async def _compare_flags(look: Look, mirror: Mirror, uids: UidSet | None, *, newest: bool) -> None:
    now = anyio.current_time()
    if uids is None:
        uids = await look.alive(mirror)
        if newest:
            uids, look.memory.newest_flags_at = uids.newest(NEWEST_FLAGS), now
        else:
            look.memory.flags_at = look.memory.newest_flags_at = now
    for window in uids.chunks(WINDOW, newest_first=True):
        reach = UidSet.range(window.first, window.last)
        said = await look.session.fetch(reach, look.session.flags_items, octets=len(window) * 200)
        await _commit_answers(look, mirror, said)


async def _compare_since(look: Look, mirror: Mirror, since: ModSeq) -> None:
    """Take in what changed since *since*; then the mirror's mod-sequence is that of the EXAMINE before it."""
    changed, look.view.changed = look.view.changed, None
    if changed is None or changed.since != since:
        below = mirror.checkpoint.high - 1
        changed = await look.session.changed_since(since, UidSet.range(1, below)) if below else None
    if changed is not None:
        for uids in UidSet.from_uids(changed.flags).chunks(WINDOW, newest_first=True):
            flags = {uid: changed.flags[uid] for uid in uids}
            await _commit_flags(look, mirror, flags, changed.modseqs)
        gone = await _really_gone(look, mirror, changed.vanished)
        await _expunge(look, mirror, gone)
    await _raise_modseq(look, mirror)


async def _compare_vanished(look: Look, mirror: Mirror, uids: UidSet) -> None:
    """Ask whether these are gone, as was said."""
    aside = uids & UidSet.from_uids(mirror.quarantine)
    released = aside - await look.session.search(aside) if aside else aside
    await _expunge(look, mirror, await _really_gone(look, mirror, uids), released=released)


async def _compare_uids(look: Look, mirror: Mirror, *, was_told: bool = True) -> None:
    """Ask which UIDs are there. What is mirrored and not there is gone; what is there and not here is missing.

    *was_told*: with QRESYNC the server should have told what is gone, and is distrusted where it did not.
    """
    found = await look.session.search(EVERYTHING)
    if len(found) != look.view.exists:
        # The answer and EXISTS disagree: what one answer leaves out is not yet gone.
        await look.session.noop()
        found = found | await look.session.search(EVERYTHING)
    alive = await look.alive(mirror)
    checkpoint = mirror.checkpoint
    below = found.below(checkpoint.high)
    aside = UidSet.from_uids(mirror.quarantine)
    missing = below - alive - aside - checkpoint.in_holes
    gone = alive - found
    if was_told and look.session.uses_qresync and gone - look.view.heard.vanished and not look.view.heard.expunged:
        await look.session.noop()
        if gone - look.view.heard.vanished:
            look.distrust(Feature.QRESYNC, "it did not tell of messages that are gone")
    await _expunge(look, mirror, gone, released=aside - found)
    if missing:
        # What was surveyed before it came back would take it for one of the UIDs that are none.
        look.memory.surveyed = look.memory.surveyed - missing
        await look.commit(mirror, holes=holes_of(missing, FoundBy.AUDIT), urgent=True)


async def _really_gone(look: Look, mirror: Mirror, vanished: UidSet) -> UidSet:
    """Return which mirrored messages of *vanished* are gone; the server is asked once more."""
    mirrored = vanished & await look.alive(mirror) if vanished else UidSet()
    if not mirrored:
        return mirrored
    still = await look.session.search(mirrored)
    if still:
        await look.session.noop()  # its own SEARCH may list what was expunged until then
        still = await look.session.search(still)
    if still:
        look.distrust(Feature.QRESYNC, f"it told that messages have vanished which are there: {len(still)}")
    return mirrored - still


async def _commit_answers(look: Look, mirror: Mirror, said: Mapping[Uid, Fetch]) -> None:
    flags = {uid: one.flags for uid, one in said.items() if one.flags is not None}
    modseqs = {uid: one.modseq for uid, one in said.items() if one.modseq is not None}
    await _commit_flags(look, mirror, flags, modseqs)


async def _commit_flags(look: Look, mirror: Mirror, said: Mapping[Uid, Flags], modseqs: Mapping[Uid, ModSeq]) -> None:
    if not said:
        return
    stored = await look.store.flags(mirror.generation, min(said), max(said))
    changed = {uid: flags for uid, flags in said.items() if uid in stored and not same_flags(stored[uid], flags)}
    if changed:
        told = {uid: modseqs[uid] for uid in changed if uid in modseqs}
        await look.commit(mirror, flags=changed, modseqs=told, urgent=True)
        look.memory.must_rise = True  # unless the step that raises the mod-sequence is still to come


async def _expunge(look: Look, mirror: Mirror, gone: UidSet, *, released: UidSet = UidSet()) -> None:
    """Write what is gone, a bounded piece at a time; or let it leave."""
    if look.moves is not None and gone:
        # It may turn up elsewhere: whoever watches expunges it once the other mailboxes were looked at.
        look.moves.leave(look.mailbox.name, mirror.generation, gone)
        look.done.leaving += len(gone)
        gone = UidSet()
    pieces = list(gone.chunks(WINDOW))
    if not pieces and released:
        pieces = [UidSet()]
    for piece in pieces:
        await look.commit(mirror, expunged=piece, released=released, urgent=True)


async def _raise_modseq(look: Look, mirror: Mirror) -> None:
    modseq = look.view.highestmodseq
    look.is_compared = True
    if look.duty is Duty.BACKLOG:
        return
    is_leaving = look.moves is not None and bool(look.leaving(mirror))
    if modseq is not None and (look.memory.closings != look.closings or (is_leaving and look.duty is Duty.NEWS)):
        return  # the lane may have stored flags from before what was compared here: the next look compares again
    if look.moves is not None and modseq is not None and is_leaving:
        look.moves.raise_modseq(mirror.generation, modseq)
    elif modseq != mirror.checkpoint.modseq:
        await look.commit(mirror, modseq=modseq, forget_modseq=modseq is None)
    look.memory.must_rise = False
