"""What is read off a message's header: who, to whom, what about, when (RFC 5322, RFC 2047).

Mail is written by strangers. So everything here is total (any octets give some `Headers`, never an exception),
bounded (a header of a gigabyte costs as much as one of 256 KiB), linear in what it looks at, and its results are
valid UTF-8 without control characters. Only the wanted fields are looked for: `email.message_from_bytes` takes
milliseconds for a mail whose five fields are found in some tens of microseconds.
"""

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Final

from idlepush.imap.types import printable
from idlepush.sync.encoding import field_in, shown

HEADER_LIMIT: Final = 256 * 1024
SUBJECT_LIMIT: Final = 10_000
ADDRESSES_LIMIT: Final = 1000
MESSAGE_ID_LIMIT: Final = 998

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Address:
    """One of From or To; at least one of both is there."""

    name: str | None
    address: str | None


@dataclass(frozen=True, slots=True)
class Headers:
    """What the outside sees of a header. The first field of a name counts, where a name comes twice.

    `message_id` keeps its brackets; `date` is in UTC, None where it cannot be read.
    """

    message_id: str | None = None
    subject: str | None = None
    sender: tuple[Address, ...] = ()
    to: tuple[Address, ...] = ()
    date: datetime | None = None


def headers_of(raw: bytes) -> Headers:
    """Read the header of *raw*, a message or the beginning of one. Never raises."""
    # A line end before the first field, so that every field stands behind one.
    header = b"\n" + raw[: _header_end(raw, HEADER_LIMIT)]
    # One lower-case copy and five searches at the speed of C, instead of a walk through all fields.
    folded = header.lower()
    message_id = field_in(header, folded, b"message-id")
    subject = field_in(header, folded, b"subject")
    date = field_in(header, folded, b"date")
    return Headers(
        message_id=_message_id(message_id) if message_id else None,
        subject=(shown(subject, SUBJECT_LIMIT) or None) if subject else None,
        sender=addresses_in(field_in(header, folded, b"from")),
        to=addresses_in(field_in(header, folded, b"to")),
        date=_date(date) if date else None,
    )


def header_of(raw: bytes) -> bytes:
    """Return the header up to and including the blank line; all of *raw* where there is none."""
    return raw[: _header_end(raw, len(raw))]


def fingerprint(header: bytes, size: int, internal_date: datetime | None) -> bytes:
    """Return a key that is the same for the same message under another UID or UIDVALIDITY."""
    moment = b"-" if internal_date is None else b"%d" % ((internal_date - _EPOCH) // timedelta(seconds=1))
    return hashlib.sha256(b"%d %s %d\n%s" % (size, moment, len(header), header)).digest()


def _header_end(raw: bytes, limit: int) -> int:
    """Return where the header ends, blank line included, looking at no more than *limit* octets.

    Searched in windows that double: a mail whose lines end in LF alone is not searched for CRLF to its end.
    """
    if raw.startswith((b"\n", b"\r\n")):
        return raw.index(b"\n") + 1
    limit = min(limit, len(raw))
    begin, end = 0, 4096
    while True:
        end = min(end, limit)
        crlf = raw.find(b"\n\r\n", begin, end)
        lf = raw.find(b"\n\n", begin, end if crlf < 0 else crlf)
        if lf >= 0:
            return lf + 2
        if crlf >= 0:
            return crlf + 3
        if end == limit:
            return limit
        begin, end = end - 2, end * 2


_MESSAGE_ID: Final = re.compile(r"<[^>]*>|\S+")


def _message_id(body: str) -> str | None:
    found = _MESSAGE_ID.search(body)
    return printable(found[0], MESSAGE_ID_LIMIT).strip() or None if found else None


def _date(body: str) -> datetime | None:
    try:
        moment = parsedate_to_datetime(body[:200])
        # "-0000" says UTC, and nothing of where it was written (RFC 5322 section 3.3).
        return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    except (ValueError, TypeError, IndexError, OverflowError):
        return None


# ---- addresses

# An encoded word is taken whole, for some mailers leave commas and quotes in it. Comments are counted by hand,
# because they nest. A quoted string that never ends goes to the end: to look for its quote again and again would
# take quadratic time.
_TOKEN: Final = re.compile(
    r"""(?P<word>=\?[^?\s]{1,60}\?[bBqQ]\?[^?]*\?=)
      | "(?P<quoted>(?:[^"\\]++|\\.?)*+)(?:"|\Z)
      | <(?P<angle>[^<>]*)>
      | (?P<mark>[,;:()])
      | (?P<space>\s+)
      | (?P<text>[^\s",;:()<>=\\]+ | \\. | .)""",
    re.VERBOSE | re.DOTALL,
)
_COMMENT: Final = re.compile(r"\([^()]*\)")
_QUOTED_PAIR: Final = re.compile(r"\\(.)", re.DOTALL)


@dataclass(slots=True)
class _Mention:
    """One address while its tokens are gathered."""

    words: list[str] = field(default_factory=list)
    comments: list[str] = field(default_factory=list)
    angle: str | None = None
    quoted: bool = False

    def address(self) -> Address | None:
        phrase = "".join(self.words).strip()
        comment = "".join(self.comments).strip()
        if self.angle is not None:
            # RFC 5322 section 4.4: an obsolete route may stand before the address.
            address = self.angle.rpartition(":")[2] if self.angle.startswith("@") else self.angle
            return _address(phrase or comment, _COMMENT.sub("", address))
        if "@" in phrase:
            # Without angle brackets, or one of them: the word with the last @ is the address, the name before it.
            before, _, domain = phrase.rpartition("@")
            name, _, local = before.rstrip().rpartition(" ")
            return _address(name or comment, f"{local}@{''.join(domain.split())}".strip("<>"))
        if self.quoted or " " in phrase or not phrase:
            return _address(phrase or comment, "")
        return _address(comment, phrase)


def _address(name: str, address: str) -> Address | None:
    known_as = shown(name, 1000) or None
    spelled = printable(address, 1000).strip() or None
    return Address(known_as, spelled) if known_as or spelled else None


def addresses_in(body: str) -> tuple[Address, ...]:
    """Read an address list (RFC 5322 section 3.4), at most ADDRESSES_LIMIT of them."""
    if not body:
        return ()
    found: list[Address] = []
    for mention in _mentions(body):
        address = mention.address()
        if address is not None:
            found.append(address)
            if len(found) == ADDRESSES_LIMIT:
                break
    return tuple(found)


def _mentions(body: str) -> Iterator[_Mention]:
    """Cut an address list (RFC 5322 section 3.4) into its mentions, group names left out."""
    mention = _Mention()
    depth = 0
    for token in _TOKEN.finditer(body):
        kind, text = token.lastgroup, token[0]
        if kind == "mark" and text in "()" and (depth or text == "("):
            depth += 1 if text == "(" else -1
        elif depth:
            mention.comments.append(text[1:] if kind == "text" and text[0] == "\\" else text)
        elif kind == "mark" and text in ",;":
            yield mention
            mention = _Mention()
        elif kind == "mark" and text == ":":
            mention = _Mention()  # what stood before it was the name of a group
        elif kind == "angle":
            mention.angle = token["angle"]
        elif kind == "quoted":
            mention.words.append(_QUOTED_PAIR.sub(r"\1", token["quoted"]))
            mention.quoted = True
        elif kind == "space":
            mention.words.append(" ")
        else:
            mention.words.append(text)
    yield mention
