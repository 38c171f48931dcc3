r"""An IMAP server that plays a transcript: says exactly this, expects exactly that, and tells where it differed.

    S: * OK ready
    C: %1 LOGIN alice *                  # "%1" takes the tag the client chose, "*" stands for anything
    S: %1 OK done
    C: %2 IDLE
    S: + idling
    wait 1740                            # seconds of the loop, virtual or not
    S-raw: * 1 FETCH (BODY[] {5}\r\nhello)\r\n      # as it stands, with Python's escapes, no CRLF added
    reset
    --- connection                       # the next one, in the order in which the client connects
    ...

Directives: `close` (FIN behind what was said), `reset` (RST), `stall` (never hears or says anything again, like a dead
network), `drop` (hears everything and answers nothing), `starttls` (TLS from here on), `wait SECONDS`. A transcript
that ends without one of the first four waits for the client to close, who may say nothing more. Indentation, empty
lines, and what follows " # " behind three spaces or at the start of a line is not part of it.
"""

import asyncio
import re
import socket
import ssl
import struct
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Final

_COMMENT = re.compile(r"(^|\s{3,})#\s.*$")
_TAG = re.compile(r"%\w+")
_ENDINGS: Final = frozenset({"close", "reset", "stall", "drop"})


@dataclass(frozen=True, slots=True)
class Step:
    """One line of a transcript."""

    line: int
    kind: str  # "C", "S", "S-raw" or a directive
    text: str = ""

    def __str__(self) -> str:
        return f"{self.kind}: {self.text}" if self.kind in {"C", "S", "S-raw"} else f"{self.kind} {self.text}".strip()


@asynccontextmanager
async def scripted(transcript: str, *, tls: ssl.SSLContext | None = None) -> AsyncGenerator["ScriptedServer"]:
    """Play *transcript* on a free port of loopback; a mismatch is raised at the end, if nothing else was.

    Args:
        transcript: see the module.
        tls: for `starttls`; a server that speaks TLS from the start is had by beginning with it.
    """
    script = ScriptedServer(transcript, tls=tls)
    loop = asyncio.get_running_loop()
    server = await loop.create_server(script.accept, "127.0.0.1", 0)
    script.host, script.port = server.sockets[0].getsockname()[:2]
    try:
        yield script
        script.raise_mismatches()
    finally:
        server.close()
        await script.close()


class ScriptedServer:
    """The player. Over TCP `scripted` makes one; with `open_memory` it may be used as it is."""

    def __init__(self, transcript: str, *, tls: ssl.SSLContext | None = None) -> None:
        self.host = ""
        self.port = 0
        self.log: list[list[bytes]] = []  # what each connection's client said, line by line
        self.mismatches: list[str] = []
        self.tls = tls
        self.connections: list[_Player] = []
        self._scripts = parse(transcript)
        self._progress = asyncio.Event()

    def accept(self) -> asyncio.Protocol:
        """Return the server's end of the next connection."""
        number = len(self.connections)
        player = _Player(self, number + 1, self._scripts[number] if number < len(self._scripts) else None)
        self.connections.append(player)
        self.log.append(player.heard)
        self._progress.set()
        return player

    def report(self, mismatch: str) -> None:
        """Take note of what a client did otherwise."""
        self.mismatches.append(mismatch)
        self._progress.set()

    async def finish(self, *, within: float = 10) -> None:
        """Wait until every connection of the transcript has been played to its end.

        Raises:
            AssertionError: it was not, or not as it is written.
        """
        try:
            async with asyncio.timeout(within):
                while len(self.connections) < len(self._scripts) and not self.mismatches:
                    self._progress.clear()
                    await self._progress.wait()
                for player in self.connections:
                    await player.done.wait()
        except TimeoutError:
            self.mismatches += self._unfinished()
        self.raise_mismatches()

    def raise_mismatches(self) -> None:
        """Raise what went wrong so far, with all that the clients said."""
        if self.mismatches:
            heard = [
                f"  connection {number}: {line.decode('utf-8', 'backslashreplace')}"
                for number, lines in enumerate(self.log, 1)
                for line in lines
            ]
            raise AssertionError("\n".join([*self.mismatches, "the clients said:", *(heard or ["  nothing"])]))

    async def close(self) -> None:
        """End all connections."""
        for player in self.connections:
            await player.close()

    def _unfinished(self) -> list[str]:
        stuck = [player.position() for player in self.connections if not player.done.is_set()]
        missing = len(self._scripts) - len(self.connections)
        return stuck + ([f"{missing} more connection(s) were expected"] if missing > 0 else [])


def parse(transcript: str) -> list[list[Step]]:
    """Read a transcript: a list of steps for each connection."""
    scripts: list[list[Step]] = [[]]
    for number, line in enumerate(transcript.splitlines(), 1):
        text = _COMMENT.sub("", line).strip()
        if text.startswith("---"):
            if scripts[-1]:
                scripts.append([])
        elif text:
            scripts[-1].append(_parse_step(number, text))
    return scripts


