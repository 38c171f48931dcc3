"""Virtual time passes at once, and only when nothing else is going on."""

import asyncio
import socket
import threading
import time

import anyio
import anyio.to_thread
import pytest

from tests.peers.virtual import VirtualLoop, VirtualTimeError, run_virtually, virtual_time


def test_half_an_hour_passes_in_no_time() -> None:
    started = time.monotonic()

    async def main() -> float:
        await asyncio.sleep(30 * 60)
        return asyncio.get_running_loop().time()

    assert run_virtually(main()) == pytest.approx(1800)
    assert time.monotonic() - started < 1


@virtual_time
async def test_timers_fire_in_the_order_of_their_times() -> None:
    fired: list[float] = []
    async with asyncio.TaskGroup() as group:
        for delay in (300.0, 0.5, 60.0):
            group.create_task(_note(delay, fired))
    assert fired == pytest.approx([0.5, 60, 300])


async def _note(delay: float, fired: list[float]) -> None:
    await asyncio.sleep(delay)
    fired.append(asyncio.get_running_loop().time())


@virtual_time
async def test_anyio_keeps_the_same_time() -> None:
    with anyio.move_on_after(3600) as scope:
        await anyio.sleep_forever()
    assert scope.cancelled_caught
    assert anyio.current_time() == pytest.approx(3600)


@pytest.mark.parametrize("how", ["executor", "anyio"])
def test_the_clock_waits_for_threads(how: str) -> None:
    def work() -> str:
        time.sleep(0.2)  # the very thing under test: real time that virtual time must wait for
        return "done"

    @virtual_time
    async def test() -> None:
        loop = asyncio.get_running_loop()
        for _ in range(3):
            async with asyncio.timeout(60):
                done = await (loop.run_in_executor(None, work) if how == "executor" else anyio.to_thread.run_sync(work))
            assert done == "done"
        assert loop.time() == 0
        await asyncio.sleep(600)
        assert loop.time() == pytest.approx(600)

    test()


@virtual_time
async def test_the_clock_waits_for_whoever_says_that_he_is_busy() -> None:
    loop = asyncio.get_running_loop()
    assert isinstance(loop, VirtualLoop)
    release, released = threading.Event(), asyncio.Event()

    def elsewhere() -> None:
        release.wait(0.1)
        loop.call_soon_threadsafe(released.set)

    thread = threading.Thread(target=elsewhere)
    with loop.busy():
        thread.start()
        async with asyncio.timeout(10):
            await released.wait()
    assert loop.time() == 0
    thread.join()


class Echo(asyncio.Protocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.transport.write(data)


@virtual_time
async def test_sockets_of_this_loop_are_heard_before_the_clock_jumps() -> None:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(Echo, "127.0.0.1", 0)
    async with server:
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        for _ in range(20):
            writer.write(b"ping\n")
            async with asyncio.timeout(1):
                assert await reader.readline() == b"ping\n"
        writer.close()
        await writer.wait_closed()
    assert loop.time() == 0


def test_what_hangs_is_ended_after_some_real_time() -> None:
    async def main() -> None:
        await asyncio.Event().wait()

    with pytest.raises(VirtualTimeError, match="nothing is scheduled"):
        run_virtually(main(), real_limit=0.2)


def test_what_turns_for_ever_is_ended_after_some_real_time() -> None:
    async def main() -> None:
        while True:
            await asyncio.sleep(1)

    with pytest.raises(VirtualTimeError, match="the loop never rests"):
        run_virtually(main(), real_limit=0.2)


def test_a_failure_nobody_takes_note_of_fails_the_test() -> None:
    async def main() -> None:
        asyncio.get_running_loop().call_soon(_fail)
        await asyncio.sleep(1)

    with pytest.raises(AssertionError, match="nobody took note"):
        run_virtually(main())


def _fail() -> None:
    raise LookupError("on purpose")


def test_a_failing_test_fails_as_itself() -> None:
    @virtual_time
    async def test() -> None:
        raise LookupError("mine")

    with pytest.raises(LookupError, match="mine"):
        test()


def test_a_blocked_thread_is_named() -> None:
    left, right = socket.socketpair()

    async def main() -> None:
        thread = threading.Thread(target=left.recv, args=(1,), name="reader")
        thread.start()
        try:
            await asyncio.sleep(1)
        finally:
            right.send(b"x")
            thread.join()

    with left, right, pytest.raises(VirtualTimeError, match="reader in "):
        run_virtually(main(), real_limit=0.2)
