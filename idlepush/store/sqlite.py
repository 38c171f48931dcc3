"""The store in SQLite: `open_store` for the service, `open_reader` for everyone beside it.

    commit ─▶ writer ─▶ one connection, its thread      all writes and all checkpoints
    reads  ──────────▶ two connections, a thread each   mode=ro

A write is durable when it returns: WAL with synchronous = FULL is one fsync a transaction. Readers see the last
commit, and hold up nobody. Why one connection does all the checkpoints: SQLite 3.40.1 (Debian 12) can lose a
transaction where several of them do (the WAL-reset bug), and a plain reader that closes last does one as well (seen).
"""

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import date, datetime
from pathlib import Path
from typing import Final

import anyio
import anyio.lowlevel

from idlepush.imap.types import MailboxName
from idlepush.store import sqlite_alerts, sqlite_commit, sqlite_index, sqlite_mailboxes, sqlite_upkeep
from idlepush.store.base import AccountRow, AlertRow, Committed, Sweep
from idlepush.store.sqlite_open import (
    Lock,
    Migration,
    bundled_migrations,
    connect_reader,
    connect_writer,
    make_directory,
)
from idlepush.store.sqlite_read import SqliteReader
from idlepush.store.sqlite_thread import Database, store_error
from idlepush.store.sqlite_transaction import Transaction
from idlepush.store.sqlite_writer import PATIENCE, Writer
from idlepush.sync.changes import ChangeSet

READERS: Final = 2
IDLE_SECONDS: Final = 1.0


class SqliteStore(SqliteReader):
    """A `Store` in SQLite; `open_store` makes one."""

    def __init__(
        self,
        writer: Database,
        readers: Sequence[Database],
        indexing: Database,
        *,
        clock: Callable[[], datetime],
        position: int,
        patience: float,
    ) -> None:
        super().__init__(readers)
        self._writer = Writer(writer, clock=clock, committed=self._announce, patience=patience)
        self._indexing = indexing
        self._position = position
        self._moved_on = anyio.Event()

    async def commit(self, change: ChangeSet) -> Committed:
        """Apply *change*; see `Store.commit`."""
        if any(part.final for part in change.slices):
            while await self._writer.write(lambda transaction: sqlite_commit.catch_up(transaction, change)):
                pass
        return await self._writer.write(
            lambda transaction: sqlite_commit.commit(transaction, change), urgent=change.urgent, octets=change.octets
        )

    async def mailbox_gone(self, account: str, mailbox: MailboxName, *, state: str = "gone") -> None:
        """See `Store.mailbox_gone`."""
        await self._writer.write(lambda transaction: sqlite_mailboxes.gone(transaction, account, mailbox, state))

    async def mailbox_renamed(self, account: str, before: MailboxName, after: MailboxName) -> None:
        """See `Store.mailbox_renamed`."""
        await self._writer.write(lambda transaction: sqlite_mailboxes.renamed(transaction, account, before, after))

    async def note_mailbox(
        self, account: str, mailbox: MailboxName, *, state: str | None = None, object_id: str | None = None
    ) -> None:
        """See `Store.note_mailbox`."""
        await self._writer.write(
            lambda transaction: sqlite_mailboxes.note(transaction, account, mailbox, state, object_id)
        )

    async def count_traffic(self, account: str, day: date, octets: int) -> None:
        """See `Store.count_traffic`."""
        await self._writer.write(lambda transaction: sqlite_upkeep.count_traffic(transaction, account, day, octets))

    async def move_cursor(self, position: int, sink: str, account: str) -> None:
        """See `Store.move_cursor`."""
        await self._writer.write(lambda transaction: sqlite_upkeep.move_cursor(transaction, position, sink, account))

    async def set_account(self, row: AccountRow) -> None:
        """See `Store.set_account`."""
        await self._writer.write(lambda transaction: sqlite_upkeep.set_account(transaction, row), urgent=True)

    async def add_alerts(self, rows: Sequence[AlertRow]) -> None:
        """See `Store.add_alerts`."""
        await self._writer.write(lambda transaction: sqlite_alerts.add_alerts(transaction, rows))

    async def forget_alert(self, account: str) -> None:
        """See `Store.forget_alert`."""
        await self._writer.write(lambda transaction: sqlite_alerts.forget_alert(transaction, account))

    async def sweep(self, sweep: Sweep) -> None:
        """See `Store.sweep`."""
        while await self._writer.write(lambda transaction: sqlite_upkeep.sweep_step(transaction, sweep)):
            pass
        await self._clear()

    async def index(self, *, rest: float = 0.0) -> None:
        """See `Store.index`."""
        while True:
            begun = anyio.current_time()
            batch = await self._indexing.run(sqlite_index.prepare)
            if batch is None:
                return
            await self._write_batch(batch)
            await anyio.sleep(rest * (anyio.current_time() - begun))

    async def _write_batch(self, batch: sqlite_index.Batch) -> None:
        done = 0

        def write(transaction: Transaction) -> int:
            return sqlite_index.write(transaction, batch, done)

        while done < batch.steps:
            done = await self._writer.write(write)

    async def purge(self, account: str) -> None:
        """See `Store.purge`."""
        await self._writer.write(lambda transaction: sqlite_upkeep.purge_begin(transaction, account))
        while await self._writer.write(lambda transaction: sqlite_upkeep.purge_step(transaction, account)):
            pass
        await self._clear()

    async def _clear(self) -> None:
        """Take away the long bodies that nothing refers to any more."""
        while await self._writer.write(lambda transaction: transaction.bodies.clear_step()):
            pass

    async def wait_beyond(self, position: int) -> None:
        """See `Reader.wait_beyond`."""
        await anyio.lowlevel.checkpoint()
        while self._position <= position:
            await self._moved_on.wait()

    async def tend(self, *, every: float = IDLE_SECONDS) -> None:
        """Give the log's space back whenever nothing was written for a while. For ever: run it beside the service.

        Without it the log is only kept from growing, by a checkpoint each 8 MiB.
        """
        seen = -1
        while True:
            await anyio.sleep(every)
            written = self._writer.transactions
            if self._writer.has_log and self._writer.is_idle and seen == written:
                await self._writer.checkpoint(truncate=True)
            seen = written

    @property
    def transactions(self) -> int:
        """How many were committed since the store was opened: how well commits share them."""
        return self._writer.transactions

    def _announce(self, position: int) -> None:
        if position > self._position:
            self._position = position
            self._moved_on.set()
            # Re-armed at once: who waits from here on waits for the next commit.
            self._moved_on = anyio.Event()

    async def _close(self) -> None:
        self._writer.is_closed = True
        await self._writer.checkpoint(truncate=True)


