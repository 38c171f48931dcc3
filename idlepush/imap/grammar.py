r"""Reading a framed response (RFC 9051 section 9 and its extensions): `parse`.

Total: any frame gives a response or RemoteProtocolError, nothing else. What is well-formed but of no use to
idlepush is `Unknown`; what servers are known to send although the RFC forbids it is read and said so where it is.

Strict where leniency would hide a stream that lost its meaning (a FETCH must end where its parenthesis closes),
lenient where only people or nobody looks (texts, codes, attributes). A code that is broken costs itself, not its
line.

Linear: every text is walked once; nesting is a list, not recursion; numbers are measured before they are converted;
and a response may hold at most `MAX_VALUES` values, so that a megabyte of parentheses costs no seconds.
"""

import re
from array import array
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields
from datetime import UTC, datetime, timedelta, timezone
from functools import lru_cache
from types import MappingProxyType
from typing import Final

from idlepush.errors import RemoteProtocolError
from idlepush.imap.framing import Frame
from idlepush.imap.responses import (
    BodySection,
    Capabilities,
    Code,
    Completion,
    Condition,
    Continuation,
    Enabled,
    Exists,
    Expunge,
    Fetch,
    ListEntry,
    MailboxFlags,
    Namespace,
    Recent,
    Response,
    Search,
    ServerId,
    Status,
    StatusReply,
    Unknown,
    Untagged,
    Vanished,
)
from idlepush.imap.types import Flags, MailboxName, ModSeq, Uid, decode_mutf7, excerpt, flags_of, printable
from idlepush.imap.uidset import UidSet

Value = bytes | int | tuple["Value", ...] | None

MAX_NESTING: Final = 200
MAX_VALUES: Final = 100_000
MAX_WORDS: Final = 64 * 1024  # octets of a list of flags or capabilities

_MAX_32: Final = 2**32 - 1
_MAX_63: Final = 2**63 - 1
_MAX_DIGITS: Final = 20  # of 2**64 - 1, the largest number any extension has


def parse(frame: Frame) -> Response:
    """Read one response.

    Raises:
        RemoteProtocolError: it is none, or a number in it is out of bounds; the connection is of no more use.
    """
    texts, literals = frame
    text = texts[0]
    if not literals:
        line = _FLAGS_LINE.fullmatch(text)
        if line is not None:
            return _flags_line(line)
    head = _UNTAGGED_HEAD.match(text)
    if head is not None:
        reader = _Reader(frame, head.end())
        name = head[2].upper()
        return _untagged(name, reader) if head[1] is None else _numbered(name, _number(head[1]), reader)
    if text.startswith(b"+"):
        return Continuation(text[1:].lstrip(b" "))
    tagged = _COMPLETION.fullmatch(text)
    if tagged is None:
        raise RemoteProtocolError(f"the server sent {excerpt(text)} where a response belongs")
    code, shown = _code_and_text(tagged[3] or b"")
    return Completion(tagged[1].decode("ascii"), Status(tagged[2].upper().decode("ascii")), code, shown)


_UNTAGGED_HEAD: Final = re.compile(rb"\* +(?:([0-9]+) +)?([A-Za-z][!#$&'+-Z^-z|}~]*)(?![^ \[(])")
_COMPLETION: Final = re.compile(rb"([!#-)+-~][!-~]{0,99}) +(OK|NO|BAD)(?: (.*))?", re.IGNORECASE | re.DOTALL)


def _untagged(name: bytes, reader: "_Reader") -> Untagged:
    if name in _CONDITIONS:
        code, shown = _code_and_text(reader.rest())
        return Condition(Status(name.decode("ascii")), code, shown)
    read = _UNTAGGED.get(name)
    return Unknown(printable(name.decode("ascii"), 100)) if read is None else read(reader)


def _numbered(name: bytes, number: int, reader: "_Reader") -> Untagged:
    if name == b"FETCH":
        return _fetch(_within(number, 1, _MAX_32), reader)
    if name not in {b"EXISTS", b"RECENT", b"EXPUNGE"}:
        return Unknown(printable(name.decode("ascii"), 100))
    reader.end()
    if name == b"EXPUNGE":
        return Expunge(_within(number, 1, _MAX_32))
    count = _within(number, 0, _MAX_32)
    return Exists(count) if name == b"EXISTS" else Recent(count)


# ---- values


