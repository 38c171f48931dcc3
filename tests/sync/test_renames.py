"""Which mailboxes are recognised under another name, and in which order they are renamed."""

from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from idlepush.imap.types import MailboxName, Uid, UidValidity
from idlepush.sync.renames import Known, Rename, find_renames, in_order
from idlepush.sync.status import MailboxStatus

names = st.sampled_from([MailboxName(name) for name in (b"a", b"b", b"c", b"d", b"a~", b"INBOX")])


def name(text: str) -> MailboxName:
    return MailboxName.from_text(text)


def known(uidvalidity: int, high: int = 10, messages: int | None = 5, object_id: str | None = None) -> Known:
    return Known(uidvalidity=UidValidity(uidvalidity), high=Uid(high), messages=messages, object_id=object_id)


def there(
    uidvalidity: int | None, uidnext: int = 10, messages: int | None = 5, object_id: str | None = None
) -> MailboxStatus:
    return MailboxStatus(
        uidvalidity=None if uidvalidity is None else UidValidity(uidvalidity),
        uidnext=Uid(uidnext),
        messages=messages,
        object_id=object_id,
    )


def found(before: Mapping[str, Known], after: Mapping[str, MailboxStatus]) -> list[tuple[str, str, bool]]:
    renames = find_renames(
        {name(text): one for text, one in before.items()}, {name(text): status for text, status in after.items()}
    )
    return [(one.before.text, one.after.text, one.proven) for one in renames]


@pytest.mark.parametrize(
    ("before", "after", "renames"),
    [
        pytest.param({"a": known(7)}, {"b": there(7)}, [("a", "b", False)], id="renamed"),
        pytest.param({"a": known(7)}, {"a": there(7), "b": there(7)}, [], id="another one of the same second"),
        pytest.param({"a": known(7)}, {"b": there(7), "c": there(7)}, [], id="two that it could be"),
        pytest.param({"a": known(7), "b": known(7)}, {"c": there(7)}, [], id="two that could be it"),
        pytest.param({"a": known(7)}, {"b": there(8)}, [], id="another UIDVALIDITY"),
        pytest.param({"a": known(7)}, {"b": there(7, uidnext=9)}, [], id="UIDNEXT below what was mirrored"),
        pytest.param({"a": known(7)}, {"b": there(7, uidnext=12, messages=8)}, [], id="more than UIDNEXT allows"),
        pytest.param({"a": known(7)}, {"b": there(7, uidnext=12, messages=7)}, [("a", "b", False)], id="and new mail"),
        pytest.param({"a": known(7, messages=None)}, {"b": there(7, messages=9)}, [("a", "b", False)], id="a backlog"),
        pytest.param({"a": known(7)}, {"b": there(None)}, [], id="no UIDVALIDITY told"),
        pytest.param({"INBOX": known(7)}, {"INBOX": there(9), "b": there(7)}, [], id="INBOX is never guessed"),
        pytest.param(
            {"a": known(7), "b": known(8)},
            {"a": there(8), "b": there(7)},
            [("a", "b", False), ("b", "a", False)],
            id="swapped",
        ),
        pytest.param(
            {"a": known(7)}, {"a": there(9, uidnext=1, messages=0), "b": there(7)}, [("a", "b", False)], id="made again"
        ),
        pytest.param(
            {"a/b": known(7), "a/c": known(8)},
            {"x/b": there(7), "x/c": there(8)},
            [("a/b", "x/b", False), ("a/c", "x/c", False)],
            id="a parent",
        ),
        pytest.param(
            {"a": known(7, object_id="F1")}, {"b": there(7, object_id="F1")}, [("a", "b", True)], id="by MAILBOXID"
        ),
        pytest.param({"a": known(7, object_id="F1")}, {"b": there(7, object_id="F2")}, [], id="another MAILBOXID"),
        pytest.param(
            {"a": known(7, object_id="F1"), "b": known(7, object_id="F2")},
            {"a": there(7, object_id="F2"), "b": there(7, object_id="F1")},
            [("a", "b", True), ("b", "a", True)],
            id="swapped, with the same UIDVALIDITY",
        ),
        pytest.param(
            {"INBOX": known(7, object_id="F1")},
            {"INBOX": there(7, object_id="F2"), "b": there(7, object_id="F1")},
            [("INBOX", "b", True)],
            id="an INBOX that is renamed as any other",
        ),
        pytest.param(
            {"a": known(7, object_id="F1"), "b": known(8, object_id="F1")},
            {"c": there(7, object_id="F1")},
            [],
            id="a MAILBOXID of two says nothing",
        ),
        pytest.param(
            {"a": known(7, object_id="F1")},
            {"b": there(7, object_id="F1"), "c": there(8, object_id="F1")},
            [],
            id="a MAILBOXID told of two says nothing",
        ),
        pytest.param(
            {"a": known(7)}, {"b": there(7, object_id="F1")}, [("a", "b", False)], id="its MAILBOXID is not known yet"
        ),
    ],
)
def test_a_mailbox_is_recognised_where_nothing_else_could_be_meant(
    before: Mapping[str, Known], after: Mapping[str, MailboxStatus], renames: list[tuple[str, str, bool]]
) -> None:
    assert found(before, after) == renames


@given(st.dictionaries(names, names))
def test_steps_end_where_the_renames_do_and_take_no_name_that_is_still_needed(
    wanted: Mapping[MailboxName, MailboxName],
) -> None:
    renames = {before: after for before, after in wanted.items() if before != after}
    renames = {after: before for before, after in renames.items()}  # each name on a side once
    living = {name: name for name in {*renames, *renames.values(), MailboxName(b"d")}}
    replaced = set(renames.values()) - set(renames)
    for before, after in in_order([Rename(*pair, proven=True) for pair in renames.items()], living):
        assert after not in living or after in replaced
        living[after] = living.pop(before)
    for before, after in renames.items():
        assert living[after] == before


statuses = st.builds(
    there,
    st.sampled_from([None, 7, 8]),
    st.sampled_from([10, 11]),
    st.sampled_from([5, 6]),
    st.sampled_from([None, "F1", "F2"]),
)
mirrored = st.builds(
    known,
    st.sampled_from([7, 8]),
    st.sampled_from([9, 10]),
    st.sampled_from([None, 5]),
    st.sampled_from([None, "F1", "F2"]),
)


@given(st.dictionaries(names, mirrored), st.dictionaries(names, statuses))
def test_whatever_is_there_a_name_stands_on_each_side_once(
    before: Mapping[MailboxName, Known], after: Mapping[MailboxName, MailboxStatus]
) -> None:
    renames = find_renames(before, after)
    assert len({one.before for one in renames}) == len({one.after for one in renames}) == len(renames)
    assert all(one.before in before and one.after in after and one.before != one.after for one in renames)
    for before_step, after_step in in_order(renames, {*before, *after}):
        assert before_step != after_step
