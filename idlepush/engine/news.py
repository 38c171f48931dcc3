"""Steps at the edges of a mailbox: a generation begins, UIDNEXT goes back, new mail arrives."""

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Final

import anyio

from idlepush.engine.look import Look
from idlepush.engine.observations import MailboxReset, Phase
from idlepush.engine.session import SLICE
from idlepush.errors import FailureClass, MailboxUnavailable, Refused
from idlepush.imap.responses import Fetch
from idlepush.imap.types import MAX_UID, Uid
from idlepush.imap.uidset import UidSet
from idlepush.store.base import Mirror
from idlepush.sync.changes import Begin
from idlepush.sync.checkpoint import Hole, holes_of
from idlepush.sync.events import FoundBy
from idlepush.sync.plan import FEW

EMPTY_PAUSES: Final = (0.2, 1.0, 5.0)
"""Seconds before asking again where EXISTS was heard and nothing new is there yet (replicas lag)."""
RESETS_AN_HOUR: Final = 3
_IDENTITY_WINDOW: Final = 2000


async def begin(look: Look, mirror: Mirror | None) -> None:
    _bound_resets(look, mirror)
    uidnext = look.view.uidnext
    if uidnext is None:
        found = await look.session.search(UidSet.range(1, MAX_UID)) if look.view.exists else UidSet()
        uidnext = Uid(found.last + 1) if found else Uid(1)
    found_by = FoundBy.POLL if mirror is None and look.mailbox.born_watched else FoundBy.BACKFILL
    holes = (Hole(Uid(1), Uid(uidnext - 1), found_by),) if uidnext > 1 and look.view.exists else ()
    # The old generation's last look stays: what came after it is news, not backlog.
    looked_at = mirror.looked_at if mirror else None
    begin = Begin(uidvalidity=look.view.uidvalidity, high=uidnext, holes=holes, modseq=look.view.highestmodseq)
    # All of it is fetched from here on: as good as an audit.
    await look.commit(mirror, begin=begin, looked_at=looked_at, audited_at=look.now())
    if mirror is not None:
        look.observe(MailboxReset(account=look.mailbox.account, mailbox=look.mailbox.name.text))


def _bound_resets(look: Look, mirror: Mirror | None) -> None:
    if mirror is None:
        return
    now = anyio.current_time()
    look.memory.resets = [at for at in look.memory.resets if at > now - 3600]
    if len(look.memory.resets) >= RESETS_AN_HOUR:
        raise MailboxUnavailable(
            f"{look.mailbox.name}: its UIDVALIDITY changed {RESETS_AN_HOUR} times within an hour; it is left alone",
            failure_class=FailureClass.PROTOCOL,
        )
    look.memory.resets.append(now)


async def rewind(look: Look, mirror: Mirror, uidnext: Uid) -> None:
    """UIDNEXT went back: the same messages without the last ones, or others under the same UIDVALIDITY?"""
    look.memory.rewinds += 1
    found = await look.session.search(UidSet.range(1, MAX_UID))
    alive = await look.store.uids(mirror.generation)
    for window in (alive & found).chunks(_IDENTITY_WINDOW):
        listed = await look.session.fetch(window, look.session.listing_items)
        known = await look.store.sizes(mirror.generation, window.first, window.last)
        if any(_contradict(said, known.get(uid)) for uid, said in listed.items()):
            await begin(look, mirror)
            return
    high = Uid(max(uidnext, found.last + 1 if found else 1))
    await look.commit(mirror, expunged=alive - found, high=high, rewind=True, accounted=UidSet.range(high, MAX_UID))


