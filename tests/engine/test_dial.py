"""Dialing: names that nobody answers for are one account's trouble."""

import socket
import threading
from typing import Any

import anyio
import anyio.to_thread
import pytest

from idlepush.engine.dial import MOST_ADDRESSES, resolve


async def test_hundreds_of_dead_names_leave_the_others_their_lookups(monkeypatch: pytest.MonkeyPatch) -> None:
    answered, asked = threading.Event(), threading.Semaphore(0)
    real = socket.getaddrinfo

    def dead_where_told(host: str, *arguments: Any, **keys: Any) -> Any:
        if host.startswith("dead"):
            asked.release()
            answered.wait(30)
            raise socket.gaierror(socket.EAI_AGAIN, "no name server answers")
        return real(host, *arguments, **keys)

    monkeypatch.setattr(socket, "getaddrinfo", dead_where_told)
    failed = 0

    async def look_up(number: int) -> None:
        nonlocal failed
        with pytest.raises(socket.gaierror):
            await resolve(f"dead{number}.example")
        failed += 1

    try:
        async with anyio.create_task_group() as tasks:
            for number in range(200):
                tasks.start_soon(look_up, number)
            with anyio.fail_after(20):
                for _ in range(200):
                    await anyio.to_thread.run_sync(asked.acquire)
                assert await resolve("127.0.0.1") == ["127.0.0.1"]
                with anyio.move_on_after(0.05) as gave_up:
                    await resolve("dead-too.example")
                assert gave_up.cancelled_caught
            answered.set()
    finally:
        answered.set()
    assert failed == 200


async def test_a_name_with_a_thousand_addresses_is_not_dialed_a_thousand_times(monkeypatch: pytest.MonkeyPatch) -> None:
    many = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (f"127.0.{n // 250}.{n % 250}", 0)) for n in range(1000)]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: many)
    assert len(await resolve("many.example")) == MOST_ADDRESSES