def _parse_step(number: int, text: str) -> Step:
    said = re.fullmatch(r"(C|S|S-raw):(?: (.*))?", text)
    if said:
        return Step(number, said[1], said[2] or "")
    word, _, rest = text.partition(" ")
    if word in _PLAYS:
        return Step(number, word, rest.strip())
    raise ValueError(f"line {number} of the transcript is none: {text}")


class _Mismatch(Exception):
    """The client did something else than the transcript says."""


@dataclass(eq=False)
class _Player(asyncio.Protocol):
    """Plays one connection."""

    server: ScriptedServer
    number: int
    script: list[Step] | None
    heard: list[bytes] = field(default_factory=list)
    done: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self._buffer = bytearray()
        self._news = asyncio.Event()
        self._is_over = False  # the client closed
        self._tags: dict[str, str] = {}
        self._at: Step | None = None
        self._task: asyncio.Task[None] | None = None
        self._transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._task = asyncio.get_running_loop().create_task(self._play())

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        self._news.set()

    def eof_received(self) -> bool:
        self._is_over = True
        self._news.set()
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self._is_over = True
        self._news.set()

    async def close(self) -> None:
        """End the connection in whatever state it is."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._transport.abort()

    def position(self) -> str:
        return f"connection {self.number} never came beyond line {self._at.line if self._at else 0}: {self._at}"

    async def _play(self) -> None:
        try:
            await self._play_script()
        except _Mismatch as mismatch:
            where = f"connection {self.number}, line {self._at.line}" if self._at else f"connection {self.number}"
            self.server.report(f"{where}: {mismatch}")
            self._transport.abort()
        finally:
            self.done.set()

    async def _play_script(self) -> None:
        if self.script is None:
            raise _Mismatch("the transcript has no such connection")
        for step in self.script:
            self._at = step
            await _PLAYS[step.kind](self, step.text)
        if not self.script or self.script[-1].kind not in _ENDINGS:
            await self._expect_end()

    # One step each

    async def _hear(self, pattern: str) -> None:
        line = await self._next_line()
        if line is None:
            raise _Mismatch(f"expected {pattern!r}, but the client closed")
        said = line.decode("utf-8", "backslashreplace")
        match = re.fullmatch(self._expression(pattern), said, re.DOTALL)
        if match is None:
            raise _Mismatch(f"expected {pattern!r}, got {said!r}")
        self._tags |= {f"%{name[1:]}": tag for name, tag in match.groupdict().items()}

    def _expression(self, pattern: str) -> str:
        """Turn a pattern into a regular expression; the first use of a tag is a group of that name."""
        spelled, rest = "", pattern
        tag = _TAG.match(pattern)
        if tag:
            known = self._tags.get(tag[0])
            spelled = re.escape(known) if known else rf"(?P<t{tag[0][1:]}>[^ ]+)"
            rest = pattern[tag.end() :]
        return spelled + ".*".join(re.escape(part) for part in rest.split("*"))

    async def _speak(self, text: str) -> None:
        self._transport.write(self._with_tags(text).encode() + b"\r\n")

    async def _speak_raw(self, text: str) -> None:
        spelled = self._with_tags(text).encode("latin-1", "backslashreplace")
        self._transport.write(spelled.decode("unicode_escape").encode("latin-1"))

    def _with_tags(self, text: str) -> str:
        return _TAG.sub(lambda tag: self._tags.get(tag[0], tag[0]), text)

    async def _close(self, _: str) -> None:
        self._transport.close()

    async def _reset(self, _: str) -> None:
        raw: socket.socket | None = self._transport.get_extra_info("socket")
        if raw is not None:
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._transport.abort()

    async def _stall(self, _: str) -> None:
        self._transport.pause_reading()

    async def _drop(self, _: str) -> None:
        """Nothing is done: what comes is kept in the buffer and never looked at."""

    async def _wait(self, seconds: str) -> None:
        await asyncio.sleep(float(seconds))

    async def _starttls(self, _: str) -> None:
        if self.server.tls is None:
            raise ValueError("starttls needs a TLS context")
        loop = asyncio.get_running_loop()
        try:
            upgraded = await loop.start_tls(self._transport, self, self.server.tls, server_side=True)
        except OSError as error:
            raise _Mismatch(f"no TLS came about: {error!r}") from error
        assert isinstance(upgraded, asyncio.Transport)
        self._transport = upgraded

    async def _expect_end(self) -> None:
        line = await self._next_line()
        if line is not None:
            raise _Mismatch(f"the transcript was over, but the client said {line!r}")

    async def _next_line(self) -> bytes | None:
        """Wait for a line of the client; None when it has closed."""
        while (end := self._buffer.find(b"\n")) < 0:
            if self._is_over:
                return None
            self._news.clear()
            await self._news.wait()
        line = bytes(self._buffer[:end]).removesuffix(b"\r")
        del self._buffer[: end + 1]
        self.heard.append(line)
        return line


_PLAYS: Final[Mapping[str, Callable[[_Player, str], Awaitable[None]]]] = {
    "C": _Player._hear,
    "S": _Player._speak,
    "S-raw": _Player._speak_raw,
    "close": _Player._close,
    "reset": _Player._reset,
    "stall": _Player._stall,
    "drop": _Player._drop,
    "wait": _Player._wait,
    "starttls": _Player._starttls,
}
