"""Reading FETCH (RFC 9051 section 7.5.2 and its extensions): what a server says of one message."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from datetime import UTC, datetime, timedelta, timezone
from functools import lru_cache
from types import MappingProxyType
from typing import Final

from idlepush.errors import RemoteProtocolError
from idlepush.imap.reader import MAX_32, MAX_63, USUAL, Reader, Value, alone, flags_in, unusual_flags, within
from idlepush.imap.responses import BodySection, Fetch, Structure
from idlepush.imap.structure import structure_of
from idlepush.imap.types import Flags, ModSeq, Uid, printable

# The commonest line of all, `* 12 FETCH (UID 34 FLAGS (\Seen))` and its like, in one step of C.
USUAL_FETCH: Final = re.compile(
    rb"\* ([0-9]{1,10}) FETCH \((?:(?:"
    rb"UID ([0-9]{1,10})"
    rb"|FLAGS \(([!#-'*-~ ]*+)\)"
    rb"|MODSEQ \(([0-9]{1,19})\)"
    rb"|RFC822\.SIZE ([0-9]{1,18})"
    rb'|INTERNALDATE "([^"\\]{1,40}+)"'
    rb")(?: |(?=\))))++\)"
)


_NO_OTHERS: Final[Mapping[str, object]] = MappingProxyType({})
# A frozen dataclass sets each field by a look-up of its name and two calls, which took half of the time of a line.
# Its slots are set here directly instead. (A new field of Fetch does not go unseen: this would fail on import.)
_SLOTS: Final = tuple(Fetch.__dict__[slot.name].__set__ for slot in fields(Fetch))
_number_is, _uid_is, _flags_are, _date_is, _size_is, _modseq_is, *_NEVER_ON_THIS_LINE = _SLOTS
_email_id_is, _thread_id_is, _save_date_is, _structure_is, _bodies_are, _others_are = _NEVER_ON_THIS_LINE


def usual_fetch(line: re.Match[bytes]) -> Fetch:
    """Read what USUAL_FETCH matched."""
    number, uid, flags, modseq, size, date = line.groups()
    sequence = int(number)
    known = None if uid is None else int(uid)
    if not 0 < sequence <= MAX_32 or (known is not None and not 0 < known <= MAX_32):
        raise RemoteProtocolError(f"the server sent a FETCH of message {sequence}, UID {known}, which cannot be")
    fetch = object.__new__(Fetch)
    _number_is(fetch, sequence)
    _uid_is(fetch, known)
    _flags_are(fetch, None if flags is None else flags_in(flags) if len(flags) <= USUAL else unusual_flags(flags))
    _date_is(fetch, None if date is None else _moment(date))
    _size_is(fetch, None if size is None else int(size))
    _modseq_is(fetch, None if modseq is None else within(int(modseq), 0, MAX_63))
    _email_id_is(fetch, None)
    _thread_id_is(fetch, None)
    _save_date_is(fetch, None)
    _structure_is(fetch, None)
    _bodies_are(fetch, ())
    _others_are(fetch, _NO_OTHERS)
    return fetch


_WHOLE: Final[Mapping[bytes, str]] = {b"RFC822": "", b"RFC822.HEADER": "HEADER", b"RFC822.TEXT": "TEXT"}


@dataclass(slots=True)
class _Items:
    """A FETCH while its items are gathered. An item that comes twice: the last one counts."""

    uid: Uid | None = None
    flags: Flags | None = None
    internal_date: datetime | None = None
    size: int | None = None
    modseq: ModSeq | None = None
    email_id: str | None = None
    thread_id: str | None = None
    save_date: datetime | None = None
    structure: Structure | None = None

    def take(self, name: bytes, reader: Reader) -> bool:
        """Take the value of the item called *name*, if it has a field of its own."""
        match name:
            case b"UID":
                self.uid = Uid(within(reader.value(), 1, MAX_32))
            case b"FLAGS":
                self.flags = reader.flags()
            case b"INTERNALDATE":
                self.internal_date = _moment(reader.string() or b"")
            case b"RFC822.SIZE":
                self.size = within(reader.value(), 0, MAX_63)
            case b"MODSEQ":
                self.modseq = ModSeq(within(alone(reader.value()), 0, MAX_63))
            case b"EMAILID":
                self.email_id = _object_id(reader.value())
            case b"THREADID":
                self.thread_id = _object_id(reader.value())
            case b"SAVEDATE":
                self.save_date = _moment(reader.string() or b"")
            case b"BODYSTRUCTURE" | b"BODY":
                self.structure = _NOT_UNDERSTOOD  # it stays that, if reading on fails
                self.structure = structure_of(reader.value())
            case _:
                return False
        return True


def read_fetch(number: int, reader: Reader) -> Fetch:
    """Read the list of items behind `* number FETCH`.

    A broken structure costs itself, and what stands behind it only where that cannot be found: some servers quote
    names wrong, and then nothing tells where the structure ends. The stream has not lost its meaning by that.
    """
    if not reader.take(b"("):
        raise reader.broken()
    items = _Items()
    bodies: list[BodySection] = []
    others: dict[str, object] = {}
    try:
        _gather(reader, items, bodies, others)
    except RemoteProtocolError:
        if items.structure is None:
            raise
        items.structure = _NOT_UNDERSTOOD
        reader.skip_to_end(_ITEMS_AT_THE_END)
        _gather(reader, items, bodies, others)
    return Fetch(
        number,
        items.uid,
        items.flags,
        items.internal_date,
        items.size,
        items.modseq,
        items.email_id,
        items.thread_id,
        items.save_date,
        items.structure,
        tuple(bodies),
        others,
    )


def _gather(reader: Reader, items: _Items, bodies: list[BodySection], others: dict[str, object]) -> None:
    while not reader.take(b")"):
        name = reader.item_name()
        section = reader.section()
        if section is not None and name in {b"BODY", b"BINARY"}:
            # BINARY (RFC 3516) is decoded: it must not pass for the section as it was sent.
            spelled = section if name == b"BODY" else f"BINARY[{section}]"
            bodies.append(BodySection(spelled, reader.origin(), reader.string()))
        elif section is not None:
            others[f"{name.decode('ascii')}[{section}]"] = reader.value()
        elif name in _WHOLE:
            bodies.append(BodySection(_WHOLE[name], None, reader.string()))
        elif not items.take(name, reader):
            others[name.decode("ascii")] = reader.value()
    reader.end()


_NOT_UNDERSTOOD: Final = Structure((), understood=False)
# What may stand behind a structure that breaks off. Nothing here holds a text that a sender chose, so that the end of
# a frame that is nothing but these cannot be an attachment's name.
_ITEMS_AT_THE_END: Final = re.compile(
    rb"(?: (?:UID [0-9]{1,10}|FLAGS \([^()\"]{0,1000}\)|RFC822\.SIZE [0-9]{1,18}|MODSEQ \([0-9]{1,19}\)))*+ ?\)\Z"
)


def _object_id(value: Value) -> str | None:
    """Read RFC 8474's `(M6d99ac3275bb4e)`; None for NIL and for what is none."""
    sole = alone(value)
    if isinstance(sole, int):
        return str(sole)
    return printable(sole.decode("ascii", "replace"), 255) if isinstance(sole, bytes) else None


