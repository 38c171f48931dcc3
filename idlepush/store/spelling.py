"""How rows and events are spelled: the part of a store that is the same whatever database is behind it."""

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Final

from idlepush.imap.types import Flags
from idlepush.store.base import AccountRow, AlertRow
from idlepush.sync.changes import NewMessage
from idlepush.sync.checkpoint import Hole
from idlepush.sync.events import Json, rfc3339

_DIGITS: Final = "0123456789abcdefghijklmnopqrstuvwxyz"


def spell_id(number: int) -> str:
    """Spell a row's number as the outside sees it: opaque, short, and never to be mistaken for a UID."""
    spelled = ""
    while True:
        number, digit = divmod(number, 36)
        spelled = _DIGITS[digit] + spelled
        if not number:
            return "m" + spelled


def number_of(id: str) -> int | None:
    """Read back what `spell_id` spelled; None for anything else."""
    # int() is generous (signs, underscores, capitals, any length): only the one right spelling names a row.
    if not 2 <= len(id) <= 13 or not (id.isascii() and id.isalnum()):
        return None
    number = int(id[1:], 36)
    return number if spell_id(number) == id else None


def utc(moment: datetime) -> datetime:
    """Return the moment in UTC; one that UTC's calendar cannot hold (1 Jan 0001 +1400) becomes the nearest."""
    if moment.tzinfo is None:
        return moment.replace(tzinfo=UTC)
    try:
        return moment.astimezone(UTC)
    except OverflowError:
        return (datetime.min if moment.year == 1 else datetime.max).replace(tzinfo=UTC)


def utc_or_none(moment: datetime | None) -> datetime | None:
    """Return the moment in UTC, None for None."""
    return None if moment is None else utc(moment)


def sorted_flags(flags: Flags) -> list[Json]:
    """Return the flags in the order the outside sees them in."""
    return list[Json](sorted(flags))


def span(holes: Iterable[Hole]) -> int:
    """Count the UIDs that stand in holes."""
    return sum(hole.last - hole.first + 1 for hole in holes)


def details_of_new(message: NewMessage) -> Mapping[str, Json]:
    """What `message.new` tells."""
    return {
        "flags": sorted_flags(message.flags),
        "size": message.size,
        "internal_date": rfc3339(utc_or_none(message.internal_date)),
        "message_id": message.headers.message_id,
        "found_by": message.found_by.value,
        "initial": message.initial,
        "complete": message.complete,
    }


def details_of_body(sha256: str | None, *, complete: bool = True) -> dict[str, Json]:
    """What `message.body` tells: the hash of the raw message where that is here, and whether it is whole."""
    return {"sha256": sha256, "complete": complete}


def details_of_move(flags: Flags, *, mailbox: str, uidvalidity: int, uid: int) -> Mapping[str, Json]:
    """What `message.moved` tells: the flags after, and where the message was before."""
    return {
        "flags": sorted_flags(flags),
        "mailbox_before": mailbox,
        "uidvalidity_before": uidvalidity,
        "uid_before": uid,
    }


def details_of_state(before: AccountRow | None, after: AccountRow) -> Mapping[str, Json] | None:
    """What `account.state` tells; None where it has nothing to tell."""
    if before is not None and _standing(before) == _standing(after):
        return None
    return {
        "state": after.state,
        "state_before": None if before is None else before.state,
        "class": after.failure_class,
        "reason": after.reason,
    }


def details_of_alert(row: AlertRow) -> Mapping[str, Json]:
    """What `account.alert` tells."""
    return {"kind": "resolved" if row.resolved else "trouble", "class": row.failure_class, "reason": row.reason}


def _standing(row: AccountRow) -> tuple[str, str | None, str | None]:
    return row.state, row.failure_class, row.reason
