"""`UidSet` against `set[int]`, and at the ends of what a UID may be."""

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from idlepush.errors import RemoteProtocolError
from idlepush.imap.types import MAX_UID
from idlepush.imap.uidset import LONGEST_RANGE, UidSet

few = st.sets(st.integers(1, 60), max_size=40)
uids = st.integers(1, MAX_UID)
anywhere = st.tuples(uids, uids).map(lambda ends: (min(ends), max(ends)))
wide = st.lists(anywhere, max_size=8).map(UidSet.from_ranges)
everything = UidSet.range(1, MAX_UID)


def is_normal(one: UidSet) -> bool:
    inside = all(1 <= first <= last <= MAX_UID for first, last in one.ranges)
    apart = all(before[1] + 1 < after[0] for before, after in itertools.pairwise(one.ranges))
    return inside and apart


@given(few, few)
@settings(deadline=None)
def test_it_is_a_set(one: set[int], other: set[int]) -> None:
    mine, theirs = UidSet.from_uids(one), UidSet.from_uids(other)
    assert set(mine) == one
    assert list(mine) == sorted(one)
    assert len(mine) == len(one)
    assert bool(mine) == bool(one)
    assert mine | theirs == UidSet.from_uids(one | other)
    assert mine & theirs == UidSet.from_uids(one & other)
    assert mine - theirs == UidSet.from_uids(one - other)
    assert (mine == theirs) == (one == other)
    assert {uid for uid in range(62) if uid in mine} == one
    for uid in (0, 1, 30, 60, 61):
        assert mine.below(uid) == UidSet.from_uids(had for had in one if had < uid)
        assert mine.above(uid) == UidSet.from_uids(had for had in one if had > uid)


@given(wide, wide)
@settings(deadline=None)
def test_every_operation_leaves_sorted_disjoint_ranges(one: UidSet, other: UidSet) -> None:
    for made in (one, one | other, one & other, one - other, one.below(10**9), one.above(10**9), one.newest(10**9)):
        assert is_normal(made)


@given(wide, wide)
@settings(deadline=None)
def test_the_laws_of_sets_hold_without_counting_through_them(one: UidSet, other: UidSet) -> None:
    assert (one - other) | (one & other) == one
    assert not (one - other) & other
    assert everything - (everything - one) == one
    assert len(one | other) == len(one) + len(other) - len(one & other)


@given(wide)
@settings(deadline=None)
def test_what_is_spelled_is_read_back(one: UidSet) -> None:
    if one:
        assert UidSet.parse(str(one)) == one
        assert UidSet.parse(str(one).encode()) == one


@given(st.lists(st.integers(1, 60)))
@settings(deadline=None)
def test_order_repetition_and_overlap_do_not_matter(listed: list[int]) -> None:
    assert UidSet.from_ranges((uid, uid) for uid in listed) == UidSet.from_uids(listed) == UidSet.from_uids(set(listed))


@given(few, st.integers(1, 9))
@settings(deadline=None)
def test_chunks_are_of_that_size_and_together_the_set(uids_of: set[int], count: int) -> None:
    whole = UidSet.from_uids(uids_of)
    ascending = sorted(uids_of)
    oldest = [list(chunk) for chunk in whole.chunks(count)]
    assert oldest == [ascending[at : at + count] for at in range(0, len(ascending), count)]
    newest = [list(chunk) for chunk in whole.chunks(count, newest_first=True)]
    assert newest == [sorted(ascending[::-1][at : at + count]) for at in range(0, len(ascending), count)]
    assert all(is_normal(chunk) for chunk in whole.chunks(count))


@given(few, st.integers(0, 70))
@settings(deadline=None)
def test_the_newest_are_the_largest(uids_of: set[int], count: int) -> None:
    assert list(UidSet.from_uids(uids_of).newest(count)) == sorted(uids_of)[max(0, len(uids_of) - count) :]


@given(wide | few.map(UidSet.from_uids), st.integers(LONGEST_RANGE, 60))
@settings(max_examples=60, deadline=None)
def test_spellings_are_short_and_together_the_set(one: UidSet, octets: int) -> None:
    spellings = list(one.spelled(octets))
    assert all(0 < len(spelling) <= octets for spelling in spellings)
    assert UidSet.from_ranges(itertools.chain(*(UidSet.parse(spelling).ranges for spelling in spellings))) == one


def test_a_set_that_fits_is_spelled_once() -> None:
    one = UidSet.from_uids(range(1, 1000, 2))
    assert list(one.spelled(len(str(one)))) == [str(one)]
    assert len(list(one.spelled(len(str(one)) - 1))) == 2
    assert list(UidSet().spelled()) == []


