"""The audit: now and then everything is compared though nothing says that anything changed.

Push and poll tell what changed, a checkpoint what was seen; each may leave something out, and nothing would ever tell.
So once in `audit_interval` a look that has come to its end goes on: all UIDs (one SEARCH) and, where mod-sequences
spared it, all flags are compared. What is found is repaired as any other difference is, its messages say `audit`, and
it is counted: what stands in the count is what push and poll have missed.

When that is stands fixed on the wall clock, for each mailbox elsewhere in the interval, so that ten thousand accounts
do not ask at once, and a service that starts again neither forgets nor repeats it.
"""

import math
import zlib
from collections.abc import Sequence
from datetime import datetime
from typing import Final

from idlepush.engine.compare import compare
from idlepush.engine.look import Look
from idlepush.engine.observations import Audited
from idlepush.engine.session import SLICE
from idlepush.imap.responses import Fetch
from idlepush.imap.types import Uid
from idlepush.imap.uidset import UidSet
from idlepush.store.base import Mirror
from idlepush.sync.changes import NewMessage
from idlepush.sync.events import FoundBy
from idlepush.sync.plan import CompareFlags, CompareUids

_WINDOW: Final = 16
"""Messages that are fetched anew at once."""


def is_due(mirror: Mirror | None, *, name: str, interval: float, now: datetime) -> bool:
    """Tell whether the moment of the mailbox *name* has come since its last audit."""
    if mirror is None:
        return False
    if mirror.audited_at is None:
        return True
    phase = zlib.crc32(name.encode("utf-8", "replace")) / 2**32
    return _turn(now, interval, phase) > _turn(mirror.audited_at, interval, phase)


def _turn(moment: datetime, interval: float, phase: float) -> int:
    return math.floor(moment.timestamp() / interval - phase)


async def refetch(look: Look, mirror: Mirror, uids: UidSet) -> None:
    """Fetch *uids* once more and have their rows hold what comes; what cannot be had stays as it is."""
    for window in uids.chunks(_WINDOW, newest_first=True):
        left = window
        for _ in range(2):  # octets that disagree with RFC822.SIZE are believed when they do so twice
            messages = await _fetched(look, mirror, left)
            await look.commit(mirror, replaced=messages)
            left = left - UidSet.from_uids(message.uid for message in messages)
            if not left:
                break
    look.done.refetched = look.done.refetched | uids


async def _fetched(look: Look, mirror: Mirror, uids: UidSet) -> Sequence[NewMessage]:
    session, rules = look.session, look.mailbox.rules
    listed = await session.fetch(uids, session.listing_items, octets=len(uids) * 200)
    headers = UidSet.from_uids(uid for uid, said in listed.items() if rules.wants_header_only(said.size))
    answers: dict[Uid, Fetch] = {}
    for some, items in ((uids - headers, session.whole_items), (headers, session.header_items)):
        if some:
            answers |= await session.fetch(some, items, octets=len(some) * SLICE, settle=True)
    messages, _ = look.judged(answers, await session.search(uids), FoundBy.AUDIT, mirror)
    return messages


async def audit(look: Look, mirror: Mirror) -> None:
    """Compare everything; *mirror* has no holes. What the server tells of meanwhile was not missed by anybody."""
    before, had = look.done.expunged + look.done.leaving, look.done.flags
    await compare(look, mirror, CompareUids())
    seen = await look.reload()
    assert seen is not None
    missing = len(seen.checkpoint.in_holes)
    compared = look.memory.flags_at is not None and look.memory.flags_at >= look.began
    if not compared:
        await compare(look, seen, CompareFlags(None))
    heard = look.view.heard
    extra = 0 if heard.expunged or heard.vanished else look.done.expunged + look.done.leaving - before
    flags = 0 if heard.any_flags else max(0, look.done.flags - had - len(heard.uids) - len(heard.numbers))
    # What it found stands in a line of its own; the look goes by without it.
    look.done.expunged, look.done.flags = max(0, look.done.expunged - extra), look.done.flags - flags
    await look.commit(seen, audited_at=look.now())
    look.observe(
        Audited(
            account=look.mailbox.account,
            mailbox=look.mailbox.name.text,
            missing=missing,
            extra=extra,
            flags=flags,
        )
    )
