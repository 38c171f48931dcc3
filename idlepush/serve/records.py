"""What the answers look like, for the OpenAPI document: the records themselves are made by `record()` of the rows.

Tests hold every answer to these.
"""

from datetime import datetime
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from idlepush.engine.observations import State
from idlepush.errors import FailureClass
from idlepush.sync.events import EventType, FoundBy
from idlepush.telemetry.health import Level


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid")


class ProblemDocument(_Record):
    """What went wrong (RFC 9457)."""

    model_config = ConfigDict(extra="allow")
    type: str
    title: str
    status: int
    detail: str


class Probe(_Record):
    """Whether it is so, and why."""

    status: Literal["ok", "unavailable"]
    reason: str


class Account(_Record):
    """How an account stands; `class` and `reason` are there unless it is watched or polled."""

    account: str
    state: State
    since: datetime
    failure_class: Annotated[FailureClass | None, Field(alias="class")]
    reason: str | None
    health: Level
    health_score: Annotated[int, Field(ge=0, le=100)]
    mailboxes: int
    messages: int
    watch: Literal["notify", "idle", "poll"] | None
    backfill_remaining: int
    backfill_eta_seconds: int | None
    last_push: datetime | None
    last_poll: datetime | None
    last_commit: datetime | None
    last_audit: datetime | None
    throttled_until: datetime | None
    running: bool


class MailboxRecord(_Record):
    """How a mailbox stands in the mirror."""

    account: str
    mailbox: str
    state: Literal["ok", "gone", "unselectable", "quarantined"]
    uidvalidity: int | None
    messages: int
    backfill_remaining: int
    looked_at: datetime | None
    audited_at: datetime | None


class Person(_Record):
    """One address of a header."""

    name: str | None
    address: str | None


class Attachment(_Record):
    """What is attached: `name` as its sender spelled it, never to be used as a path; `size` about when decoded."""

    name: str | None
    type: str
    size: int


class Message(_Record):
    """A message; `id` is stable, and the same in events."""

    id: str
    account: str
    mailbox: str
    uidvalidity: int
    uid: int
    message_id: str | None
    subject: str | None
    sender: Annotated[list[Person], Field(alias="from")]
    to: list[Person]
    date: datetime | None
    internal_date: datetime | None
    size: int
    flags: list[str]
    modseq: int | None
    found_by: FoundBy
    truncated: bool
    complete: bool
    sha256: str | None
    email_id: str | None
    thread_id: str | None
    labels: list[str] | None
    attachments: list[Attachment]


class WholeMessage(Message):
    """A message by itself; `references` are the Message-IDs it names, those it answers last."""

    references: list[str]


class EventRecord(_Record):
    """A line of the event log; which further keys there are depends on the type."""

    model_config = ConfigDict(extra="allow")
    position: int
    time: datetime
    type: EventType
    id: str | None
    account: str
    mailbox: str | None
    uidvalidity: int | None
    uid: int | None


class HealthRecord(_Record):
    """How well an account is, and what is wrong with it, the worst first."""

    account: str
    score: Annotated[int, Field(ge=0, le=100)]
    health: Level
    reasons: list[str]


class AccountPage(_Record):
    """Accounts, by name."""

    items: list[Account]
    next: str | None


class MailboxPage(_Record):
    """Mailboxes, by name."""

    items: list[MailboxRecord]
    next: str | None


class MessagePage(_Record):
    """Messages."""

    items: list[Message]
    next: str | None


class EventPage(_Record):
    """Events, in the order of their positions."""

    items: list[EventRecord]
    next: int | None


class HealthPage(_Record):
    """The health of all: `health` and `score` are those of the account that is worst."""

    health: Level
    score: Annotated[int, Field(ge=0, le=100)]
    items: list[HealthRecord]
    next: str | None


class Reloaded(_Record):
    """The configuration was read again."""

    accounts: int
