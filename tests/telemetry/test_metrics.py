"""Metrics: what Prometheus scrapes is what was observed, under the names that were promised."""

import asyncio
import threading
import tracemalloc
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import cast, get_args

import anyio
import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse

import idlepush
from idlepush.engine.observations import (
    Audited,
    Connected,
    ConnectFailed,
    Delivered,
    Disconnected,
    LaneClosed,
    LaneOpened,
    MailboxTrouble,
    Mirrored,
    Observation,
    Phase,
    SinkReady,
    SinkStopped,
    State,
    StateChanged,
    Timed,
    Waiting,
    WakeSource,
    Woken,
)
from idlepush.errors import FailureClass
from idlepush.store.base import AccountRow
from idlepush.store.memory import MemoryStore
from idlepush.sync.events import FoundBy
from idlepush.telemetry.health import Health
from idlepush.telemetry.metrics import Metrics
from tests.peers.virtual import VirtualLoop, virtual_time
from tests.telemetry.observed import CONNECTED, CONNECTING, LOST, ONE_OF_EACH, RESTARTING, SINK_TROUBLE, looked, stands

NOW = datetime(2026, 11, 21, 20, 0, tzinfo=UTC)

PROMISED = {
    "account_up", "account_state", "health_score", "connections", "connects_total", "reconnects_total", "errors_total",
    "wakes_total", "wake_to_commit_seconds_bucket", "sync_seconds_bucket", "messages_total", "fetched_bytes_total",
    "idle_renewals_total", "silent_idle_total", "poll_interval_seconds", "backfill_remaining_messages",
    "last_commit_timestamp_seconds", "event_position", "alerts_total", "loop_lag_seconds",
    "store_commit_seconds_bucket", "store_bytes", "build_info", "sink_lag_events", "sink_deliveries_total",
}  # fmt: skip


class Scraped:
    """Health and metrics that see the same observations, and what a scrape shows of them."""

    def __init__(self, *, account_label: bool = True) -> None:
        self.health = Health(lambda: NOW)
        self.registry = CollectorRegistry()
        self.metrics = Metrics(self.registry, health=self.health, account_label=account_label)

    def sees(self, *seen: Observation) -> None:
        for one in seen:
            self.health(one)
            self.metrics(one)

    @property
    def samples(self) -> dict[str, float]:
        """All samples, by their spelling: `name{label="value",…}`."""
        found: dict[str, float] = {}
        for family in parse(generate_latest(self.registry).decode()):
            for sample in family.samples:
                labels = ",".join(f'{name}="{value}"' for name, value in sorted(sample.labels.items()))
                spelled = sample.name.removeprefix("idlepush_") + (f"{{{labels}}}" if labels else "")
                assert spelled not in found, f"{spelled} stands twice"
                found[spelled] = sample.value
        return found

    def __getitem__(self, spelled: str) -> float:
        return self.samples[spelled]


@pytest.fixture
def scraped() -> Scraped:
    return Scraped()


BEFORE: dict[type[Observation], tuple[Observation, ...]] = {
    LaneClosed: (LaneOpened(account="alice"),),
    Disconnected: (CONNECTED,),
    ConnectFailed: (CONNECTING,),
    SinkReady: (SINK_TROUBLE,),
    SinkStopped: (SINK_TROUBLE,),
}


def test_every_metric_promised_is_there_after_one_of_each_observation(scraped: Scraped, tmp_path: Path) -> None:
    assert set(ONE_OF_EACH) == set(get_args(Observation))
    scraped.metrics.expect("alice", poll_interval=300)
    scraped.metrics.measure_files(tmp_path / "mirror.db")
    scraped.metrics.measure_sinks(lambda: [("alice", "maildir", 0)])
    scraped.sees(*ONE_OF_EACH.values())
    assert {spelled.partition("{")[0] for spelled in scraped.samples} >= PROMISED


