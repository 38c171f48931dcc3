"""The tables of `MemoryStore` and what a change set does to them, written the plain way, row by row.

What the SQL of the other stores does is held against this (`tests/store/test_same_history.py`).
"""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime
from functools import lru_cache

from idlepush.imap.types import Flags, MailboxName, Uid, same_flags
from idlepush.imap.uidset import UidSet
from idlepush.store.base import AccountRow, AlertRow, AttachmentRow, Committed, MessageRow, Twins
from idlepush.store.spelling import (
    details_of_alert,
    details_of_body,
    details_of_move,
    details_of_new,
    details_of_state,
    sorted_flags,
    spell_id,
    utc,
    utc_or_none,
)
from idlepush.sync.changes import Begin, BodySlice, ChangeSet, KnownAgain, NewMessage, advance
from idlepush.sync.checkpoint import Checkpoint, Quarantine
from idlepush.sync.content import Attachment, Content, content_of
from idlepush.sync.events import Event, EventType, Json
from idlepush.sync.identity import Identity
from idlepush.sync.query import Document, Query, document_of


@dataclass(slots=True, eq=False)
class Generation:
    """One meaning of a mailbox's UIDs."""

    id: int
    checkpoint: Checkpoint
    live: "dict[int, Row]" = field(default_factory=dict)
    quarantine: dict[Uid, Quarantine] = field(default_factory=dict)

    def by_uid(self) -> "list[Row]":
        """The live rows in the order of their UIDs."""
        return sorted(self.live.values(), key=lambda row: row.uid)

    def among(self, uids: UidSet) -> "list[Row]":
        """The live rows of *uids*, in their order; counts through whichever of both is shorter."""
        if len(uids) < len(self.live):
            return [self.live[uid] for uid in uids if uid in self.live]
        return [row for row in self.by_uid() if row.uid in uids]


@dataclass(slots=True, eq=False)
class Mailbox:
    """A mailbox and all its generations."""

    account: str
    name: MailboxName
    state: str = "ok"
    current: Generation | None = None
    older: list[Generation] = field(default_factory=list)
    looked_at: datetime | None = None
    audited_at: datetime | None = None
    object_id: str | None = None

    @property
    def generations(self) -> Iterator[Generation]:
        """The older ones, then the current one."""
        yield from self.older
        if self.current is not None:
            yield self.current


@dataclass(slots=True, eq=False)
class Row:
    """A message. `message` is as it was found; of its UID, flags and body only the fields beside it count."""

    number: int
    mailbox: Mailbox
    generation: Generation
    message: NewMessage
    uid: Uid
    flags: Flags
    complete: bool
    size: int
    internal_date: datetime | None
    modseq: int | None
    truncated: bool
    identity: Identity
    body: bytes | None = None
    """The raw message where it is whole and was not swept."""
    part: bytes | None = None
    """What has come of a body that is still coming."""
    sha256: str | None = None
    expunged: datetime | None = None

    @property
    def by_place(self) -> tuple[str, str, bytes, int, int, int]:
        """The key of the order by account, mailbox, UID; generations, while a reset is worked off, oldest first."""
        mailbox = self.mailbox
        return mailbox.account, mailbox.name.text, mailbox.name.raw, self.uid, self.generation.id, self.number

    @property
    def by_age(self) -> tuple[float, int]:
        """The key of the order by internal date, newest first."""
        return -(self.internal_date.timestamp() if self.internal_date else float("-inf")), -self.number

    def shown(self) -> MessageRow:
        """The row as the outside sees it."""
        headers = self.message.headers
        return MessageRow(
            id=spell_id(self.number),
            account=self.mailbox.account,
            mailbox=self.mailbox.name.text,
            uidvalidity=self.generation.checkpoint.uidvalidity,
            uid=self.uid,
            message_id=headers.message_id,
            subject=headers.subject,
            sender=headers.sender,
            to=headers.to,
            date=utc_or_none(headers.date),
            internal_date=self.internal_date,
            size=self.size,
            flags=tuple(sorted(self.flags)),
            modseq=self.modseq,
            found_by=self.message.found_by.value,
            truncated=self.truncated,
            complete=self.complete,
            sha256=self.sha256,
            email_id=self.identity.email_id,
            thread_id=self.identity.thread_id,
            labels=self.identity.labels,
            expunged=self.expunged,
            attachments=tuple(
                AttachmentRow(one.name, one.type, one.size) for one in self.attachments if not one.inline
            ),
        )

    @property
    def content(self) -> Content | None:
        """What is in the message, None where it is not mirrored whole."""
        return None if self.body is None else _content_of(self.body)

    @property
    def attachments(self) -> tuple[Attachment, ...]:
        """What is attached, and what belongs to the text."""
        # What BODYSTRUCTURE told is let go of with the body that came, as in the other stores.
        told = () if self.sha256 is not None else self.message.attachments
        return told if self.content is None else self.content.attachments

    def answers(self, query: Query) -> bool:
        """Tell whether a search for *query* finds it."""
        moment = self.internal_date or datetime.min.replace(tzinfo=UTC)
        name = self.mailbox.name.text
        return (
            (query.before is None or moment < query.before)
            and (query.since is None or moment >= query.since)
            and all((flag in self.flags) == is_set for flag, is_set in query.flags.items())
            and (not query.mailboxes or name in query.mailboxes)
            and name not in query.other_mailboxes
            and self._document().answers(query)
        )

    def _document(self) -> Document:
        content = self.content
        if content is None:
            headers = self.message.headers
            return document_of(headers, (), self.attachments, "")
        return document_of(content.headers, content.cc, content.attachments, content.text)


