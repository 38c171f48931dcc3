"""Where it listens, and how it behaves with clients that do not behave."""

import select
import socket
import stat
import time
from contextlib import suppress
from pathlib import Path

import anyio
import anyio.abc
import pytest

from idlepush.errors import IdlepushError
from idlepush.serve import listener
from idlepush.serve.settings import HttpSettings
from idlepush.store.base import Store
from tests.serve.serving import socket_path
from tests.serve.test_api import filled
from tests.serve.test_events import STREAM, sent
from tests.store.making import begin, changes, message


async def test_port_0_is_any_free_one_and_the_url_that_is_yielded_is_answered(memory: Store) -> None:
    async with (await filled(memory)).listening() as client:
        assert client.base_url.port != 0
        assert (await client.get("/livez")).status_code == 200
        assert "server" not in (await client.get("/livez")).headers


async def test_nothing_listens_where_nothing_is_to(memory: Store) -> None:
    served = await filled(memory)
    async with listener.listening(served.application, HttpSettings(listen=""), stopping=served.stopping) as url:
        assert url is None


async def test_localhost_is_answered_on_all_its_addresses(memory: Store) -> None:
    served = await filled(memory)
    served.settings = HttpSettings(listen="localhost:0")
    async with served.listening() as client:
        port = client.base_url.port
        for found in await anyio.getaddrinfo("localhost", port, type=socket.SOCK_STREAM):
            async with await anyio.connect_tcp(found[4][0], port or 0) as stream:
                assert stream


async def test_a_port_in_use_is_said_in_one_readable_sentence(memory: Store) -> None:
    served = await filled(memory)
    with socket.create_server(("127.0.0.1", 0)) as other:
        served.settings = HttpSettings(listen=f"127.0.0.1:{other.getsockname()[1]}")
        with pytest.raises(IdlepushError, match=r"cannot listen on 127.0.0.1:\d+: it is in use by another program"):
            async with served.listening():
                pass


async def test_a_unix_socket_is_open_to_its_owner_and_group_alone_and_gone_afterwards(
    memory: Store, tmp_path: Path
) -> None:
    served = await filled(memory)
    path = socket_path(tmp_path)
    served.settings = HttpSettings(listen=f"unix:{path}")
    async with served.listening() as client:
        assert stat.S_IMODE(path.stat().st_mode) == 0o660
        assert (await client.get("/v1/accounts")).status_code == 200
    assert not path.exists()


async def test_a_socket_left_behind_is_taken_over_and_one_in_use_is_not(memory: Store, tmp_path: Path) -> None:
    path = socket_path(tmp_path)
    left = socket.socket(socket.AF_UNIX)
    left.bind(str(path))
    left.close()
    served = await filled(memory)
    served.settings = HttpSettings(listen=f"unix:{path}")
    async with served.listening() as client:
        second = await filled(memory)
        second.settings = served.settings
        with pytest.raises(IdlepushError, match="in use"):
            async with second.listening():
                pass
        assert (await client.get("/livez")).status_code == 200


async def test_the_end_takes_two_seconds_at_most_whatever_streams_are_open(memory: Store) -> None:
    served = await filled(memory)
    context = served.listening()
    client = await context.__aenter__()
    async with client.stream("GET", STREAM) as answer:
        await anext(sent(answer))
        raw = await anyio.connect_tcp("127.0.0.1", client.base_url.port or 0)
        await raw.send(b"GET /v1/eve")
        begun = time.monotonic()
        await context.__aexit__(None, None, None)
        assert time.monotonic() - begun < 3
        await raw.aclose()


# Clients that do not behave


async def said(stream: anyio.abc.SocketStream) -> bytes:
    """Read to the end of the connection."""
    heard = b""
    try:
        while True:
            heard += await stream.receive()
    except (anyio.EndOfStream, anyio.BrokenResourceError):
        return heard


@pytest.mark.parametrize(
    "head",
    [b"", b"GET /livez HT", b"POST /v1/accounts/alice/wake HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\nx"],
)
async def test_who_does_not_come_to_the_end_of_a_request_is_cut_off(
    memory: Store, monkeypatch: pytest.MonkeyPatch, head: bytes
) -> None:
    monkeypatch.setattr(listener, "REQUEST_PATIENCE", 0.1)
    async with (await filled(memory)).listening() as client:
        with anyio.fail_after(10):
            async with await anyio.connect_tcp("127.0.0.1", client.base_url.port or 0) as stream:
                await stream.send(head)
                heard = await said(stream)
                assert heard.startswith((b"HTTP/1.1 408", b"HTTP/1.1 202"))


@pytest.mark.parametrize(
    "head",
    [
        b"GET / HTTP/1.1\r\nHost: localhost\r\n" + b"X-A: b\r\n" * 100_000 + b"\r\n",
        b"GET /" + b"a" * 1_000_000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"\x16\x03\x01 not HTTP at all\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\nHost: evil.example\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
    ],
)
async def test_a_head_that_is_too_long_or_broken_is_refused(memory: Store, head: bytes) -> None:
    async with (await filled(memory)).listening() as client:
        with anyio.fail_after(20):
            async with await anyio.connect_tcp("127.0.0.1", client.base_url.port or 0) as stream:
                async with anyio.create_task_group() as tasks:

                    async def send() -> None:
                        with suppress(anyio.BrokenResourceError):  # it has heard enough
                            await stream.send(head)

                    tasks.start_soon(send)
                    heard = await said(stream)
                assert heard == b"" or heard.startswith(b"HTTP/1.1 4")
        assert (await client.get("/livez")).status_code == 200


async def test_a_reader_that_never_reads_is_dropped_and_others_are_served(
    memory: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listener, "READER_PATIENCE", 0.2)
    served = await filled(memory)
    generation = await begin(memory, "carol")
    for first in range(1, 40_001, 1000):
        await memory.commit(changes(generation, "carol", new=tuple(message(uid) for uid in range(first, first + 1000))))
    async with served.listening() as client:
        with anyio.fail_after(60):
            slow = socket.create_connection(("127.0.0.1", client.base_url.port or 0))
            slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            slow.sendall(b"GET /v1/events/stream HTTP/1.1\r\nHost: localhost\r\n\r\n")
            await anyio.to_thread.run_sync(_until_reset, slow)
            assert (await client.get("/livez")).status_code == 200


def _until_reset(slow: socket.socket) -> None:
    """Wait, without reading, until the other side has cut the connection."""
    poll = select.poll()
    poll.register(slow, select.POLLERR | select.POLLHUP)
    assert poll.poll(30_000), "nobody cut it"
    slow.close()


async def test_a_body_of_unknown_length_is_refused_over_the_wire(memory: Store) -> None:
    served = await filled(memory)
    async with served.listening() as client:
        with anyio.fail_after(10):
            async with await anyio.connect_tcp("127.0.0.1", client.base_url.port or 0) as stream:
                await stream.send(
                    b"POST /v1/accounts/alice/wake HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
                )
                assert (await said(stream)).startswith(b"HTTP/1.1 411")
    assert served.accounts.told == []
