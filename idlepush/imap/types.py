"""The values of IMAP: UIDs, flags and mailbox names, each knowing its own rules (RFC 9051 section 2.3, 5.1)."""

import base64
import binascii
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, NewType

Uid = NewType("Uid", int)
UidValidity = NewType("UidValidity", int)
ModSeq = NewType("ModSeq", int)

MAX_UID: Final = Uid(2**32 - 1)

# What a stranger's text must not do to a terminal, a log line or a page: move the cursor, ring the bell, end the
# line, turn the writing direction, or be no valid UTF-8.
_UNPRINTABLE: Final = re.compile("[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def printable(text: str, limit: int = 1000) -> str:
    """Return *text* fit to be shown and stored: a space for each control character, at most *limit* characters."""
    return _UNPRINTABLE.sub(" ", text[:limit])


def excerpt(octets: bytes) -> str:
    """Return the beginning of what a server sent, fit for an error's sentence: at most 40 characters, quoted."""
    shown = "".join(chr(octet) if 0x20 <= octet < 0x7F else f"\\x{octet:02x}" for octet in octets[:40])
    return f"“{shown[:39]}…”" if len(octets) > 40 or len(shown) > 40 else f"“{shown}”"


_SYSTEM_FLAGS: Final = {
    flag.casefold(): flag for flag in ("\\Answered", "\\Flagged", "\\Deleted", "\\Seen", "\\Draft", "\\Recent", "\\*")
}

Flags = frozenset[str]


def flags_of(spelled: Iterable[str]) -> Flags:
    r"""Return the flags as the mirror knows them.

    System flags are spelled as in RFC 9051 whatever the server's case, `\Recent` is dropped, keywords stay
    as the server spells them, but only one of those that differ in nothing but case is kept.
    """
    known: dict[str, str] = {}
    for flag in spelled:
        folded = flag.casefold()
        if folded != "\\recent":
            known.setdefault(folded, _SYSTEM_FLAGS.get(folded, flag))
    return frozenset(known.values())


def same_flags(one: Flags, other: Flags) -> bool:
    """Tell whether the two mean the same: keywords are compared case-insensitively (RFC 9051 section 2.3.2)."""
    return one == other or {flag.casefold() for flag in one} == {flag.casefold() for flag in other}


@dataclass(frozen=True, slots=True, order=True)
class MailboxName:
    """A mailbox's name: `raw`, its identity as the server spells it in modified UTF-7 (RFC 3501 section 5.1.3).

    INBOX is case-insensitive and always in capitals here.
    """

    raw: bytes

    def __post_init__(self) -> None:
        if self.raw.upper() == b"INBOX":
            object.__setattr__(self, "raw", b"INBOX")

    @classmethod
    def from_text(cls, text: str) -> "MailboxName":
        """Spell a Unicode name for the wire."""
        return cls(encode_mutf7(text))

    @property
    def text(self) -> str:
        """The name in Unicode; what is not valid modified UTF-7 is shown as it stands, undecodable octets as U+FFFD."""
        return decode_mutf7(self.raw)

    def __str__(self) -> str:
        return self.text


_PLAIN_RUN: Final = re.compile(r"[\x20-\x7e]+|[^\x20-\x7e]+")
_SHIFTED: Final = re.compile(rb"&([A-Za-z0-9+,]*)-")


def encode_mutf7(text: str) -> bytes:
    """Spell *text* in modified UTF-7 (RFC 3501 section 5.1.3)."""
    spelled = bytearray()
    for run in _PLAIN_RUN.findall(text):
        if run[0].isascii() and run[0].isprintable():
            spelled += run.replace("&", "&-").encode("ascii")
        else:
            utf16 = run.encode("utf-16-be", "surrogatepass")
            spelled += b"&" + base64.b64encode(utf16).rstrip(b"=").replace(b"/", b",") + b"-"
    return bytes(spelled)


def decode_mutf7(raw: bytes) -> str:
    """Read modified UTF-7.

    Total: a name that is not valid is read as UTF-8 instead (servers with UTF8=ACCEPT, and some without, send
    that), with U+FFFD for what is not that either.
    """

    def shifted(match: re.Match[bytes]) -> bytes:
        encoded = match[1]
        if not encoded:
            return b"&"
        padded = encoded.replace(b",", b"/") + b"=" * (-len(encoded) % 4)
        return base64.b64decode(padded, validate=True).decode("utf-16-be").encode()

    try:
        text = _SHIFTED.sub(shifted, raw).decode()
    except (binascii.Error, UnicodeError):
        return raw.decode("utf-8", "replace")
    # Only the one right spelling is read back: two names must never look the same, and a name must be found again.
    return text if encode_mutf7(text) == raw else raw.decode("utf-8", "replace")
