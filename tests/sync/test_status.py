"""What is said of mailboxes that are not selected."""

import pytest

from idlepush.imap.responses import Code, Condition, Exists, ListEntry, Status, StatusReply, Untagged
from idlepush.imap.types import MailboxName, ModSeq, Uid, UidValidity
from idlepush.sync.status import Elsewhere, MailboxStatus

WORK = MailboxName(b"Work")


def test_a_status_is_read_and_what_it_leaves_out_or_gets_wrong_is_not_known() -> None:
    said = StatusReply(WORK, {"MESSAGES": 3, "UIDNEXT": 9, "UIDVALIDITY": 7, "HIGHESTMODSEQ": 5, "MAILBOXID": "F1"})
    assert MailboxStatus.of(said) == MailboxStatus(
        messages=3, uidnext=Uid(9), uidvalidity=UidValidity(7), modseq=ModSeq(5), object_id="F1"
    )
    odd = StatusReply(WORK, {"MESSAGES": "many", "UIDNEXT": 0, "UIDVALIDITY": 2**32, "HIGHESTMODSEQ": 0})
    assert MailboxStatus.of(odd) == MailboxStatus()


def test_what_is_said_later_counts_and_the_rest_stays() -> None:
    before = MailboxStatus(messages=3, uidnext=Uid(9))
    assert before.updated(MailboxStatus(messages=0)) == MailboxStatus(messages=0, uidnext=Uid(9))


@pytest.mark.parametrize(
    ("said", "is_hint"),
    [
        (StatusReply(WORK, {"MESSAGES": 3}), True),
        (ListEntry(frozenset(), "/", WORK), True),
        (Condition(Status.OK, Code("NOTIFICATIONOVERFLOW"), "too much"), True),
        (Condition(Status.OK, None, "Still here"), False),
        (Exists(3), False),
    ],
)
def test_hints_are_kept_until_they_are_taken(said: Untagged, is_hint: bool) -> None:
    elsewhere = Elsewhere()
    assert elsewhere.hear(said) is is_hint
    assert bool(elsewhere) is is_hint
    assert bool(elsewhere.take()) is is_hint
    assert not elsewhere


def test_two_hints_of_one_mailbox_are_one() -> None:
    elsewhere = Elsewhere()
    elsewhere.hear(StatusReply(WORK, {"MESSAGES": 3, "UIDNEXT": 9}))
    elsewhere.hear(StatusReply(WORK, {"MESSAGES": 2}))
    assert elsewhere.take().told == {WORK: MailboxStatus(messages=2, uidnext=Uid(9))}
