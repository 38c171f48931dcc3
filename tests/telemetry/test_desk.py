"""The desk decides who is told what, and when; time is a number here."""

from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from idlepush.errors import FailureClass
from idlepush.telemetry.desk import STRAGGLERS, Alert, Case, Desk, Kind
from idlepush.telemetry.wording import body, spell_span, title

GRACE, COOLDOWN, STAYS = 120.0, 1800.0, 30.0


class Told:
    """A desk, and what it had people told."""

    def __init__(self) -> None:
        self.desk = Desk(grace=GRACE, cooldown=COOLDOWN)
        self.log: list[tuple[float, Kind, list[str]]] = []

    def unwell(self, *accounts: str, at: float, host: str = "h") -> None:
        for account in accounts:
            self.desk.unwell(account, host, at, FailureClass.NETWORK, "refused")

    def well(self, *accounts: str, at: float) -> None:
        for account in accounts:
            self.desk.well(account, at)

    def due(self, at: float) -> Sequence[Alert]:
        return self.desk.due(at)

    def tells(self, at: float, *, sent: bool = True) -> list[tuple[Kind, list[str]]]:
        found = []
        for alert in self.desk.due(at):
            self.desk.settle(alert, at, sent=sent)
            found.append((alert.kind, sorted(case.account for case in alert.cases)))
        return found


@pytest.fixture
def told() -> Told:
    return Told()


def test_a_trouble_shorter_than_grace_is_told_to_nobody(told: Told) -> None:
    told.unwell("alice", at=0)
    assert told.tells(GRACE - 1) == []
    told.well("alice", at=GRACE - 1)
    assert told.tells(10_000) == []


def test_a_trouble_longer_than_grace_is_told_once_and_so_is_its_end(told: Told) -> None:
    told.unwell("alice", at=0)
    assert told.tells(GRACE) == [(Kind.TROUBLE, ["alice"])]
    told.unwell("alice", at=500)
    assert told.tells(COOLDOWN * 3) == []
    told.well("alice", at=6000)
    assert told.tells(6000 + STAYS - 1) == []
    [alert] = told.due(6000 + STAYS)
    assert (alert.kind, alert.cases[0].seconds) == (Kind.RESOLVED, 6000)
    told.desk.settle(alert, 6031, sent=True)
    assert told.desk.open == []


def test_an_account_that_is_well_for_a_moment_only_is_not_back(told: Told) -> None:
    told.unwell("alice", at=0)
    told.tells(GRACE)
    for at in range(200, 400, 20):
        told.well("alice", at=at)
        assert told.tells(at + 10) == []
        told.unwell("alice", at=at + 10)
    told.well("alice", at=400)
    [alert] = told.due(400 + STAYS)
    assert alert.cases[0].seconds == 400


def test_two_hundred_accounts_of_a_host_make_one_alert_and_one_end(told: Told) -> None:
    accounts = [f"a{number:03}" for number in range(200)]
    for number, account in enumerate(accounts):
        told.unwell(account, at=number / 4)
    assert told.tells(GRACE) == [(Kind.TROUBLE, accounts)]
    for number, account in enumerate(accounts):
        told.well(account, at=1000 + number)
        assert told.tells(1000 + number) == []
    assert told.tells(1199 + STAYS) == [(Kind.RESOLVED, accounts)]


def test_a_blip_beside_a_trouble_is_not_told_with_it(told: Told) -> None:
    told.unwell("alice", at=0)
    told.unwell("bob", at=GRACE - 1)
    assert told.tells(GRACE) == [(Kind.TROUBLE, ["alice"])]


def test_who_is_back_does_not_wait_for_ever_for_who_is_not(told: Told) -> None:
    told.unwell("alice", "bob", at=0)
    told.tells(GRACE)
    told.well("alice", at=200)
    assert told.tells(200 + STRAGGLERS - 1) == []
    assert told.tells(200 + STRAGGLERS) == [(Kind.RESOLVED, ["alice"])]
    told.well("bob", at=9000)
    assert told.tells(9000 + STAYS) == [(Kind.RESOLVED, ["bob"])]


def test_troubles_told_apart_end_apart(told: Told) -> None:
    told.unwell("alice", at=0)
    told.tells(GRACE)
    told.unwell("bob", at=COOLDOWN)
    assert told.tells(COOLDOWN + GRACE) == [(Kind.TROUBLE, ["bob"])]
    told.well("bob", at=COOLDOWN + 200)
    assert told.tells(COOLDOWN + 200 + STAYS) == [(Kind.RESOLVED, ["bob"])]


def test_a_host_is_told_of_once_in_a_cooldown_and_others_do_not_wait_for_it(told: Told) -> None:
    told.unwell("alice", at=0)
    told.tells(GRACE)
    told.unwell("bob", at=GRACE)
    told.unwell("carol", at=GRACE, host="other")
    assert told.tells(2 * GRACE) == [(Kind.TROUBLE, ["carol"])]
    assert told.tells(GRACE + COOLDOWN - 1) == []
    assert told.tells(GRACE + COOLDOWN) == [(Kind.TROUBLE, ["bob"])]