def test_four_billion_uids_cost_no_more_than_one() -> None:
    # b7: had anything here counted through them, this would not end.
    assert len(everything) == MAX_UID
    assert everything.newest(3) == UidSet.range(MAX_UID - 2, MAX_UID)
    assert next(everything.chunks(500)) == UidSet.range(1, 500)
    assert next(everything.chunks(500, newest_first=True)) == UidSet.range(MAX_UID - 499, MAX_UID)
    assert everything - UidSet.of(7) == UidSet(((1, 6), (8, MAX_UID)))
    assert MAX_UID in everything
    assert MAX_UID + 1 not in everything
    assert everything.above(MAX_UID) == UidSet() == everything.below(1)
    assert next(iter(everything)) == 1
    assert UidSet.from_uids(range(1, 4 * 10**9, 10**6)).last == 3_999_000_001


def test_a_million_ranges_are_cut_and_joined_in_one_walk_each() -> None:
    # Were it quadratic, each line would take hours.
    odd = UidSet(tuple((uid, uid) for uid in range(1, 400_000, 2)))
    even = UidSet(tuple((uid, uid) for uid in range(2, 400_000, 2)))
    assert odd | even == UidSet.range(1, 399_999)
    assert UidSet.range(1, 399_999) - odd == even
    assert not odd & even
    assert odd - even == odd
    assert sum(map(len, odd.chunks(3))) == 200_000


@pytest.mark.parametrize(
    ("spelled", "ranges"),
    [
        pytest.param("1:3,7", ((1, 3), (7, 7)), id="a range and one"),
        pytest.param(
            "41,43:116,118,120:211,214:540",
            ((41, 41), (43, 116), (118, 118), (120, 211), (214, 540)),
            id="RFC 7162, VANISHED",
        ),
        pytest.param("4:2", ((2, 4),), id="backwards means forwards"),
        pytest.param("7,1:3,2:5,6", ((1, 7),), id="unordered, overlapping and touching"),
        pytest.param("4294967295", ((MAX_UID, MAX_UID),), id="the last UID there can be"),
    ],
)
def test_the_spelling_of_servers_is_read(spelled: str, ranges: tuple[tuple[int, int], ...]) -> None:
    assert UidSet.parse(spelled).ranges == ranges


@pytest.mark.parametrize(
    "spelled",
    [
        "",
        ",",
        "1,",
        ",1",
        "1,,2",
        "0",
        "0:4",
        "1:*",
        "*",
        "4294967296",
        "1:4294967296",
        "-1",
        "+1",
        "1:2:3",
        " 1",
        "1 ",
        "1\n",
        "01",
        "1:",
        ":1",
        "a",
        "1;2",
        "١",
        "9" * 5000,
        "1" + ",1" * 20000 + ",",
    ],
)
def test_what_is_no_set_breaks_the_protocol(spelled: str) -> None:
    with pytest.raises(RemoteProtocolError) as caught:
        UidSet.parse(spelled)
    assert len(str(caught.value)) < 120
    with pytest.raises(RemoteProtocolError):
        UidSet.parse(spelled.encode())


def test_sets_longer_than_a_run_are_read_whole() -> None:
    sparse = UidSet.from_uids(range(1, 100_000, 2)) | UidSet.range(500_000, 600_000)
    assert UidSet.parse(str(sparse)) == sparse


@pytest.mark.parametrize("bad", [(0, 3), (3, MAX_UID + 1), (-1, -1)])
def test_a_set_holds_no_number_that_is_no_uid(bad: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="not within"):
        UidSet.from_ranges([bad])
    with pytest.raises(ValueError, match="not within"):
        UidSet.of(*bad)


def test_a_range_that_goes_backwards_is_a_mistake_or_empty() -> None:
    with pytest.raises(ValueError, match="backwards"):
        UidSet.from_ranges([(4, 3)])
    assert UidSet.range(4, 3) == UidSet()


def test_an_empty_set_has_no_ends() -> None:
    with pytest.raises(ValueError, match="no first"):
        _ = UidSet().first
    with pytest.raises(ValueError, match="no last"):
        _ = UidSet().last
    assert str(UidSet()) == ""
    assert UidSet().newest(5) == UidSet()
    assert list(UidSet().chunks(5)) == []


def test_a_chunk_or_a_spelling_must_have_room() -> None:
    with pytest.raises(ValueError, match="chunk of 0"):
        UidSet.of(1).chunks(0)
    with pytest.raises(ValueError, match="too few"):
        UidSet.of(1).spelled(20)


def test_it_can_be_a_key_and_is_shown_briefly() -> None:
    assert {UidSet.of(1, 2): "a"}[UidSet.range(1, 2)] == "a"
    assert (UidSet.of(2, 1).first, UidSet.of(2, 1).last) == (1, 2)
    assert repr(UidSet.of(1, 2, 4)) == "UidSet(1:2,4)"
    assert len(repr(UidSet.from_uids(range(1, 10**5, 2)))) < 60
    assert "1" not in UidSet.of(1)
