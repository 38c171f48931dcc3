"""How values stand in SQLite's columns: moments as microseconds since 1970, lists as JSON, the absent as NULL."""

import json
import sqlite3
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any, Final

from idlepush.imap.types import Flags, ModSeq, Uid, UidValidity
from idlepush.store.base import AccountRow, AttachmentRow, MessageRow
from idlepush.store.spelling import spell_id, utc
from idlepush.sync.checkpoint import Checkpoint, Hole
from idlepush.sync.events import Event, EventType, FoundBy, Json
from idlepush.sync.identity import Identity
from idlepush.sync.message import Address

# Made once: json.dumps() with settings makes one each time, which takes longer than the spelling.
_JSON: Final = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"))

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)

MESSAGE_COLUMNS: Final = """
    message.id, mailbox.account, mailbox.name, generation.uidvalidity, message.uid, message.message_id,
    message.subject, message.sender, message.recipients, message.date, message.internal_date, message.size,
    message.flags, message.modseq, message.found_by, message.truncated, message.complete, message.sha256,
    message.email_id, message.thread_id, message.labels, message.expunged,
    (SELECT json_group_array(json_array(name, type, size)) FROM attachment
     WHERE owner = coalesce(message.body, -message.id) AND inline = 0)
"""

# AUTOINCREMENT keeps the last position here, which is one page less a commit than a counter of our own.
_LAST_POSITION: Final = "SELECT seq FROM sqlite_sequence WHERE name = 'event'"

EVENT_COLUMNS: Final = "position, time, account, type, message, mailbox, uidvalidity, uid, details"


def spell_json(value: Any) -> str:
    """Spell *value* in as few octets as JSON allows, readable for a person with a database browser."""
    return _JSON.encode(value)


def micros(moment: datetime) -> int:
    """Spell a moment; exact, unlike a float."""
    return (utc(moment) - _EPOCH) // _MICROSECOND


def micros_or_null(moment: datetime | None) -> int | None:
    """Spell a moment or its absence."""
    return None if moment is None else micros(moment)


def moment_of(since_1970: int) -> datetime:
    """Read a moment."""
    return _EPOCH + since_1970 * _MICROSECOND


def moment_or_none(since_1970: int | None) -> datetime | None:
    """Read a moment or its absence."""
    return None if since_1970 is None else moment_of(since_1970)


@lru_cache(maxsize=1024)  # a mailbox knows few sets of flags, and each message has one of them
def spell_flags(flags: Flags) -> str:
    """Spell flags, sorted: equal sets are equal texts."""
    return spell_json(sorted(flags))


def flags_from(spelled: str) -> Flags:
    """Read flags."""
    return frozenset(json.loads(spelled))


def spell_addresses(addresses: Iterable[Address]) -> str:
    """Spell the addresses of From or To."""
    return spell_json([[one.name, one.address] for one in addresses])


def spell_identity(identity: Identity) -> tuple[str | None, str | None, str | None]:
    """Spell the columns email_id, thread_id and labels."""
    labels = None if identity.labels is None else spell_json(identity.labels)
    return identity.email_id, identity.thread_id, labels


def spell_holes(holes: Iterable[Hole]) -> str:
    """Spell holes in their order."""
    return spell_json([[hole.first, hole.last, hole.found_by.value] for hole in holes])


def holes_from(spelled: str) -> tuple[Hole, ...]:
    """Read holes."""
    return tuple(Hole(Uid(first), Uid(last), FoundBy(by)) for first, last, by in json.loads(spelled))


def checkpoint_from(uidvalidity: int, high: int, holes: str, modseq: int | None) -> Checkpoint:
    """Read a checkpoint."""
    return Checkpoint(
        UidValidity(uidvalidity), Uid(high), holes_from(holes), None if modseq is None else ModSeq(modseq)
    )


def message_from(columns: tuple[Any, ...]) -> MessageRow:
    """Read a row that begins with MESSAGE_COLUMNS."""
    number, account, mailbox, uidvalidity, uid, *rest = columns
    message_id, subject, sender, recipients, date, internal_date, size, *rest = rest
    flags, modseq, found_by, truncated, complete, sha256, *rest = rest
    email_id, thread_id, labels, expunged, attachments, *_ = rest
    return MessageRow(
        id=spell_id(number),
        account=account,
        mailbox=mailbox,
        uidvalidity=uidvalidity,
        uid=uid,
        message_id=message_id,
        subject=subject,
        sender=addresses_from(sender),
        to=addresses_from(recipients),
        date=moment_or_none(date),
        internal_date=moment_or_none(internal_date),
        size=size,
        flags=tuple(json.loads(flags)),
        modseq=modseq,
        found_by=found_by,
        truncated=bool(truncated),
        complete=bool(complete),
        sha256=None if sha256 is None else sha256.hex(),
        email_id=email_id,
        thread_id=thread_id,
        labels=None if labels is None else tuple(json.loads(labels)),
        expunged=moment_or_none(expunged),
        attachments=() if attachments == "[]" else tuple(AttachmentRow(*one) for one in json.loads(attachments)),
    )


def last_position(db: sqlite3.Connection) -> int:
    """Return the position of the last event ever written, 0 where there was none."""
    found = db.execute(_LAST_POSITION).fetchone()
    return 0 if found is None else int(found[0])


def event_from(columns: tuple[Any, ...]) -> Event:
    """Read a row of EVENT_COLUMNS."""
    position, time, account, kind, number, mailbox, uidvalidity, uid, details = columns
    return Event(
        position=position,
        time=moment_of(time),
        type=EventType(kind),
        account=account,
        id=None if number is None else spell_id(number),
        mailbox=mailbox,
        uidvalidity=uidvalidity,
        uid=uid,
        details=details_from(details),
    )


def account_from(columns: tuple[Any, ...]) -> AccountRow:
    """Read a row of `account`."""
    name, state, since, failure_class, reason, details = columns
    return AccountRow(
        name=name,
        state=state,
        since=moment_of(since),
        failure_class=failure_class,
        reason=reason,
        details=details_from(details),
    )


def details_from(spelled: str) -> Mapping[str, Json]:
    """Read a JSON object."""
    details: dict[str, Json] = json.loads(spelled)
    return details


def addresses_from(spelled: str) -> tuple[Address, ...]:
    """Read the addresses of From or To."""
    return tuple(Address(name, address) for name, address in json.loads(spelled))
