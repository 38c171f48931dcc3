"""The `Store` seam: what the engine and the outward faces need of a database, and the rows they see.

Every implementation passes `tests/store/conformance.py`. What all of them promise:

- `commit` applies a change set, its events and the checkpoint in ONE transaction, and returns when it is durable.
  Killed at any instruction, all of it is there or nothing.
- An event is made for each part of a change set that the mirror did not show already, and for nothing else;
  positions are 1, 2, 3, … without a hole, in the order of the commits.
- Raw bodies are kept byte for byte; equal ones once.
"""

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from typing import Protocol

from idlepush.imap.types import Flags, MailboxName, Uid
from idlepush.imap.uidset import UidSet
from idlepush.sync.changes import ChangeSet, NewMessage
from idlepush.sync.checkpoint import Checkpoint, Quarantine
from idlepush.sync.events import Event, Json, rfc3339
from idlepush.sync.message import Address
from idlepush.sync.query import Query


@dataclass(frozen=True, slots=True, kw_only=True)
class Mirror:
    """How one mailbox stands in the store, in its current generation."""

    generation: int
    checkpoint: Checkpoint
    alive: int
    """Live rows of this generation, parts included."""
    parts: Mapping[Uid, int] = field(default_factory=dict)
    """Octets kept of each body that is still coming."""
    quarantine: Mapping[Uid, Quarantine] = field(default_factory=dict)
    older_alive: int = 0
    """Live rows of older generations: above zero while a reset is being worked off."""
    looked_at: datetime | None = None
    """The last look that ended well."""
    audited_at: datetime | None = None
    """The last time that everything was compared."""


@dataclass(frozen=True, slots=True)
class Committed:
    """What a commit did: how many events of each kind it wrote, and the log's position after it."""

    position: int
    new: int = 0
    moved: int = 0
    flags: int = 0
    expunged: int = 0
    known: UidSet = UidSet()
    """Which UIDs of `known_again` were known; the others are to be fetched."""


@dataclass(frozen=True, slots=True)
class AttachmentRow:
    """What is attached to a message: `name` as its sender spelled it (never a path), `size` about when decoded."""

    name: str | None
    type: str
    size: int


@dataclass(frozen=True, slots=True)
class Twins:
    """Live rows of another mailbox that are like messages which have just arrived somewhere."""

    mailbox: MailboxName
    generation: int
    uidvalidity: int
    uids: UidSet


