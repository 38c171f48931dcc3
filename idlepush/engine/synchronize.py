"""Bring the mirror of the selected mailbox up to its server: ask for a step, carry it out, commit, until there is none.

    mirror ← store          what is committed, and nothing else
    step   ← plan(mirror, view)
    answer ← session        FETCH, SEARCH; always looking only (EXAMINE, BODY.PEEK)
    judge, presence check   what is to be stored is there and whole
    commit                  messages, flags, expunges, events and checkpoint in one transaction

Nothing here retries a lost connection: it is raised, and whoever supervises starts a new session, which finds the
checkpoint as it was committed. What is worth keeping between two looks, but not beyond the process, is in `Memory`.
"""

from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta
from typing import Any, Final, assert_never

import anyio

from idlepush.engine.audit import audit, refetch
from idlepush.engine.backlog import continue_body, fill_holes, learn_from_loss, retry
from idlepush.engine.compare import compare, resolve_numbers
from idlepush.engine.look import Done, Duty, Look
from idlepush.engine.news import begin, fetch_new, list_new, rewind
from idlepush.engine.observations import Feature
from idlepush.errors import StaleGeneration
from idlepush.imap.types import Uid
from idlepush.imap.uidset import UidSet
from idlepush.store.base import Mirror
from idlepush.sync.checkpoint import Quarantine, holes_up_to
from idlepush.sync.plan import (
    BULK,
    Audit,
    Begin,
    CompareAll,
    CompareFlags,
    CompareSince,
    CompareUids,
    ContinueBody,
    FetchNew,
    FillHoles,
    ForgetOlder,
    ListNew,
    Refetch,
    ResolveNumbers,
    Retry,
    Rewind,
    Seen,
    Standing,
    Step,
    after,
    plan,
    shows_news,
)
from idlepush.sync.view import Heard, merged

FRUITLESS: Final = 3
"""So often in one look a hint is believed though there was nothing behind it."""
_SILENCED: Final[Mapping[str, Mapping[str, Any]]] = {
    "numbers": {"numbers": frozenset()},
    "vanished": {"vanished": UidSet()},
    "expunged": {"expunged": False},
    "any_flags": {"any_flags": False},
}
LOOK_IS_OLD: Final = timedelta(minutes=30)


async def synchronize(
    look: Look,
    *,
    fresh: bool,
    flags_due: bool = False,
    newest_due: bool = False,
    audit_due: bool = False,
    damaged: UidSet = UidSet(),
    patience: float | None = None,
) -> Done:
    """Bring the mirror up to the server; with *patience* (seconds) a backlog may be left for later.

    *fresh*: EXAMINE has just been answered. *audit_due*: at the end everything is compared once more. *damaged*
    is fetched anew. Everything more urgent than the backlog is always finished.

    Raises:
        MailboxUnavailable: its UIDVALIDITY changes all the time.
        StoreError: a commit failed; nothing of it was written.
        Trouble: the connection is gone.
    """
    ends = None if patience is None else anyio.current_time() + patience
    mirror = look.memory.mirror or await look.reload()
    look.memory.mirror = None  # until this look has come to its end
    learn_from_loss(look)
    if fresh:
        look.is_compared = False
        _judge_modseq(look, mirror)
    seen = Seen(
        uidvalidity=look.view.uidvalidity,
        uidnext=None,
        exists=0,
        fresh=fresh,
        flags_due=flags_due,
        newest_flags_due=newest_due,
        audit_due=audit_due,
        leaves_backlog=look.duty is Duty.NEWS,
        damaged=damaged,
    )
    while True:
        if look.duty is Duty.BACKLOG and (mirror is None or mirror.checkpoint.uidvalidity != look.view.uidvalidity):
            break  # the first has begun another generation
        seen = _refreshed(look, seen, mirror)
        seen = replace(seen, heard=_believed(look, seen.heard))
        step = plan(_standing(look, mirror), seen)
        if step is None:
            look.done.waits = seen.saves_octets and _has_backlog(mirror)
            look.done.finished = not look.done.waits and (look.duty is not Duty.NEWS or not _has_backlog(mirror))
            break
        if isinstance(step, BULK) and ends is not None and anyio.current_time() >= ends:
            look.done.finished = False
            break
        if isinstance(step, FetchNew | ListNew) and mirror and not shows_news(mirror.checkpoint, seen):
            # EXAMINE did not show it: it was told of since.
            look.found_by = look.told_by
        found = look.done.changes
        mirror = await _carry_out(look, step, mirror)
        seen = after(step, seen)
        if (hint := _hint_behind(step)) is not None:
            look.echoes[hint] = 0 if look.done.changes > found else look.echoes.get(hint, 0) + 1
        if isinstance(step, CompareAll) or step == CompareUids():
            look.memory.counted = (look.view.exists, mirror.alive + len(mirror.quarantine))
        elif isinstance(step, Begin):
            # All of it will be fetched as it is now: nothing to compare for a while.
            look.memory.flags_at = look.memory.newest_flags_at = anyio.current_time()
    if look.duty is not Duty.BACKLOG:
        mirror = await _note_the_look(look, mirror)
        look.memory.mirror = mirror if look.memory.closings == look.read_at else None
    return look.done


def _believed(look: Look, heard: Heard) -> Heard:
    """Return *heard* without what the server says in every answer, and nothing ever is behind it."""
    if look.fruitless >= FRUITLESS:
        heard = replace(heard, exists=False)
    for hint, silence in _SILENCED.items():
        if look.echoes.get(hint, 0) >= FRUITLESS:
            heard = replace(heard, **silence)
    return heard


