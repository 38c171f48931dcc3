"""How fast a Maildir is made of a mirror, held against it, and follows a push.

`python -m tests.benchmarks.bench_maildir`, `--messages 10000` of 4 kB, `--at` a folder on the disk in question.
"""

import argparse
import os
import resource
import tempfile
import time
from pathlib import Path

import anyio

from idlepush.imap.types import Uid
from idlepush.sinks.maildir import Maildir
from idlepush.store.sqlite import open_store
from tests.store.making import INBOX, Clock, begin, changes, flags, message

WINDOW = 250
PUSHES = 100


def body(uid: int) -> bytes:
    return b"Subject: %d\r\n\r\n" % uid + b"".join(os.urandom(30).hex().encode() + b"\r\n" for _ in range(64))


async def measure(folder: Path, count: int) -> None:
    async with open_store(folder / "mirror.db", clock=Clock()) as store:
        generation = await begin(store)
        for first in range(1, count + 1, WINDOW):
            new = tuple(message(uid, body(uid)) for uid in range(first, min(first + WINDOW, count + 1)))
            await store.commit(changes(generation, new=new))

        async def timed(what: str, of: int = 1) -> None:
            print(f"{what:40} {(time.perf_counter() - begun) / of * 1000:10.1f} ms")

        sink = Maildir(folder / "mail", "alice", store)
        sink.learn("/")
        begun = time.perf_counter()
        await sink.begin(await sink.first())
        seconds = time.perf_counter() - begun
        await timed(f"made of {count} messages")
        print(f"{'':40} {count / seconds:10.0f} messages/s")

        begun = time.perf_counter()
        position = await sink.begin(0)
        await timed("held against it, all equal")

        begun = time.perf_counter()
        for uid in range(count + 1, count + 1 + PUSHES):
            await store.commit(changes(generation, new=(message(uid, body(uid)),), urgent=True))
            await sink.take(await store.events(position))
            position = await store.position()
        await timed("a push: commit and file", PUSHES)

        begun = time.perf_counter()
        for uid in range(1, PUSHES + 1):
            await store.commit(changes(generation, flags={Uid(uid): flags("\\Seen")}))
            await sink.take(await store.events(position))
            position = await store.position()
        await timed("a flag: commit and rename", PUSHES)
        assert await store.find("alice", INBOX, count) is not None
        print(f"{'most memory':40} {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024:10} MiB")


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--messages", type=int, default=10_000)
    arguments.add_argument("--at", type=Path, default=None)
    given = arguments.parse_args()
    with tempfile.TemporaryDirectory(dir=given.at) as folder:
        anyio.run(measure, Path(folder), given.messages)


if __name__ == "__main__":
    main()
