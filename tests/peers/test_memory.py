"""The connection without sockets behaves as one with them."""

import asyncio
import ssl
from collections.abc import Callable

import trustme

from tests.peers.memory import MemoryTransport, open_memory
from tests.peers.virtual import virtual_time


class Recorder(asyncio.Protocol):
    """Writes down what happens to it; may answer what it hears."""

    def __init__(self, reply: Callable[[bytes], bytes] | None = None, *, half_open: bool = False) -> None:
        self.seen: list[object] = []
        self.lost = asyncio.get_running_loop().create_future()
        self.heard = asyncio.Event()
        self._reply = reply
        self._half_open = half_open
        self.transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.seen.append(data)
        self.heard.set()
        if self._reply and self.transport:
            self.transport.write(self._reply(data))

    def eof_received(self) -> bool:
        self.seen.append("eof")
        return self._half_open

    def pause_writing(self) -> None:
        self.seen.append("pause")

    def resume_writing(self) -> None:
        self.seen.append("resume")

    def connection_lost(self, exc: Exception | None) -> None:
        self.seen.append(type(exc).__name__ if exc else "closed")
        self.lost.set_result(None)


class Server:
    def __init__(self, protocol: Recorder) -> None:
        self.protocol = protocol

    def accept(self) -> asyncio.BaseProtocol:
        return self.protocol


@virtual_time
async def test_writes_arrive_in_order_and_closing_arrives_behind_them() -> None:
    server = Recorder(lambda data: data.upper())
    transport, client = await open_memory(Recorder, Server(server))
    transport.write(b"one")
    transport.write(b"two")
    await client.heard.wait()
    transport.close()
    await asyncio.gather(client.lost, server.lost)
    assert server.seen == [b"one", b"two", "eof", "closed"]
    assert client.seen[0] == b"ONE"
    assert client.seen[-1] == "closed"


@virtual_time
async def test_a_reset_arrives_behind_what_was_written() -> None:
    server = Recorder()
    transport, client = await open_memory(Recorder, Server(server))
    transport.write(b"last")
    transport.abort()
    await asyncio.gather(client.lost, server.lost)
    assert server.seen == [b"last", "ConnectionResetError"]
    assert client.seen == ["closed"]


@virtual_time
async def test_a_half_closed_connection_still_carries_the_answer() -> None:
    server = Recorder(half_open=True)
    transport, client = await open_memory(Recorder, Server(server))
    transport.write_eof()
    while "eof" not in server.seen:
        await asyncio.sleep(0)
    assert server.transport
    server.transport.write(b"answer")
    server.transport.close()
    await asyncio.gather(client.lost, server.lost)
    assert client.seen == [b"answer", "eof", "closed"]


@virtual_time
async def test_a_reader_who_pauses_holds_the_writer_back() -> None:
    server = Recorder()
    transport, client = await open_memory(Recorder, Server(server))
    assert isinstance(server.transport, MemoryTransport)
    server.transport.pause_reading()
    transport.write(b"x" * 100_000)
    await asyncio.sleep(1)
    assert (client.seen, server.seen) == (["pause"], [])
    server.transport.resume_reading()
    await server.heard.wait()
    assert client.seen == ["pause", "resume"]
    transport.close()
    await server.lost


@virtual_time
async def test_tls_starts_in_the_middle_of_it() -> None:
    loop = asyncio.get_running_loop()
    ca = trustme.CA()
    serving, trusting = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.create_default_context()
    ca.issue_cert("localhost").configure_cert(serving)
    ca.configure_trust(trusting)
    server = Recorder(lambda data: data.upper())
    transport, client = await open_memory(Recorder, Server(server))
    assert server.transport
    upgraded, server.transport = await asyncio.gather(
        loop.start_tls(transport, client, trusting, server_hostname="localhost"),
        loop.start_tls(server.transport, server, serving, server_side=True),
    )
    assert upgraded
    upgraded.write(b"secret")
    await client.heard.wait()
    assert client.seen == [b"SECRET"]
    assert upgraded.get_extra_info("cipher")
    upgraded.close()
    await asyncio.gather(client.lost, server.lost)
