r"""Cutting a raw message into its parts (RFC 2046), in one pass and in bounded memory: `Scanner`.

    HEADER ──blank line──▶ TEXT     a text somebody may look for: kept, up to a bound
       ▲                   SKIP     all else: counted
       └──boundary line────┘

The message comes in pieces of any length; what is held of it is one header and the texts. Only lines that begin with
"--" are looked at, and each is compared with the boundaries that are open, so that the cost does not grow with the
nesting: a bomb of a thousand nested multiparts costs what a letter of its size costs. Any octets give some leaves; what
is beyond the bounds is left out, and `is_cut` says so.

A part that never ends, a boundary that never comes, a header without an end: all end with the message. A part of type
message/rfc822 is a leaf, and so are the parts of the message inside it.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Final

from idlepush.imap.types import printable
from idlepush.sync.encoding import field_in
from idlepush.sync.parameters import value_and_parameters

MAX_PARTS: Final = 1000
"""Multiparts included."""
MAX_DEPTH: Final = 100
MAX_OCTETS: Final = 256 * 1024 * 1024
MAX_LINES: Final = 200_000
"""Lines that begin with two dashes; more make no message, but a second of work."""
HEADER_LIMIT: Final = 256 * 1024
PART_HEADER_LIMIT: Final = 16 * 1024
TEXT_LIMIT: Final = 512 * 1024
TEXTS_LIMIT: Final = 2 * 1024 * 1024
_LONGEST_BOUNDARY: Final = 200  # RFC 2046 allows 70
_LONGEST_LINE: Final = 1000


@dataclass(slots=True)
class Leaf:
    """A part that holds no parts. `text` is what was kept of it, still encoded; `octets` is how long it is so."""

    type: str = "text/plain"
    parameters: Mapping[str, str] = field(default_factory=dict)
    encoding: str = ""
    disposition: str = ""
    disposition_parameters: Mapping[str, str] = field(default_factory=dict)
    content_id: str | None = None
    alternative: int | None = None
    """Which multipart/alternative it is a version in, counted from 0; None: in none."""
    octets: int = 0
    text: bytes | None = None

    @property
    def name(self) -> str | None:
        """The name that the sender gave it."""
        return self.disposition_parameters.get("filename") or self.parameters.get("name") or None


class _Where(Enum):
    HEADER = auto()
    BODY = auto()


@dataclass(slots=True)
class _Opened:
    """A multipart, or a message inside the message: `boundary` is then one that no line holds."""

    boundary: bytes
    is_digest: bool = False
    alternative: int | None = None
    message: Leaf | None = None
    begin: int = 0


@dataclass(slots=True)
class Scanner:
    """Takes a message in pieces; after `close`, `header` and `leaves` are what was in it."""

    header: bytes = b""
    """The message's own."""
    leaves: list[Leaf] = field(default_factory=list)
    is_cut: bool = False
    """More was there than the bounds allow."""
    _open: list[_Opened] = field(default_factory=list)
    _depths: dict[bytes, int] = field(default_factory=dict)
    _where: _Where = _Where.HEADER
    _head: bytearray = field(default_factory=bytearray)
    _leaf: Leaf | None = None
    _kept: bytearray | None = None
    _carry: bytes = b"\n"  # so that every line, the first one too, stands behind a line end
    _is_first: bool = True
    _taken: int = 0
    _lines: int = 0
    _parts: int = 0
    _texts: int = 0
    _alternatives: int = 0

    def feed(self, piece: bytes) -> bool:
        """Take the next piece; False: no more of it is wanted."""
        self._taken += len(piece)
        if self._taken > MAX_OCTETS:
            self.is_cut = True
            return False
        data = self._carry + piece
        self._carry = b""
        at = 0
        while True:
            step = self._in_header if self._where is _Where.HEADER else self._in_body
            at, goes_on = step(data, at, final=False)
            if self._lines > MAX_LINES or self._parts > MAX_PARTS:
                self.is_cut = True
                self._taken -= len(data) - at
                return False
            if not goes_on:
                self._carry = data[at:]
                return True

    def close(self) -> None:
        """The message has ended."""
        data, at, goes_on = self._carry, 0, True
        while goes_on:
            step = self._in_header if self._where is _Where.HEADER else self._in_body
            at, goes_on = step(data, at, final=True)
        if self._where is _Where.HEADER and (self._is_first or self._head.strip()):
            self._begin_body(self._taken)
        self._end_leaf()
        self._close_from(0, self._taken)

    # Both take `data` from `at`, where a line end stands before what they look at, and return how far they came, and
    # whether there is more to do with what is there.

    def _in_header(self, data: bytes, at: int, *, final: bool) -> tuple[int, bool]:
        look = at
        while True:
            # Whichever comes first; neither is looked for beyond the other, again and again.
            line = data.find(b"\n--", look) if self._open else -1
            blank, after = _blank_line(data, look, len(data) if line < 0 else line + 1)
            if blank >= 0:
                self._grow(data[at : blank + 1])
                self._begin_body(self._taken - len(data) + after)
                return after, True
            if line < 0:
                break
            found = self._boundary(data, line, final=final)
            if found is not None:
                self._grow(data[at:line])
                if found is not _INCOMPLETE:
                    # A header that breaks off in a boundary line is one without a text.
                    self._begin_body(self._taken - len(data) + line)
                return line, found is not _INCOMPLETE
            look = line + 1
        # The last octets may be the beginning of a blank line or of a boundary.
        end = len(data) if final else max(at, len(data) - 3)
        self._grow(data[at:end])
        return end, False

    def _grow(self, octets: bytes) -> None:
        room = (HEADER_LIMIT if self._is_first else PART_HEADER_LIMIT) - len(self._head)
        self._head += octets[:room]
        self.is_cut = self.is_cut or len(octets) > room

    def _in_body(self, data: bytes, at: int, *, final: bool) -> tuple[int, bool]:
        look = at
        while self._open:
            line = data.find(b"\n--", look)
            if line < 0:
                break
            found = self._boundary(data, line, final=final)
            # The line end before a boundary belongs to it, also where the boundary is still to come.
            end = line - 1 if line > at and data[line - 1 : line] == b"\r" else line
            if found is _INCOMPLETE:
                self._keep(data[at:end])
                return end, False
            if found is not None:
                self._keep(data[at:end])
                self._end_leaf()
                self._close_from(found.depth + (not found.is_end), self._taken - len(data) + end)
                if not found.is_end:
                    self._where = _Where.HEADER
                return found.after, True
            look = line + 3
        end = len(data)
        if not final and self._open:
            end = max(at, end - 3)  # the beginning of a boundary, with the line end before it
        self._keep(data[at:end])
        return end, False

    def _boundary(self, data: bytes, line: int, *, final: bool) -> "_Boundary | None":
        """Tell whether the line behind *line* is a boundary of an open multipart."""
        end = data.find(b"\n", line + 3, line + _LONGEST_LINE)
        if end < 0:
            if not final and len(data) - line < _LONGEST_LINE:
                return _INCOMPLETE
            end = min(len(data), line + _LONGEST_LINE)
        self._lines += 1
        if self._lines > MAX_LINES:
            return None
        said = data[line + 3 : end].rstrip()
        depth = self._depths.get(said)
        if depth is not None:
            return _Boundary(depth, is_end=False, after=end)
        depth = self._depths.get(said[:-2]) if said.endswith(b"--") else None
        return None if depth is None else _Boundary(depth, is_end=True, after=end)

    def _close_from(self, depth: int, at: int) -> None:
        for one in self._open[depth:]:
            if one.message is not None:
                one.message.octets = max(0, at - one.begin)
        del self._open[depth:]
        self._depths = {one.boundary: depth for depth, one in enumerate(self._open)}

    def _push(self, opened: _Opened) -> None:
        self._depths[opened.boundary] = len(self._open)
        self._open.append(opened)

    def _begin_body(self, at: int) -> None:
        """The header is there, and ends *at*: a multipart opens, a message begins, or a leaf does."""
        header = bytes(self._head)
        self._head.clear()
        self._where = _Where.BODY
        if self._is_first:
            self.header, self._is_first = header[1:], False
        self._parts += 1
        if self._parts > MAX_PARTS:
            self.is_cut = True
            return
        inside = self._open[-1] if self._open else None
        leaf = _leaf_of(header, "message/rfc822" if inside is not None and inside.is_digest else "text/plain")
        leaf.alternative = inside.alternative if inside else None
        main, _, sub = leaf.type.partition("/")
        boundary = leaf.parameters.get("boundary", "").encode("utf-8", "replace").rstrip()
        may_open = len(self._open) < MAX_DEPTH
        self.is_cut = self.is_cut or not may_open
        if main == "multipart" and boundary and may_open:
            if sub == "alternative":
                leaf.alternative = self._alternatives
                self._alternatives += 1
            self._push(_Opened(boundary[:_LONGEST_BOUNDARY], sub == "digest", leaf.alternative))
            return
        self.leaves.append(leaf)
        if leaf.type in _MESSAGES and leaf.encoding in _IDENTITY and may_open:
            # The message inside begins here, with a header of its own, and ends with the part.
            self._where = _Where.HEADER
            self._push(_Opened(_NEVER, message=leaf, begin=at + 1))
            return
        self._leaf = leaf
        if main in {"text", "multipart"} and leaf.disposition != "attachment":
            # A multipart without a boundary is read as the text it looks like.
            self._kept = bytearray()

    def _keep(self, octets: bytes) -> None:
        if self._leaf is None:
            return
        self._leaf.octets += len(octets)
        if self._kept is not None:
            room = min(TEXT_LIMIT - len(self._kept), TEXTS_LIMIT - self._texts)
            kept = octets[: max(0, room)]
            self._kept += kept
            self._texts += len(kept)
            self.is_cut = self.is_cut or len(kept) < len(octets)

    def _end_leaf(self) -> None:
        leaf, self._leaf = self._leaf, None
        kept, self._kept = self._kept, None
        if leaf is not None:
            # The line end of the blank line was taken along, so that a boundary right behind it is seen.
            leaf.octets = max(0, leaf.octets - 1)
            leaf.text = None if kept is None else bytes(kept[1:])


