"""How a commit moves the checkpoint."""

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from idlepush.imap.types import MailboxName, ModSeq, Uid, UidValidity
from idlepush.imap.uidset import UidSet
from idlepush.sync.changes import ChangeSet, advance
from idlepush.sync.checkpoint import Checkpoint, Hole, holes_of
from idlepush.sync.events import FoundBy

uid_sets = st.sets(st.integers(1, 60)).map(UidSet.from_uids)


def change(**parts: object) -> ChangeSet:
    return ChangeSet(account="a", mailbox=MailboxName(b"INBOX"), generation=1, **parts)  # type: ignore[arg-type]


def checkpoint(high: int, holes: UidSet) -> Checkpoint:
    return Checkpoint(UidValidity(1), Uid(high), holes_of(holes, FoundBy.BACKFILL))


@given(before=uid_sets, accounted=uid_sets, opened=uid_sets)
def test_a_uid_leaves_its_hole_only_when_it_is_accounted_for(before: UidSet, accounted: UidSet, opened: UidSet) -> None:
    moved = advance(
        checkpoint(61, before), change(accounted=accounted, holes=holes_of(opened, FoundBy.PUSH), high=Uid(61))
    )
    assert moved.in_holes == (before - accounted) | opened
    assert sum(len(hole.uids) for hole in moved.holes) == len(moved.in_holes)
    assert [hole.last for hole in moved.holes] == sorted((hole.last for hole in moved.holes), reverse=True)


def test_the_mark_is_never_lowered_but_by_a_rewind() -> None:
    assert advance(checkpoint(50, UidSet()), change(high=Uid(40))).high == 50
    assert advance(checkpoint(50, UidSet()), change(high=Uid(40), rewind=True)).high == 40


def test_a_uid_already_in_a_hole_keeps_what_its_message_will_say() -> None:
    before = Checkpoint(UidValidity(1), Uid(10), (Hole(Uid(1), Uid(9), FoundBy.BACKFILL),))
    moved = advance(before, change(holes=holes_of(UidSet.range(8, 12), FoundBy.PUSH), high=Uid(13)))
    assert moved.holes == (Hole(Uid(10), Uid(12), FoundBy.PUSH), Hole(Uid(1), Uid(9), FoundBy.BACKFILL))


def test_the_mod_sequence_is_raised_by_a_look_lowered_by_a_slower_lane_and_forgotten_when_it_is_gone() -> None:
    at_9 = replace(checkpoint(50, UidSet()), modseq=ModSeq(9))
    assert advance(at_9, change(modseq=ModSeq(12))).modseq == 12
    assert advance(at_9, change(modseq_at_most=ModSeq(7))).modseq == 7
    assert advance(at_9, change(modseq_at_most=ModSeq(11))).modseq == 9
    assert advance(checkpoint(50, UidSet()), change(modseq_at_most=ModSeq(7))).modseq is None
    assert advance(at_9, change(forget_modseq=True)).modseq is None