@pytest.mark.parametrize("seen", ONE_OF_EACH.values(), ids=lambda seen: type(seen).__name__)
def test_every_observation_moves_something(seen: Observation) -> None:
    scraped = Scraped()
    scraped.health.expect("alice", looks_every=300)
    scraped.metrics.expect("alice", poll_interval=300)
    scraped.sees(*BEFORE.get(type(seen), ()))
    before = scraped.samples
    scraped.sees(seen)
    ours = {key: value for key, value in scraped.samples.items() if not key.startswith("process_")}
    assert any(before.get(key) != value for key, value in ours.items())


def test_what_an_audit_found_is_counted_as_missed_by_push_and_poll(scraped: Scraped) -> None:
    scraped.sees(ONE_OF_EACH[Audited])
    assert [scraped[f'audit_found_total{{account="alice",what="{what}"}}'] for what in ("missing", "extra")] == [1, 2]
    assert scraped['messages_total{account="alice",change="flags",found_by="audit"}'] == 3
    assert scraped['messages_total{account="alice",change="expunged",found_by="audit"}'] == 2
    assert scraped['audits_total{account="alice"}'] == 1
    assert scraped['last_audit_timestamp_seconds{account="alice"}'] > 0


def test_sinks_are_told_apart_and_an_account_without_one_has_no_row(scraped: Scraped) -> None:
    scraped.metrics.expect("bob", poll_interval=300)
    scraped.metrics.position = 12
    scraped.metrics.measure_sinks(lambda: [("alice", "maildir", 5)])
    scraped.sees(Delivered(account="alice", sink="maildir", count=3), SINK_TROUBLE)
    ours = {key: value for key, value in scraped.samples.items() if key.startswith("sink_")}
    assert ours == {
        'sink_deliveries_total{account="alice",outcome="ok",sink="maildir"}': 3,
        'sink_deliveries_total{account="alice",outcome="failed",sink="maildir"}': 1,
        'sink_lag_events{account="alice",sink="maildir"}': 7,
    }
    scraped.metrics.forget("alice")
    assert not [key for key in scraped.samples if key.startswith("sink_deliveries")]


def test_both_formats_are_well_formed(scraped: Scraped) -> None:
    scraped.sees(*ONE_OF_EACH.values())
    assert list(parse(generate_latest(scraped.registry).decode()))
    families = parse_openmetrics(generate_openmetrics(scraped.registry).decode())  # type: ignore[no-untyped-call]
    kinds = {family.name: family.type for family in families}
    assert kinds["idlepush_messages"] == "counter"
    assert kinds["idlepush_wake_to_commit_seconds"] == "histogram"


def test_series_are_there_at_zero_before_anything_was_seen(scraped: Scraped) -> None:
    scraped.metrics.expect("alice", poll_interval=300)
    samples = scraped.samples
    for failure_class in FailureClass:
        assert samples[f'errors_total{{account="alice",class="{failure_class}"}}'] == 0
        assert samples[f'connects_total{{account="alice",outcome="{failure_class}"}}'] == 0
        assert samples[f'reconnects_total{{account="alice",reason="{failure_class}"}}'] == 0
    for source in WakeSource:
        assert samples[f'wakes_total{{account="alice",source="{source}"}}'] == 0
    for found_by in FoundBy:
        assert samples[f'messages_total{{account="alice",change="new",found_by="{found_by}"}}'] == 0
    for phase in Phase:
        assert samples[f'sync_seconds_count{{phase="{phase}"}}'] == 0
    assert samples['wake_to_commit_seconds_count{account="alice"}'] == 0
    assert samples['poll_interval_seconds{account="alice"}'] == 300
    assert samples['alerts_total{kind="trouble",outcome="sent"}'] == 0


