"""Cutting the stream of a server's octets into responses (RFC 9051 sections 2.2 and 4.3), knowing no grammar.

A response is lines and literals by turns: a line that ends in `{n}` announces that the next n octets belong to the
response as they are, whatever they hold, and that a line follows them.

    * 1 FETCH (BODY[] {5}⏎hello FLAGS ())⏎   →   Frame((b"* 1 FETCH (BODY[] ", b" FLAGS ())"), (b"hello",))

Theory of operation. Where the framer stands is one of three:

    between responses ──line──▶ between responses        most lines: cut all at once, at the speed of C
            │ {n}⏎
            ▼
       in a literal ──n octets──▶ in a response ──line──▶ between responses
                                       └──{n}⏎──▶ in a literal

Rule 1: no octet is looked at twice. What is left of a read at its end is kept, and only new octets are searched,
so a stream costs the same cut into single octets as in one piece, but for the calls.
Rule 2: nothing is allocated because a number was announced; only what came is kept, up to the limits.
Rule 3: what has lost its meaning stays lost. After a broken announcement no octet behind it can be trusted
(a literal's content could pass for responses), so the first error is final.
"""

import re
from collections.abc import Iterable
from itertools import repeat
from typing import Final, NamedTuple

from idlepush.errors import RemoteProtocolError
from idlepush.imap.types import excerpt

MAX_LINE: Final = 16 * 1024 * 1024
MAX_LITERAL: Final = 64 * 1024 * 1024
MAX_LITERALS: Final = 10_000

# Each piece of a literal costs an object: those of a server that sends it by single octets are put together.
_SMALL: Final = 4096
_LARGE: Final = 64 * 1024

_BRACE_AT_LINE_END: Final = re.compile(rb"\}\r?\n")
# What follows OK, NO, BAD, BYE, PREAUTH or `+` is for people: `{5}` at its end announces nothing.
_FOR_PEOPLE: Final = re.compile(rb"\+|[^ ]+ +(?:OK|NO|BAD|BYE|PREAUTH)(?![^ ])", re.IGNORECASE)
# `{n+}` is the non-synchronizing form, which only clients need (RFC 7888), and `~{n}` literal8 (RFC 3516).
_ANNOUNCEMENT: Final = re.compile(rb"\{([0-9]{1,20})\+?\}")
_BROKEN_ANNOUNCEMENT: Final = re.compile(rb"\{[+-]?[0-9]+[+-]?\}")


class Frame(NamedTuple):
    """One response, cut at its literals: a text before, between and behind them, so one text more than literals.

    Texts are without the announcements and without the line ends.
    """

    texts: tuple[bytes, ...]
    literals: tuple[bytes, ...] = ()


_new_frame: Final = tuple.__new__


