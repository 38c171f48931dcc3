"""What `FakeImap` spells in answer to FETCH."""

import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from tests.peers.model import BadSyntax, Message, quoted, tokens

if TYPE_CHECKING:
    from tests.peers.fake import FakeImap

_ITEM = re.compile(r"BODY(\.PEEK)?\[([^\]]*)\](?:<(\d+)\.(\d+)>)?|[A-Z0-9.-]+", re.IGNORECASE)
_ATTRIBUTES: Final = frozenset(
    {"UID", "FLAGS", "INTERNALDATE", "RFC822.SIZE", "EMAILID", "THREADID", "X-GUID", "MODSEQ", "BODYSTRUCTURE"}
)


@dataclass(frozen=True, slots=True)
class Item:
    """One thing FETCH asks for: an attribute, or octets of the message."""

    name: str
    section: str | None = None  # of the body; None for attributes
    start: int | None = None
    length: int | None = None
    sets_seen: bool = False

    @property
    def label(self) -> str:
        if self.section is None:
            return self.name
        return f"BODY[{self.section}]" + ("" if self.start is None else f"<{self.start}>")

    def cut(self, message: Message) -> bytes:
        """Return the octets of *message* that are asked for."""
        content = _section(message, self.section or "")
        if self.start is None or self.length is None:
            return content
        return content[self.start : self.start + self.length]


def _section(message: Message, section: str) -> bytes:
    name = section.upper()
    if not name:
        return message.raw
    if name == "HEADER":
        return message.header
    if name == "TEXT":
        return message.text
    if name.startswith("HEADER.FIELDS ("):
        return message.header_fields(tokens(section.partition(" ")[2])[1:-1])
    raise BadSyntax(f"unknown section {section}")


def parse_items(spelled: str) -> list[Item]:
    """Read what a FETCH asks for."""
    inner = spelled.strip()
    if inner.startswith("(") and inner.endswith(")"):
        inner = inner[1:-1]
    items = [_item(match) for match in _ITEM.finditer(inner)]
    if not items or _ITEM.sub("", inner).strip():
        raise BadSyntax(f"cannot read {spelled[:80]}")
    return items


def _item(match: re.Match[str]) -> Item:
    peek, section, start, length = match.groups()
    if section is not None:
        slice_start, slice_length = (int(start), int(length)) if start else (None, None)
        return Item("BODY", section, slice_start, slice_length, sets_seen=peek is None)
    name = match[0].upper()
    if name not in _ATTRIBUTES:
        raise BadSyntax(f"unknown FETCH item {name}")
    return Item(name)


def spell_item(server: "FakeImap", item: Item, message: Message) -> bytes:
    """Spell an item and its value."""
    label = item.label.lower() if server.lower_case else item.label
    value = _spell_attribute(server, item.name, message) if item.section is None else _spell_body(server, item, message)
    return label.encode() + b" " + value


def spell_flags(flags: Iterable[str]) -> str:
    """Spell flags, always in the same order."""
    return f"({' '.join(sorted(flags))})"


def _spell_attribute(server: "FakeImap", name: str, message: Message) -> bytes:
    match name:
        case "UID":
            text = str(message.uid)
        case "FLAGS":
            text = spell_flags(message.flags)
        case "INTERNALDATE":
            text = quoted(message.internaldate)
        case "RFC822.SIZE":
            text = str(server.announced_sizes.get(message.uid, len(message.raw)))
        case "X-GUID":
            text = hashlib.sha256(message.raw).hexdigest()[:32]
        case "THREADID":
            text = "NIL"
        case "BODYSTRUCTURE":
            return server.structures.get(message.uid, b'("text" "plain" NIL NIL NIL "7bit" %d 1)' % len(message.text))
        case "MODSEQ":
            text = f"({message.modseq})"
        case _:
            text = f"({message.emailid})" if message.emailid else "NIL"
    return text.encode()


def _spell_body(server: "FakeImap", item: Item, message: Message) -> bytes:
    if message.is_expunged and server.expunged_body == "nil":
        return b"NIL"
    content = item.cut(_stand_in(message, server.expunged_body) if message.is_expunged else message)
    if server.body_spelling == "quoted" and not re.search(rb"[\r\n\0]", content):
        return b'"' + content.replace(b"\\", b"\\\\").replace(b'"', b'\\"') + b'"'
    size = server.literal_sizes.get(message.uid, len(content))
    return b"%s{%d}\r\n%s" % (b"~" if server.body_spelling == "literal8" else b"", size, content)


def _stand_in(message: Message, kind: str) -> Message:
    """Return what is served in the place of an expunged message."""
    if kind == "kept":
        return message
    if kind == "empty":
        return Message(uid=message.uid, raw=b"")
    text = b'From: "System Administrator" <root@localhost>\r\nSubject: message unavailable\r\n\r\n'
    return Message(uid=message.uid, raw=text.ljust(len(message.raw), b"."))
