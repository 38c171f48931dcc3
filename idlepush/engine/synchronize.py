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

from idlepush.engine.audit import audit
from idlepush.engine.backlog import continue_body, fill_holes, learn_from_loss, retry
from idlepush.engine.compare import compare, resolve_numbers
from idlepush.engine.look import Done, Look
from idlepush.engine.news import begin, fetch_new, list_new, rewind
from idlepush.engine.observations import Feature
from idlepush.imap.uidset import UidSet
from idlepush.store.base import Mirror
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
    patience: float | None = None,
) -> Done:
    """Bring the mirror up to the server; with *patience* (seconds) a backlog may be left for later.

    *fresh*: EXAMINE has just been answered. *audit_due*: at the end everything is compared once more. Everything
    more urgent than the backlog is always finished.

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
        _judge_modseq(look, mirror)
    seen = Seen(
        uidvalidity=look.view.uidvalidity,
        uidnext=None,
        exists=0,
        fresh=fresh,
        flags_due=flags_due,
        newest_flags_due=newest_due,
        audit_due=audit_due,
    )
    while True:
        seen = _refreshed(look, seen)
        seen = replace(seen, heard=_believed(look, seen.heard))
        step = plan(_standing(mirror), seen)
        if step is None:
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
    look.memory.mirror = await _note_the_look(look, mirror)
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


def _judge_modseq(look: Look, mirror: Mirror | None) -> None:
    """Mod-sequences are of no use where the highest stands still though something has changed (seen)."""
    if mirror is None or mirror.checkpoint.uidvalidity != look.view.uidvalidity:
        return
    modseq, uidnext = look.view.highestmodseq, look.view.uidnext
    is_news = look.memory.must_rise or (uidnext is not None and uidnext > mirror.checkpoint.high)
    if modseq is not None and modseq == mirror.checkpoint.modseq and is_news:
        look.distrust(Feature.CONDSTORE, "its HIGHESTMODSEQ stands still")


def _refreshed(look: Look, seen: Seen) -> Seen:
    view, examined = look.view, look.examined
    look.examined = False
    return replace(
        seen,
        uidvalidity=view.uidvalidity,
        fresh=seen.fresh or examined,
        # A server whose UIDNEXT went back twice is not asked for it again: what is there is looked for instead.
        uidnext=view.uidnext if look.memory.rewinds < 2 else None,
        exists=view.exists,
        modseq=view.highestmodseq,
        heard=merged(seen.heard, view.take()),
        counted=look.memory.counted,
        now=look.now(),
    )


async def _carry_out(look: Look, step: Step, mirror: Mirror | None) -> Mirror:
    if isinstance(step, Begin):
        await begin(look, mirror)
    else:
        assert mirror is not None
        await _move_on(look, step, mirror)
    now = await look.reload()
    assert now is not None
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
        case FillHoles() | ContinueBody() | Retry():
            await _work_off(look, step, mirror)
        case Audit():
            await audit(look, mirror)
        case ForgetOlder():
            await look.commit(mirror, forget_older=True)
        case Begin():
            raise AssertionError("a generation is begun before anything else")
        case _:
            assert_never(step)


async def _work_off(look: Look, step: FillHoles | ContinueBody | Retry, mirror: Mirror) -> None:
    match step:
        case FillHoles(holes):
            await fill_holes(look, mirror, holes)
        case ContinueBody(uid):
            await continue_body(look, mirror, uid)
        case Retry(uids):
            await retry(look, mirror, uids)


async def _note_the_look(look: Look, mirror: Mirror | None) -> Mirror | None:
    """Remember when the mirror was last equal; seldom, as it is a write that tells nothing."""
    assert mirror is not None
    now = look.now()
    is_old = mirror.looked_at is None or now - mirror.looked_at > LOOK_IS_OLD
    if not (look.done.finished and is_old):
        return mirror
    await look.commit(mirror, looked_at=now)
    return await look.reload()


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
