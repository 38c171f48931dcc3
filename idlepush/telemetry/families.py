"""The families of metrics: the catalogue, with every closed label set.

Base units, `_total` on counters. No label has a value from outside but `account`, whose names the configuration
bounds. Phases are timed for all accounts together: ten buckets times six phases for each of them would be most of all
series, and it is hosts and disks that are slow, not accounts. `idlepush history` has the phases of one account.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from idlepush.engine.observations import Feature, Phase, WakeSource
from idlepush.errors import FailureClass
from idlepush.sync.events import FoundBy
from idlepush.telemetry.series import Counter, Gauge, Histogram

PREFIX: Final = "idlepush_"

WAKE_BUCKETS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
PHASE_BUCKETS: Final = (0.001, 0.005, 0.01, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
COMMIT_BUCKETS: Final = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 5, 30)

OK: Final = "ok"
ASKED: Final = "asked"
"""A session that was ended on purpose."""
MAILBOX_CHANGES: Final = ("gone", "renamed", "doubted")
CONNECTION_STATES: Final = ("connecting", "working", "idling", "waiting")
SINKS: Final = ("maildir",)
DELIVERY_OUTCOMES: Final = ("ok", "failed")
ALERT_KINDS: Final = ("trouble", "resolved")
ALERT_OUTCOMES: Final = ("sent", "failed")

_CLASSES: Final = [(each.value,) for each in FailureClass]

# What is found at a look is new by what was wrong (`Mirrored` says), and all else by what led to the look.
FOUND_BY: Final[Mapping[WakeSource, FoundBy]] = {
    WakeSource.PUSH: FoundBy.PUSH,
    WakeSource.NOTIFY: FoundBy.PUSH,
    WakeSource.POLL: FoundBy.POLL,
    WakeSource.RENEWAL: FoundBy.POLL,
    WakeSource.RECONNECT: FoundBy.RECONNECT,
    WakeSource.OPERATOR: FoundBy.POLL,
    WakeSource.BACKLOG: FoundBy.POLL,
}
_CHANGES: Final = [("new", found_by.value) for found_by in FoundBy] + [
    (change, found_by)
    for change in ("moved", "flags", "expunged")
    for found_by in dict.fromkeys(found_by.value for found_by in (*FOUND_BY.values(), FoundBy.AUDIT))
]


class Families:
    """Every family there is; `counted` are those that are kept, and begun and ended with an account."""

    def __init__(self) -> None:
        self.counted: list[Counter | Histogram] = []

        def counter(
            name: str, text: str, labels: Sequence[str] = (), values: Iterable[tuple[str, ...]] = ((),)
        ) -> Counter:
            made = Counter(PREFIX + name, text, labels, values)
            self.counted.append(made)
            return made

        self.connects = counter(
            "connects_total", "Sessions that were to be opened, by how it ended.", ["outcome"], [(OK,), *_CLASSES]
        )
        self.reconnects = counter(
            "reconnects_total",
            "Sessions opened after another one, by what had ended that.",
            ["reason"],
            [(ASKED,), *_CLASSES],
        )
        self.errors = counter("errors_total", "Failures that stopped an account's loop.", ["class"], _CLASSES)
        self.mailbox_errors = counter("mailbox_errors_total", "Looks at a mailbox that the server refused.")
        self.bugs = counter("bugs_total", "Errors of idlepush itself; the log has their tracebacks.")
        self.store_errors = counter("store_errors_total", "Failures to write to the store.")
        self.wakes = counter(
            "wakes_total", "What led to a look.", ["source"], [(source.value,) for source in WakeSource]
        )
        self.messages = counter(
            "messages_total", "Changes of messages, by what found them.", ["change", "found_by"], _CHANGES
        )
        self.audits = counter("audits_total", "Times everything of a mailbox was compared.")
        self.audit_found = counter(
            "audit_found_total",
            "Messages that an audit found to differ, though push and poll had told of nothing.",
            ["what"],
            [("missing",), ("extra",), ("flags",)],
        )
        self.fetched = counter("fetched_bytes_total", "Octets received from the server while looking.")
        self.renewals = counter("idle_renewals_total", "Times IDLE was issued again in time.")
        self.silent = counter("silent_idle_total", "Looks that found news which IDLE had not told.")
        self.distrusted = counter("idle_distrusted_total", "Times IDLE was given up for a while.")
        self.features_distrusted = counter(
            "features_distrusted_total",
            "Times a capability was latched off because the server broke what it promises.",
            ["feature"],
            [(feature.value,) for feature in Feature],
        )
        self.mailbox_changes = counter(
            "mailbox_changes_total",
            "Mailboxes that went or were renamed, and lists of mailboxes that were not believed.",
            ["change"],
            [(change,) for change in MAILBOX_CHANGES],
        )
        self.resets = counter("mailbox_resets_total", "Mailboxes whose UIDVALIDITY changed.")
        self.budgets = counter("budgets_spent_total", "Days on which older mail had to wait for the next one.")
        self.quarantined = counter("quarantined_total", "Messages that could not be had and were set aside.")
        self.alerts_heard = counter("server_alerts_total", "Texts marked ALERT by the server.")
        self.wake_to_commit = Histogram(
            PREFIX + "wake_to_commit_seconds", "From a push to the commit of what it told of.", WAKE_BUCKETS
        )
        self.sync = Histogram(
            PREFIX + "sync_seconds",
            "How long each phase of a synchronize took, for all accounts together.",
            PHASE_BUCKETS,
            ["phase"],
            [(phase.value,) for phase in Phase],
            per_account=False,
        )
        self.commits = Histogram(
            PREFIX + "store_commit_seconds", "How long commits took.", COMMIT_BUCKETS, per_account=False
        )
        self.alerts = Counter(
            PREFIX + "alerts_total",
            "Alerts for people, by what became of them.",
            ["kind", "outcome"],
            [(kind, outcome) for kind in ALERT_KINDS for outcome in ALERT_OUTCOMES],
            per_account=False,
        )
        self.counted += [self.wake_to_commit, self.sync, self.commits, self.alerts]
        self.deliveries = Counter(
            PREFIX + "sink_deliveries_total",
            "Events that sinks took, and times that they failed.",
            ["sink", "outcome"],
            [(sink, outcome) for sink in SINKS for outcome in DELIVERY_OUTCOMES],
        )
        self.sink_lag = Gauge(
            PREFIX + "sink_lag_events", "Events of the log that a sink has yet to see.", ["sink"], together=max
        )
        self.up = Gauge(PREFIX + "account_up", "1 where the account is watched or polled.", together=sum)
        self.state = Gauge(PREFIX + "account_state", "1 for the state the account is in.", ["state"], together=sum)
        self.score = Gauge(PREFIX + "health_score", "From 0 (parked) to 100 (all is well).", together=min)
        self.open = Gauge(PREFIX + "connections", "IMAP connections, by what they are doing.", ["state"], together=sum)
        self.interval = Gauge(PREFIX + "poll_interval_seconds", "How often it is polled at least.", together=max)
        self.backlog = Gauge(
            PREFIX + "backfill_remaining_messages", "Messages known of and not mirrored yet.", together=sum
        )
        self.eta = Gauge(
            PREFIX + "backfill_eta_seconds", "Until what is not mirrored yet will be, at the pace so far.", together=max
        )
        self.last_commit = Gauge(
            PREFIX + "last_commit_timestamp_seconds", "When something of the account was committed last.", together=max
        )
        self.last_audit = Gauge(
            PREFIX + "last_audit_timestamp_seconds", "When everything of a mailbox was compared last.", together=min
        )
        self.last_look = Gauge(
            PREFIX + "last_look_timestamp_seconds", "When a mailbox of the account was looked at last.", together=min
        )
        self.position = Gauge(PREFIX + "event_position", "The position of the log's last event.")
        self.lag = Gauge(PREFIX + "loop_lag_seconds", "The longest that the event loop was held up in the last minute.")
        self.octets = Gauge(PREFIX + "store_bytes", "The size of the store's files.", ["part"])
        self.free = Gauge(PREFIX + "store_free_bytes", "Space left where the store is.")
        self.build = Gauge(PREFIX + "build_info", "1; the labels say what is running.", ["version", "python"])
