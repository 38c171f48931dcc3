"""What can be observed of the engine: passing, typed facts for logs, metrics, health, alerts and systemd.

Each class carries the name of its log event. A new fact is a class here and a case in each reader that cares; nothing
in the engine knows who reads. No fact holds a secret or a message's text.
"""

import traceback
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import ClassVar

from idlepush.errors import FailureClass
from idlepush.sync.events import FoundBy


class State(StrEnum):
    """How an account stands, as `contract.md` names it."""

    STARTING = "starting"
    WATCHING = "watching"
    POLLING = "polling"
    THROTTLED = "throttled"
    BACKING_OFF = "backing_off"
    PARKED = "parked"
    PAUSED = "paused"


class Phase(StrEnum):
    """A part of the work that is timed."""

    CONNECT = "connect"
    LOGIN = "login"
    SELECT = "select"
    FETCH = "fetch"
    PARSE = "parse"
    COMMIT = "commit"


class WakeSource(StrEnum):
    """What led to a look."""

    PUSH = "push"
    NOTIFY = "notify"
    POLL = "poll"
    RENEWAL = "renewal"
    RECONNECT = "reconnect"
    OPERATOR = "operator"
    BACKLOG = "backlog"  # the second lane is done with a mailbox


class Feature(StrEnum):
    """A capability that may be latched off."""

    QRESYNC = "qresync"
    CONDSTORE = "condstore"
    NOTIFY = "notify"


@dataclass(frozen=True, slots=True, kw_only=True)
class StateChanged:
    """An account stands differently now."""

    event: ClassVar[str] = "account.state"
    account: str
    state: State
    failure_class: FailureClass | None = None
    reason: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Connecting:
    """A session is about to be opened, as soon as the login limit allows it."""

    event: ClassVar[str] = "session.opening"
    account: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Connected:
    """A session was opened."""

    event: ClassVar[str] = "session.opened"
    account: str
    endpoint: str
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Disconnected:
    """A session ended; `failure_class` is None where it was ended on purpose."""

    event: ClassVar[str] = "session.ended"
    account: str
    failure_class: FailureClass | None = None
    reason: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectFailed:
    """No session could be opened."""

    event: ClassVar[str] = "session.failed"
    account: str
    failure_class: FailureClass
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Restarting:
    """The account's loop ended and is started again in `delay` seconds."""

    event: ClassVar[str] = "account.restarting"
    account: str
    failure_class: FailureClass
    reason: str
    delay: float


@dataclass(frozen=True, slots=True, kw_only=True)
class BugFound:
    """An error that is ours; `trace` is its traceback, without values."""

    event: ClassVar[str] = "account.bug"
    account: str
    trace: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Woken:
    """Something said "look"."""

    event: ClassVar[str] = "account.woken"
    account: str
    source: WakeSource


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiting:
    """All is done: the session waits, `idling` or for the next poll; `notified` of the other mailboxes, too."""

    event: ClassVar[str] = "account.waiting"
    account: str
    idling: bool
    notified: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Timed:
    """A phase of a look took so long."""

    event: ClassVar[str] = "look.phase"
    account: str
    phase: Phase
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Looked:
    """A look at a mailbox ended; `finished` unless a backlog is still open. `wake_to_commit`: seconds, of a push."""

    event: ClassVar[str] = "mailbox.looked"
    account: str
    mailbox: str
    source: WakeSource
    seconds: float
    new: int = 0
    moved: int = 0
    flags: int = 0
    expunged: int = 0
    octets: int = 0
    remaining: int = 0
    finished: bool = True
    wake_to_commit: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Mirrored:
    """Messages were committed."""

    event: ClassVar[str] = "messages.mirrored"
    account: str
    mailbox: str
    found_by: FoundBy
    count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Backfilling:
    """A backlog is being worked off; `total` messages were in it when it was surveyed, `remaining` still are.

    At the pace so far it is in after `eta` seconds.
    """

    event: ClassVar[str] = "mailbox.backfilling"
    account: str
    mailbox: str
    remaining: int
    total: int
    eta: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class LaneOpened:
    """A second connection was opened, for a backlog."""

    event: ClassVar[str] = "lane.opened"
    account: str


@dataclass(frozen=True, slots=True, kw_only=True)
class LaneWorked:
    """The second connection has worked on a mailbox's backlog for a while."""

    event: ClassVar[str] = "lane.worked"
    account: str
    mailbox: str
    seconds: float
    octets: int