@lru_cache(maxsize=1000)  # rows are looked at again and again, and what is in a body does not change
def _content_of(body: bytes) -> Content:
    return content_of([body])


@dataclass(slots=True)
class Tables:
    """All that is stored."""

    accounts: dict[str, AccountRow] = field(default_factory=dict)
    alerts: dict[str, AlertRow] = field(default_factory=dict)
    traffic: dict[str, tuple[date, int]] = field(default_factory=dict)
    cursors: dict[tuple[str, str], int] = field(default_factory=dict)
    mailboxes: dict[tuple[str, MailboxName], Mailbox] = field(default_factory=dict)
    generations: dict[int, Generation] = field(default_factory=dict)
    rows: dict[int, Row] = field(default_factory=dict)
    bodies: dict[str, bytes] = field(default_factory=dict)
    events: list[Event] = field(default_factory=list)
    last_row: int = 0
    last_generation: int = 0

    def twins(self, account: str, name: MailboxName, messages: Sequence[NewMessage]) -> list[Twins]:
        """Do what `Reader.twins` promises."""
        names = {message.identity.email_id for message in messages} - {None}
        fingerprints = {message.fingerprint for message in messages if message.identity.email_id is None}
        found = []
        for (owner, other), mailbox in self.mailboxes.items():
            current = mailbox.current
            if owner != account or other == name or current is None:
                continue
            like = [
                row.uid
                for row in current.live.values()
                if row.identity.email_id in names or row.message.fingerprint in fingerprints
            ]
            if like:
                uids = UidSet.from_uids(like)
                found.append(Twins(other, current.id, current.checkpoint.uidvalidity, uids))
        return found

    def forget_orphans(self) -> None:
        """Drop the bodies that no row refers to."""
        referred = {row.sha256 for row in self.rows.values() if row.body is not None}
        self.bodies = {sha256: body for sha256, body in self.bodies.items() if sha256 in referred}


