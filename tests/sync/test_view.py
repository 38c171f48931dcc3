"""What is heard beside what was asked."""

import time

from hypothesis import given
from hypothesis import strategies as st

from idlepush.imap.responses import Exists, Expunge, Fetch, Recent, Vanished
from idlepush.imap.types import MailboxName, Uid, UidValidity
from idlepush.imap.uidset import UidSet
from idlepush.sync.view import Heard, View, merged

INBOX = MailboxName(b"INBOX")


def view(exists: int = 10) -> View:
    return View(INBOX, UidValidity(1), Uid(exists + 1), exists)


def test_exists_is_news_whatever_its_number() -> None:
    seen = view(10)
    assert seen.hear(Exists(10))
    assert seen.heard.exists
    assert seen.heard.rose == 0


def test_exists_counts_how_far_it_rose_over_several_lines() -> None:
    seen = view(10)
    for count in (11, 13):
        seen.hear(Exists(count))
    assert seen.heard.rose == 3
    assert seen.exists == 13


def test_recent_is_no_hint() -> None:
    assert not view().hear(Recent(1))


def test_taking_hints_leaves_silence() -> None:
    seen = view()
    seen.hear(Expunge(3))
    assert seen.take().expunged
    assert not seen.heard
    assert seen.exists == 9


def test_numbers_are_shifted_by_the_expunges_behind_them() -> None:
    seen = view(10)
    for number in (2, 5, 7):
        seen.hear(Fetch(number))
    seen.hear(Expunge(5))
    assert seen.heard.numbers == {2, 6}


def test_numbers_that_can_no_longer_be_named_become_a_comparison_of_all_flags() -> None:
    seen = view(10)
    seen.hear(Fetch(4))
    seen.reselected(view(9))
    assert seen.heard == Heard(any_flags=True)
    seen = view(10)
    seen.hear(Fetch(4))
    seen.hear(Vanished(UidSet.of(1), earlier=False))
    assert seen.heard.any_flags
    assert not seen.heard.numbers


def test_a_flood_of_numbers_is_kept_as_one_comparison() -> None:
    seen = view(10_000)
    for number in range(1, 2000):
        seen.hear(Fetch(number))
    assert seen.heard.any_flags


def test_a_flood_of_uids_that_lie_apart_costs_no_square_and_none_is_forgotten() -> None:
    seen = view(20_000)
    began = time.thread_time()
    for uid in range(1, 40_000, 2):
        seen.hear(Fetch(1, Uid(uid)))
    # With every range kept it was eleven seconds, in which no other account was served.
    assert time.thread_time() - began < 5
    assert not UidSet.from_uids(range(1, 40_000, 2)) - seen.heard.uids
    assert len(merged(seen.heard, Heard(uids=UidSet.from_uids(range(50_000, 51_000, 2)))).uids.ranges) <= 500


def test_an_expunge_heard_later_makes_earlier_numbers_unnameable() -> None:
    both = merged(Heard(numbers=frozenset({3})), Heard(expunged=True))
    assert both.any_flags
    assert not both.numbers


@given(st.lists(st.one_of(st.integers(1, 12).map(Expunge), st.integers(1, 12).map(Fetch)), max_size=20))
def test_kept_numbers_mean_the_messages_they_were_heard_for(lines: list[Expunge | Fetch]) -> None:
    seen = view(12)
    messages = list(range(12))  # a model: position is sequence number - 1
    touched: set[int] = set()
    for line in lines:
        if line.number > len(messages):
            continue
        seen.hear(line)
        if isinstance(line, Expunge):
            touched.discard(messages.pop(line.number - 1))
        else:
            touched.add(messages[line.number - 1])
    assert {messages[number - 1] for number in seen.heard.numbers} == touched
    assert seen.exists == len(messages)
