"""Health is a fold: the same observations at the same moments give the same standing, whoever asks."""

from collections.abc import Iterable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from idlepush.engine.observations import (
    Backfilling,
    BugFound,
    Connected,
    ConnectFailed,
    Disconnected,
    Feature,
    FeatureDistrusted,
    IdleDistrusted,
    Looked,
    MailboxTrouble,
    Mirrored,
    Observation,
    Quarantined,
    Restarting,
    ServerAlert,
    SinkReady,
    SinkTrouble,
    State,
    StateChanged,
    StoreTrouble,
    Waiting,
    WakeSource,
    Woken,
)
from idlepush.errors import FailureClass
from idlepush.sync.events import FoundBy
from idlepush.telemetry.health import AccountHealth, Health, Level, ServiceHealth

EPOCH = datetime(2026, 11, 21, 20, 0, tzinfo=UTC)


class Clock:
    """A wall clock that goes on when it is told to."""

    def __init__(self) -> None:
        self.now = EPOCH

    def __call__(self) -> datetime:
        return self.now

    def goes_on(self, **span: float) -> None:
        self.now += timedelta(**span)


class Watched:
    """The fold, its clock, and the transitions it told of."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.health = Health(self.clock)
        self.transitions: list[tuple[str, Level, Level]] = []
        self.health.on_transition(lambda account, before, after, _: self.transitions.append((account, before, after)))

    def sees(self, *seen: Observation) -> AccountHealth:
        for one in seen:
            self.health(one)
        return self.health.accounts[seen[-1].account]


@pytest.fixture
def watched() -> Watched:
    return Watched()


def stands(state: State, failure_class: FailureClass | None = None, reason: str | None = None) -> StateChanged:
    return StateChanged(account="alice", state=state, failure_class=failure_class, reason=reason)


def looked(source: WakeSource = WakeSource.POLL, mailbox: str = "INBOX", **found: Any) -> Looked:
    return Looked(account="alice", mailbox=mailbox, source=source, seconds=0.1, **found)


def restarting(delay: float, failure_class: FailureClass = FailureClass.NETWORK) -> Restarting:
    return Restarting(account="alice", failure_class=failure_class, reason="gone", delay=delay)


STARTING, WATCHING, POLLING, PAUSED = map(stands, (State.STARTING, State.WATCHING, State.POLLING, State.PAUSED))
CONNECTED = Connected(account="alice", endpoint="127.0.0.1:143", seconds=0.1)
LOST = (Disconnected(account="alice", failure_class=FailureClass.NETWORK, reason="gone"),)
DROPPED = (*LOST, stands(State.BACKING_OFF, FailureClass.NETWORK, "the server said BYE"), restarting(1.0))
UNREACHABLE = (
    ConnectFailed(account="alice", failure_class=FailureClass.NETWORK, reason="refused"),
    stands(State.BACKING_OFF, FailureClass.NETWORK, "the connection was refused"),
    restarting(3.0),
)
THROTTLED = (stands(State.THROTTLED, FailureClass.RATE_LIMIT, "slow down"), restarting(90, FailureClass.RATE_LIMIT))
REFUSED = (
    ConnectFailed(account="alice", failure_class=FailureClass.AUTHENTICATION, reason="wrong"),
    stands(State.PARKED, FailureClass.AUTHENTICATION, "the server does not take the credentials"),
)
DISK_FULL = (
    StoreTrouble(account="alice", reason="no space is left"),
    stands(State.BACKING_OFF, FailureClass.OTHER, "the store: no space is left"),
    restarting(15.0),
)
BUG = (BugFound(account="alice", trace="…"), stands(State.BACKING_OFF, FailureClass.OTHER, "a bug: KeyError"))
QUARANTINE = Quarantined(account="alice", mailbox="INBOX", uid=7, reason="refused")
NO_SUCH = MailboxTrouble(account="alice", mailbox="Work", reason="Work: NO [NOPERM]")
UNDELIVERED = SinkTrouble(account="alice", sink="maildir", reason="the disk is full")
LATCHED = FeatureDistrusted(account="alice", feature=Feature.QRESYNC, reason="it vanished what is there")
DISTRUSTED = IdleDistrusted(account="alice", reason="the server refuses IDLE")
ALERT = ServerAlert(account="alice", text="The server closes at noon")


@pytest.mark.parametrize(
    ("seen", "score", "level", "reasons"),
    [
        ([STARTING], 100, Level.HEALTHY, ()),
        ([STARTING, WATCHING], 100, Level.HEALTHY, ()),
        ([POLLING], 90, Level.HEALTHY, ("polled: the server has no IDLE",)),
        ([DISTRUSTED, POLLING], 85, Level.HEALTHY, ("polled: the server refuses IDLE",)),
        ([WATCHING, LATCHED], 95, Level.HEALTHY, ("qresync is not used: it vanished what is there",)),
        ([WATCHING, ALERT], 85, Level.HEALTHY, ("the server says: The server closes at noon",)),
        ([WATCHING, QUARANTINE], 80, Level.HEALTHY, ("1 message was set aside",)),
        ([WATCHING, *DROPPED], 75, Level.WARNING, ("reconnecting: the server said BYE",)),
        ([WATCHING, UNDELIVERED], 70, Level.WARNING, ("nothing is delivered to its maildir: the disk is full",)),
        ([WATCHING, UNDELIVERED, SinkReady(account="alice", sink="maildir")], 100, Level.HEALTHY, ()),
        ([WATCHING, NO_SUCH], 60, Level.WARNING, ("the mailbox Work cannot be looked at: Work: NO [NOPERM]",)),
        ([*BUG, WATCHING], 50, Level.WARNING, ("a bug ended a session; the log has its traceback",)),
        ([WATCHING, *THROTTLED], 30, Level.CRITICAL, ("throttled: slow down",)),
        ([STARTING, *UNREACHABLE], 20, Level.CRITICAL, ("backing off: the connection was refused",)),
        ([WATCHING, *DROPPED, restarting(31)], 20, Level.CRITICAL, ("backing off: the server said BYE",)),
        ([WATCHING, *DISK_FULL], 10, Level.CRITICAL, ("the store cannot be written: no space is left",)),
        ([STARTING, *REFUSED], 0, Level.CRITICAL, ("parked: the server does not take the credentials",)),
        ([*REFUSED, PAUSED], 100, Level.HEALTHY, ()),
    ],
    ids=[
        "a first start is well",
        "watched is well",
        "polled where nothing pushes is well",
        "polled because IDLE does not work is well enough",
        "a capability that lies is shown, not feared",
        "an alert of the server is shown, not feared",
        "a message set aside is shown, not feared",
        "a reconnect is a warning",
        "a sink that takes nothing is a warning",
        "a sink that takes events again is well",
        "a mailbox that cannot be looked at is a warning",
        "a bug is a warning after the account is well again",
        "throttled is critical",
        "unreachable is critical",
        "a long pause is critical whatever came before it",
        "a full disk is critical",
        "parked is critical",
        "paused is well, for somebody wanted it",
    ],
)
def test_every_finding_has_its_score_its_level_and_its_sentence(
    watched: Watched, seen: list[Observation], score: int, level: Level, reasons: tuple[str, ...]
) -> None:
    now = watched.sees(*seen)
    assert (now.health_score, now.health, now.reasons) == (score, level, reasons)


def test_the_worst_finding_decides_and_stands_first(watched: Watched) -> None:
    now = watched.sees(WATCHING, QUARANTINE, NO_SUCH, *UNREACHABLE)
    assert now.health_score == 20
    assert [sentence.split(" ")[0] for sentence in now.reasons] == ["backing", "the", "1"]


def test_a_new_start_does_not_end_a_trouble_but_a_synchronize_does(watched: Watched) -> None:
    watched.sees(*REFUSED)
    again = watched.sees(STARTING, CONNECTED)
    assert (again.state, again.health, again.reasons) == (
        State.STARTING,
        Level.CRITICAL,
        ("parked: the server does not take the credentials",),
    )
    assert watched.sees(WATCHING).health is Level.HEALTHY


def test_transitions_are_told_once_each_whatever_happens_between(watched: Watched) -> None:
    watched.sees(STARTING, WATCHING, *UNREACHABLE, *UNREACHABLE, *UNREACHABLE, CONNECTED, WATCHING, looked())
    assert watched.transitions == [
        ("alice", Level.HEALTHY, Level.CRITICAL),
        ("alice", Level.CRITICAL, Level.HEALTHY),
    ]


def test_a_trouble_has_one_beginning_though_it_gets_worse(watched: Watched) -> None:
    watched.sees(WATCHING)
    watched.clock.goes_on(minutes=1)
    watched.sees(*DROPPED)
    watched.clock.goes_on(minutes=1)
    worse = watched.sees(*UNREACHABLE)
    assert worse.unwell_since == EPOCH + timedelta(minutes=1)
    assert watched.sees(WATCHING).unwell_since is None


def test_since_is_when_the_state_began_though_it_is_told_again(watched: Watched) -> None:
    watched.sees(*UNREACHABLE)
    watched.clock.goes_on(minutes=5)
    assert watched.sees(*UNREACHABLE).since == EPOCH


def test_the_store_is_blamed_only_for_what_it_did(watched: Watched) -> None:
    watched.sees(*DISK_FULL)
    assert watched.sees(*UNREACHABLE).reasons == ("backing off: the connection was refused",)


def test_a_mailbox_is_well_again_when_it_could_be_looked_at(watched: Watched) -> None:
    watched.sees(WATCHING, NO_SUCH)
    assert watched.sees(looked(mailbox="Work")).health is Level.HEALTHY


def test_a_bug_is_held_against_the_account_for_an_hour(watched: Watched) -> None:
    watched.sees(*BUG, WATCHING)
    watched.clock.goes_on(minutes=59)
    watched.health.tick()
    assert watched.transitions == [("alice", Level.HEALTHY, Level.WARNING)]
    watched.clock.goes_on(minutes=1)
    watched.health.tick()
    assert watched.transitions[-1] == ("alice", Level.WARNING, Level.HEALTHY)


@pytest.mark.parametrize("state", [STARTING, WATCHING, POLLING], ids=lambda seen: seen.state)
def test_an_account_that_nothing_is_heard_of_is_critical(watched: Watched, state: StateChanged) -> None:
    watched.health.expect("alice", looks_every=300)
    watched.sees(state, looked())
    watched.clock.goes_on(seconds=721)
    watched.health.tick()
    assert watched.health.accounts["alice"].reasons[0] == "nothing was looked at for far too long"
    assert watched.sees(looked()).health is Level.HEALTHY


def test_silence_is_no_finding_where_another_one_explains_it(watched: Watched) -> None:
    watched.health.expect("alice", looks_every=300)
    watched.sees(WATCHING, *THROTTLED)
    watched.clock.goes_on(hours=1)
    watched.health.tick()
    assert watched.health.accounts["alice"].reasons == ("throttled: slow down",)


def test_the_last_push_poll_and_commit_are_told_apart(watched: Watched) -> None:
    watched.sees(WATCHING, looked(WakeSource.RECONNECT))
    watched.clock.goes_on(seconds=1)
    watched.sees(looked(WakeSource.PUSH, new=1))
    watched.clock.goes_on(seconds=1)
    now = watched.sees(looked(WakeSource.RENEWAL))
    assert (now.last_push, now.last_commit) == (EPOCH + timedelta(seconds=1), EPOCH + timedelta(seconds=1))
    assert now.last_poll == EPOCH + timedelta(seconds=2)
    watched.clock.goes_on(seconds=1)
    mirrored = Mirrored(account="alice", mailbox="INBOX", found_by=FoundBy.BACKFILL, count=3)
    assert watched.sees(mirrored).last_commit == EPOCH + timedelta(seconds=3)


def test_the_backlog_is_the_sum_of_the_mailboxes(watched: Watched) -> None:
    watched.sees(
        Backfilling(account="alice", mailbox="INBOX", remaining=70, total=100),
        Backfilling(account="alice", mailbox="Work", remaining=5, total=5),
    )
    assert watched.sees(looked(remaining=30, finished=False)).backfill_remaining == 35
    assert watched.sees(looked()).backfill_remaining == 5
    assert watched.sees(NO_SUCH).backfill_remaining == 0


def test_the_time_a_backlog_takes_is_told_once_its_pace_is_known_and_no_more_when_it_is_in(watched: Watched) -> None:
    assert watched.sees(Backfilling(account="alice", mailbox="INBOX", remaining=70, total=100)).backfill_eta is None
    seen = watched.sees(Backfilling(account="alice", mailbox="INBOX", remaining=50, total=100, eta=25.4))
    assert seen.backfill_eta == 25.4
    assert seen.record(running=True)["backfill_eta_seconds"] == 25
    assert watched.sees(looked()).backfill_eta is None


def test_a_throttled_account_says_until_when(watched: Watched) -> None:
    assert watched.sees(*THROTTLED).throttled_until == EPOCH + timedelta(seconds=90)
    assert watched.sees(WATCHING).throttled_until is None


def test_the_last_error_outlives_its_end(watched: Watched) -> None:
    error = watched.sees(*UNREACHABLE, WATCHING).last_error
    assert error is not None
    assert (error.time, error.failure_class, error.reason) == (
        EPOCH,
        FailureClass.NETWORK,
        "the connection was refused",
    )


@pytest.mark.parametrize(
    ("waiting", "watch"),
    [
        (Waiting(account="alice", idling=True, notified=True), "notify"),
        (Waiting(account="alice", idling=True), "idle"),
        (Waiting(account="alice", idling=False), "poll"),
    ],
)
def test_how_an_account_is_watched_is_shown_until_it_is_not(watched: Watched, waiting: Waiting, watch: str) -> None:
    assert watched.sees(STARTING, WATCHING, waiting).watch == watch
    assert watched.sees(stands(State.BACKING_OFF, FailureClass.NETWORK)).watch is None


def test_the_record_has_exactly_the_keys_of_status(watched: Watched) -> None:
    record = watched.sees(*THROTTLED).record(running=True)
    assert record == {
        "account": "alice",
        "state": "throttled",
        "since": "2026-11-21T20:00:00Z",
        "class": "rate_limit",
        "reason": "slow down",
        "health": "critical",
        "health_score": 30,
        "mailboxes": None,
        "messages": None,
        "watch": None,
        "backfill_remaining": 0,
        "backfill_eta_seconds": None,
        "last_push": None,
        "last_poll": None,
        "last_commit": None,
        "last_audit": None,
        "throttled_until": "2026-11-21T20:01:30Z",
        "running": True,
    }
    assert watched.health.accounts["alice"].health_record() == {
        "account": "alice",
        "score": 30,
        "health": "critical",
        "reasons": ["throttled: slow down"],
    }


def test_words_of_a_server_are_made_printable_and_bounded(watched: Watched) -> None:
    hostile = "\x1b]0;owned\x07\r\nlevel=error \u202egnp.exe\u202c" + "x" * 10_000
    seen: Iterable[Observation] = (
        stands(State.THROTTLED, FailureClass.RATE_LIMIT, hostile),
        ServerAlert(account="alice", text=hostile),
        MailboxTrouble(account="alice", mailbox="Work", reason=hostile),
        IdleDistrusted(account="alice", reason=hostile),
    )
    now = watched.sees(*seen)
    for sentence in (now.reason or "", *now.reasons, now.last_error.reason if now.last_error else ""):
        assert sentence.isprintable()
        assert len(sentence) < 600


def test_what_is_held_of_an_account_is_bounded(watched: Watched) -> None:
    for uid in range(3000):
        watched.health(replace(QUARANTINE, uid=uid))
        watched.health(replace(NO_SUCH, mailbox=f"box {uid}"))
    assert "1000 messages were set aside" in watched.health.accounts["alice"].reasons
    assert len(watched.health.accounts["alice"].reasons) == 1001


def test_a_forgotten_account_is_gone_without_a_word(watched: Watched) -> None:
    watched.sees(*REFUSED)
    watched.health.forget("alice")
    watched.health.forget("nobody")
    assert dict(watched.health.accounts) == {}
    assert watched.transitions == [("alice", Level.HEALTHY, Level.CRITICAL)]


def test_an_expected_account_is_there_before_its_loop_says_anything(watched: Watched) -> None:
    watched.health.expect("alice", looks_every=300)
    assert watched.health.accounts["alice"].state is State.STARTING


def test_the_service_is_as_well_as_its_worst_account(watched: Watched) -> None:
    assert watched.health.service == ServiceHealth.of([])
    assert watched.health.service.health is Level.HEALTHY
    watched.sees(WATCHING)
    watched.sees(replace(POLLING, account="bob"))
    watched.sees(replace(stands(State.PARKED, FailureClass.AUTHENTICATION, "wrong"), account="carol"))
    service = watched.health.service
    assert (service.health, service.health_score) == (Level.CRITICAL, 0)
    assert {state: count for state, count in service.states.items() if count} == {
        State.WATCHING: 1,
        State.POLLING: 1,
        State.PARKED: 1,
    }
    assert set(service.states) == set(State)
    assert dict(service.levels) == {Level.HEALTHY: 2, Level.WARNING: 0, Level.CRITICAL: 1}


STEPS: list[tuple[Observation, ...]] = [
    (STARTING,), (WATCHING,), (POLLING,), (PAUSED,), (CONNECTED,), DROPPED, UNREACHABLE, THROTTLED, REFUSED, DISK_FULL,
    BUG, (QUARANTINE,), (NO_SUCH,), (DISTRUSTED,), (LATCHED,), (ALERT,), (looked(),),
    (Woken(account="alice", source=WakeSource.POLL),),
]  # fmt: skip


@given(st.lists(st.tuples(st.sampled_from(STEPS), st.floats(0, 7200))))
def test_whatever_happens_level_score_reasons_and_transitions_agree(
    history: list[tuple[tuple[Observation, ...], float]],
) -> None:
    watched = Watched()
    watched.health.expect("alice", looks_every=300)
    for seen, pause in history:
        watched.sees(*seen)
        watched.clock.goes_on(seconds=pause)
        watched.health.tick()
        now = watched.health.accounts["alice"]
        assert 0 <= now.health_score <= 100
        assert now.health is Level.of(now.health_score)
        assert (now.health is Level.HEALTHY) == (now.unwell_since is None)
        assert bool(now.reasons) == (now.health_score < 100)
    assert all(before is not after for _, before, after in watched.transitions)
    told = [Level.HEALTHY, *(after for _, _, after in watched.transitions)]
    assert told[-1] is watched.health.accounts["alice"].health
    assert [before for _, before, _ in watched.transitions] == told[:-1]
