"""What to do next, and that an up-to-date mirror has nothing to do."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from idlepush.imap.types import ModSeq, Uid, UidValidity
from idlepush.imap.uidset import UidSet
from idlepush.sync.checkpoint import Checkpoint, Hole, Quarantine
from idlepush.sync.events import FoundBy
from idlepush.sync.plan import (
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
)
from idlepush.sync.view import Heard

NOW = datetime(2026, 11, 21, tzinfo=UTC)
HOLE = Hole(Uid(5), Uid(9), FoundBy.RECONNECT)


def standing(
    *, high: int = 11, holes: tuple[Hole, ...] = (), alive: int = 10, modseq: int | None = None, **more: Any
) -> Standing:
    stored = None if modseq is None else ModSeq(modseq)
    return Standing(Checkpoint(UidValidity(7), Uid(high), holes, stored), alive, **more)


def seen(*, uidvalidity: int = 7, uidnext: int | None = 11, exists: int = 10, **more: Any) -> Seen:
    return Seen(uidvalidity=UidValidity(uidvalidity), uidnext=Uid(uidnext) if uidnext else None, exists=exists, **more)


CASES: list[Any] = [
    pytest.param(None, seen(), Begin(), id="nothing stored"),
    pytest.param(standing(), seen(uidvalidity=8), Begin(), id="another UIDVALIDITY"),
    pytest.param(standing(), seen(fresh=True), None, id="all equal"),
    pytest.param(
        standing(),
        seen(heard=Heard(numbers=frozenset({3}), exists=True), uidnext=9, fresh=True),
        ResolveNumbers(frozenset({3})),
        id="numbers before everything",
    ),
    pytest.param(standing(), seen(uidnext=9, fresh=True), Rewind(Uid(9)), id="UIDNEXT went back"),
    pytest.param(standing(), seen(uidnext=9), None, id="an old UIDNEXT says nothing"),
    pytest.param(standing(), seen(heard=Heard(exists=True, rose=20)), FetchNew(Uid(11)), id="twenty new ones"),
    pytest.param(standing(), seen(heard=Heard(exists=True, rose=21)), ListNew(Uid(11)), id="more than twenty"),
    pytest.param(
        standing(holes=(HOLE,)), seen(heard=Heard(exists=True, rose=1)), ListNew(Uid(11)), id="new on top of a hole"
    ),
    pytest.param(standing(), seen(uidnext=31, fresh=True), FetchNew(Uid(11)), id="UIDNEXT rose by a few"),
    pytest.param(standing(), seen(uidnext=500, fresh=True), ListNew(Uid(11)), id="UIDNEXT rose by many"),
    pytest.param(standing(), seen(uidnext=None, fresh=True), ListNew(Uid(11)), id="UIDNEXT unknown"),
    pytest.param(
        standing(), seen(heard=Heard(uids=UidSet.of(3, 99))), CompareFlags(UidSet.of(3)), id="flags of a mirrored UID"
    ),
    pytest.param(
        standing(holes=(HOLE,), alive=5),
        seen(heard=Heard(uids=UidSet.of(6))),
        FillHoles((HOLE,)),
        id="flags of a UID in a hole come with it",
    ),
    pytest.param(standing(), seen(heard=Heard(expunged=True)), CompareUids(), id="an expunge"),
    pytest.param(
        standing(), seen(heard=Heard(vanished=UidSet.of(3, 99))), CompareUids(UidSet.of(3)), id="what vanished by name"
    ),
    pytest.param(standing(modseq=5), seen(modseq=5, fresh=True, flags_due=True), None, id="the same mod-sequence"),
    pytest.param(standing(modseq=5), seen(modseq=6), CompareSince(ModSeq(5)), id="a higher mod-sequence"),
    pytest.param(
        standing(modseq=5), seen(modseq=6, exists=9), CompareSince(ModSeq(5)), id="mod-sequences before the count"
    ),
    pytest.param(
        standing(modseq=5), seen(modseq=5, heard=Heard(any_flags=True)), CompareSince(ModSeq(5)), id="unnamed flags"
    ),
    pytest.param(standing(modseq=5), seen(modseq=4), CompareAll(), id="a lower mod-sequence"),
    pytest.param(standing(modseq=5), seen(), CompareAll(), id="no mod-sequence any more"),
    pytest.param(standing(), seen(modseq=5), CompareAll(), id="the first mod-sequence"),
    pytest.param(standing(), seen(exists=9), CompareUids(), id="fewer than mirrored"),
    pytest.param(standing(), seen(exists=9, counted=(9, 10)), None, id="a miscount that was looked into"),
    pytest.param(
        standing(alive=9, quarantine=((Uid(4), Quarantine("poison", 1, NOW + timedelta(1))),)),
        seen(now=NOW),
        None,
        id="what is in quarantine counts",
    ),
    pytest.param(standing(), seen(flags_due=True), CompareFlags(None), id="time for all flags"),
    pytest.param(standing(), seen(newest_flags_due=True), CompareFlags(None, newest=True), id="time for the newest"),
    pytest.param(standing(holes=(HOLE,), alive=5), seen(), FillHoles((HOLE,)), id="a hole"),
    pytest.param(
        standing(
            holes=(HOLE, Hole(Uid(3), Uid(3), FoundBy.RECONNECT), Hole(Uid(1), Uid(1), FoundBy.BACKFILL)), alive=3
        ),
        seen(),
        FillHoles((HOLE, Hole(Uid(3), Uid(3), FoundBy.RECONNECT))),
        id="holes that were found alike",
    ),
    pytest.param(standing(parts=UidSet.of(3, 8)), seen(), ContinueBody(Uid(8)), id="a long body, the newest first"),
    pytest.param(standing(older_alive=3), seen(), ForgetOlder(), id="the end of a reset"),
    pytest.param(
        standing(alive=9, quarantine=((Uid(4), Quarantine("poison", 1, NOW)),)),
        seen(now=NOW),
        Retry(UidSet.of(4)),
        id="quarantine that is due",
    ),
]


@pytest.mark.parametrize(("mirror", "said", "step"), CASES)
def test_the_next_step(mirror: Standing | None, said: Seen, step: Step | None) -> None:
    assert plan(mirror, said) == step


@given(
    high=st.integers(1, 2**32 - 1),
    alive=st.integers(0, 100),
    fresh=st.booleans(),
)
def test_an_up_to_date_mirror_plans_nothing(high: int, alive: int, fresh: bool) -> None:
    assert plan(standing(high=high, alive=alive), seen(uidnext=high, exists=alive, fresh=fresh)) is None


@given(
    heard=st.builds(
        Heard,
        exists=st.booleans(),
        rose=st.integers(0, 50),
        expunged=st.booleans(),
        numbers=st.frozensets(st.integers(1, 9), max_size=3),
        uids=st.sets(st.integers(1, 20), max_size=3).map(UidSet.from_uids),
        any_flags=st.booleans(),
    ),
    exists=st.integers(8, 12),
    fresh=st.booleans(),
    flags_due=st.booleans(),
    newest=st.booleans(),
)
def test_every_hint_is_used_up_by_the_step_it_leads_to(
    heard: Heard, exists: int, fresh: bool, flags_due: bool, newest: bool
) -> None:
    said = seen(heard=heard, exists=exists, fresh=fresh, flags_due=flags_due, newest_flags_due=newest)
    mirror = standing()
    for _ in range(9):
        step = plan(mirror, said)
        if step is None:
            return
        said = after(step, said)
        if isinstance(step, CompareUids):
            said = seen(
                heard=said.heard,
                exists=exists,
                flags_due=said.flags_due,
                newest_flags_due=said.newest_flags_due,
                counted=(exists, 10),
            )
    raise AssertionError(f"still {plan(mirror, said)}")