_MOMENT: Final = re.compile(
    rb" ?([0-9]{1,2})-([A-Za-z]{3})-([0-9]{4}) ([0-9]{2}):([0-9]{2}):([0-9]{2}) ([+-])([0-9]{4})"
)
_MONTHS: Final = {
    name: number
    for number, name in enumerate(
        (b"jan", b"feb", b"mar", b"apr", b"may", b"jun", b"jul", b"aug", b"sep", b"oct", b"nov", b"dec"), 1
    )
}


@lru_cache(maxsize=256)
def _zone(sign: bytes, offset: bytes) -> timezone:
    minutes = int(offset[:2]) * 60 + int(offset[2:])
    return timezone(timedelta(minutes=-minutes if sign == b"-" else minutes)) if minutes else UTC


def _moment(spelled: bytes) -> datetime | None:
    """Read an INTERNALDATE (RFC 9051 `date-time`); None where it is none, for a message is not lost over its date."""
    found = _MOMENT.fullmatch(spelled)
    if found is None:
        return None
    day, month, year, hour, minute, second, sign, offset = found.groups()
    # Dates at both ends of the calendar could not be turned into UTC.
    if not 1 < int(year) < 9999:
        return None
    try:
        return datetime(
            int(year), _MONTHS[month.lower()], int(day), int(hour), int(minute), int(second), tzinfo=_zone(sign, offset)
        )
    except (ValueError, KeyError):
        return None
