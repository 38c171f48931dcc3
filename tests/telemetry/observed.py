"""Observations to begin with: one of each kind, all of `alice`."""

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
    Feature,
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
    WakeSource,
    Woken,
)
from idlepush.errors import FailureClass
from idlepush.sync.events import FoundBy


def stands(state: State, failure_class: FailureClass | None = None, account: str = "alice") -> StateChanged:
    return StateChanged(account=account, state=state, failure_class=failure_class, reason="reason")


def looked(source: WakeSource, *, wake_to_commit: float | None = None) -> Looked:
    return Looked(
        account="alice", mailbox="INBOX", source=source, seconds=0.2, new=2, moved=1, flags=3, expunged=4, octets=5000,
        wake_to_commit=wake_to_commit,
    )  # fmt: skip


LOST = Disconnected(account="alice", failure_class=FailureClass.NETWORK, reason="gone")
RESTARTING = Restarting(account="alice", failure_class=FailureClass.NETWORK, reason="gone", delay=1.0)
CONNECTED = Connected(account="alice", endpoint="h:1", seconds=0.1)
CONNECTING = Connecting(account="alice")
SINK_TROUBLE = SinkTrouble(account="alice", sink="maildir", reason="full")

ONE_OF_EACH: dict[type[Observation], Observation] = {
    type(seen): seen
    for seen in (
        stands(State.WATCHING),
        CONNECTING,
        CONNECTED,
        LOST,
        ConnectFailed(account="alice", failure_class=FailureClass.TLS, reason="expired"),
        RESTARTING,
        BugFound(account="alice", trace="…"),
        Woken(account="alice", source=WakeSource.PUSH),
        Waiting(account="alice", idling=True),
        Timed(account="alice", phase=Phase.COMMIT, seconds=0.002),
        looked(WakeSource.PUSH, wake_to_commit=0.003),
        Mirrored(account="alice", mailbox="INBOX", found_by=FoundBy.PUSH, count=2),
        Backfilling(account="alice", mailbox="INBOX", remaining=7, total=9),
        BudgetSpent(account="alice", octets=2_500_000_000),
        LaneOpened(account="alice"),
        LaneWorked(account="alice", mailbox="INBOX", seconds=1.5, octets=1000),
        LaneClosed(account="alice", reason="the connection was lost"),
        Audited(account="alice", mailbox="INBOX", missing=1, extra=2, flags=3),
        MailboxReset(account="alice", mailbox="INBOX"),
        MailboxGone(account="alice", mailbox="Work", state="gone"),
        MailboxRenamed(account="alice", mailbox="Job", before="Work"),
        MailboxesDoubted(account="alice", reason="no"),
        MailboxTrouble(account="alice", mailbox="Work", reason="no"),
        Quarantined(account="alice", mailbox="INBOX", uid=3, reason="no"),
        IdleRenewed(account="alice"),
        IdleWasSilent(account="alice", mailbox="INBOX"),
        IdleDistrusted(account="alice", reason="no"),
        FeatureDistrusted(account="alice", feature=Feature.QRESYNC, reason="no"),
        ServerAlert(account="alice", text="closing"),
        StoreTrouble(account="alice", reason="full"),
        SINK_TROUBLE,
        SinkReady(account="alice", sink="maildir"),
        SinkStopped(account="alice", sink="maildir"),
        Delivered(account="alice", sink="maildir", count=3),
    )
}