def _number(digits: bytes) -> int:
    # int() takes quadratic time; what is longer than any number of the protocol is not given to it.
    if len(digits) > _MAX_DIGITS:
        raise RemoteProtocolError(f"the server sent the number {excerpt(digits)}, which is out of bounds")
    return int(digits)


def _within(value: object, low: int, high: int) -> int:
    if not isinstance(value, int) or not low <= value <= high:
        raise RemoteProtocolError(f"the server sent {_described(value)} where a number from {low} to {high} belongs")
    return value


def _described(value: object) -> str:
    if isinstance(value, bytes):
        return excerpt(value)
    if isinstance(value, int):
        return str(value)
    return "NIL" if value is None else "a list"


def _is_number(value: bytes) -> bool:
    return value.isdigit() and len(value) <= _MAX_DIGITS


def _shown(octets: bytes) -> str:
    return printable(octets[:4000].decode("utf-8", "replace")).strip()


# Possessive, so that a text of megabytes keeps no way back.
_QUOTED: Final = rb'"([^"\\]*+(?:\\.[^"\\]*+)*+)"'
_TOKEN: Final = re.compile(rb"(\()|(\))|" + _QUOTED + rb'|([^ ()"]++)', re.DOTALL)
_SPACES: Final = re.compile(rb" *")
_ITEM_NAME: Final = re.compile(rb"[A-Za-z0-9][A-Za-z0-9._/-]*")
_IN_SECTION: Final = re.compile(rb'[^\]"]*+(?:"[^"]*+"[^\]"]*+)*+')
_ORIGIN: Final = re.compile(rb"<([0-9]{1,20})>")
_FLAGS: Final = re.compile(rb"\(([^()]*+)\)")
_MAILBOX_ATOM: Final = re.compile(rb'[^ "(][^ ]*+')