@dataclass(frozen=True, slots=True, kw_only=True)
class MessageRow:
    """A message as the outside sees it (`contract.md`, `idlepush messages`)."""

    id: str
    account: str
    mailbox: str
    uidvalidity: int
    uid: int
    message_id: str | None
    subject: str | None
    sender: tuple[Address, ...]
    to: tuple[Address, ...]
    date: datetime | None
    internal_date: datetime | None
    size: int
    flags: tuple[str, ...]
    modseq: int | None
    found_by: str
    truncated: bool
    complete: bool
    sha256: str | None
    email_id: str | None = None
    thread_id: str | None = None
    labels: tuple[str, ...] | None = None
    expunged: datetime | None = None
    attachments: tuple[AttachmentRow, ...] = ()
    """Known as soon as the message was indexed; one mirrored by its header has them at once."""

    def record(self) -> dict[str, Json]:
        """The line as `messages --json` and the HTTP interface show it."""
        return {
            "id": self.id,
            "account": self.account,
            "mailbox": self.mailbox,
            "uidvalidity": self.uidvalidity,
            "uid": self.uid,
            "message_id": self.message_id,
            "subject": self.subject,
            "from": [{"name": one.name, "address": one.address} for one in self.sender],
            "to": [{"name": one.name, "address": one.address} for one in self.to],
            "date": rfc3339(self.date),
            "internal_date": rfc3339(self.internal_date),
            "size": self.size,
            "flags": list(self.flags),
            "modseq": self.modseq,
            "found_by": self.found_by,
            "truncated": self.truncated,
            "complete": self.complete,
            "sha256": self.sha256,
            "email_id": self.email_id,
            "thread_id": self.thread_id,
            "labels": None if self.labels is None else list(self.labels),
            "attachments": [{"name": one.name, "type": one.type, "size": one.size} for one in self.attachments],
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class AccountRow:
    """An account as it was last stored."""

    name: str
    state: str
    since: datetime
    failure_class: str | None = None
    reason: str | None = None
    details: Mapping[str, Json] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class AlertRow:
    """What people were told of an account: that it has been in trouble since then, or that the trouble is over."""

    account: str
    resolved: bool
    since: datetime
    told: datetime
    failure_class: str | None = None
    reason: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class MailboxRow:
    """A mailbox as it stands in the store."""

    account: str
    name: str
    raw: bytes
    state: str
    uidvalidity: int | None
    messages: int
    remaining: int
    """An upper bound of the messages still in holes: the UIDs they span."""
    looked_at: datetime | None
    audited_at: datetime | None = None
    object_id: str | None = None
    """Its MAILBOXID (RFC 8474), where the server tells one: it stays when the name changes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sweep:
    """What retention may take away: bodies without a live row and rows expunged before these moments; None keeps."""

    bodies_before: datetime | None
    rows_before: datetime | None


class Reader(Protocol):
    """The reading half: may be open in many processes beside the one writer."""

    def messages(
        self,
        account: str | None = None,
        mailbox: MailboxName | None = None,
        *,
        limit: int | None = None,
        newest: bool = False,
        expunged: bool = False,
        after: str | None = None,
        query: Query | None = None,
    ) -> AsyncIterator[MessageRow]:
        """Yield rows by account, mailbox, UID; with *newest* the newest by internal date first.

        With *query* only the live ones that answer it, the newest first; of what was committed since the last `index`
        no word is found yet.

        Live ones, unless *expunged* asks for those that are gone (instead of the live ones). *after* is a message's
        `id`: only rows behind it in that order; KeyError before the first where there is no such row any more.
        """
        ...

    async def message(self, id: str) -> MessageRow | None:
        """Return the row with this `id`, live or expunged."""
        ...

    async def references(self, id: str) -> tuple[str, ...]:
        """Return the Message-IDs that the message names (References, In-Reply-To), oldest first.

        None before the last `index`, and none where its body is not mirrored.
        """
        ...

    def raw(self, id: str) -> AsyncIterator[bytes]:
        """Yield the raw message in slices; KeyError before the first where it is not whole or its body was swept."""
        ...

    async def find(self, account: str, mailbox: MailboxName, uid: int) -> MessageRow | None:
        """Return the live row of this UID in the current generation."""
        ...

    async def events(self, after: int = 0, *, limit: int = 1000) -> Sequence[Event]:
        """Return events with a position above *after*, in order."""
        ...

    async def position(self) -> int:
        """Return the last event's position, 0 where there is none."""
        ...

    async def wait_beyond(self, position: int) -> None:
        """Return once the log has an event above *position*: at once, or with the commit that writes it.

        A hint like any other: whoever waited reads `events` after its own cursor.
        """
        ...

    async def cursor(self, sink: str, account: str) -> int | None:
        """Return the position up to which *sink* has *account*'s events, None where it never had any."""
        ...

    async def traffic(self, account: str) -> tuple[date, int] | None:
        """Return what `count_traffic` wrote last."""
        ...

    async def accounts(self) -> Sequence[AccountRow]:
        """Return every account ever stored, by name."""
        ...

    async def alerts(self) -> Sequence[AlertRow]:
        """Return the troubles that people were told of and not of their end, by account."""
        ...

    async def mailboxes(self, account: str | None = None) -> Sequence[MailboxRow]:
        """Return mailboxes by account and name."""
        ...

    async def mirror(self, account: str, mailbox: MailboxName) -> Mirror | None:
        """Return how the mailbox stands, None where it was never seen or is gone."""
        ...

    async def uids(self, generation: int) -> UidSet:
        """Return the UIDs of the generation's live rows."""
        ...

    async def flags(self, generation: int, first: int, last: int) -> Mapping[Uid, Flags]:
        """Return the flags of the live rows with first <= UID <= last."""
        ...

    async def twins(self, account: str, mailbox: MailboxName, messages: Sequence[NewMessage]) -> Sequence[Twins]:
        """Return what stands in other mailboxes of the account and has the name, or else the fingerprint, of these."""
        ...

    async def sizes(self, generation: int, first: int, last: int) -> Mapping[Uid, tuple[int, datetime | None]]:
        """Return RFC822.SIZE and internal date of the live rows with first <= UID <= last: a row's cheap identity."""
        ...


class Store(Reader, Protocol):
    """The whole: one process has it open."""

    async def commit(self, change: ChangeSet) -> Committed:
        """Apply *change* durably.

        Raises:
            StaleGeneration: it was made for another generation; nothing was written.
            StoreFull: no space; nothing was written; the same change may be committed later.
            StoreError: the database is damaged or unreadable.
        """
        ...

    async def mailbox_gone(self, account: str, mailbox: MailboxName, *, state: str = "gone") -> None:
        """Write that the mailbox is no longer there: `mailbox.gone`, its live rows are expunged by that one event."""
        ...

    async def mailbox_renamed(self, account: str, before: MailboxName, after: MailboxName) -> None:
        """Write that *before* is called *after* now: `mailbox.renamed`; its rows, ids, bodies and checkpoint stay.

        What was mirrored under the new name is gone first, by a `mailbox.gone` of its own in the same transaction.
        A mailbox that is not mirrored has nothing to be renamed.
        """
        ...

    async def note_mailbox(
        self, account: str, mailbox: MailboxName, *, state: str | None = None, object_id: str | None = None
    ) -> None:
        """Write what is known of a mailbox beside its messages, None for what stays; nothing is told, no row changes.

        A mailbox never seen is written down only where it gets a *state*.
        """
        ...

    async def move_cursor(self, position: int, sink: str, account: str) -> None:
        """Write down that *sink* has all of *account*'s events up to *position*; `purge` forgets it."""
        ...

    async def count_traffic(self, account: str, day: date, octets: int) -> None:
        """Write down how much *account* has received on *day*; `purge` forgets it."""
        ...

    async def set_account(self, row: AccountRow) -> None:
        """Store the account's state; `account.state` is written where `state`, class or reason changed."""
        ...

    async def add_alerts(self, rows: Sequence[AlertRow]) -> None:
        """Write an `account.alert` for each; a trouble is remembered until its end is added, or it is forgotten."""
        ...

    async def forget_alert(self, account: str) -> None:
        """Remember no trouble of *account* any more: nobody will be told of its end."""
        ...

    async def index(self, *, rest: float = 0.0) -> None:
        """Bring what searches go by up to the rows. In small pieces, behind everything else that is to be written.

        *rest* is how long it pauses for each second that it worked.

        Raises:
            StoreError: it could not; what was done is kept, and the rest is still due.
        """
        ...

    async def sweep(self, sweep: Sweep) -> None:
        """Take away what retention no longer keeps."""
        ...

    async def purge(self, account: str) -> None:
        """Delete all of an account's data but its events."""
        ...