class Commit:
    """One change on its way into the tables, and the events it writes; they happen at *now*."""

    def __init__(self, tables: Tables, now: datetime) -> None:
        self._tables = tables
        self._now = now
        self._written: dict[EventType, int] = {}

    def apply(self, mailbox: Mailbox, change: ChangeSet) -> Committed:
        """Do what `Store.commit` promises; *change* was made for the mailbox's current generation, or begins one."""
        if change.begin is not None:
            self._begin(mailbox, change.begin)
        current = mailbox.current
        assert current is not None

        known = self._know_again(mailbox, current, change)
        for message in change.new:
            # What this very change set knows to be gone is never introduced.
            if message.uid not in current.live and message.uid not in change.expunged:
                self._take_in(current, message, mailbox, change.leaving)
        for message in change.replaced:
            if message.uid in current.live:
                self._replace(current.live[message.uid], message)
        # In their order, whatever theirs was: a slice that waits for its turn would be applied the second time.
        for part in sorted(change.slices, key=lambda part: (part.uid, part.origin)):
            self._append(current, part)
        self._set_flags(current, change)
        for row in current.among(change.expunged):
            self._tell(EventType.MESSAGE_EXPUNGED, mailbox, row)
            self._expunge(row)
        if change.forget_older:
            self._forget_older(mailbox)

        self._quarantine(current, change)
        current.checkpoint = advance(current.checkpoint, change, known)
        if change.looked_at is not None:
            mailbox.looked_at = utc(change.looked_at)
        if change.audited_at is not None:
            mailbox.audited_at = utc(change.audited_at)
        return Committed(
            position=len(self._tables.events),
            new=self._written.get(EventType.MESSAGE_NEW, 0),
            moved=self._written.get(EventType.MESSAGE_MOVED, 0),
            flags=self._written.get(EventType.MESSAGE_FLAGS, 0),
            expunged=self._written.get(EventType.MESSAGE_EXPUNGED, 0),
            known=known,
        )

    def gone(self, mailbox: Mailbox, state: str) -> None:
        """Do what `Store.mailbox_gone` promises."""
        mailbox.state = state
        if mailbox.current is None:
            return
        self._tell(EventType.MAILBOX_GONE, mailbox)
        for generation in mailbox.generations:
            for row in generation.by_uid():
                self._expunge(row)
        mailbox.older = [*mailbox.generations]
        mailbox.current = None

    def renamed(self, mailbox: Mailbox, after: MailboxName) -> None:
        """Do what `Store.mailbox_renamed` promises."""
        tables = self._tables
        other = tables.mailboxes.get((mailbox.account, after))
        if other is not None:
            self.gone(other, "gone")
            # What was there under this name before stays there, as the past of whatever has the name now.
            mailbox.older = [*other.older, *mailbox.older]
            for row in tables.rows.values():
                if row.mailbox is other:
                    row.mailbox = mailbox
        before = mailbox.name
        del tables.mailboxes[mailbox.account, before]
        tables.mailboxes[mailbox.account, after] = mailbox
        mailbox.name = after
        self._tell(EventType.MAILBOX_RENAMED, mailbox, details={"mailbox_before": before.text})

    def account(self, row: AccountRow) -> None:
        """Do what `Store.set_account` promises."""
        details = details_of_state(self._tables.accounts.get(row.name), row)
        self._tables.accounts[row.name] = row
        if details is not None:
            self._write(Event(position=0, time=self._now, type=EventType.ACCOUNT_STATE, account=row.name), details)

    def alert(self, row: AlertRow) -> None:
        """Do what `Store.add_alerts` promises."""
        if row.resolved:
            self._tables.alerts.pop(row.account, None)
        else:
            self._tables.alerts[row.account] = replace(row, since=utc(row.since), told=utc(row.told))
        event = Event(position=0, time=self._now, type=EventType.ACCOUNT_ALERT, account=row.account)
        self._write(event, details_of_alert(row))

    def _begin(self, mailbox: Mailbox, begin: Begin) -> None:
        self._tables.last_generation += 1
        before = mailbox.current
        mailbox.older = [*mailbox.generations]
        mailbox.current = Generation(
            self._tables.last_generation, Checkpoint(begin.uidvalidity, begin.high, begin.holes, begin.modseq)
        )
        mailbox.state = "ok"
        self._tables.generations[mailbox.current.id] = mailbox.current
        if before is not None:
            details = {"uidvalidity_before": before.checkpoint.uidvalidity}
            self._tell(EventType.MAILBOX_RESET, mailbox, details=details)
        else:
            mailbox.looked_at = mailbox.audited_at = None
            self._tell(EventType.MAILBOX_NEW, mailbox)

    def _know_again(self, mailbox: Mailbox, current: Generation, change: ChangeSet) -> UidSet:
        known: list[Uid] = []
        for message in change.known_again:
            if message.uid in current.live:
                continue
            rows = self._candidates(mailbox, message.identity, message.fingerprint, change.leaving)
            if rows and (rows[0].identity.email_id is not None or len(rows) == 1):
                self._move(_best(rows, message.uid), current, message, mailbox)
                known.append(message.uid)
        return UidSet.from_uids(known)

    def _take_in(
        self, current: Generation, message: NewMessage, mailbox: Mailbox, leaving: Mapping[int, UidSet]
    ) -> None:
        row = _same(self._candidates(mailbox, message.identity, message.fingerprint, leaving), message)
        if row is None:
            row = self._insert(current, message, mailbox)
            self._tell(EventType.MESSAGE_NEW, mailbox, row, details_of_new(message))
            return
        self._move(row, current, message, mailbox)
        if row.body is None and message.body is not None and message.complete:
            self._keep(row, message)
            self._tell(EventType.MESSAGE_BODY, mailbox, row, details_of_body(row.sha256))

    def _candidates(
        self, mailbox: Mailbox, identity: Identity, fingerprint: bytes | None, leaving: Mapping[int, UidSet]
    ) -> "list[Row]":
        """Return the rows that may be taken over: of the same identity, or else of the same fingerprint."""
        places: list[tuple[Generation, UidSet | None]] = [(generation, None) for generation in mailbox.older]
        elsewhere = [(self._tables.generations[number], uids) for number, uids in leaving.items()]
        places += [(generation, uids) for generation, uids in elsewhere if generation is not mailbox.current]
        rows = [
            row
            for generation, uids in places
            for row in (generation.live.values() if uids is None else generation.among(uids))
        ]
        named = [row for row in rows if identity.email_id is not None and row.identity.email_id == identity.email_id]
        return named or [row for row in rows if fingerprint is not None and row.message.fingerprint == fingerprint]

    def _move(self, row: Row, current: Generation, message: NewMessage | KnownAgain, mailbox: Mailbox) -> None:
        details = details_of_move(
            message.flags,
            mailbox=row.mailbox.name.text,
            uidvalidity=row.generation.checkpoint.uidvalidity,
            uid=row.uid,
        )
        del row.generation.live[row.uid]
        row.mailbox, row.generation, row.uid, row.flags = mailbox, current, message.uid, message.flags
        row.size, row.modseq, row.identity = message.size, message.modseq, message.identity
        row.internal_date = utc_or_none(message.internal_date)
        current.live[message.uid] = row
        self._tell(EventType.MESSAGE_MOVED, mailbox, row, details)

    def _insert(self, current: Generation, message: NewMessage, mailbox: Mailbox) -> Row:
        self._tables.last_row += 1
        row = Row(
            number=self._tables.last_row,
            mailbox=mailbox,
            generation=current,
            message=message,
            uid=message.uid,
            flags=message.flags,
            complete=message.complete,
            size=message.size,
            internal_date=utc_or_none(message.internal_date),
            modseq=message.modseq,
            truncated=message.truncated,
            identity=message.identity,
        )
        self._tables.rows[row.number] = row
        current.live[message.uid] = row
        self._keep(row, message)
        return row

    def _keep(self, row: Row, message: NewMessage) -> None:
        """Give *row* what *message* has of the body."""
        row.complete = message.complete
        row.truncated = message.truncated
        if not message.complete:
            row.part = message.body or b""
        elif message.body is not None:
            self._make_whole(row, message.body)

    def _replace(self, row: Row, message: NewMessage) -> None:
        if _holds(row, message):
            return
        row.message = replace(message, found_by=row.message.found_by, initial=row.message.initial)
        row.size, row.internal_date = message.size, utc_or_none(message.internal_date)
        row.body = row.part = row.sha256 = None
        self._keep(row, message)
        details = details_of_body(row.sha256, complete=message.complete)
        self._tell(EventType.MESSAGE_BODY, row.mailbox, row, details)

    def _append(self, current: Generation, part: BodySlice) -> None:
        row = current.live.get(part.uid)
        # Below what is kept: it was applied before. Above: something is missing between, and it will come again.
        if row is None or row.complete or part.origin != len(row.part or b""):
            return
        row.part = (row.part or b"") + part.data
        if part.final:
            self._make_whole(row, row.part)
            self._tell(EventType.MESSAGE_BODY, row.mailbox, row, details_of_body(row.sha256))

    def _make_whole(self, row: Row, body: bytes) -> None:
        row.sha256 = hashlib.sha256(body).hexdigest()
        row.body = self._tables.bodies.setdefault(row.sha256, body)
        row.part = None
        row.complete = True

    def _set_flags(self, current: Generation, change: ChangeSet) -> None:
        for uid, after in sorted(change.flags.items()):
            row = current.live.get(uid)
            if row is not None and not same_flags(row.flags, after):
                row.flags = after
                row.modseq = change.modseqs.get(uid, row.modseq)
                self._tell(EventType.MESSAGE_FLAGS, row.mailbox, row, {"flags": sorted_flags(after)})

    def _expunge(self, row: Row) -> None:
        row.expunged = self._now
        row.part = None
        del row.generation.live[row.uid]

    def _forget_older(self, mailbox: Mailbox) -> None:
        older = [row for generation in mailbox.older for row in generation.live.values()]
        for row in sorted(older, key=lambda row: (row.uid, row.number)):
            self._tell(EventType.MESSAGE_EXPUNGED, mailbox, row)
            self._expunge(row)

    @staticmethod
    def _quarantine(current: Generation, change: ChangeSet) -> None:
        for uid, one in change.quarantined.items():
            current.quarantine[uid] = Quarantine(one.reason, one.tries, utc(one.next_try))
        stored = {message.uid for message in change.new}
        stored.update(part.uid for part in change.slices if _is_complete(current, part.uid))
        for uid in [*current.quarantine]:
            if uid in stored or uid in change.expunged or uid in change.released:
                del current.quarantine[uid]

    def _tell(
        self, type: EventType, mailbox: Mailbox, row: Row | None = None, details: Mapping[str, Json] | None = None
    ) -> None:
        generation = row.generation if row else mailbox.current
        assert generation is not None
        event = Event(
            position=0,
            time=self._now,
            type=type,
            account=mailbox.account,
            id=spell_id(row.number) if row else None,
            mailbox=mailbox.name.text,
            uidvalidity=generation.checkpoint.uidvalidity,
            uid=row.uid if row else None,
        )
        self._write(event, details or {})

    def _write(self, event: Event, details: Mapping[str, Json]) -> None:
        self._written[event.type] = self._written.get(event.type, 0) + 1
        self._tables.events.append(replace(event, position=len(self._tables.events) + 1, details=details))