def test_a_flapping_account_is_told_of_once_in_a_cooldown(told: Told) -> None:
    found = []
    for second in range(0, 3600, 10):
        (told.unwell if second // 300 % 2 == 0 else told.well)("alice", at=second)
        found += [(second, kind) for kind, _ in told.tells(second)]
    assert found == [
        (120, Kind.TROUBLE),
        (330, Kind.RESOLVED),
        (1920, Kind.TROUBLE),
        (2130, Kind.RESOLVED),
    ]


def test_many_hosts_at_once_make_one_alert(told: Told) -> None:
    accounts = [f"a{number}" for number in range(4)]
    for account in accounts:
        told.unwell(account, at=0, host=f"host of {account}")
    assert told.tells(GRACE) == [(Kind.TROUBLE, accounts)]
    told.well(*accounts, at=1000)
    assert told.tells(1000 + STAYS) == [(Kind.RESOLVED, accounts)]


def test_three_hosts_at_once_make_three_alerts(told: Told) -> None:
    for account in ("a", "b", "c"):
        told.unwell(account, at=0, host=f"host of {account}")
    assert told.tells(GRACE) == [(Kind.TROUBLE, ["a"]), (Kind.TROUBLE, ["b"]), (Kind.TROUBLE, ["c"])]


def test_what_could_not_be_sent_is_due_again_after_pauses_that_grow(told: Told) -> None:
    told.unwell("alice", at=0)
    tries = [at for at in range(7200) if told.tells(at, sent=False)]
    assert tries == [120, 180, 300, 540, 1020, 1980, 3780, 5580]
    assert told.tells(7380) == [(Kind.TROUBLE, ["alice"])]


def test_a_trouble_that_ended_before_it_could_be_told_is_forgotten(told: Told) -> None:
    told.unwell("alice", at=0)
    told.tells(GRACE, sent=False)
    told.well("alice", at=130)
    assert told.desk.open == []


def test_an_end_that_could_not_be_sent_is_told_later(told: Told) -> None:
    told.unwell("alice", at=0)
    told.tells(GRACE)
    told.well("alice", at=200)
    assert told.tells(230, sent=False) == [(Kind.RESOLVED, ["alice"])]
    assert told.tells(289) == []
    assert told.tells(290) == [(Kind.RESOLVED, ["alice"])]


def test_what_is_in_flight_is_in_no_other_alert(told: Told) -> None:
    told.unwell("alice", at=0)
    [alert] = told.due(GRACE)
    assert told.due(GRACE + 10) == []
    told.well("alice", at=GRACE + 11)
    told.desk.settle(alert, GRACE + 12, sent=True)
    assert told.tells(GRACE + 11 + STAYS) == [(Kind.RESOLVED, ["alice"])]


def test_a_trouble_that_ended_in_flight_and_was_not_sent_is_forgotten(told: Told) -> None:
    told.unwell("alice", at=0)
    [alert] = told.due(GRACE)
    told.well("alice", at=GRACE + 1)
    told.desk.settle(alert, GRACE + 2, sent=False)
    assert told.desk.open == []


def test_a_trouble_that_begins_again_while_its_end_is_told_is_a_new_one(told: Told) -> None:
    told.unwell("alice", at=0)
    told.tells(GRACE)
    told.well("alice", at=3000)
    [alert] = told.due(3000 + STAYS)
    told.unwell("alice", at=3031)
    told.unwell("alice", at=3040)
    told.desk.settle(alert, 3041, sent=True)
    assert told.tells(3031 + GRACE - 1) == []
    [alert] = told.due(3031 + GRACE)
    assert (alert.kind, alert.cases[0].seconds) == (Kind.TROUBLE, GRACE)


def test_a_forgotten_account_is_told_of_no_more(told: Told) -> None:
    told.unwell("alice", "bob", at=0)
    assert told.desk.forget("bob") is False
    [alert] = told.due(GRACE)
    told.desk.settle(alert, GRACE, sent=True)
    assert told.desk.forget("alice") is True
    assert told.desk.forget("alice") is False
    told.well("alice", at=200)
    assert told.tells(10_000) == []


def test_an_account_forgotten_in_flight_stays_so(told: Told) -> None:
    told.unwell("alice", at=0)
    [alert] = told.due(GRACE)
    told.desk.forget("alice")
    told.desk.settle(alert, GRACE, sent=True)
    assert told.desk.open == []


def test_what_was_told_before_a_restart_is_not_told_again(told: Told) -> None:
    case = Case(account="alice", host="h", seconds=400, failure_class=None, reason="refused")
    told.desk.restore(Alert(number=7, kind=Kind.TROUBLE, cases=(case,)), -100)
    told.unwell("alice", at=5)
    told.unwell("bob", at=5)
    assert told.tells(COOLDOWN - 101) == []
    assert told.tells(COOLDOWN - 100) == [(Kind.TROUBLE, ["bob"])]
    told.well("alice", at=5000)
    [alert] = told.due(5000 + STAYS)
    assert alert.cases[0].seconds == 5500
    assert alert.number > 7


@settings(max_examples=200)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["unwell", "well", "forget"]),
            st.sampled_from(["a", "b", "c", "d", "e"]),
            st.integers(1, 400),
            st.booleans(),
        ),
        max_size=60,
    )
)
def test_nobody_is_told_of_an_end_without_a_beginning_nor_twice_of_a_beginning(
    story: list[tuple[str, str, int, bool]],
) -> None:
    desk, at, known = Desk(grace=GRACE, cooldown=COOLDOWN), 0.0, set[str]()
    for what, account, pause, sent in story:
        if what == "unwell":
            desk.unwell(account, "xy"[account > "b"], at, None, "")
        elif what == "well":
            desk.well(account, at)
        else:
            assert desk.forget(account) == (account in known)
            known.discard(account)
        at += pause
        for alert in desk.due(at):
            desk.settle(alert, at, sent=sent)
            names = {case.account for case in alert.cases}
            assert all(case.seconds >= 0 for case in alert.cases)
            if alert.kind is Kind.TROUBLE:
                assert not names & known
                known |= names if sent else set()
            else:
                assert names <= known
                known -= names if sent else set()
    for account in ("a", "b", "c", "d", "e"):
        desk.well(account, at)
    told_at_last = {case.account for alert in desk.due(at + 10_000) for case in alert.cases}
    assert told_at_last == known