@pytest.mark.parametrize("state", State)
def test_the_state_is_one_of_all(scraped: Scraped, state: State) -> None:
    scraped.sees(stands(state, FailureClass.NETWORK))
    found = {one: scraped[f'account_state{{account="alice",state="{one}"}}'] for one in State}
    assert found == {one: float(one is state) for one in State}
    assert scraped['account_up{account="alice"}'] == (state in {State.WATCHING, State.POLLING})


def test_the_score_is_the_one_that_health_shows(scraped: Scraped) -> None:
    scraped.sees(stands(State.PARKED, FailureClass.AUTHENTICATION))
    assert scraped['health_score{account="alice"}'] == scraped.health.accounts["alice"].health_score == 0


def test_a_failure_is_counted_once_by_its_class(scraped: Scraped) -> None:
    failed = ConnectFailed(account="alice", failure_class=FailureClass.NETWORK, reason="refused")
    scraped.sees(CONNECTING, failed, stands(State.BACKING_OFF, FailureClass.NETWORK), RESTARTING)
    wrong = ConnectFailed(account="alice", failure_class=FailureClass.AUTHENTICATION, reason="wrong")
    scraped.sees(CONNECTING, wrong, stands(State.PARKED, FailureClass.AUTHENTICATION))
    assert scraped['errors_total{account="alice",class="network"}'] == 1
    assert scraped['errors_total{account="alice",class="authentication"}'] == 1
    assert scraped['connects_total{account="alice",outcome="network"}'] == 1
    assert scraped['connects_total{account="alice",outcome="authentication"}'] == 1


def test_a_session_that_was_opened_and_of_no_use_is_not_a_failed_connect(scraped: Scraped) -> None:
    failed = ConnectFailed(account="alice", failure_class=FailureClass.NETWORK, reason="BYE")
    scraped.sees(CONNECTING, CONNECTED, LOST, failed)
    assert scraped['connects_total{account="alice",outcome="ok"}'] == 1
    assert scraped['connects_total{account="alice",outcome="network"}'] == 0


def test_a_reconnect_is_counted_by_what_ended_the_session_before(scraped: Scraped) -> None:
    scraped.sees(CONNECTING, CONNECTED)
    assert sum(value for key, value in scraped.samples.items() if key.startswith("reconnects_total")) == 0
    scraped.sees(LOST, RESTARTING, CONNECTING, CONNECTED)
    assert scraped['reconnects_total{account="alice",reason="network"}'] == 1
    scraped.sees(replace(LOST, failure_class=None), CONNECTING, CONNECTED)
    assert scraped['reconnects_total{account="alice",reason="asked"}'] == 1
    bug = replace(RESTARTING, failure_class=FailureClass.OTHER)
    scraped.sees(replace(LOST, failure_class=None), bug, CONNECTING, CONNECTED)
    assert scraped['reconnects_total{account="alice",reason="other"}'] == 1


def test_a_connection_is_in_one_state_or_in_none(scraped: Scraped) -> None:
    def open_now() -> set[str]:
        spelled = 'connections{account="alice",state="'
        return {
            key.removeprefix(spelled).removesuffix('"}')
            for key, value in scraped.samples.items()
            if key.startswith(spelled) and value
        }

    story: list[tuple[Observation, set[str]]] = [
        (CONNECTING, {"connecting"}),
        (CONNECTED, {"working"}),
        (Waiting(account="alice", idling=True), {"idling"}),
        (Woken(account="alice", source=WakeSource.PUSH), {"working"}),
        (Waiting(account="alice", idling=False), {"waiting"}),
        (LOST, set()),
        (CONNECTING, {"connecting"}),
        (stands(State.PAUSED), set()),
    ]
    for seen, expected in story:
        scraped.sees(seen)
        assert open_now() == expected