class _Reader:
    """Walks one frame from left to right, across its literals."""

    __slots__ = ("_at", "_budget", "_frame", "_part", "_text")

    def __init__(self, frame: Frame, at: int) -> None:
        self._frame = frame
        self._part = 0
        self._text = frame.texts[0]
        self._at = at
        self._budget = MAX_VALUES

    def broken(self) -> RemoteProtocolError:
        """Say where the frame stopped making sense."""
        where = excerpt(self._text[self._at :]) if self._at < len(self._text) else "its end"
        return RemoteProtocolError(f"the server sent a response that makes no sense from {where} on")

    def _spend(self) -> None:
        self._budget -= 1
        if self._budget < 0:
            raise RemoteProtocolError(f"the server sent a response of more than {MAX_VALUES} values")

    def skip(self) -> None:
        """Pass over spaces; there is one where there should be one, some servers send two."""
        if self._text[self._at : self._at + 1] == b" ":
            self._at = _SPACES.match(self._text, self._at).end()  # type: ignore[union-attr] # matches anything

    def ended(self) -> bool:
        """Whether nothing but spaces is left."""
        self.skip()
        return self._at == len(self._text) and self._part == len(self._frame.literals)

    def end(self) -> None:
        """Make sure that nothing is left."""
        if not self.ended():
            raise self.broken()

    def rest(self) -> bytes:
        """Take the remaining text; codes and texts for people hold no literals."""
        self.skip()
        rest = self._text[self._at :]
        self._at = len(self._text)
        return rest

    def match(self, pattern: re.Pattern[bytes]) -> re.Match[bytes] | None:
        """Take what *pattern* matches here."""
        found = pattern.match(self._text, self._at)
        if found is not None:
            self._at = found.end()
        return found

    def take(self, octet: bytes) -> bool:
        """Take this one octet, behind spaces, if it is there."""
        self.skip()
        if self._text[self._at : self._at + 1] != octet:
            return False
        self._at += 1
        return True

    def literal(self) -> bytes | None:
        """Take the literal that stands here, if one does."""
        if self._at < len(self._text) or self._part == len(self._frame.literals):
            return None
        found = self._frame.literals[self._part]
        self._part += 1
        self._text = self._frame.texts[self._part]
        self._at = 0
        return found

    def value(self) -> Value:
        """Take an atom, number, NIL, string or list of such."""
        opened: list[list[Value]] = []
        while True:
            found = self._one(opened)
            if found is _OPENED:
                continue
            # mypy knows an object() only as object; what is not the mark is a value.
            value: Value = found  # type: ignore[assignment]
            if not opened:
                return value
            opened[-1].append(value)

    def _one(self, opened: list[list[Value]]) -> object:
        self._spend()
        self.skip()
        literal = self.literal()
        if literal is not None:
            return literal
        token = self.match(_TOKEN)
        if token is None:
            raise self.broken()
        kind = token.lastindex
        if kind == 1:
            if len(opened) == MAX_NESTING:
                raise RemoteProtocolError(f"the server sent lists nested deeper than {MAX_NESTING}")
            opened.append([])
            return _OPENED
        if kind == 2:
            if not opened:
                raise self.broken()
            return tuple(opened.pop())
        if kind == 3:
            return _unescaped(token[3])
        atom = token[4]
        if _is_number(atom):
            return int(atom)
        return None if atom.upper() == b"NIL" else atom

    def string(self) -> bytes | None:
        """Take an atom, number or string as octets; None for NIL."""
        self.skip()
        literal = self.literal()
        if literal is not None:
            return literal
        token = self.match(_TOKEN)
        if token is None or token.lastindex in {1, 2}:
            raise self.broken()
        if token.lastindex == 3:
            return _unescaped(token[3])
        return None if token[4].upper() == b"NIL" else token[4]

    def items(self) -> Iterator[Value]:
        """Take a list, value by value; NIL is an empty one."""
        value = self.value()
        if value is not None and not isinstance(value, tuple):
            raise self.broken()
        return iter(value or ())

    def flags(self) -> Flags:
        """Take a list of flags. Anything but parentheses and spaces may stand in one: Gmail's hold `]`."""
        self.skip()
        found = self.match(_FLAGS)
        if found is None:
            raise self.broken()
        return _flags(found[1]) if len(found[1]) <= _USUAL else _unusual_flags(found[1])

    def mailbox(self) -> MailboxName:
        """Take a mailbox's name; as an atom it may hold what some servers forget to quote."""
        self.skip()
        literal = self.literal()
        if literal is not None:
            return MailboxName(literal)
        if self._text[self._at : self._at + 1] == b'"':
            return MailboxName(self.string() or b"")
        atom = self.match(_MAILBOX_ATOM)
        if atom is None:
            raise self.broken()
        return MailboxName(atom[0])

    def item_name(self) -> bytes:
        """Take the name of a FETCH item, in capitals."""
        self._spend()
        self.skip()
        name = self.match(_ITEM_NAME)
        if name is None or len(name[0]) > 100:
            raise self.broken()
        return name[0].upper()

    def section(self) -> str | None:
        """Take `[section]`, in capitals, if it stands here; header names in it may be strings of any form."""
        if self._text[self._at : self._at + 1] != b"[":
            return None
        self._at += 1
        parts: list[bytes] = []
        while True:
            inside = self.match(_IN_SECTION)
            parts.append(inside[0] if inside else b"")
            if self._text[self._at : self._at + 1] == b"]":
                self._at += 1
                return printable(b"".join(parts).upper().decode("latin-1"), 4000)
            literal = self.literal()
            if literal is None:
                raise self.broken()
            parts.append(literal)

    def origin(self) -> int | None:
        """Take `<origin>`, if it stands here."""
        found = self.match(_ORIGIN)
        return None if found is None else _within(int(found[1]), 0, _MAX_63)


_OPENED: Final = object()


def _unescaped(quoted: bytes) -> bytes:
    if b"\\" not in quoted:
        return quoted
    # What is left of the backslashes between two pairs of them escapes something else.
    return b"\\".join(part.replace(b"\\", b"") for part in quoted.split(b"\\\\"))


# ---- FETCH

# The commonest line of all, `* 12 FETCH (UID 34 FLAGS (\Seen))` and its like, in one step of C.
_FLAGS_LINE: Final = re.compile(
    rb"\* ([0-9]{1,10}) FETCH \((?:(?:"
    rb"UID ([0-9]{1,10})"
    rb"|FLAGS \(([!#-'*-~ ]*+)\)"
    rb"|MODSEQ \(([0-9]{1,19})\)"
    rb"|RFC822\.SIZE ([0-9]{1,18})"
    rb'|INTERNALDATE "([^"\\]{1,40}+)"'
    rb")(?: |(?=\))))++\)"
)
_USUAL: Final = 200  # octets of a list of flags that is worth remembering


