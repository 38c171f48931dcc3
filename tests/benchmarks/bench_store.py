"""How fast the SQLite store commits, beside bare sqlite3 in the same run.

Run `python -m tests.benchmarks.bench_store [DIRECTORY]`.

Machines and disks differ, ratios less: each figure stands beside what sqlite3 itself does with the same bodies in one
table, with the same settings, in the calling thread. Rounds alternate, so that a disk in a bad mood is so for both.
"""

import asyncio
import base64
import hashlib
import itertools
import os
import random
import sqlite3
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import anyio
import zstandard

from idlepush.imap.types import Uid
from idlepush.imap.uidset import UidSet
from idlepush.store.sqlite import SqliteStore, open_store
from tests.store.making import begin, changes, message

PUSHES = 400
BULK_OCTETS = 48 * 1024 * 1024
COMMIT_OCTETS = 256 * 1024
BODY = 10_000

WORDS = b"the of and to mail server message received from subject attached please regards meeting on monday".split()


def bodies(seed: int, octets: int = BODY) -> Iterator[bytes]:
    """Bodies like mail: half words, half base64; zstd makes about half of them."""
    dice = random.Random(seed)
    while True:
        text = b" ".join(dice.choices(WORDS, k=octets // 12))
        yield text + b"\r\n" + base64.b64encode(dice.randbytes(octets * 3 // 8))


def shown(name: str, store: float, raw: float, unit: str) -> None:
    print(f"{name:<44} {store:>9.2f} {unit:<5} sqlite3 {raw:>9.2f} {unit:<5} ratio {store / raw:>5.2f}")


def percentile(samples: list[float], share: float) -> float:
    return sorted(samples)[min(len(samples) - 1, int(len(samples) * share))]


class Raw:
    """sqlite3 as it comes: one table of messages, one of events, one transaction each."""

    def __init__(self, path: Path) -> None:
        self.db = sqlite3.connect(path, isolation_level=None)
        self.db.executescript(
            "PRAGMA page_size = 16384; PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL;"
            "CREATE TABLE message (id INTEGER PRIMARY KEY, uid INTEGER UNIQUE, subject TEXT, sha256 BLOB, body BLOB);"
            "CREATE TABLE event (position INTEGER PRIMARY KEY, details TEXT)"
        )
        self.uids = itertools.count(1)
        self.compress = zstandard.ZstdCompressor(level=3).compress

    def commit(self, batch: list[bytes], *, compressed: bool = False) -> None:
        self.db.execute("BEGIN IMMEDIATE")
        for body in batch:
            kept = self.compress(body) if compressed else body
            sha256 = hashlib.sha256(body).digest() if compressed else b""
            uid = next(self.uids)
            self.db.execute("INSERT INTO message VALUES (NULL, ?, ?, ?, ?)", (uid, f"Subject {uid}", sha256, kept))
            self.db.execute("INSERT INTO event VALUES (NULL, ?)", ('{"flags":[]}',))
        self.db.execute("COMMIT")


class Mirrored:
    """The store, with one mailbox begun."""

    def __init__(self, store: SqliteStore, generation: int) -> None:
        self.store = store
        self.generation = generation
        self.uids = itertools.count(1)

    async def commit(self, batch: list[bytes], *, urgent: bool = False) -> None:
        new = tuple(message(next(self.uids), body) for body in batch)
        change = changes(
            self.generation,
            new=new,
            high=Uid(new[-1].uid + 1),
            accounted=UidSet.range(new[0].uid, new[-1].uid),
            urgent=urgent,
        )
        await self.store.commit(change)


def timed(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return (time.perf_counter() - began) * 1000


async def timed_async(store: Mirrored, batch: list[bytes], *, urgent: bool) -> float:
    began = time.perf_counter()
    await store.commit(batch, urgent=urgent)
    return (time.perf_counter() - began) * 1000


async def singles(store: Mirrored, raw: Raw) -> None:
    mail = bodies(1)
    ours: list[float] = []
    theirs: list[float] = []
    for _ in range(PUSHES):
        batch = [next(mail)]
        ours.append(await timed_async(store, batch, urgent=True))
        theirs.append(timed(lambda batch=batch: raw.commit(batch)))  # type: ignore[misc]
    shown("one message a commit, p50", statistics.median(ours), statistics.median(theirs), "ms")
    shown("one message a commit, p99", percentile(ours, 0.99), percentile(theirs, 0.99), "ms")
    shown("one message a commit, mean rate", 1000 / statistics.mean(ours), 1000 / statistics.mean(theirs), "/s")


async def bulk(store: Mirrored, raw: Raw) -> None:
    mail = bodies(2)
    per_commit = COMMIT_OCTETS // BODY
    batches = [[next(mail) for _ in range(per_commit)] for _ in range(BULK_OCTETS // COMMIT_OCTETS)]
    megabytes = sum(len(body) for batch in batches for body in batch) / 1e6
    spent = dict.fromkeys(("store", "raw", "raw with zstd and sha256"), 0.0)
    for round_ in range(4):
        some = batches[round_::4]
        spent["store"] += sum([await timed_async(store, batch, urgent=False) for batch in some])
        fresh = [[os.urandom(4) + body for body in batch] for batch in some]
        spent["raw"] += sum(timed(lambda batch=batch: raw.commit(batch)) for batch in fresh)  # type: ignore[misc]
        spent["raw with zstd and sha256"] += sum(
            timed(lambda batch=batch: raw.commit(batch, compressed=True))  # type: ignore[misc]
            for batch in fresh
        )
    rates = {name: megabytes / (milliseconds / 1000) for name, milliseconds in spent.items()}
    shown("256 KiB a commit", rates["store"], rates["raw"], "MB/s")
    shown("256 KiB a commit, both with zstd and sha256", rates["store"], rates["raw with zstd and sha256"], "MB/s")


async def pushes_beside_bulk(store: Mirrored) -> None:
    mail = bodies(3)
    batches = [[next(mail) for _ in range(COMMIT_OCTETS // BODY)] for _ in range(200)]
    pushes: list[float] = []
    written = 0

    async def backfill() -> None:
        nonlocal written
        for batch in itertools.cycle(batches):
            # Never the same body twice: it would only be looked up.
            await store.commit([body + b"%d" % written for body in batch])
            written += sum(map(len, batch))

    began = time.perf_counter()
    async with anyio.create_task_group() as tasks:
        for _ in range(4):
            tasks.start_soon(backfill)
        for _ in range(PUSHES):
            await anyio.sleep(random.random() * 0.02)
            pushes.append(await timed_async(store, [next(mail)], urgent=True))
        tasks.cancel_scope.cancel()
    spent = time.perf_counter() - began
    print(
        f"a push beside bulk commits: p50 {statistics.median(pushes):.2f} ms, p99 {percentile(pushes, 0.99):.2f} ms, "
        f"max {max(pushes):.2f} ms; bulk meanwhile {written / 1e6 / spent:.0f} MB/s"
    )


async def main(directory: Path) -> None:
    async with open_store(directory / "mirror.db", clock=lambda: datetime.now(UTC)) as store:
        mirrored = Mirrored(store, await begin(store))
        raw = Raw(directory / "raw.db")
        with closing(raw.db):
            await singles(mirrored, raw)
            await bulk(mirrored, raw)
        await pushes_beside_bulk(mirrored)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory(dir=sys.argv[1] if len(sys.argv) > 1 else None) as place:
        asyncio.run(main(Path(place)))
