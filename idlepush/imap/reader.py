"""Walking through a framed response: atoms, numbers, strings and lists, across its literals.

What every response is read with. Linear: every text is walked once; nesting is a list, not recursion; numbers are
measured before they are converted; and a response may hold at most `MAX_VALUES` values, so that a megabyte of
parentheses costs no seconds. Anything that makes no sense is RemoteProtocolError, and nothing else is raised.
"""

import re
from collections.abc import Iterator
from functools import lru_cache
from typing import Final

from idlepush.errors import RemoteProtocolError
from idlepush.imap.framing import Frame
from idlepush.imap.types import Flags, MailboxName, excerpt, flags_of, printable

Value = bytes | int | tuple["Value", ...] | None

MAX_NESTING: Final = 200
MAX_VALUES: Final = 100_000
MAX_WORDS: Final = 64 * 1024  # octets of a list of flags or capabilities
MAX_32: Final = 2**32 - 1
MAX_63: Final = 2**63 - 1

_MAX_DIGITS: Final = 20  # of 2**64 - 1, the largest number any extension has


def number_of(digits: bytes) -> int:
    """Read a number."""
    # int() takes quadratic time; what is longer than any number of the protocol is not given to it.
    if len(digits) > _MAX_DIGITS:
        raise RemoteProtocolError(f"the server sent the number {excerpt(digits)}, which is out of bounds")
    return int(digits)


def within(value: object, low: int, high: int) -> int:
    """Return *value*, which must be a number from *low* to *high*."""
    if not isinstance(value, int) or not low <= value <= high:
        raise RemoteProtocolError(f"the server sent {_described(value)} where a number from {low} to {high} belongs")
    return value


def _described(value: object) -> str:
    if isinstance(value, bytes):
        return excerpt(value)
    if isinstance(value, int):
        return str(value)
    return "NIL" if value is None else "a list"


def is_number(value: bytes) -> bool:
    """Tell whether `number_of` takes it."""
    return value.isdigit() and len(value) <= _MAX_DIGITS


def text_of(octets: bytes) -> str:
    """Read a text for people: fit to be shown, and no longer than anybody reads."""
    return printable(octets[:4000].decode("utf-8", "replace")).strip()


# Possessive, so that a text of megabytes keeps no way back.
_QUOTED: Final = rb'"([^"\\]*+(?:\\.[^"\\]*+)*+)"'
_TOKEN: Final = re.compile(rb"(\()|(\))|" + _QUOTED + rb'|([^ ()"]++)', re.DOTALL)
_TAIL: Final = 2000
_SPACES: Final = re.compile(rb" *")
_ITEM_NAME: Final = re.compile(rb"[A-Za-z0-9][A-Za-z0-9._/-]*")
_IN_SECTION: Final = re.compile(rb'[^\]"]*+(?:"[^"]*+"[^\]"]*+)*+')
_ORIGIN: Final = re.compile(rb"<([0-9]{1,20})>")
FLAGS: Final = re.compile(rb"\(([^()]*+)\)")
_MAILBOX_ATOM: Final = re.compile(rb'[^ "(][^ ]*+')


class Reader:
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

    def skip_to_end(self, tail: re.Pattern[bytes]) -> None:
        """Go to where *tail* begins, which is an end of the frame."""
        self._part = len(self._frame.literals)
        self._text = self._frame.texts[-1]
        # The last octets are enough; to look for an end from each place of a megabyte is not.
        found = tail.search(self._text, max(0, len(self._text) - _TAIL))
        self._at = len(self._text) if found is None else found.start()
        self._budget = max(self._budget, _TAIL)

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
        if is_number(atom):
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
        found = self.match(FLAGS)
        if found is None:
            raise self.broken()
        return flags_in(found[1]) if len(found[1]) <= USUAL else unusual_flags(found[1])

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
        return None if found is None else within(int(found[1]), 0, MAX_63)


_OPENED: Final = object()


def _unescaped(quoted: bytes) -> bytes:
    if b"\\" not in quoted:
        return quoted
    # What is left of the backslashes between two pairs of them escapes something else.
    return b"\\".join(part.replace(b"\\", b"") for part in quoted.split(b"\\\\"))


# ---- flags and what else several responses hold

USUAL: Final = 200  # octets of a list of flags that is worth remembering


@lru_cache(maxsize=4096)
def flags_in(spelled: bytes) -> Flags:
    """Read the inside of a list of flags; a mailbox has few different ones, and its messages share them."""
    return flags_of(printable(flag.decode("utf-8", "replace")) for flag in spelled.split())


def unusual_flags(spelled: bytes) -> Flags:
    """Read a list longer than USUAL octets, which is not worth remembering."""
    if len(spelled) > MAX_WORDS:
        raise RemoteProtocolError(f"the server sent a list of flags of {len(spelled)} octets")
    return flags_in.__wrapped__(spelled)


def alone(value: Value) -> Value:
    """Return what stands alone in a list; some servers forget the parentheses."""
    return value[0] if isinstance(value, tuple) and len(value) == 1 else value