_NO_OTHERS: Final[Mapping[str, object]] = MappingProxyType({})
# A frozen dataclass sets each field by a look-up of its name and two calls, which took half of the time of a line.
# Its slots are set here directly instead. (A new field of Fetch does not go unseen: this would fail on import.)
_SLOTS: Final = tuple(Fetch.__dict__[slot.name].__set__ for slot in fields(Fetch))
_number_is, _uid_is, _flags_are, _date_is, _size_is, _modseq_is, *_NEVER_ON_THIS_LINE = _SLOTS
_email_id_is, _thread_id_is, _bodies_are, _others_are = _NEVER_ON_THIS_LINE


def _flags_line(line: re.Match[bytes]) -> Fetch:
    number, uid, flags, modseq, size, date = line.groups()
    sequence = int(number)
    known = None if uid is None else int(uid)
    if not 0 < sequence <= _MAX_32 or (known is not None and not 0 < known <= _MAX_32):
        raise RemoteProtocolError(f"the server sent a FETCH of message {sequence}, UID {known}, which cannot be")
    fetch = object.__new__(Fetch)
    _number_is(fetch, sequence)
    _uid_is(fetch, known)
    _flags_are(fetch, None if flags is None else _flags(flags) if len(flags) <= _USUAL else _unusual_flags(flags))
    _date_is(fetch, None if date is None else _moment(date))
    _size_is(fetch, None if size is None else int(size))
    _modseq_is(fetch, None if modseq is None else _within(int(modseq), 0, _MAX_63))
    _email_id_is(fetch, None)
    _thread_id_is(fetch, None)
    _bodies_are(fetch, ())
    _others_are(fetch, _NO_OTHERS)
    return fetch


@lru_cache(maxsize=4096)
def _flags(spelled: bytes) -> Flags:
    """Read the inside of a list of flags; a mailbox has few different ones, and its messages share them."""
    return flags_of(printable(flag.decode("utf-8", "replace")) for flag in spelled.split())


def _unusual_flags(spelled: bytes) -> Flags:
    if len(spelled) > MAX_WORDS:
        raise RemoteProtocolError(f"the server sent a list of flags of {len(spelled)} octets")
    return _flags.__wrapped__(spelled)


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

    def take(self, name: bytes, reader: _Reader) -> bool:
        """Take the value of the item called *name*, if it has a field of its own."""
        match name:
            case b"UID":
                self.uid = Uid(_within(reader.value(), 1, _MAX_32))
            case b"FLAGS":
                self.flags = reader.flags()
            case b"INTERNALDATE":
                self.internal_date = _moment(reader.string() or b"")
            case b"RFC822.SIZE":
                self.size = _within(reader.value(), 0, _MAX_63)
            case b"MODSEQ":
                self.modseq = ModSeq(_within(_sole(reader.value()), 0, _MAX_63))
            case b"EMAILID":
                self.email_id = _object_id(reader.value())
            case b"THREADID":
                self.thread_id = _object_id(reader.value())
            case _:
                return False
        return True


def _fetch(number: int, reader: _Reader) -> Fetch:
    if not reader.take(b"("):
        raise reader.broken()
    items = _Items()
    bodies: list[BodySection] = []
    others: dict[str, object] = {}
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
    return Fetch(
        number,
        items.uid,
        items.flags,
        items.internal_date,
        items.size,
        items.modseq,
        items.email_id,
        items.thread_id,
        tuple(bodies),
        others,
    )


def _sole(value: Value) -> Value:
    """Return what stands alone in a list; some servers forget the parentheses."""
    return value[0] if isinstance(value, tuple) and len(value) == 1 else value


def _object_id(value: Value) -> str | None:
    """Read RFC 8474's `(M6d99ac3275bb4e)`; None for NIL and for what is none."""
    sole = _sole(value)
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


# ---- response codes and texts for people

_CODE: Final = re.compile(rb"\[([^ \]\[]{1,100})(?: ((?:\([^()]*+\)|[^\]\"]|\"[^\"]*+\")*+))?\]", re.DOTALL)
_NUMERIC_CODES: Final[Mapping[str, tuple[int, int]]] = {
    "UIDVALIDITY": (1, _MAX_32),
    "UIDNEXT": (1, _MAX_32),
    "UNSEEN": (0, _MAX_32),
    "HIGHESTMODSEQ": (1, _MAX_63),
    "MESSAGELIMIT": (1, _MAX_32),
}


