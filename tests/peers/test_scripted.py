"""The scripted peer plays what is written, and tells where the client did otherwise."""

import asyncio
import ssl
from collections.abc import Awaitable, Callable
from contextlib import suppress

import pytest
import trustme

from tests.peers.memory import open_memory
from tests.peers.scripted import ScriptedServer, parse, scripted
from tests.peers.virtual import virtual_time

Dialog = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


async def talk(host: str, port: int, dialog: Dialog) -> None:
    reader, writer = await asyncio.open_connection(host, port)
    try:
        async with asyncio.timeout(10):
            await dialog(reader, writer)
    finally:
        writer.close()


async def test_a_transcript_is_played_over_several_connections() -> None:
    async with scripted(r"""
        S: * OK ready
        C: %1 LOGIN alice *          # whatever the password
        S: %1 OK done
        C: %2 NOOP
        S-raw: * 1 FETCH (BODY[] {5}\r\nh\x00\xe9lo)\r\n
        S: %2 OK %1 was long ago
        close
        --- connection
        S: * BYE not you
        reset
    """) as server:

        async def first(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            assert await reader.readline() == b"* OK ready\r\n"
            writer.write(b"A7 LOGIN alice secret\r\n")
            assert await reader.readline() == b"A7 OK done\r\n"
            writer.write(b"A8 NOOP\r\n")
            assert await reader.read(41) == b"* 1 FETCH (BODY[] {5}\r\nh\x00\xe9lo)\r\nA8 OK A7 was long ago\r\n"[:41]
            assert (await reader.read()).endswith(b"ago\r\n")

        async def second(reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
            assert (await reader.readline()).startswith(b"* BYE")
            with pytest.raises(ConnectionResetError):
                await reader.readline()

        await talk(server.host, server.port, first)
        await talk(server.host, server.port, second)
        await server.finish()
    assert server.log == [[b"A7 LOGIN alice secret", b"A8 NOOP"], []]


async def play_wrongly() -> None:
    """Send NOOP where the transcript has LOGIN."""
    async with scripted("S: * OK ready\nC: %1 LOGIN *") as server:

        async def dialog(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(b"a NOOP\r\n")
            with suppress(ConnectionResetError):
                await reader.read()

        await talk(server.host, server.port, dialog)


async def test_another_command_is_reported_with_what_was_expected() -> None:
    with pytest.raises(
        AssertionError, match=r"line 2: expected '%1 LOGIN \*', got 'a NOOP'\n.*\n  connection 1: a NOOP"
    ):
        await play_wrongly()


@pytest.mark.parametrize(
    ("transcript", "said", "reported"),
    [
        ("C: %1 NOOP\nC: %1 DONE", b"a NOOP\r\nb DONE\r\n", "expected '%1 DONE', got 'b DONE'"),
        ("C: %1 NOOP", b"", "but the client closed"),
        ("C: %1 NOOP", b"a NOOP\r\nmore\r\n", "the transcript was over, but the client said b'more'"),
    ],
    ids=["another tag", "silence", "too much"],
)
def test_every_other_difference_is_reported(transcript: str, said: bytes, reported: str) -> None:
    @virtual_time
    async def test() -> None:
        server = ScriptedServer(transcript)
        transport, _ = await open_memory(asyncio.Protocol, server)
        transport.write(said)
        transport.write_eof()
        with pytest.raises(AssertionError, match=reported.replace("*", r"\*")):
            await server.finish()

    test()


@virtual_time
async def test_what_was_not_played_is_reported() -> None:
    server = ScriptedServer("C: %1 NOOP\n--- connection\nC: %1 NOOP")
    transport, _ = await open_memory(asyncio.Protocol, server)
    with pytest.raises(AssertionError, match=r"beyond line 1: C: %1 NOOP\n1 more connection"):
        await server.finish(within=3600)
    await server.close()
    transport.close()


@virtual_time
async def test_one_connection_too_many_is_reported() -> None:
    server = ScriptedServer("close")
    for _ in range(2):
        await open_memory(asyncio.Protocol, server)
    with pytest.raises(AssertionError, match="connection 2: the transcript has no such connection"):
        await server.finish()


@virtual_time
async def test_waiting_passes_virtual_time() -> None:
    server = ScriptedServer("S: * OK hi\nwait 1740\nclose")
    await open_memory(asyncio.Protocol, server)
    await server.finish(within=2000)
    assert asyncio.get_running_loop().time() == pytest.approx(1740, abs=1)


async def test_tls_begins_where_the_transcript_says() -> None:
    ca = trustme.CA()
    serving, trusting = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.create_default_context()
    ca.issue_cert("127.0.0.1").configure_cert(serving)
    ca.configure_trust(trusting)
    transcript = """
        S: * OK hi
        C: %1 STARTTLS
        S: %1 OK go
        starttls
        C: %2 NOOP
        S: %2 OK
        --- connection
        starttls
        S: * OK secret from the start
    """
    async with scripted(transcript, tls=serving) as server:

        async def dialog(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readline()
            writer.write(b"a STARTTLS\r\n")
            await reader.readline()
            await writer.start_tls(trusting, server_hostname="127.0.0.1")
            writer.write(b"b NOOP\r\n")
            assert await reader.readline() == b"b OK\r\n"

        await talk(server.host, server.port, dialog)
        reader, writer = await asyncio.open_connection(server.host, server.port, ssl=trusting)
        assert await reader.readline() == b"* OK secret from the start\r\n"
        writer.close()
        await server.finish()


def test_a_line_that_is_none_is_refused() -> None:
    with pytest.raises(ValueError, match="line 2 of the transcript is none: X: what"):
        parse("S: * OK\nX: what")