class Framer:
    """Give it what was read, by `feed`; get back the responses that are whole.

    Where the stream breaks, the whole responses before are returned and the error is raised by the next call of
    `feed`, or by this one where there are none; `error` tells at once. Nothing is recovered after it.
    """

    def __init__(self, max_line: int = MAX_LINE, max_literal: int = MAX_LITERAL) -> None:
        self._max_line = max_line
        self._max_literal = max_literal
        self._error: str | None = None
        self._begin()

    def _begin(self) -> None:
        self._texts: list[bytes] = []
        self._literals: list[bytes] = []
        self._line = bytearray()  # of the line that has no end yet
        self._pieces: list[bytes | bytearray] = []  # of the literal that is not whole yet
        self._missing = 0  # octets of it that are to come
        self._line_octets = 0  # of all lines of this response that have ended
        self._literal_octets = 0  # announced by this response
        self._octets = 0  # all that came of it

    @property
    def pending(self) -> bool:
        """Whether a response is begun but not whole."""
        return self._octets > 0

    @property
    def error(self) -> RemoteProtocolError | None:
        """What broke the stream, if it is broken."""
        return None if self._error is None else RemoteProtocolError(self._error)

    def discard(self) -> int:
        """Forget a response that is begun; return how many octets of it had come.

        For STARTTLS: what came behind the completion was sent in clear text by whoever, and must not be read as
        if it had come through TLS (CVE-2011-0411). Whole responses behind it are in the list `feed` returned.
        """
        octets = self._octets
        self._begin()
        return octets

    def feed(self, data: bytes) -> list[Frame]:
        """Take what was read; return the responses it makes whole.

        Raises:
            RemoteProtocolError: the stream is desynchronised or over a limit, now or before.
        """
        if self._error is not None:
            raise RemoteProtocolError(self._error)
        frames: list[Frame] = []
        at, end = 0, len(data)
        try:
            while at < end:
                if self._missing:
                    at = self._take_literal(data, at)
                elif self._octets:
                    at = self._take_line(data, at, frames)
                else:
                    at = self._take_lines(data, at, frames)
        except RemoteProtocolError as error:
            self._begin()
            self._error = str(error)
            if not frames:
                raise
        return frames

    def _take_lines(self, data: bytes, at: int, frames: list[Frame]) -> int:
        """Between responses: take all lines up to the first that may announce a literal, then that one."""
        brace = _BRACE_AT_LINE_END.search(data, at)
        end = data.rfind(b"\n", at, brace.start() if brace else len(data)) + 1
        if end > at:
            lines = data[at : end - 1]
            if len(lines) > self._max_line:
                self._take_up_to_limit(lines, frames)
            else:
                frames += _frames(lines.replace(b"\r\n", b"\n").removesuffix(b"\r").split(b"\n"))
            at = end
        return self._take_line(data, at, frames) if at < len(data) else at

    def _take_up_to_limit(self, lines: bytes, frames: list[Frame]) -> None:
        for line in lines.split(b"\n"):
            if len(line) > self._max_line:
                raise self._text_too_long()
            frames.append(Frame((line.removesuffix(b"\r"),)))

    def _text_too_long(self) -> RemoteProtocolError:
        return RemoteProtocolError(f"the server sent a response with more than {self._max_line} octets of text")

    def _take_line(self, data: bytes, at: int, frames: list[Frame]) -> int:
        """Take one line, or what there is of it."""
        end = data.find(b"\n", at)
        stop = len(data) if end < 0 else end
        octets = len(self._line) + stop - at
        if self._line_octets + octets > self._max_line:
            raise self._text_too_long()
        if end < 0:
            self._line += data[at:]
            self._octets += stop - at
            return stop
        self._octets += stop + 1 - at
        self._line_octets += octets
        if self._line:
            self._line += data[at:end]
            line = bytes(self._line)
            self._line.clear()
        else:
            line = data[at:end]
        line = line.removesuffix(b"\r")
        if line.endswith(b"}") and self._announced(line):
            return end + 1
        frames.append(Frame((*self._texts, line), tuple(self._literals)))
        self._begin()
        return end + 1

    def _announced(self, line: bytes) -> bool:
        """Begin the literal that *line* announces at its end, if it does."""
        brace = line.rfind(b"{")
        if brace < 0 or not _BROKEN_ANNOUNCEMENT.fullmatch(line, brace):
            return False
        if _FOR_PEOPLE.match(self._texts[0] if self._texts else line):
            return False
        announcement = _ANNOUNCEMENT.fullmatch(line, brace)
        if announcement is None:
            raise RemoteProtocolError(f"the server announced a literal as {excerpt(line[brace:])}")
        octets = int(announcement[1])
        self._literal_octets += octets
        if octets > self._max_literal or self._literal_octets > 2 * self._max_literal:
            raise RemoteProtocolError(f"the server announced a literal of {octets} octets, too many for one response")
        if len(self._literals) == MAX_LITERALS:
            raise RemoteProtocolError(f"the server sent more than {MAX_LITERALS} literals in one response")
        self._texts.append(line[: brace - 1] if line[:brace].endswith(b"~") else line[:brace])
        self._missing = octets
        if not octets:
            self._literals.append(b"")
        return True

    def _take_literal(self, data: bytes, at: int) -> int:
        """Take what *data* has of the literal; a literal that is all there is cut out in one copy."""
        end = min(at + self._missing, len(data))
        self._missing -= end - at
        self._octets += end - at
        piece = data[at:end]
        if not self._missing:
            self._literals.append(b"".join((*self._pieces, piece)) if self._pieces else piece)
            self._pieces = []
        elif len(piece) >= _SMALL:
            self._pieces.append(piece)
        elif self._pieces and isinstance(self._pieces[-1], bytearray) and len(self._pieces[-1]) < _LARGE:
            self._pieces[-1] += piece
        else:
            self._pieces.append(bytearray(piece))
        return end


def _frames(lines: list[bytes]) -> Iterable[Frame]:
    """Return `[Frame((line,), ()) for line in lines]`, without a step of Python for each of them."""
    return map(_new_frame, repeat(Frame), zip(zip(lines), repeat(())))