def _code_and_text(text: bytes) -> tuple[Code | None, str]:
    found = _CODE.match(text, 0, MAX_WORDS)
    if found is None:
        return None, _shown(text)
    name = printable(found[1].decode("ascii", "replace")).upper()
    return Code(name, _code_value(name, found[2])), _shown(text[found.end() : found.end() + 4000])


def _code_value(name: str, spelled: bytes | None) -> int | str | frozenset[str] | None:
    if spelled is None:
        return None
    if name in _NUMERIC_CODES:
        low, high = _NUMERIC_CODES[name]
        # MESSAGELIMIT may name a UID behind its number (RFC 9738).
        digits = spelled[:64].strip().partition(b" ")[0] if name == "MESSAGELIMIT" else spelled.strip()
        if _is_number(digits) and low <= int(digits) <= high:
            return int(digits)
    elif name == "CAPABILITY" and len(spelled) <= MAX_WORDS:
        return _names(spelled)
    elif name == "PERMANENTFLAGS" and len(spelled) <= MAX_WORDS:
        inside = _FLAGS.fullmatch(spelled.strip())
        if inside is not None:
            return _flags.__wrapped__(inside[1])
    return _shown(spelled)


def _names(spelled: bytes) -> frozenset[str]:
    if len(spelled) > MAX_WORDS:
        raise RemoteProtocolError(f"the server sent a list of capabilities of {len(spelled)} octets")
    return frozenset(printable(name.decode("ascii", "replace")).upper() for name in spelled.split())


# ---- the other untagged responses


def _capability(reader: _Reader) -> Untagged:
    return Capabilities(_names(reader.rest()))


def _enabled(reader: _Reader) -> Untagged:
    # Dovecot answers an empty list where nothing was switched on.
    return Enabled(_names(reader.rest()))


def _mailbox_flags(reader: _Reader) -> Untagged:
    flags = reader.flags()
    reader.end()
    return MailboxFlags(flags)


_EARLIER: Final = re.compile(rb"\(EARLIER\) *", re.IGNORECASE)


def _vanished(reader: _Reader) -> Untagged:
    reader.skip()
    earlier = reader.match(_EARLIER) is not None
    spelled = reader.rest().rstrip(b" ")
    return Vanished(UidSet.parse(spelled) if spelled else UidSet(), earlier)


_NUMBERS: Final = re.compile(rb" *[0-9]{1,10}(?: +[0-9]{1,10}){0,9999}+(?![0-9])")
_FOUND_MODSEQ: Final = re.compile(rb" *\(MODSEQ ([0-9]{1,19})\)", re.IGNORECASE)


def _search(reader: _Reader) -> Untagged:
    """Read RFC 3501's SEARCH: numbers in any order, repeated or not, up to millions of them."""
    numbers = array("Q")
    # Ten thousand at a time: as octets objects they are ten times their spelling.
    while (run := reader.match(_NUMBERS)) is not None:
        numbers.extend(set(map(int, run[0].split())))
    try:
        found = UidSet.from_uids(numbers)
    except ValueError:
        raise RemoteProtocolError("the server found a message numbered outside 1..4294967295") from None
    modseq = reader.match(_FOUND_MODSEQ)
    reader.end()
    return Search(found, modseq=None if modseq is None else ModSeq(_within(int(modseq[1]), 0, _MAX_63)))


_CORRELATOR: Final = re.compile(rb" *(?=\()")
_SET_HERE: Final = re.compile(rb"[0-9:,]++")


def _esearch(reader: _Reader) -> Untagged:
    """Read RFC 4731's ESEARCH. ALL is what was found; without it MIN and MAX are."""
    tag: str | None = None
    if reader.match(_CORRELATOR):
        pairs = list(reader.items())
        for name, value in zip(pairs[::2], pairs[1::2], strict=False):
            if isinstance(name, bytes) and name.upper() == b"TAG" and isinstance(value, bytes | int):
                tag = printable(value.decode("ascii", "replace") if isinstance(value, bytes) else str(value), 100)
    everything: UidSet | None = None
    ends: list[int] = []
    modseq: ModSeq | None = None
    count: int | None = None
    while not reader.ended():
        name = reader.item_name()
        match name:
            case b"UID":
                pass  # says that the numbers are UIDs; the command knows
            case b"ALL":
                reader.skip()
                spelled = reader.match(_SET_HERE)
                if spelled is None:
                    raise reader.broken()
                everything = UidSet.parse(spelled[0]) | (everything or UidSet())
            case b"MIN" | b"MAX":
                ends.append(_within(reader.value(), 1, _MAX_32))
            case b"COUNT":
                count = _within(reader.value(), 0, _MAX_32)
            case b"MODSEQ":
                modseq = ModSeq(_within(_sole(reader.value()), 0, _MAX_63))
            case _:
                reader.value()  # PARTIAL, RELEVANCY and what is to come
    return Search(UidSet.from_uids(ends) if everything is None else everything, tag, modseq, count)


