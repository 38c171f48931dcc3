"""A `FakeImap` on a free port of loopback, in a thread and loop of its own, for a service in another process."""

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from tests.peers.fake import FakeImap


@contextmanager
def listening(fake: FakeImap) -> Iterator[int]:
    """Serve until the block ends; yield the port."""
    started, stop = threading.Event(), threading.Event()
    port: list[int] = []

    async def serve() -> None:
        async with fake.listening() as (_, at):
            port.append(at)
            started.set()
            await asyncio.to_thread(stop.wait)

    thread = threading.Thread(target=lambda: asyncio.run(serve()))
    thread.start()
    try:
        assert started.wait(10)
        yield port[0]
    finally:
        stop.set()
        thread.join(20)