async def fetch_new(look: Look, mirror: Mirror, first: Uid) -> None:
    """Fetch from *first* on with bodies. Few are expected; should it be refused, a listing is taken instead."""
    session = look.session
    items = session.outline_items if look.mailbox.rules.headers_only else session.whole_items
    if look.memory.lists_first:
        await list_new(look, mirror, first)
        return
    asked = look.memory.in_flight = UidSet.range(first, MAX_UID)
    mirrored = mirror.alive + len(mirror.quarantine)
    answers: Mapping[Uid, Fetch] = {}
    try:
        for pause in (None, *EMPTY_PAUSES):
            if pause is not None:
                await anyio.sleep(pause)
            settle = not look.session.omits_expunged
            answers = await look.timed(Phase.FETCH, look.session.fetch(asked, items, octets=FEW * SLICE, settle=settle))
            if answers or look.view.exists <= mirrored:
                break
        answers = await _outlined(look, answers)
    except Refused:
        look.memory.in_flight = UidSet()
        await list_new(look, mirror, first)
        return
    look.memory.in_flight = UidSet()
    # Where a server is known to say NIL for what is gone, its answer is as good as the check, and a round trip sooner.
    present = UidSet.from_uids(answers) if look.session.omits_expunged else await _present(look, first, answers)
    look.fruitless = 0 if present else look.fruitless + 1
    messages, _ = look.judged(answers, present, look.found_by, mirror)
    stored = UidSet.from_uids(message.uid for message in messages)
    top = _top(look, first, present)  # as of this answer: moves may have it examined anew
    await look.expect_moves(mirror, messages)
    await look.commit(
        mirror,
        new=messages,
        high=top,
        holes=holes_of(present - stored, look.found_by),
        urgent=True,
    )


async def _outlined(look: Look, answers: Mapping[Uid, Fetch]) -> Mapping[Uid, Fetch]:
    """Ask for the structure of what turns out to be mirrored by its header alone: few messages are so long."""
    rules = look.mailbox.rules
    long = UidSet.from_uids(
        uid for uid, said in answers.items() if said.structure is None and rules.wants_header_only(said.size)
    )
    if rules.headers_only or not long:
        return answers
    outlined = await look.session.fetch(long, look.session.outline_items, settle=not look.session.omits_expunged)
    return {**answers, **outlined}


async def list_new(look: Look, mirror: Mirror, first: Uid) -> None:
    """List what stands from *first* on: many, or on top of a backlog. It becomes a hole of known sizes."""
    asked = UidSet.range(first, MAX_UID)
    try:
        answers = await look.session.fetch(asked, look.session.listing_items, octets=look.view.exists * 100)
        present = await _present(look, first, answers)
    except Refused:
        # One poisoned message can spoil a listing; SEARCH does not look into messages.
        answers, present = {}, await look.session.search(asked)
    look.memory.sizes.update({uid: said.size for uid, said in answers.items() if said.size is not None})
    look.fruitless = 0 if present else look.fruitless + 1
    high = _top(look, first, present)
    # One hole, gaps and all: which UIDs exist in it is known already, and its ranges would be written with each window.
    look.memory.survey = (look.memory.survey or UidSet()) | present
    look.memory.surveyed = look.memory.surveyed | UidSet.range(first, high - 1)
    holes = (Hole(first, Uid(high - 1), look.found_by),) if present else ()
    await look.commit(mirror, high=high, holes=holes, urgent=True)


async def _present(look: Look, first: Uid, answers: Iterable[Uid]) -> UidSet:
    """Return which UIDs from *first* on are there, up to the last one that was told of."""
    top = _top(look, first, answers)
    return await look.session.search(UidSet.range(first, top - 1)) if top > first else UidSet()


def _top(look: Look, first: Uid, uids: Iterable[Uid]) -> Uid:
    """Return the UID above all of *uids* and not below UIDNEXT; one that is only told of raises nothing."""
    return Uid(max((first, look.view.uidnext or first, *(uid + 1 for uid in uids))))


def _contradict(said: Fetch, known: tuple[int, datetime | None] | None) -> bool:
    if known is None:
        return False
    size, internal_date = known
    other_size = said.size is not None and said.size != size
    other_date = None not in (said.internal_date, internal_date) and said.internal_date != internal_date
    return other_size or other_date
