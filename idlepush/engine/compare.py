"""Steps that compare: flags and expunges of what is mirrored."""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Final

import anyio

from idlepush.engine.look import Look
from idlepush.engine.session import FLAGS
from idlepush.imap.types import MAX_UID, Flags, Uid, same_flags
from idlepush.imap.uidset import UidSet
from idlepush.store.base import Mirror
from idlepush.sync.checkpoint import holes_of
from idlepush.sync.events import FoundBy

FLAGS_WINDOW: Final = 2000
NEWEST_FLAGS: Final = 500
EVERYTHING: Final = UidSet.range(1, MAX_UID)


async def resolve_numbers(look: Look, mirror: Mirror, numbers: Iterable[int]) -> None:
    said = await look.session.fetch_numbers(numbers)
    if look.view.heard.expunged:
        # An expunge came between the hint and the question: the numbers may have meant other messages.
        look.view.heard = replace(look.view.heard, any_flags=True)
    await _commit_flags(look, mirror, {uid: one.flags for uid, one in said.items() if one.flags is not None})


async def compare_flags(look: Look, mirror: Mirror, uids: UidSet | None, *, newest: bool) -> None:
    now = anyio.current_time()
    if uids is None:
        uids = await look.store.uids(mirror.generation)
        if newest:
            uids, look.memory.newest_flags_at = uids.newest(NEWEST_FLAGS), now
        else:
            look.memory.flags_at = look.memory.newest_flags_at = now
    for window in uids.chunks(FLAGS_WINDOW, newest_first=True):
        reach = UidSet.range(window.first, window.last)
        said = await look.session.fetch(reach, FLAGS, octets=len(window) * 200)
        await _commit_flags(look, mirror, {uid: one.flags for uid, one in said.items() if one.flags is not None})


async def _commit_flags(look: Look, mirror: Mirror, said: Mapping[Uid, Flags]) -> None:
    if not said:
        return
    stored = await look.store.flags(mirror.generation, min(said), max(said))
    changed = {uid: flags for uid, flags in said.items() if uid in stored and not same_flags(stored[uid], flags)}
    if changed:
        await look.commit(mirror, flags=changed, urgent=True)


async def compare_uids(look: Look, mirror: Mirror) -> None:
    """Ask which UIDs are there. What is mirrored and not there is gone; what is there and not here is missing."""
    found = await look.session.search(EVERYTHING)
    if len(found) != look.view.exists:
        # The answer and EXISTS disagree: what one answer leaves out is not yet gone.
        await look.session.noop()
        found = found | await look.session.search(EVERYTHING)
    alive = await look.store.uids(mirror.generation)
    checkpoint = mirror.checkpoint
    below = found.below(checkpoint.high)
    aside = UidSet.from_uids(mirror.quarantine)
    missing = below - alive - aside - checkpoint.in_holes
    gone = alive - found
    released = aside - found
    if gone or missing or released:
        await look.commit(mirror, expunged=gone, released=released, holes=holes_of(missing, FoundBy.AUDIT), urgent=True)
