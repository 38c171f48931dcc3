"""A process that is there to be killed: a history in an SQLite store, round by round, delivered to a Maildir.

`python -m tests.sinks.delivering_child FOLDER ROUND`: commits what the round brings, brings the Maildir up to date,
and ends with 0.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

import anyio

from idlepush.imap.types import MailboxName, Uid
from idlepush.imap.uidset import UidSet
from idlepush.sinks.maildir import Maildir
from idlepush.store.base import Store
from idlepush.store.sqlite import open_store
from tests.store.making import INBOX, Clock, begin, changes, flags, message

WORK, LATER = MailboxName(b"Work/2026"), MailboxName(b"Later")


async def happens(store: Store, round: int) -> None:
    """Let mail come, change and go; and now and then a mailbox."""
    for mailbox in (INBOX, WORK):
        known = await store.mirror("alice", mailbox)
        generation = await begin(store, mailbox=mailbox) if known is None else known.generation
        first = 10 * round + 1
        new = tuple(message(uid, flags=flags(*(("\\Seen",) if uid % 3 else ()))) for uid in range(first, first + 6))
        await store.commit(changes(generation, mailbox=mailbox, new=new))
        await store.commit(
            changes(
                generation,
                mailbox=mailbox,
                flags={Uid(first - 8): flags("\\Flagged"), Uid(first + 1): flags()},
                expunged=UidSet.range(max(1, first - 7), max(1, first - 6)),
            )
        )
    if round % 4 == 1:
        await store.mailbox_renamed("alice", WORK, LATER)
    if round % 4 == 3:
        await store.mailbox_gone("alice", LATER)


async def deliver(store: Store, sink: Maildir, *, tail: int = 12) -> None:
    """Do what `engine.deliver` does, once; the last events are taken behind a comparison that did not see them."""
    cursor = await store.cursor(sink.name, sink.account)
    if cursor is None:
        cursor = await sink.first()
        await store.move_cursor(cursor, sink.name, sink.account)
    position = await sink.begin(cursor)
    await sink.take(await store.events(max(cursor, position - tail)))
    await store.move_cursor(position, sink.name, sink.account)


def maildir(folder: Path, store: Store) -> Maildir:
    sink = Maildir(folder / "mail", "alice", store)
    sink.learn("/")
    return sink


async def main(arguments: Sequence[str]) -> None:
    folder = Path(arguments[0])
    async with open_store(folder / "mirror.db", clock=Clock()) as store:
        sink = maildir(folder, store)
        await deliver(store, sink)
        before = await store.position()
        await happens(store, int(arguments[1]))
        await sink.take(await store.events(before))
        await store.move_cursor(await store.position(), sink.name, sink.account)


if __name__ == "__main__":
    anyio.run(main, sys.argv[1:])