@dataclass(frozen=True, slots=True)
class _Boundary:
    depth: int
    is_end: bool
    after: int


_INCOMPLETE: Final = _Boundary(-1, is_end=False, after=-1)  # more of the line is to come
_NEVER: Final = b"\n"  # no line holds it
_MESSAGES: Final = frozenset({"message/rfc822", "message/global"})
_IDENTITY: Final = frozenset({"", "7bit", "8bit", "binary"})


def _blank_line(data: bytes, at: int, limit: int) -> tuple[int, int]:
    """Return where the line end before a blank line stands, and where the blank line's own does; -1 where none is."""
    crlf = data.find(b"\n\r\n", at, limit)
    lf = data.find(b"\n\n", at, limit if crlf < 0 else crlf + 1)
    return (lf, lf + 1) if lf >= 0 else (crlf, crlf + 2)


def _leaf_of(header: bytes, default: str) -> Leaf:
    folded = header.lower()
    type_, parameters = value_and_parameters(field_in(header, folded, b"content-type"))
    disposition, more = value_and_parameters(field_in(header, folded, b"content-disposition"))
    content_id = printable(field_in(header, folded, b"content-id"), 500).strip()
    encoding = printable(field_in(header, folded, b"content-transfer-encoding"), 100).strip().lower()
    # RFC 2045 section 5.2: what is not understood is plain text.
    known = type_ if "/" in type_.strip("/") else default
    return Leaf(known, parameters, encoding, disposition, more, content_id or None)
