"""The server's end of one connection to `FakeImap`, below the commands: lines, literals, slowness and cuts."""

import asyncio
import re
import socket
import ssl
import struct
import zlib
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import TYPE_CHECKING, Literal

from tests.peers.model import quoted

if TYPE_CHECKING:
    from tests.peers.fake import FakeImap

_LITERAL = re.compile(rb"\{(\d+)(\+?)\}$")


class Wire(asyncio.Protocol, ABC):
    """Cuts what arrives into lines, with literals as quoted strings in them, and sends what is to be said."""

    def __init__(self, server: "FakeImap", number: int, *, over_tls: bool) -> None:
        self.server = server
        self.number = number
        self.over_tls = over_tls
        self.heard = bytearray()  # everything the client sent
        self.is_deaf = False  # neither hears nor speaks any more
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._buffer = bytearray()
        self._line_so_far = b""
        self._literal: int | None = None
        self._on_line: Callable[[str], None] | None = None  # takes the next line, in place of a command
        self._is_reading = False
        self._held: list[bytes] = []  # completions kept back to be reversed
        self._upgrade: asyncio.Task[None] | None = None
        self._deflating: tuple[zlib._Compress, zlib._Decompress] | None = None
        self._slow = bytearray()
        self._slow_timer: asyncio.TimerHandle | None = None

    @abstractmethod
    def _begin_session(self) -> None:
        """Join the server and greet."""

    @abstractmethod
    def _end_session(self) -> None:
        """Leave the server: the connection is gone."""

    @abstractmethod
    def _take_line(self, line: bytes) -> None:
        """Carry out one line of the client, its literals in it."""

    @abstractmethod
    def _stop_timers(self) -> None:
        """Forget what was to happen later."""

    @property
    @abstractmethod
    def _reads_bare_lines(self) -> bool:
        """Tell whether the next line is none that could end in a literal."""

    # Its life

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._begin_session()
        self.server.stir()

    def connection_lost(self, exc: Exception | None) -> None:
        self.is_deaf = True
        self._stop_timers()
        self._stop_writing()
        if self._upgrade:
            self._upgrade.cancel()
        self._end_session()

    def end(self, how: Literal["close", "reset", "stall"]) -> None:
        """End the connection; "stall" leaves it open, but nothing is heard or said on it any more."""
        self.is_deaf = True
        self._stop_timers()
        if how == "close" and self._slow:
            return  # closed behind the last byte
        self._stop_writing()
        if self._transport is None or how == "stall":
            return
        if how == "reset":
            self._linger_not()
            self._transport.abort()
        else:
            self._transport.close()

    def abort(self) -> None:
        """Be gone, whatever the client says."""
        self.is_deaf = True
        if self._transport is not None:
            self._transport.abort()

    def _linger_not(self) -> None:
        """Let closing the socket send RST rather than FIN."""
        raw: socket.socket | None = self._transport.get_extra_info("socket") if self._transport else None
        if raw is not None:
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    # Speaking

    def say(self, line: str) -> None:
        """Send a line."""
        self.send(line.encode("utf-8", "surrogateescape") + b"\r\n")

    def complete(self, tag: str, text: str) -> None:
        """Send a command's completion."""
        line = f"{tag} {text}\r\n".encode("utf-8", "surrogateescape")
        if self.server.reverses_completions and self._is_reading:
            self._held.append(line)
        else:
            self.send(line)

    def send(self, raw: bytes) -> None:
        """Send bytes, as slowly as the server's behaviour has it, and not beyond its cut."""
        if self.is_deaf or self._transport is None or not raw:
            return
        if self._deflating is not None:
            raw = self._deflating[0].compress(raw) + self._deflating[0].flush(zlib.Z_SYNC_FLUSH)
        self.send_packed(raw)

    def send_packed(self, raw: bytes) -> None:
        """Send bytes as they are, whether or not the connection is compressed."""
        server = self.server
        if self.is_deaf or self._transport is None or not raw:
            return
        if server.cut_after is not None:
            raw = raw[: max(0, server.cut_after - server.sent)]
        server.sent += len(raw)
        if server.seconds_per_byte:
            self._slow += raw
            self._send_slowly()
        elif raw:
            self._transport.write(raw)
        if server.cut_after is not None and server.sent >= server.cut_after:
            server.cut_after = None
            self.end(server.cut_how)
        if server.on_server_bytes:
            server.on_server_bytes(server.sent)

    def _send_slowly(self) -> None:
        if self._slow_timer is None and self._slow:
            self._slow_timer = self._loop.call_later(self.server.seconds_per_byte, self._send_one_byte)

    def _send_one_byte(self) -> None:
        self._slow_timer = None
        assert self._transport is not None
        self._transport.write(bytes(self._slow[:1]))
        del self._slow[:1]
        if self.is_deaf and not self._slow:
            self._transport.close()
        self._send_slowly()

    def _stop_writing(self) -> None:
        self._slow.clear()
        if self._slow_timer:
            self._slow_timer.cancel()
            self._slow_timer = None

    def _release_held(self) -> None:
        held, self._held = self._held, []
        for completion in reversed(held):
            self.send(completion)

    # Hearing

    def data_received(self, data: bytes) -> None:
        server = self.server
        self.heard += data
        if server.on_client_bytes is None:
            server.received += len(data)
            self._read(data)
            return
        for at in range(len(data)):
            server.received += 1
            server.on_client_bytes(server.received)
            self._read(data[at : at + 1])

    def _read(self, data: bytes) -> None:
        self._buffer += data if self._deflating is None else self._deflating[1].decompress(data)
        self._is_reading = True
        while not self.is_deaf and self._upgrade is None and self._read_one():
            self.server.stir()
        self._is_reading = False
        self._release_held()

    def _read_one(self) -> bool:
        """Take a line or a literal from the buffer; False if there is none yet."""
        if self._literal is not None:
            if len(self._buffer) < self._literal:
                return False
            text = self._buffer[: self._literal].decode("utf-8", "surrogateescape")
            del self._buffer[: self._literal]
            self._literal = None
            self._line_so_far += quoted(text).encode("utf-8", "surrogateescape")
            return True
        end = self._buffer.find(b"\n")
        if (len(self._buffer) if end < 0 else end) > self.server.longest_line:
            self.say("* BYE line too long")
            self.end("close")
            return False
        if end < 0:
            return False
        line = bytes(self._buffer[:end]).removesuffix(b"\r")
        del self._buffer[: end + 1]
        announced = None if self._reads_bare_lines else _LITERAL.search(line)
        if announced:
            self._expect_literal(line, announced)
        else:
            whole, self._line_so_far = self._line_so_far + line, b""
            self._take_line(whole)
        return True

    def _expect_literal(self, line: bytes, announced: re.Match[bytes]) -> None:
        self._line_so_far += line[: announced.start()]
        self._literal = int(announced[1])
        if not announced[2]:
            self.say("+ go ahead")

    # Compression and TLS

    def _compress_from_here(self, completion: bytes, behind: bytes) -> None:
        """Send *completion* in clear and, in the same write, *behind* it compressed, as all is from here on."""
        out = zlib.compressobj(wbits=-15)
        packed = out.compress(behind) + out.flush(zlib.Z_SYNC_FLUSH) if behind else b""
        self.send_packed(completion + packed)
        self._deflating = out, zlib.decompressobj(wbits=-15)
        if self._buffer:
            raise AssertionError("the client sent something behind COMPRESS before it was answered (RFC 4978)")

    def _upgrade_to(self, context: ssl.SSLContext) -> None:
        """Start TLS; what the client sent ahead of it has no effect."""
        self._buffer.clear()
        self._upgrade = self._loop.create_task(self._start_tls(context))

    async def _start_tls(self, context: ssl.SSLContext) -> None:
        assert self._transport is not None
        try:
            upgraded = await self._loop.start_tls(self._transport, self, context, server_side=True)
        except OSError:
            upgraded = None
        finally:
            self._upgrade = None
        if not isinstance(upgraded, asyncio.Transport):
            self._transport.abort()
            self.connection_lost(None)  # asyncio tells nobody who is not connected yet
            return
        self._transport = upgraded
        self.over_tls = True
        self._read(b"")  # what came in one segment with the end of the handshake