@dataclass(frozen=True, slots=True, kw_only=True)
class LaneClosed:
    """The second connection is closed, or could not be opened; without a reason, the backlog is in."""

    event: ClassVar[str] = "lane.closed"
    account: str
    reason: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class BudgetSpent:
    """The account has received what it may in a day: older messages wait for the next."""

    event: ClassVar[str] = "budget.spent"
    account: str
    octets: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Audited:
    """Everything of a mailbox was compared; what differed had been missed by push and poll, and is repaired."""

    event: ClassVar[str] = "mailbox.audited"
    account: str
    mailbox: str
    missing: int = 0
    extra: int = 0
    flags: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class MailboxReset:
    """The mailbox's UIDs mean something else now."""

    event: ClassVar[str] = "mailbox.reset"
    account: str
    mailbox: str


@dataclass(frozen=True, slots=True, kw_only=True)
class MailboxGone:
    """A mailbox that was mirrored is not there any more, or cannot be selected (`state`)."""

    event: ClassVar[str] = "mailbox.gone"
    account: str
    mailbox: str
    state: str


@dataclass(frozen=True, slots=True, kw_only=True)
class MailboxRenamed:
    """A mailbox that was mirrored as `before` is called `mailbox` now."""

    event: ClassVar[str] = "mailbox.renamed"
    account: str
    mailbox: str
    before: str


@dataclass(frozen=True, slots=True, kw_only=True)
class MailboxesDoubted:
    """The list of mailboxes could not be had, or is not believed: those known before are watched on."""

    event: ClassVar[str] = "mailboxes.doubted"
    account: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class MailboxTrouble:
    """A mailbox cannot be looked at; the others go on."""

    event: ClassVar[str] = "mailbox.trouble"
    account: str
    mailbox: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Quarantined:
    """A message could not be had and was set aside."""

    event: ClassVar[str] = "message.quarantined"
    account: str
    mailbox: str
    uid: int
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class IdleRenewed:
    """IDLE was issued again in time."""

    event: ClassVar[str] = "idle.renewed"
    account: str


@dataclass(frozen=True, slots=True, kw_only=True)
class IdleWasSilent:
    """A look found news that IDLE should have told: push is distrusted."""

    event: ClassVar[str] = "idle.silent"
    account: str
    mailbox: str


@dataclass(frozen=True, slots=True, kw_only=True)
class IdleDistrusted:
    """IDLE does not work here; the account is polled until it is tried again."""

    event: ClassVar[str] = "idle.distrusted"
    account: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class FeatureDistrusted:
    """The server was seen to break what a capability promises: the next best way is gone for a while."""

    event: ClassVar[str] = "feature.distrusted"
    account: str
    feature: Feature
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerAlert:
    """The server wants a person to read this (RFC 9051, ALERT)."""

    event: ClassVar[str] = "server.alert"
    account: str
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreTrouble:
    """The store could not be written; fetching stops until it can."""

    event: ClassVar[str] = "store.trouble"
    account: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SinkReady:
    """A sink takes events, from here on or again."""

    event: ClassVar[str] = "sink.ready"
    account: str
    sink: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivered:
    """A sink took events."""

    event: ClassVar[str] = "sink.delivered"
    account: str
    sink: str
    count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SinkTrouble:
    """A sink could not take events; it begins again soon. The mirror goes on."""

    event: ClassVar[str] = "sink.trouble"
    account: str
    sink: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SinkStopped:
    """A sink is not configured any more."""

    event: ClassVar[str] = "sink.stopped"
    account: str
    sink: str


Observation = (
    StateChanged
    | Connecting
    | Connected
    | Disconnected
    | ConnectFailed
    | Restarting
    | BugFound
    | Woken
    | Waiting
    | Timed
    | Looked
    | Mirrored
    | Backfilling
    | LaneOpened
    | LaneWorked
    | LaneClosed
    | BudgetSpent
    | Audited
    | MailboxReset
    | MailboxGone
    | MailboxRenamed
    | MailboxesDoubted
    | MailboxTrouble
    | Quarantined
    | IdleRenewed
    | IdleWasSilent
    | IdleDistrusted
    | FeatureDistrusted
    | ServerAlert
    | StoreTrouble
    | SinkReady
    | Delivered
    | SinkTrouble
    | SinkStopped
)
Observe = Callable[[Observation], None]


def trace_of(bug: BaseException) -> str:
    """Spell a traceback without the values in its message: those may come from outside, or be secret."""
    lines = traceback.format_tb(bug.__traceback__)
    return "".join(lines) + type(bug).__name__