def _best(rows: "list[Row]", uid: Uid) -> Row:
    """Return the row of the same UID, if there is one: a server that renumbers its UIDVALIDITY alone keeps them."""
    return min(rows, key=lambda row: (row.uid != uid, row.uid, row.number))


def _same(rows: "list[Row]", message: NewMessage) -> Row | None:
    """Return which of *rows* is this message: none where two could be and neither a body nor a name decides."""
    if message.body is None or not message.complete:
        is_named = bool(rows) and message.identity.email_id is not None
        is_named = is_named and rows[0].identity.email_id == message.identity.email_id
        return _best(rows, message.uid) if is_named or len(rows) == 1 else None
    sha256 = hashlib.sha256(message.body).hexdigest()
    rows = [row for row in rows if row.sha256 in (None, sha256)]
    return _best(rows, message.uid) if rows else None


def _holds(row: Row, message: NewMessage) -> bool:
    """Tell whether the row is *message* already, all of it."""
    theirs = message.complete, message.fingerprint, message.size, message.truncated, message.body
    return message.complete and theirs == (
        row.complete,
        row.message.fingerprint,
        row.size,
        row.truncated,
        row.body,
    )


def _is_complete(generation: Generation, uid: Uid) -> bool:
    row = generation.live.get(uid)
    return row is not None and row.complete
