"""A connection without sockets: two transports back to back in one event loop, so that time may be virtual.

What one side writes the other receives in the next turn of the loop, in order, one call for each write. Closing,
half-closing, resetting and flow control behave as on TCP; `loop.start_tls` works on either end.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any, Protocol, TypeVar

_HIGH_WATER = 64 * 1024
_LOW_WATER = 16 * 1024

P = TypeVar("P", bound=asyncio.BaseProtocol)


class Peer(Protocol):
    """A server that takes connections: `FakeImap`, `ScriptedServer`."""

    def accept(self) -> asyncio.BaseProtocol:
        """Return the protocol of the server's end of one more connection."""
        ...


async def open_memory(protocol_factory: Callable[[], P], peer: Peer) -> tuple[asyncio.Transport, P]:
    """Connect a client's protocol to *peer*, as `loop.create_connection` would."""
    loop = asyncio.get_running_loop()
    ours, theirs = MemoryTransport(loop, "client"), MemoryTransport(loop, "server")
    ours.peer, theirs.peer = theirs, ours
    client, server = protocol_factory(), peer.accept()
    ours.set_protocol(client)
    theirs.set_protocol(server)
    client.connection_made(ours)
    server.connection_made(theirs)
    return ours, client


class MemoryTransport(asyncio.Transport):
    """One end of the connection."""

    _start_tls_compatible = True  # asyncio asks for this before it puts TLS on top

    peer: "MemoryTransport"

    def __init__(self, loop: asyncio.AbstractEventLoop, name: str) -> None:
        super().__init__({"peername": ("memory", 0), "sockname": (name, 0)})
        self._loop = loop
        self._protocol: asyncio.BaseProtocol = asyncio.Protocol()
        self._arrived: deque[bytes] = deque()
        self._arrived_bytes = 0
        self._arrived_end: Callable[[], None] | None = None
        self._is_reading = True
        self._is_scheduled = False
        self._is_closing = False
        self._is_lost = False
        self._is_eof_written = False
        self._is_writer_paused = False

    # Writing

    def write(self, data: bytes | bytearray | memoryview) -> None:
        if self._is_closing or self._is_eof_written or not data:
            return
        if self.peer._is_lost:
            self._loop.call_soon(self._lose, ConnectionResetError("the peer is gone"))
            return
        self.peer._arrive(bytes(data))
        if self.get_write_buffer_size() > _HIGH_WATER and not self._is_writer_paused:
            self._is_writer_paused = True
            self._protocol.pause_writing()

    def writelines(self, list_of_data: Iterable[bytes | bytearray | memoryview]) -> None:
        self.write(b"".join(list_of_data))

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        if not self._is_eof_written and not self._is_closing:
            self._is_eof_written = True
            self.peer._arrive_end(self.peer._see_eof)

    def get_write_buffer_size(self) -> int:
        return self.peer._arrived_bytes

    def get_write_buffer_limits(self) -> tuple[int, int]:
        return _LOW_WATER, _HIGH_WATER

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """Take note of nothing: the limits are fixed."""

    # Ending

    def is_closing(self) -> bool:
        return self._is_closing

    def close(self) -> None:
        """End the connection behind what was written."""
        if not self._is_closing:
            self.write_eof()
            self._is_closing = True
            self._loop.call_soon(self._lose, None)

    def abort(self) -> None:
        """Reset the connection; the peer still receives what was written before."""
        if not self._is_lost:
            self._is_closing = True
            self.peer._arrive_end(self.peer._see_reset)
            self._loop.call_soon(self._lose, None)

    def _force_close(self, _error: BaseException | None) -> None:
        """What asyncio's TLS calls instead of `abort`."""
        self.abort()

    # Reading

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self._protocol = protocol

    def get_protocol(self) -> asyncio.BaseProtocol:
        return self._protocol

    def is_reading(self) -> bool:
        return self._is_reading and not self._is_closing

    def pause_reading(self) -> None:
        self._is_reading = False

    def resume_reading(self) -> None:
        self._is_reading = True
        self._schedule()

    def _arrive(self, data: bytes) -> None:
        self._arrived.append(data)
        self._arrived_bytes += len(data)
        self._schedule()

    def _arrive_end(self, end: Callable[[], None]) -> None:
        self._arrived_end = end
        self._schedule()

    def _schedule(self) -> None:
        if not self._is_scheduled and self._is_reading and (self._arrived or self._arrived_end):
            self._is_scheduled = True
            self._loop.call_soon(self._receive)

    def _receive(self) -> None:
        """Hand one write of the peer to the protocol, or tell it of the end behind the last."""
        self._is_scheduled = False
        if not self._is_reading or self._is_lost:
            return
        if self._arrived:
            data = self._arrived.popleft()
            self._arrived_bytes -= len(data)
            if not self._is_closing:
                _feed(self._protocol, data)
            self.peer._resume_writer()
        elif self._arrived_end:
            end, self._arrived_end = self._arrived_end, None
            end()
        self._schedule()

    def _resume_writer(self) -> None:
        if self._is_writer_paused and self.get_write_buffer_size() <= _LOW_WATER:
            self._is_writer_paused = False
            if not self._is_lost:
                self._protocol.resume_writing()

    def _see_eof(self) -> None:
        if self._is_closing:
            return
        eof_received: Any = getattr(self._protocol, "eof_received", None)
        if eof_received is None or not eof_received():
            self.close()

    def _see_reset(self) -> None:
        self._lose(ConnectionResetError("reset by the peer"))

    def _lose(self, error: Exception | None) -> None:
        if not self._is_lost:
            self._is_lost = self._is_closing = True
            self._protocol.connection_lost(error)


def _feed(protocol: asyncio.BaseProtocol, data: bytes) -> None:
    if isinstance(protocol, asyncio.BufferedProtocol):
        rest = memoryview(data)
        while rest:
            room = memoryview(protocol.get_buffer(len(rest)))
            taken = min(len(room), len(rest))
            room[:taken] = rest[:taken]
            protocol.buffer_updated(taken)
            rest = rest[taken:]
    else:
        assert isinstance(protocol, asyncio.Protocol)
        protocol.data_received(data)
