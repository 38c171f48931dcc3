"""What an IMAP server has: mailboxes of messages, and the small grammars by which they are named and numbered."""

import re
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

MAX_NUMBER = 2**32 - 1
_TOKEN = re.compile(r'"((?:[^"\\]|\\.)*)"|([()])|([^\s()"]+)', re.DOTALL)


class BadSyntax(Exception):
    """The command cannot be understood: BAD."""


@dataclass(eq=False, kw_only=True)
class Message:
    """One message; `is_expunged` stays behind for the sessions that have not been told yet."""

    uid: int
    raw: bytes
    flags: frozenset[str] = frozenset()
    internaldate: str = "21-Nov-2026 20:00:00 +0000"
    emailid: str = ""
    modseq: int = 1
    is_expunged: bool = False

    @property
    def header(self) -> bytes:
        """The header with the empty line behind it (RFC 9051 section 6.4.5.1)."""
        if self.raw.startswith(b"\r\n"):
            return b"\r\n"
        head, gap, _ = self.raw.partition(b"\r\n\r\n")
        return head + gap

    @property
    def text(self) -> bytes:
        return self.raw[len(self.header) :]

    def header_fields(self, names: Iterable[str]) -> bytes:
        """Return the fields named, folded lines included, and the empty line."""
        wanted = {name.casefold() for name in names}
        fields = re.split(rb"(?<=\r\n)(?![ \t])", self.header)
        kept = [field for field in fields if field.partition(b":")[0].decode("latin-1").strip().casefold() in wanted]
        return b"".join(kept) + b"\r\n"


@dataclass(eq=False, kw_only=True)
class Mailbox:
    """A mailbox; its name is what goes over the wire, in modified UTF-7 or not."""

    name: str
    uidvalidity: int
    uidnext: int = 1
    attributes: tuple[str, ...] = ()
    object_id: str = ""  # told where the server offers OBJECTID
    messages: list[Message] = field(default_factory=list)
    highestmodseq: int = 1
    expunged: list[tuple[int, int]] = field(default_factory=list)  # (mod-sequence, UID), in their order

    def touch(self, message: Message) -> None:
        """Give *message* the next mod-sequence: something of it has changed."""
        self.highestmodseq += 1
        message.modseq = self.highestmodseq

    def add(self, raw: bytes, *, flags: Iterable[str], internaldate: str, uid: int | None, emailid: str) -> Message:
        """Put a message in; a UID of one's own may leave a gap but must be new."""
        uid = self.uidnext if uid is None else uid
        if self.messages and uid <= self.messages[-1].uid:
            raise ValueError(f"UID {uid} is not above those there are")
        message = Message(uid=uid, raw=raw, flags=frozenset(flags), internaldate=internaldate, emailid=emailid)
        self.messages.append(message)
        self.touch(message)
        self.uidnext = max(self.uidnext, uid + 1)
        return message

    def message(self, uid: int) -> Message:
        """Find a message by its UID."""
        at = bisect_left(self.messages, uid, key=lambda message: message.uid)
        if at == len(self.messages) or self.messages[at].uid != uid:
            raise KeyError(f"no UID {uid} in {self.name}")
        return self.messages[at]

    def above(self, uid: int) -> list[Message]:
        """Return the messages whose UIDs are above *uid*."""
        return self.messages[bisect_right(self.messages, uid, key=lambda message: message.uid) :]

    def remove(self, uid: int) -> Message:
        """Expunge a message."""
        message = self.message(uid)
        message.is_expunged = True
        self.messages.remove(message)
        self.touch(message)
        self.expunged.append((message.modseq, uid))
        return message


def parse_numbers(spelled: str, largest: int) -> list[tuple[int, int]]:
    """Read a sequence-set: its ranges as they stand, `*` being *largest*, the smaller number first."""
    ranges = []
    for part in spelled.split(","):
        ends = [max(largest, 1) if end == "*" else int(end) if end.isdecimal() else 0 for end in part.split(":")]
        if len(ends) > 2 or not all(1 <= end <= MAX_NUMBER for end in ends):
            raise BadSyntax(f"not a sequence set: {spelled[:80]}")
        ranges.append((min(ends), max(ends)))
    return ranges


def indices_of(ranges: Sequence[tuple[int, int]], sorted_numbers: Sequence[int]) -> list[int]:
    """Return the places in *sorted_numbers* that *ranges* cover, in order, each once."""
    places: set[int] = set()
    for first, last in ranges:
        places.update(range(bisect_left(sorted_numbers, first), bisect_right(sorted_numbers, last)))
    return sorted(places)


def spell_numbers(numbers: Iterable[int]) -> str:
    """Spell numbers as a sequence-set: `1:3,7`."""
    runs: list[list[int]] = []
    for number in sorted(set(numbers)):
        if runs and runs[-1][1] == number - 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    return ",".join(str(first) if first == last else f"{first}:{last}" for first, last in runs)


def tokens(text: str) -> list[str]:
    """Cut arguments into atoms, parentheses and strings; strings come without their quotes."""
    found = []
    for quoted, parenthesis, atom in _TOKEN.findall(text):
        found.append(parenthesis or atom or re.sub(r"\\(.)", r"\1", quoted, flags=re.DOTALL))
    return found


def quoted(text: str) -> str:
    """Spell *text* as a quoted string."""
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def matches_pattern(name: str, pattern: str, delimiter: str) -> bool:
    """Tell whether LIST's *pattern* covers *name*."""
    inside = f"[^{re.escape(delimiter)}]*" if delimiter else ".*"
    spelled = "".join(".*" if c == "*" else inside if c == "%" else re.escape(c) for c in pattern)
    return re.fullmatch(spelled, name, re.DOTALL) is not None or (name == "INBOX" and pattern.upper() == "INBOX")