# Wording


def alert(*cases: Case, kind: Kind = Kind.TROUBLE) -> Alert:
    return Alert(number=1, kind=kind, cases=cases)


def case(account: str, *, host: str = "imap.example.org", seconds: float = 130, reason: str = "parked: no") -> Case:
    return Case(account=account, host=host, seconds=seconds, failure_class=FailureClass.AUTHENTICATION, reason=reason)


def test_one_account_is_named_with_its_host_class_and_reason() -> None:
    one = alert(case("alice"))
    assert title(one) == "idlepush: alice (imap.example.org) is in trouble: authentication"
    assert body(one) == "alice: in trouble for 2 min; parked: no"


def test_many_accounts_are_counted_and_the_first_ten_named() -> None:
    many = alert(*(case(f"a{number:03}") for number in range(200)))
    assert title(many) == "idlepush: 200 accounts of imap.example.org are in trouble: authentication"
    lines = body(many).splitlines()
    assert [line.partition(":")[0] for line in lines[:10]] == [f"a{number:03}" for number in range(10)]
    assert lines[10:] == ["and 190 more"]


def test_many_hosts_are_counted_and_the_largest_named() -> None:
    many = alert(*(case(f"a{number}", host=f"h{number % 30}") for number in range(90)), case("b", host="h7"))
    assert title(many) == "idlepush: 91 accounts of 30 hosts are in trouble: authentication"
    assert body(many).splitlines()[-1].startswith("hosts: h7 (4), h0 (3), ")
    assert body(many).splitlines()[-1].count("(") == 10


def test_an_end_tells_how_long_it_took() -> None:
    one = alert(case("alice", seconds=3900), kind=Kind.RESOLVED)
    assert title(one) == "idlepush: alice (imap.example.org) is back after 1 h 5 min"
    assert body(one) == "alice: back after 1 h 5 min; it was parked: no"
    two = alert(case("alice"), case("bob", seconds=700), kind=Kind.RESOLVED)
    assert title(two) == "idlepush: 2 accounts of imap.example.org are back after up to 12 min"


HOSTILE = (
    "x\r\nSubject: owned\r\n\r\n\x1b]0;t\x07\0 \u202egnp @everyone <!channel> <@123> mail a@b.example " + "y" * 9000
)


def test_words_from_outside_are_printable_bounded_and_call_nobody() -> None:
    for kind in Kind:
        hostile = alert(*(case(HOSTILE + str(number), host=HOSTILE, reason=HOSTILE) for number in range(20)), kind=kind)
        single = alert(case("alice", reason=HOSTILE), kind=kind)
        for one in (hostile, single):
            assert title(one).isprintable()
            assert len(title(one)) <= 160
            assert all(line.isprintable() for line in body(one).split("\n"))
            assert len(body(one)) < 10_000
        assert "@everyone" not in body(single)
        assert "<@1" not in body(single)
        assert "<!" not in body(single)
        assert "a@b.example" in body(single)


@pytest.mark.parametrize(
    ("seconds", "spelled"),
    [
        (-1, "0 s"),
        (0.4, "0 s"),
        (59, "59 s"),
        (60, "1 min"),
        (119, "2 min"),
        (3600, "1 h"),
        (3660, "1 h 1 min"),
        (86_400, "1 d"),
        (273_600, "3 d 4 h"),
    ],
)
def test_a_span_is_spelled_in_its_two_largest_units(seconds: float, spelled: str) -> None:
    assert spell_span(seconds) == spelled