def _hint_behind(step: Step) -> str | None:
    """Name the kind of hint that leads to *step*."""
    match step:
        case ResolveNumbers():
            return "numbers"
        case CompareUids(uids=None):
            return "expunged"
        case CompareUids():
            return "vanished"
        case CompareFlags(uids=None, newest=False) | CompareSince():
            return "any_flags"
        case _:
            return None


def _has_backlog(mirror: Mirror | None) -> bool:
    return mirror is not None and bool(mirror.checkpoint.holes or mirror.parts)


def _judge_modseq(look: Look, mirror: Mirror | None) -> None:
    """Mod-sequences are of no use where the highest stands still though something has changed (seen)."""
    if mirror is None or mirror.checkpoint.uidvalidity != look.view.uidvalidity:
        return
    modseq, uidnext = look.view.highestmodseq, look.view.uidnext
    is_news = look.memory.must_rise or (uidnext is not None and uidnext > mirror.checkpoint.high)
    if modseq is not None and modseq == mirror.checkpoint.modseq and is_news:
        look.distrust(Feature.CONDSTORE, "its HIGHESTMODSEQ stands still")


def _refreshed(look: Look, seen: Seen, mirror: Mirror | None) -> Seen:
    view, examined = look.view, look.examined
    look.examined = False
    if examined:
        look.is_compared = False
    stored = mirror.checkpoint.modseq if mirror else None
    if look.duty is Duty.BACKLOG:
        assert mirror is not None
        heard = replace(merged(seen.heard, view.take()), exists=False, rose=0)
        counted = (view.exists, mirror.alive + len(mirror.quarantine))
        return replace(
            seen,
            uidvalidity=view.uidvalidity,
            exists=view.exists,
            modseq=stored,
            heard=heard,
            counted=counted,
            saves_octets=look.saves_octets,
            now=look.now(),
        )
    return replace(
        seen,
        uidvalidity=view.uidvalidity,
        fresh=seen.fresh or examined,
        # A server whose UIDNEXT went back twice is not asked for it again: what is there is looked for instead.
        uidnext=view.uidnext if look.memory.rewinds < 2 else None,
        exists=view.exists,
        modseq=stored if look.is_compared and view.highestmodseq is not None else view.highestmodseq,
        heard=merged(seen.heard, view.take()),
        counted=look.memory.counted,
        saves_octets=look.saves_octets,
        now=look.now(),
    )


async def _carry_out(look: Look, step: Step, mirror: Mirror | None) -> Mirror:
    if isinstance(step, Begin):
        await begin(look, mirror)
    else:
        assert mirror is not None
        await _move_on(look, step, mirror)
    now = await look.reload()
    if now is None:
        raise StaleGeneration(f"{look.mailbox.name}: it is gone from the mirror")
    return now


async def _move_on(look: Look, step: Step, mirror: Mirror) -> None:
    match step:
        case ResolveNumbers(numbers):
            await resolve_numbers(look, mirror, numbers)
        case Rewind(uidnext):
            await rewind(look, mirror, uidnext)
        case FetchNew(first):
            await fetch_new(look, mirror, first)
        case ListNew(first):
            await list_new(look, mirror, first)
        case CompareFlags() | CompareUids() | CompareSince() | CompareAll():
            await compare(look, mirror, step)
        case FillHoles() | ContinueBody() | Retry() | Refetch():
            await _work_off(look, step, mirror)
        case Audit():
            await audit(look, mirror)
        case ForgetOlder():
            await look.commit(mirror, forget_older=True)
        case Begin():
            raise AssertionError("a generation is begun before anything else")
        case _:
            assert_never(step)


async def _work_off(look: Look, step: FillHoles | ContinueBody | Retry | Refetch, mirror: Mirror) -> None:
    match step:
        case FillHoles(holes):
            await fill_holes(look, mirror, holes)
        case ContinueBody(uid):
            await continue_body(look, mirror, uid)
        case Retry(uids):
            await retry(look, mirror, uids)
        case Refetch(uids):
            await refetch(look, mirror, uids)


async def _note_the_look(look: Look, mirror: Mirror | None) -> Mirror | None:
    """Remember when the mirror was last equal; seldom, as it is a write that tells nothing."""
    assert mirror is not None
    now = look.now()
    is_old = mirror.looked_at is None or now - mirror.looked_at > LOOK_IS_OLD
    if not (look.done.finished and is_old):
        return mirror
    await look.commit(mirror, looked_at=now)
    return await look.reload()


def _standing(look: Look, mirror: Mirror | None) -> Standing | None:
    if mirror is None:
        return None
    checkpoint, parts = mirror.checkpoint, UidSet.from_uids(mirror.parts)
    if look.duty is Duty.BACKLOG:
        # What EXAMINE did not show is not there, as far as this session can tell; and the end is the first's to find.
        uidnext = look.view.uidnext or Uid(1)
        shown = holes_up_to(checkpoint.holes, uidnext)
        return Standing(replace(checkpoint, holes=shown), mirror.alive, parts.below(uidnext), _set_aside(mirror))
    return Standing(
        checkpoint,
        mirror.alive,
        parts,
        _set_aside(mirror),
        mirror.older_alive,
    )


def _set_aside(mirror: Mirror) -> tuple[tuple[Uid, Quarantine], ...]:
    return tuple(mirror.quarantine.items())
