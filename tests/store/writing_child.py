"""A process that writes to a store until it is killed; run as `python -m tests.store.writing_child PATH [COMMITS]`.

It prints a line for each commit that returned: the position after it. After so many commits, if told, it ends.
"""

import asyncio
import itertools
import os
import sys
from pathlib import Path

import anyio

from idlepush.imap.types import Uid
from idlepush.imap.uidset import UidSet
from idlepush.store.sqlite import SqliteStore, open_store
from tests.store.making import INBOX, Clock, begin, changes, flags, message, part


async def work(store: SqliteStore, account: str, first: int) -> None:
    """For ever: a small one, a large one in two slices, flags, and now and then an expunge."""
    mirrored = await store.mirror(account, INBOX)
    generation = mirrored.generation if mirrored else await begin(store, account)
    for uid in itertools.count(first, 2):
        body = os.urandom(20_000)
        for change in (
            changes(generation, account, new=(message(uid, body), message(uid + 1, body[:100], complete=False))),
            changes(generation, account, slices=(part(uid + 1, 100, body[100:], final=True),), high=Uid(uid + 2)),
            changes(
                generation,
                account,
                flags={Uid(uid): flags("\\Seen")},
                expunged=UidSet.range(max(uid - 1, 1), uid - 1),
                urgent=bool(uid % 4),
            ),
        ):
            committed = await store.commit(change)
            sys.stdout.write(f"{committed.position}\n")
            sys.stdout.flush()


async def main(path: Path, commits: int | None) -> None:
    async with open_store(path, clock=Clock()) as store, anyio.create_task_group() as tasks:
        for account in ("alice", "bob", "carol"):
            mirrored = await store.mirror(account, INBOX)
            tasks.start_soon(work, store, account, mirrored.checkpoint.high if mirrored else 1)
        while commits is not None and store.transactions < commits:
            await store.wait_beyond(await store.position())
        if commits is not None:
            tasks.cancel_scope.cancel()


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), int(sys.argv[2]) if sys.argv[2:] else None))
