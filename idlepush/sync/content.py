"""What is in a message beside its header: its text, its attachments, the messages it answers.

Read in the background, not at the pace of the mirror. Total, bounded in time and memory (`sync/mime`); everything that
comes out of it is valid UTF-8. A sender's names are data: nothing here or behind it makes a path of them.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from idlepush.imap.responses import Structure
from idlepush.imap.types import printable
from idlepush.sync.encoding import field_in, from_base64, from_quoted_printable, in_charset
from idlepush.sync.markup import text_of_html
from idlepush.sync.message import Address, Headers, addresses_in, headers_of
from idlepush.sync.mime import Leaf, Scanner
from idlepush.sync.parameters import parameters_of

TEXT_CHARACTERS: Final = 200_000
REFERENCES: Final = 100
ATTACHMENTS: Final = 200


@dataclass(frozen=True, slots=True)
class Attachment:
    """A part that is no text to be read in place.

    `name` is what the sender called it; `size` about how many octets it has when decoded. `inline`: it belongs to the
    text (an image it shows, a signature of it), and nobody would call it an attachment.
    """

    name: str | None
    type: str
    size: int
    content_id: str | None = None
    inline: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Content:
    """A message, read whole. `references` are the Message-IDs it names, oldest first, those it answers last."""

    headers: Headers
    cc: tuple[Address, ...]
    references: tuple[str, ...]
    text: str
    attachments: tuple[Attachment, ...]
    is_cut: bool
    """More is in it than was read."""


def content_of(pieces: Iterable[bytes]) -> Content:
    """Read a raw message, which comes in pieces of any length. Never raises."""
    scanner = Scanner()
    for piece in pieces:
        if not scanner.feed(piece):
            break
    scanner.close()
    header = b"\n" + scanner.header
    folded = header.lower()
    text, is_cut = _text(scanner.leaves)
    return Content(
        headers=headers_of(scanner.header),
        cc=addresses_in(field_in(header, folded, b"cc")),
        references=_references(field_in(header, folded, b"references"), field_in(header, folded, b"in-reply-to")),
        text=text,
        attachments=_attachments(_attachment_of(leaf) for leaf in scanner.leaves),
        is_cut=scanner.is_cut or is_cut,
    )


def attachments_in(structure: Structure) -> tuple[Attachment, ...]:
    """Tell the attachments by BODYSTRUCTURE alone, as `content_of` would by the message."""
    return _attachments(
        _attachment_of(
            Leaf(
                type=part.type or "application/octet-stream",
                parameters=_decoded(part.parameters),
                encoding=part.encoding,
                disposition=part.disposition,
                disposition_parameters=_decoded(part.disposition_parameters),
                content_id=printable((part.content_id or b"").decode("utf-8", "replace"), 500).strip() or None,
                octets=part.size or 0,
            )
        )
        for part in structure.parts
    )


def _decoded(pairs: Sequence[tuple[str, bytes]]) -> Mapping[str, str]:
    return parameters_of((name, in_charset(octets, "utf-8")) for name, octets in pairs)


# ---- attachments

# They speak about the message: no mail program shows them as something attached to it.
_ABOUT_IT: Final = frozenset(
    {
        "application/pgp-signature",
        "application/pkcs7-signature",
        "application/x-pkcs7-signature",
        "message/delivery-status",
        "message/disposition-notification",
        "message/feedback-report",
        "text/rfc822-headers",
    }
)


def _attachments(found: Iterable[Attachment | None]) -> tuple[Attachment, ...]:
    return tuple(one for one in found if one is not None)[:ATTACHMENTS]


def _attachment_of(leaf: Leaf) -> Attachment | None:
    main = leaf.type.partition("/")[0]
    is_attached = leaf.disposition == "attachment"
    if main in {"text", "multipart"} and not is_attached and leaf.name is None:
        return None
    inline = not is_attached and (
        leaf.content_id is not None or leaf.type in _ABOUT_IT or (leaf.disposition == "inline" and leaf.name is None)
    )
    # Lines of 76 characters and a line end hold 57 octets.
    size = leaf.octets * 57 // 78 if leaf.encoding == "base64" else leaf.octets
    return Attachment(leaf.name, leaf.type, size, leaf.content_id, inline)


# ---- text


def _text(leaves: Sequence[Leaf]) -> tuple[str, bool]:
    """Return what somebody may look for, and whether there was more."""
    pieces: list[str] = []
    markup: dict[int, list[str]] = {}
    plain: dict[int, int] = {}
    length = 0
    for leaf in leaves:
        if not leaf.text or length > TEXT_CHARACTERS:
            continue
        text = _text_of(leaf)
        if leaf.alternative is not None and leaf.type == "text/html":
            markup.setdefault(leaf.alternative, []).append(text)
            continue
        if leaf.alternative is not None:
            plain[leaf.alternative] = plain.get(leaf.alternative, 0) + len(text)
        pieces.append(text)
        length += len(text)
    for alternative, versions in markup.items():
        # The two say the same, unless the plain one only says that there is another.
        if sum(map(len, versions)) > 2 * plain.get(alternative, 0):
            pieces += versions
    whole = "\n".join(pieces)
    # A lone surrogate is no UTF-8, and some charsets give one.
    return whole[:TEXT_CHARACTERS].encode("utf-8", "replace").decode(), len(whole) > TEXT_CHARACTERS


_META_CHARSET: Final = re.compile(rb"charset\s*+=\s*+[\"']?([A-Za-z0-9_.:-]{1,40})", re.IGNORECASE)


def _text_of(leaf: Leaf) -> str:
    octets = leaf.text or b""
    if leaf.encoding == "base64":
        octets = from_base64(octets)
    elif leaf.encoding == "quoted-printable":
        octets = from_quoted_printable(octets)
    charset = leaf.parameters.get("charset", "")
    if leaf.type != "text/html":
        return in_charset(octets, charset)
    told = None if charset else _META_CHARSET.search(octets, 0, 2048)
    return text_of_html(in_charset(octets, charset if told is None else told[1].decode("ascii")))


# ---- threads

_MESSAGE_ID: Final = re.compile(r"<[^<>\s]{1,996}+>")


def _references(references: str, in_reply_to: str) -> tuple[str, ...]:
    found = dict.fromkeys(printable(one, 998) for one in _MESSAGE_ID.findall(references))
    for one in _MESSAGE_ID.findall(in_reply_to)[:REFERENCES]:
        found.setdefault(printable(one, 998))
    return tuple(found)[-REFERENCES:]