def test_messages_are_counted_by_their_change_and_what_found_them(scraped: Scraped) -> None:
    scraped.sees(
        Mirrored(account="alice", mailbox="INBOX", found_by=FoundBy.BACKFILL, count=500),
        Mirrored(account="alice", mailbox="INBOX", found_by=FoundBy.PUSH, count=2),
        looked(WakeSource.PUSH),
        looked(WakeSource.RENEWAL),
    )
    assert scraped['messages_total{account="alice",change="new",found_by="backfill"}'] == 500
    assert scraped['messages_total{account="alice",change="new",found_by="push"}'] == 2
    assert scraped['messages_total{account="alice",change="expunged",found_by="push"}'] == 4
    assert scraped['messages_total{account="alice",change="flags",found_by="poll"}'] == 3
    assert scraped['messages_total{account="alice",change="moved",found_by="poll"}'] == 1
    assert scraped['fetched_bytes_total{account="alice"}'] == 10_000


def test_the_time_from_wake_to_commit_falls_into_its_bucket(scraped: Scraped) -> None:
    for seconds in (0.0005, 0.003, 0.003, 59, 1000):
        scraped.sees(looked(WakeSource.PUSH, wake_to_commit=seconds))
    scraped.sees(looked(WakeSource.POLL))
    buckets = {bound: scraped[f'wake_to_commit_seconds_bucket{{account="alice",le="{bound}"}}'] for bound in (
        "0.001", "0.0025", "0.005", "30.0", "60.0", "+Inf"
    )}  # fmt: skip
    assert buckets == {"0.001": 1, "0.0025": 1, "0.005": 3, "30.0": 3, "60.0": 4, "+Inf": 5}
    assert scraped['wake_to_commit_seconds_sum{account="alice"}'] == pytest.approx(1059.0065)


def test_commits_are_timed_as_a_phase_and_as_the_store(scraped: Scraped) -> None:
    scraped.sees(Timed(account="alice", phase=Phase.COMMIT, seconds=0.004))
    scraped.sees(Timed(account="bob", phase=Phase.FETCH, seconds=0.02))
    assert scraped['sync_seconds_sum{phase="commit"}'] == 0.004
    assert scraped['sync_seconds_bucket{le="0.05",phase="fetch"}'] == 1
    assert scraped["store_commit_seconds_count"] == 1


def test_a_forgotten_account_leaves_no_series(scraped: Scraped) -> None:
    scraped.metrics.expect("alice", poll_interval=300)
    scraped.sees(*ONE_OF_EACH.values())
    scraped.health.forget("alice")
    scraped.metrics.forget("alice")
    scraped.metrics.forget("nobody")
    assert not [spelled for spelled in scraped.samples if 'account="' in spelled]


def test_without_the_account_label_numbers_are_put_together() -> None:
    scraped = Scraped(account_label=False)
    for account, state in (("alice", State.WATCHING), ("bob", State.WATCHING), ("carol", State.PARKED)):
        scraped.metrics.expect(account, poll_interval=300 if account == "alice" else 600)
        scraped.sees(stands(state, account=account), replace(looked(WakeSource.POLL), account=account))
    samples = scraped.samples
    assert not [spelled for spelled in samples if "account=" in spelled]
    assert samples['account_state{state="watching"}'] == samples["account_up"] == 2
    assert samples["health_score"] == 0
    assert samples["poll_interval_seconds"] == 600
    assert samples["fetched_bytes_total"] == 15_000
    assert samples['errors_total{class="other"}'] == 1
    assert samples["last_commit_timestamp_seconds"] == NOW.timestamp()


def test_without_the_account_label_a_counter_does_not_go_back_when_an_account_is_removed() -> None:
    scraped = Scraped(account_label=False)
    scraped.sees(looked(WakeSource.POLL), replace(looked(WakeSource.POLL), account="bob"))
    scraped.health.forget("bob")
    scraped.metrics.forget("bob")
    assert scraped["fetched_bytes_total"] == 10_000