@asynccontextmanager
async def open_store(
    path: Path | str,
    *,
    clock: Callable[[], datetime],
    migrations: Sequence[Migration] | None = None,
    patience: float = PATIENCE,
) -> AsyncIterator[SqliteStore]:
    """Own the store at *path* until the block ends, creating or migrating it first.

    `clock` says when an event happens; `patience` is how many seconds a write waits while another process holds the
    database locked.

    Raises:
        StoreLocked: another service owns it; the sentence names its pid.
        StoreError: it cannot be opened; the sentence says why, and nothing was overwritten.
    """
    path = Path(path)
    scripts = bundled_migrations() if migrations is None else migrations
    async with AsyncExitStack() as stack:
        try:
            make_directory(path)
            lock = Lock.take(path)
        except OSError as error:
            raise store_error(path, error) from error
        stack.callback(lock.release)

        writer = await Database.open(path, lambda: connect_writer(path, scripts))
        stack.push_async_callback(writer.close)
        readers = [await _open_reading(stack, path, scripts[-1][0]) for _ in range(READERS)]

        # A third one, for reading a message of many megabytes takes a second.
        indexing = await _open_reading(stack, path, scripts[-1][0])

        position = await SqliteReader(readers).position()
        store = SqliteStore(writer, readers, indexing, clock=clock, position=position, patience=patience)
        stack.push_async_callback(store._close)
        yield store


@asynccontextmanager
async def open_reader(
    path: Path | str, *, migrations: Sequence[Migration] | None = None
) -> AsyncIterator[SqliteReader]:
    """Read the store at *path* until the block ends, whether or not a service owns it.

    Raises:
        StoreError: there is none, or it cannot be read by this version.
    """
    path = Path(path)
    scripts = bundled_migrations() if migrations is None else migrations
    async with AsyncExitStack() as stack:
        yield SqliteReader([await _open_reading(stack, path, scripts[-1][0])])


async def _open_reading(stack: AsyncExitStack, path: Path, newest: int) -> Database:
    database = await Database.open(path, lambda: connect_reader(path, newest))
    stack.push_async_callback(database.close)
    return database
