"""Metrics: the observations as numbers for Prometheus.

    observations ─▶ counters and histograms, a row for each account (`series.py`)
    health       ─▶ gauges, read off at each scrape: how an account stands is folded once, in `health.py`
    two tasks    ─▶ the event loop's lag, the log's position

`families.py` is the catalogue.
"""

import platform
import shutil
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import Final, assert_never

import anyio
from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

import idlepush
from idlepush.engine.observations import (
    Audited,
    Backfilling,
    BudgetSpent,
    BugFound,
    Connected,
    ConnectFailed,
    Connecting,
    Delivered,
    Disconnected,
    FeatureDistrusted,
    IdleDistrusted,
    IdleRenewed,
    IdleWasSilent,
    LaneClosed,
    LaneOpened,
    LaneWorked,
    Looked,
    MailboxesDoubted,
    MailboxGone,
    MailboxRenamed,
    MailboxReset,
    MailboxTrouble,
    Mirrored,
    Observation,
    Phase,
    Quarantined,
    Restarting,
    ServerAlert,
    SinkReady,
    SinkStopped,
    SinkTrouble,
    State,
    StateChanged,
    StoreTrouble,
    Timed,
    Waiting,
    Woken,
)
from idlepush.errors import FailureClass, StoreError
from idlepush.store.base import Reader
from idlepush.sync.events import FoundBy
from idlepush.telemetry.families import ASKED, CONNECTION_STATES, FOUND_BY, OK, Families
from idlepush.telemetry.health import AccountHealth, Health
from idlepush.telemetry.series import SERVICE, Gauge, Numbers

LAG_EVERY: Final = 0.25
LAG_WINDOW: Final = 60.0
POSITION_EVERY: Final = 1.0
STORE_PAUSE: Final = 15.0

_AT_WORK: Final = frozenset({State.WATCHING, State.POLLING})
_WITHOUT_CONNECTION: Final = frozenset({State.BACKING_OFF, State.THROTTLED, State.PARKED, State.PAUSED})


def _per_account(account: AccountHealth, number: float) -> tuple[tuple[str, ...], float]:
    return (account.account,), number