def test_the_series_of_an_account_are_bounded_whatever_a_server_says(scraped: Scraped) -> None:
    scraped.metrics.expect("alice", poll_interval=300)
    scraped.sees(*ONE_OF_EACH.values())
    before = len(scraped.samples)
    for number in range(500):
        hostile = f'"\n\\{number}\x1b'
        scraped.sees(
            replace(looked(WakeSource.POLL), mailbox=hostile),
            MailboxTrouble(account="alice", mailbox=hostile, reason=hostile),
            Connected(account="alice", endpoint=hostile, seconds=1),
            StateChanged(account="alice", state=State.PARKED, failure_class=FailureClass.OTHER, reason=hostile),
        )
    assert len(scraped.samples) == before < 240


def test_an_account_costs_less_than_a_tenth_of_its_connection() -> None:
    scraped = Scraped()
    tracemalloc.start()
    try:
        for number in range(200):
            scraped.metrics.expect(f"account-{number}", poll_interval=300)
        octets, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert octets / 200 < 4096


def test_a_scrape_in_another_thread_is_no_danger_to_accounts_that_come_and_go(scraped: Scraped) -> None:
    done = threading.Event()
    failures: list[BaseException] = []

    def scrape() -> None:
        try:
            while not done.is_set():
                generate_latest(scraped.registry)
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=scrape)
    thread.start()
    for number in range(2000):
        scraped.sees(replace(CONNECTING, account=f"account-{number % 50}"))
        if number % 3 == 0:
            scraped.health.forget(f"account-{(number + 25) % 50}")
            scraped.metrics.forget(f"account-{(number + 25) % 50}")
    done.set()
    thread.join()
    assert failures == []


def test_alerts_are_counted_by_kind_and_outcome(scraped: Scraped) -> None:
    scraped.metrics.alerted("trouble", "failed")
    scraped.metrics.alerted("trouble", "sent")
    scraped.metrics.alerted("resolved", "sent")
    assert scraped['alerts_total{kind="trouble",outcome="failed"}'] == 1
    assert scraped['alerts_total{kind="resolved",outcome="sent"}'] == 1


def test_the_build_is_told(scraped: Scraped) -> None:
    spelled = [key for key in scraped.samples if key.startswith("build_info")]
    assert len(spelled) == 1
    assert f'version="{idlepush.__version__}"' in spelled[0]


def test_the_sizes_of_the_stores_files_are_shown(scraped: Scraped, tmp_path: Path) -> None:
    assert "store_free_bytes" not in scraped.samples
    (tmp_path / "mirror.db").write_bytes(b"x" * 4096)
    scraped.metrics.measure_files(tmp_path / "mirror.db")
    assert scraped['store_bytes{part="db"}'] == 4096
    assert scraped['store_bytes{part="wal"}'] == 0
    assert scraped["store_free_bytes"] > 0
    scraped.metrics.measure_files(tmp_path / "gone" / "mirror.db")
    assert "store_free_bytes" not in scraped.samples


@virtual_time
async def test_the_loops_lag_is_the_longest_of_the_last_minute() -> None:
    scraped = Scraped()
    loop = cast("VirtualLoop", asyncio.get_running_loop())
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(scraped.metrics.measure_lag)
        await anyio.sleep(1.1)
        assert scraped["loop_lag_seconds"] < 0.01
        loop._now += 3  # something held the loop up for so long
        await anyio.sleep(1)
        assert 2.5 < scraped["loop_lag_seconds"] <= 3
        await anyio.sleep(30)
        assert 2.5 < scraped["loop_lag_seconds"] <= 3
        await anyio.sleep(31)
        assert scraped["loop_lag_seconds"] < 0.01
        tasks.cancel_scope.cancel()


@virtual_time
async def test_the_position_follows_the_log() -> None:
    scraped, store = Scraped(), MemoryStore(clock=lambda: NOW)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(scraped.metrics.follow_log, store)
        for number in range(5):
            await store.set_account(AccountRow(name=f"a{number}", state="starting", since=NOW + timedelta(hours=1)))
        await anyio.sleep(2)
        assert scraped["event_position"] == 5
        tasks.cancel_scope.cancel()
