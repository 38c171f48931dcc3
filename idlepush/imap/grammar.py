r"""Reading a framed response (RFC 9051 section 9 and its extensions): `parse`.

Total: any frame gives a response or RemoteProtocolError, nothing else. What is well-formed but of no use to
idlepush is `Unknown`; what servers are known to send although the RFC forbids it is read and said so where it is.

Strict where leniency would hide a stream that lost its meaning (a FETCH must end where its parenthesis closes),
lenient where only people or nobody looks (texts, codes, attributes). A code that is broken costs itself, not its
line.

`imap/reader` walks the frame, `imap/fetch` reads the one response that is most of the traffic.
"""

import re
from array import array
from collections.abc import Callable, Mapping
from typing import Final

from idlepush.errors import RemoteProtocolError
from idlepush.imap.fetch import USUAL_FETCH, read_fetch, usual_fetch
from idlepush.imap.framing import Frame
from idlepush.imap.reader import (
    FLAGS,
    MAX_32,
    MAX_63,
    MAX_WORDS,
    Reader,
    alone,
    flags_in,
    is_number,
    number_of,
    text_of,
    within,
)
from idlepush.imap.responses import (
    Capabilities,
    Code,
    Completion,
    Condition,
    Continuation,
    Enabled,
    Exists,
    Expunge,
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
from idlepush.imap.types import MailboxName, ModSeq, decode_mutf7, excerpt, printable
from idlepush.imap.uidset import UidSet


def parse(frame: Frame) -> Response:
    """Read one response.

    Raises:
        RemoteProtocolError: it is none, or a number in it is out of bounds; the connection is of no more use.
    """
    texts, literals = frame
    text = texts[0]
    if not literals:
        line = USUAL_FETCH.fullmatch(text)
        if line is not None:
            return usual_fetch(line)
    head = _UNTAGGED_HEAD.match(text)
    if head is not None:
        reader = Reader(frame, head.end())
        name = head[2].upper()
        return _untagged(name, reader) if head[1] is None else _numbered(name, number_of(head[1]), reader)
    if text.startswith(b"+"):
        return Continuation(text[1:].lstrip(b" "))
    tagged = _COMPLETION.fullmatch(text)
    if tagged is None:
        raise RemoteProtocolError(f"the server sent {excerpt(text)} where a response belongs")
    code, shown = _code_and_text(tagged[3] or b"")
    return Completion(tagged[1].decode("ascii"), Status(tagged[2].upper().decode("ascii")), code, shown)


_UNTAGGED_HEAD: Final = re.compile(rb"\* +(?:([0-9]+) +)?([A-Za-z][!#$&'+-Z^-z|}~]*)(?![^ \[(])")
_COMPLETION: Final = re.compile(rb"([!#-)+-~][!-~]{0,99}) +(OK|NO|BAD)(?: (.*))?", re.IGNORECASE | re.DOTALL)


def _untagged(name: bytes, reader: Reader) -> Untagged:
    if name in _CONDITIONS:
        code, shown = _code_and_text(reader.rest())
        return Condition(Status(name.decode("ascii")), code, shown)
    read = _UNTAGGED.get(name)
    return Unknown(printable(name.decode("ascii"), 100)) if read is None else read(reader)


def _numbered(name: bytes, number: int, reader: Reader) -> Untagged:
    if name == b"FETCH":
        return read_fetch(within(number, 1, MAX_32), reader)
    if name not in {b"EXISTS", b"RECENT", b"EXPUNGE"}:
        return Unknown(printable(name.decode("ascii"), 100))
    reader.end()
    if name == b"EXPUNGE":
        return Expunge(within(number, 1, MAX_32))
    count = within(number, 0, MAX_32)
    return Exists(count) if name == b"EXISTS" else Recent(count)


# ---- response codes and texts for people

_CODE: Final = re.compile(rb"\[([^ \]\[]{1,100})(?: ((?:\([^()]*+\)|[^\]\"]|\"[^\"]*+\")*+))?\]", re.DOTALL)
_NUMERIC_CODES: Final[Mapping[str, tuple[int, int]]] = {
    "UIDVALIDITY": (1, MAX_32),
    "UIDNEXT": (1, MAX_32),
    "UNSEEN": (0, MAX_32),
    "HIGHESTMODSEQ": (1, MAX_63),
    "MESSAGELIMIT": (1, MAX_32),
}


def _code_and_text(text: bytes) -> tuple[Code | None, str]:
    found = _CODE.match(text, 0, MAX_WORDS)
    if found is None:
        return None, text_of(text)
    name = printable(found[1].decode("ascii", "replace")).upper()
    return Code(name, _code_value(name, found[2])), text_of(text[found.end() : found.end() + 4000])


def _code_value(name: str, spelled: bytes | None) -> int | str | frozenset[str] | None:
    if spelled is None:
        return None
    if name in _NUMERIC_CODES:
        low, high = _NUMERIC_CODES[name]
        # MESSAGELIMIT may name a UID behind its number (RFC 9738).
        digits = spelled[:64].strip().partition(b" ")[0] if name == "MESSAGELIMIT" else spelled.strip()
        if is_number(digits) and low <= int(digits) <= high:
            return int(digits)
    elif name == "CAPABILITY" and len(spelled) <= MAX_WORDS:
        return _names(spelled)
    elif name == "PERMANENTFLAGS" and len(spelled) <= MAX_WORDS:
        inside = FLAGS.fullmatch(spelled.strip())
        if inside is not None:
            return flags_in.__wrapped__(inside[1])
    return text_of(spelled)


def _names(spelled: bytes) -> frozenset[str]:
    if len(spelled) > MAX_WORDS:
        raise RemoteProtocolError(f"the server sent a list of capabilities of {len(spelled)} octets")
    return frozenset(printable(name.decode("ascii", "replace")).upper() for name in spelled.split())


# ---- the other untagged responses


def _capability(reader: Reader) -> Untagged:
    return Capabilities(_names(reader.rest()))


def _enabled(reader: Reader) -> Untagged:
    # Dovecot answers an empty list where nothing was switched on.
    return Enabled(_names(reader.rest()))


def _mailbox_flags(reader: Reader) -> Untagged:
    flags = reader.flags()
    reader.end()
    return MailboxFlags(flags)


_EARLIER: Final = re.compile(rb"\(EARLIER\) *", re.IGNORECASE)


def _vanished(reader: Reader) -> Untagged:
    reader.skip()
    earlier = reader.match(_EARLIER) is not None
    spelled = reader.rest().rstrip(b" ")
    return Vanished(UidSet.parse(spelled) if spelled else UidSet(), earlier)


_NUMBERS: Final = re.compile(rb" *[0-9]{1,10}(?: +[0-9]{1,10}){0,9999}+(?![0-9])")
_FOUND_MODSEQ: Final = re.compile(rb" *\(MODSEQ ([0-9]{1,19})\)", re.IGNORECASE)


def _search(reader: Reader) -> Untagged:
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
    return Search(found, modseq=None if modseq is None else ModSeq(within(int(modseq[1]), 0, MAX_63)))


_CORRELATOR: Final = re.compile(rb" *(?=\()")
_SET_HERE: Final = re.compile(rb"[0-9:,]++")


def _esearch(reader: Reader) -> Untagged:
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
                ends.append(within(reader.value(), 1, MAX_32))
            case b"COUNT":
                count = within(reader.value(), 0, MAX_32)
            case b"MODSEQ":
                modseq = ModSeq(within(alone(reader.value()), 0, MAX_63))
            case _:
                reader.value()  # PARTIAL, RELEVANCY and what is to come
    return Search(UidSet.from_uids(ends) if everything is None else everything, tag, modseq, count)


def _list(reader: Reader) -> Untagged:
    attributes = frozenset(text_of(one).lower() for one in reader.items() if isinstance(one, bytes))
    delimiter = reader.string()
    name = reader.mailbox()
    old_name: MailboxName | None = None
    if not reader.ended():
        # RFC 5258 section 6: pairs of a name and a value. RFC 9051 section 6.3.9.7: OLDNAME ("the name before").
        extended = list(reader.items())
        for key, value in zip(extended[::2], extended[1::2], strict=False):
            sole = alone(value)
            if isinstance(key, bytes) and key.upper() == b"OLDNAME" and isinstance(sole, bytes):
                old_name = MailboxName(sole)
    reader.end()
    return ListEntry(attributes, _delimiter(delimiter), name, old_name)


def _delimiter(octets: bytes | None) -> str | None:
    return printable(octets.decode("utf-8", "replace"), 1) if octets else None


_UID_ITEMS: Final = frozenset({"UIDNEXT", "UIDVALIDITY"})
_WIDE_ITEMS: Final = frozenset({"HIGHESTMODSEQ", "SIZE", "APPENDLIMIT", "DELETED-STORAGE"})


def _status(reader: Reader) -> Untagged:
    mailbox = reader.mailbox()
    pairs = list(reader.items())
    reader.end()
    items: dict[str, int | str] = {}
    for key, value in zip(pairs[::2], pairs[1::2], strict=False):
        if not isinstance(key, bytes):
            raise RemoteProtocolError("the server sent a STATUS item without a name")
        name = text_of(key).upper()
        sole = alone(value)
        if isinstance(sole, int):
            # 0 is said of mailboxes that cannot be selected, 4294967296 of those that are full: not known is right.
            if name in _UID_ITEMS and not 1 <= sole <= MAX_32:
                continue
            items[name] = within(sole, 0, MAX_63 if name in _WIDE_ITEMS else MAX_32) if name in _COUNTS else sole
        elif isinstance(sole, bytes):
            items[name] = text_of(sole)
    return StatusReply(mailbox, items)


_COUNTS: Final = _UID_ITEMS | _WIDE_ITEMS | {"MESSAGES", "RECENT", "UNSEEN", "DELETED"}


def _id(reader: Reader) -> Untagged:
    pairs = list(reader.items())
    reader.end()
    said: dict[str, str] = {}
    # RFC 2971 section 3.3 allows thirty.
    for key, value in zip(pairs[:60:2], pairs[1:60:2], strict=False):
        if isinstance(key, bytes) and isinstance(value, bytes | int):
            said[text_of(key).lower()] = text_of(value) if isinstance(value, bytes) else str(value)
    return ServerId(said)


def _namespace(reader: Reader) -> Untagged:
    personal, others, shared = (_prefixes(reader) for _ in range(3))
    reader.end()
    return Namespace(personal, others, shared)


def _prefixes(reader: Reader) -> tuple[tuple[str, str | None], ...]:
    found: list[tuple[str, str | None]] = []
    for one in reader.items():
        if isinstance(one, tuple) and len(one) > 1 and isinstance(one[0], bytes):
            delimiter = one[1]
            found.append((decode_mutf7(one[0]), _delimiter(delimiter) if isinstance(delimiter, bytes) else None))
    return tuple(found)


_CONDITIONS: Final = frozenset(status.value.encode("ascii") for status in Status)
_UNTAGGED: Final[Mapping[bytes, Callable[[Reader], Untagged]]] = {
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