class Metrics(Collector):
    """A reader of observations that Prometheus may scrape: registers itself with *registry*."""

    def __init__(self, registry: CollectorRegistry, *, health: Health, account_label: bool = True) -> None:
        self._health = health
        self._by_account = account_label
        self._poll_intervals: dict[str, float] = {}
        self._connections: dict[str, str] = {}
        self._lanes: set[str] = set()
        """Accounts whose second connection is open."""
        self._ended: dict[str, str] = {}
        self._lags: deque[tuple[float, float]] = deque()
        self._database: Path | None = None
        self._cursors: Callable[[], Iterable[tuple[str, str, int]]] = tuple
        self.position = 0
        """The log's last position; `follow_log` keeps it."""
        self._families = Families()
        registry.register(self)
        ProcessCollector(registry=registry)

    # Accounts

    def expect(self, account: str, *, poll_interval: float) -> None:
        """Begin *account*'s series, at zero, before anything is seen of it."""
        self._poll_intervals[account] = poll_interval
        self._begin(account)

    def forget(self, account: str) -> None:
        """End *account*'s series: it was removed, and its loop has ended."""
        for known in (self._poll_intervals, self._connections, self._ended):
            known.pop(account, None)
        self._lanes.discard(account)
        for each in (*self._families.counted, self._families.deliveries):
            each.rows.forget(account)

    def _begin(self, account: str) -> None:
        if account not in self._connections:
            self._connections[account] = ""
            for each in self._families.counted:
                each.rows.open(account)

    # Observations

    def __call__(self, seen: Observation) -> None:  # noqa: C901, PLR0912, PLR0915 - a case for each fact
        """Count *seen*."""
        account = seen.account
        self._begin(account)
        match seen:
            case StateChanged():
                self._stand(seen)
            case Connecting():
                self._connections[account] = "connecting"
            case Connected():
                self._connected(account)
            case Disconnected():
                self._connections[account] = ""
                self._ended[account] = seen.failure_class or ASKED
            case ConnectFailed():
                if self._connections[account] == "connecting":  # else it could be opened, and was of no use
                    self._connections[account] = ""
                    self._families.connects.add(account, seen.failure_class)
            case Restarting():
                self._families.errors.add(account, seen.failure_class)
                if account in self._ended:  # a session may be ended by what is no fault of the connection
                    self._ended[account] = seen.failure_class
            case BugFound():
                self._families.bugs.add(account)
            case Woken():
                self._connections[account] = "working"
                self._families.wakes.add(account, seen.source)
            case Waiting():
                self._connections[account] = "idling" if seen.idling else "waiting"
            case Timed():
                self._time(seen)
            case Looked():
                self._look(seen)
            case Mirrored():
                self._families.messages.add(account, "new", seen.found_by, by=seen.count)
            case Audited():
                self._audit(seen)
            case MailboxReset():
                self._families.resets.add(account)
            case MailboxGone():
                self._families.mailbox_changes.add(account, "gone")
            case MailboxRenamed():
                self._families.mailbox_changes.add(account, "renamed")
            case MailboxesDoubted():
                self._families.mailbox_changes.add(account, "doubted")
            case MailboxTrouble():
                self._families.mailbox_errors.add(account)
            case Quarantined():
                self._families.quarantined.add(account)
            case IdleRenewed():
                self._families.renewals.add(account)
            case IdleWasSilent():
                self._families.silent.add(account)
            case IdleDistrusted():
                self._families.distrusted.add(account)
            case FeatureDistrusted():
                self._families.features_distrusted.add(account, seen.feature)
            case ServerAlert():
                self._families.alerts_heard.add(account)
            case StoreTrouble():
                self._families.store_errors.add(account)
            case Delivered():
                self._delivered(seen.account, seen.sink, "ok", seen.count)
            case SinkTrouble():
                self._delivered(seen.account, seen.sink, "failed", 1)
            case SinkReady() | SinkStopped():
                pass  # health knows what is in trouble
            case Backfilling():
                pass  # health adds it up
            case BudgetSpent():
                self._families.budgets.add(account)
            case LaneOpened():
                self._lanes.add(account)
            case LaneWorked():
                self._families.fetched.add(account, by=seen.octets)
            case LaneClosed():
                self._lanes.discard(account)
            case _:
                assert_never(seen)

    def _stand(self, seen: StateChanged) -> None:
        if seen.state in _WITHOUT_CONNECTION:
            self._connections[seen.account] = ""
        # Whoever is parked does not restart; every other failure is counted by its Restarting.
        if seen.state is State.PARKED:
            self._families.errors.add(seen.account, seen.failure_class or FailureClass.OTHER)

    def _connected(self, account: str) -> None:
        self._connections[account] = "working"
        self._families.connects.add(account, OK)
        if account in self._ended:
            self._families.reconnects.add(account, self._ended.pop(account))

    def _audit(self, seen: Audited) -> None:
        self._families.audits.add(seen.account)
        for what, count in (("missing", seen.missing), ("extra", seen.extra), ("flags", seen.flags)):
            self._families.audit_found.add(seen.account, what, by=count)
        # What is missing is told by Mirrored once it is here.
        for change, count in (("expunged", seen.extra), ("flags", seen.flags)):
            self._families.messages.add(seen.account, change, FoundBy.AUDIT, by=count)

    def _time(self, seen: Timed) -> None:
        self._families.sync.observe(SERVICE, seen.phase, value=seen.seconds)
        if seen.phase is Phase.COMMIT:
            self._families.commits.observe(SERVICE, value=seen.seconds)

    def _look(self, seen: Looked) -> None:
        found_by = FOUND_BY[seen.source]
        # `new` is told by Mirrored, commit by commit.
        for change, count in (("moved", seen.moved), ("flags", seen.flags), ("expunged", seen.expunged)):
            if count:
                self._families.messages.add(seen.account, change, found_by, by=count)
        self._families.fetched.add(seen.account, by=seen.octets)
        if seen.wake_to_commit is not None:
            self._families.wake_to_commit.observe(seen.account, value=seen.wake_to_commit)

    def _delivered(self, account: str, sink: str, outcome: str, count: int) -> None:
        # Not with all others, when an account begins: most accounts have no sink.
        self._families.deliveries.rows.open(account)
        self._families.deliveries.add(account, sink, outcome, by=count)

    def alerted(self, kind: str, outcome: str) -> None:
        """Count an alert, of `ALERT_KINDS`, that ended as one of `ALERT_OUTCOMES`."""
        self._families.alerts.add(SERVICE, kind, outcome)

    # What is measured

    def measure_files(self, database: Path) -> None:
        """Show the sizes of the store's files from now on."""
        self._database = database

    def measure_sinks(self, cursors: Callable[[], Iterable[tuple[str, str, int]]]) -> None:
        """Show how far behind the log each sink is: *cursors* are (account, sink, position)."""
        self._cursors = cursors

    async def measure_lag(self) -> None:
        """See how late the event loop wakes those that sleep. For ever."""
        while True:
            due = anyio.current_time() + LAG_EVERY
            await anyio.sleep(LAG_EVERY)
            now = anyio.current_time()
            self._lags.append((now, max(0.0, now - due)))
            while self._lags[0][0] < now - LAG_WINDOW:
                self._lags.popleft()

    async def follow_log(self, store: Reader) -> None:
        """Keep `position`, without a read for every commit. For ever."""
        while True:
            try:
                self.position = await store.position()
                await anyio.sleep(POSITION_EVERY)
                await store.wait_beyond(self.position)
            except StoreError:
                await anyio.sleep(STORE_PAUSE)  # whoever writes tells of it

    # Scraping

    def describe(self) -> Iterable[Metric]:
        """Name the families; for the registry, which refuses two of a name."""
        return self.collect()

    def collect(self) -> Iterator[Metric]:
        """Yield everything as it stands. Safe in a thread other than the event loop's."""
        for counted in self._families.counted:
            yield counted.family(by_account=self._by_account)
        yield self._families.deliveries.family(by_account=self._by_account)
        accounts = list(self._health.accounts.values())
        for gauge, numbers in self._gauges(accounts):
            yield gauge.family(numbers, by_account=self._by_account)

    def _gauges(self, accounts: Sequence[AccountHealth]) -> Iterator[tuple[Gauge, Numbers]]:
        families = self._families
        yield families.up, [_per_account(one, one.state in _AT_WORK) for one in accounts]
        yield families.state, [((one.account, state.value), one.state is state) for one in accounts for state in State]
        yield families.score, [_per_account(one, one.health_score) for one in accounts]
        yield families.backlog, [_per_account(one, one.backfill_remaining) for one in accounts]
        yield families.eta, [_per_account(one, one.backfill_eta) for one in accounts if one.backfill_eta is not None]
        yield families.last_commit, _moments((one, one.last_commit) for one in accounts)
        yield families.last_audit, _moments((one, one.last_audit) for one in accounts)
        yield families.last_look, _moments((one, one.last_look) for one in accounts)
        connections = list(self._connections.items())
        yield (
            families.open,
            [
                ((who, state), (doing == state) + (state == "working" and who in self._lanes))
                for who, doing in connections
                for state in CONNECTION_STATES
            ],
        )
        yield families.interval, [((account,), seconds) for account, seconds in list(self._poll_intervals.items())]
        yield families.position, [((), self.position)]
        behind = [((account, sink), max(0, self.position - at)) for account, sink, at in list(self._cursors())]
        yield families.sink_lag, behind
        yield families.lag, [((), max((lag for _, lag in list(self._lags)), default=0.0))]
        yield families.octets, _sizes(self._database)
        yield families.free, _free_space(self._database)
        yield families.build, [((idlepush.__version__, platform.python_version()), 1)]


def _moments(when: Iterable[tuple[AccountHealth, datetime | None]]) -> Numbers:
    return [_per_account(one, moment.timestamp()) for one, moment in when if moment is not None]


def _sizes(database: Path | None) -> Numbers:
    """The files are only looked at from outside: whoever opened them could drop SQLite's locks."""
    if database is None:
        return
    for part, file in (("db", database), ("wal", database.with_name(database.name + "-wal"))):
        try:
            octets = file.stat().st_size
        except OSError:
            octets = 0
        yield (part,), octets


def _free_space(database: Path | None) -> Numbers:
    if database is not None:
        try:
            yield (), shutil.disk_usage(database.parent).free
        except OSError:
            return