def _list(reader: _Reader) -> Untagged:
    attributes = frozenset(_shown(one).lower() for one in reader.items() if isinstance(one, bytes))
    delimiter = reader.string()
    name = reader.mailbox()
    old_name: MailboxName | None = None
    if not reader.ended():
        # RFC 5258 section 6: pairs of a name and a value. RFC 9051 section 6.3.9.7: OLDNAME ("the name before").
        extended = list(reader.items())
        for key, value in zip(extended[::2], extended[1::2], strict=False):
            sole = _sole(value)
            if isinstance(key, bytes) and key.upper() == b"OLDNAME" and isinstance(sole, bytes):
                old_name = MailboxName(sole)
    reader.end()
    return ListEntry(attributes, _delimiter(delimiter), name, old_name)


def _delimiter(octets: bytes | None) -> str | None:
    return printable(octets.decode("utf-8", "replace"), 1) if octets else None


_UID_ITEMS: Final = frozenset({"UIDNEXT", "UIDVALIDITY"})
_WIDE_ITEMS: Final = frozenset({"HIGHESTMODSEQ", "SIZE", "APPENDLIMIT", "DELETED-STORAGE"})


def _status(reader: _Reader) -> Untagged:
    mailbox = reader.mailbox()
    pairs = list(reader.items())
    reader.end()
    items: dict[str, int | str] = {}
    for key, value in zip(pairs[::2], pairs[1::2], strict=False):
        if not isinstance(key, bytes):
            raise RemoteProtocolError("the server sent a STATUS item without a name")
        name = _shown(key).upper()
        sole = _sole(value)
        if isinstance(sole, int):
            # 0 is said of mailboxes that cannot be selected, 4294967296 of those that are full: not known is right.
            if name in _UID_ITEMS and not 1 <= sole <= _MAX_32:
                continue
            items[name] = _within(sole, 0, _MAX_63 if name in _WIDE_ITEMS else _MAX_32) if name in _COUNTS else sole
        elif isinstance(sole, bytes):
            items[name] = _shown(sole)
    return StatusReply(mailbox, items)


_COUNTS: Final = _UID_ITEMS | _WIDE_ITEMS | {"MESSAGES", "RECENT", "UNSEEN", "DELETED"}


def _id(reader: _Reader) -> Untagged:
    pairs = list(reader.items())
    reader.end()
    said: dict[str, str] = {}
    # RFC 2971 section 3.3 allows thirty.
    for key, value in zip(pairs[:60:2], pairs[1:60:2], strict=False):
        if isinstance(key, bytes) and isinstance(value, bytes | int):
            said[_shown(key).lower()] = _shown(value) if isinstance(value, bytes) else str(value)
    return ServerId(said)


def _namespace(reader: _Reader) -> Untagged:
    personal, others, shared = (_prefixes(reader) for _ in range(3))
    reader.end()
    return Namespace(personal, others, shared)


def _prefixes(reader: _Reader) -> tuple[tuple[str, str | None], ...]:
    found: list[tuple[str, str | None]] = []
    for one in reader.items():
        if isinstance(one, tuple) and len(one) > 1 and isinstance(one[0], bytes):
            delimiter = one[1]
            found.append((decode_mutf7(one[0]), _delimiter(delimiter) if isinstance(delimiter, bytes) else None))
    return tuple(found)


_CONDITIONS: Final = frozenset(status.value.encode("ascii") for status in Status)
_UNTAGGED: Final[Mapping[bytes, Callable[[_Reader], Untagged]]] = {
    b"CAPABILITY": _capability,
    b"ENABLED": _enabled,
    b"ESEARCH": _esearch,
    b"FLAGS": _mailbox_flags,
    b"ID": _id,
    b"LIST": _list,
    b"LSUB": _list,
    b"NAMESPACE": _namespace,
    b"SEARCH": _search,
    b"STATUS": _status,
    b"VANISHED": _vanished,
    b"XLIST": _list,
}
