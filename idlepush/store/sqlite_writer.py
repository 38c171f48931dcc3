"""The one who writes to SQLite: whatever waits goes into the next transaction together.

A transaction costs an fsync, whatever is in it. So there is no queue with a task behind it, but a rule:

    nobody writes     whoever comes writes at once: its own change, and all that came meanwhile
    somebody writes   whoever comes waits, until it is written or it is its turn to write for the others

    urgent first, and never together with bulk        a push does not wait for a window's bodies
    bulk ends at 256 KiB or 20 ms, or when a push comes     nor for a long transaction
    a SAVEPOINT each, where several share one         what one change does wrong, it does to itself

A caller that is cancelled before its change is in a transaction takes it back whole; once it is in one, it is written
whole. Nothing is reported written before COMMIT has returned.

Checkpoints are made here too: copying the log back into the database is a bulk write that nobody waits for.
"""

import sqlite3
import time
from collections import deque
from collections.abc import Callable, Iterable
from contextlib import suppress
from datetime import datetime
from typing import Final, Generic, TypeVar, cast

import anyio
import anyio.lowlevel

from idlepush.errors import StoreError
from idlepush.store.sqlite_bodies import Bodies
from idlepush.store.sqlite_open import PAGE_SIZE, WRITER_BUSY_MS
from idlepush.store.sqlite_thread import Database, concerns_all, is_busy, store_error
from idlepush.store.sqlite_transaction import Transaction

Result = TypeVar("Result")

MOST_OCTETS: Final = 256 * 1024
MOST_SECONDS: Final = 0.020
CHECKPOINT_OCTETS: Final = 8 * 1024 * 1024
# Where pushes alone write, nothing is gained by a checkpoint between two of them until the log gets long.
URGENT_CHECKPOINT_OCTETS: Final = 8 * CHECKPOINT_OCTETS
# What the log grows by beside the bodies, roughly: whole pages, of each table and index that is touched.
_TRANSACTION_OCTETS: Final = 12 * PAGE_SIZE
_CHANGE_OCTETS: Final = 1024

PATIENCE: Final = 120.0
_BUSY_PAUSE: Final = 0.05


class _Unit(Generic[Result]):
    """A change that waits to be written."""

    def __init__(self, task: Callable[[Transaction], Result], octets: int) -> None:
        self.task = task
        self.octets = octets
        self.turn = anyio.Event()
        """Set when it is over, and when it is its caller's turn to write for all."""
        self.is_over = False
        self.is_abandoned = False
        self.outcome: Result | None = None
        self.error: Exception | None = None

    def end(self, error: Exception | None) -> None:
        """Let the caller go on; *error*, or its own, is raised there."""
        self.error = self.error or error
        self.is_over = True
        self.turn.set()


class _Batch:
    """Units on their way into one transaction. `write` runs in the database's thread, all else in the loop."""

    def __init__(self, units: Iterable["_Unit[object]"], now: datetime, hurry: Callable[[], bool]) -> None:
        self.waiting = deque(units)
        self.tried: list[_Unit[object]] = []
        self.position: int | None = None
        """Where the log ends, once all this is committed."""
        self.failure: Exception | None = None
        self.written = 0
        self._now = now
        self._hurry = hurry

    def write(self, db: sqlite3.Connection, bodies: Bodies) -> None:
        """Write as many as the bounds allow, in one transaction."""
        octets, changes = bodies.written, db.total_changes
        try:
            db.execute("BEGIN IMMEDIATE")
            transaction = Transaction(db, bodies, self._now)
            deadline = time.monotonic() + MOST_SECONDS
            while self.waiting and (not self.tried or not (self._hurry() or time.monotonic() > deadline)):
                unit = self.waiting.popleft()
                self.tried.append(unit)
                _attempt(transaction, unit, is_alone=len(self.tried) == 1 and not self.waiting)
            if db.in_transaction:
                db.execute("COMMIT")
            self.position = transaction.position
        except Exception as error:
            if db.in_transaction:
                db.execute("ROLLBACK")
            self.failure = error
        self.written = bodies.written - octets + (db.total_changes - changes) * _CHANGE_OCTETS + _TRANSACTION_OCTETS

    @property
    def was_busy(self) -> bool:
        """Somebody else's lock was in the way, and nothing else."""
        return isinstance(self.failure, sqlite3.Error) and is_busy(self.failure)


def _attempt(transaction: Transaction, unit: "_Unit[object]", *, is_alone: bool) -> None:
    """Write one unit, or leave no trace of it; of one that is alone in its transaction, by ending that."""
    db = transaction.db
    unit.error = None
    if not is_alone:
        db.execute("SAVEPOINT unit")  # not for nothing: every page that is written is copied first
    try:
        unit.outcome = unit.task(transaction)
        transaction.write_events()
    except Exception as error:
        # Whatever is wrong with this unit alone, a bug of ours included, must not reach the others.
        if concerns_all(error) or not db.in_transaction:
            raise
        db.execute("ROLLBACK" if is_alone else "ROLLBACK TO unit")
        transaction.forget_events()
        unit.error = error
    if not is_alone:
        db.execute("RELEASE unit")


class Writer:
    """Gives changes to the database, one transaction after the other."""

    def __init__(
        self,
        database: Database,
        *,
        clock: Callable[[], datetime],
        committed: Callable[[int], None],
        patience: float = PATIENCE,
    ) -> None:
        self._database = database
        self._clock = clock
        self._committed = committed
        self._patience = patience
        self._urgent: deque[_Unit[object]] = deque()
        self._bulk: deque[_Unit[object]] = deque()
        self._writing: _Unit[object] | None = None
        self._busy_since: float | None = None
        self._bodies: Bodies | None = None
        self._unchecked = 0
        """About how many octets were written since the last checkpoint."""
        self.transactions = 0
        self.is_closed = False

    async def write(self, task: Callable[[Transaction], Result], *, urgent: bool = False, octets: int = 0) -> Result:
        """Do *task* in a transaction; return its result once that is durable.

        Raises:
            StoreError: it could not be written, and nothing of it was; all else that *task* raises passes through,
                with the same promise.
        """
        # What follows may never be cancelled, where nobody else writes: a loop of commits must be.
        await anyio.lowlevel.checkpoint_if_cancelled()
        if self.is_closed:
            raise StoreError(f"the store {self._database.path} is closed")
        unit = cast("_Unit[object]", _Unit(task, octets))
        queue = self._urgent if urgent else self._bulk
        queue.append(unit)
        try:
            if self._writing is not None:
                await unit.turn.wait()
            else:
                self._writing = unit
            while not unit.is_over:
                await self._write_some()
        finally:
            if not unit.is_over:  # cancelled; somebody else may have it in a transaction already
                unit.is_abandoned = True
                with suppress(ValueError):
                    queue.remove(unit)
            if self._writing is unit:
                self._hand_over()
        if unit.error is not None:
            raise store_error(self._database.path, unit.error) from unit.error
        return cast("Result", unit.outcome)

    async def checkpoint(self, *, truncate: bool = False) -> None:
        """Copy the log back into the database; with *truncate* give its space back, unless somebody reads it."""

        def copy(db: sqlite3.Connection) -> None:
            if not truncate:
                db.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
                return
            # TRUNCATE waits for readers; nobody may wait for it.
            db.execute("PRAGMA busy_timeout = 0")
            try:
                db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
            finally:
                db.execute(f"PRAGMA busy_timeout = {WRITER_BUSY_MS}")

        if self._unchecked or truncate:
            self._unchecked = 0
            # All commits stand whether or not this works; what is wrong with the disk the next one will tell.
            with suppress(StoreError):
                await self._database.run(copy)

    @property
    def is_idle(self) -> bool:
        """Nothing is being written, and nothing waits."""
        return self._writing is None

    @property
    def has_log(self) -> bool:
        """Something was written since the last checkpoint."""
        return self._unchecked > 0

    async def _write_some(self) -> None:
        """Write one batch: the urgent units that wait, else the oldest bulk ones."""
        if self._unchecked > (URGENT_CHECKPOINT_OCTETS if self._urgent else CHECKPOINT_OCTETS):
            await self.checkpoint()
        queue = self._urgent or self._bulk
        batch = _Batch(_taken(queue), self._clock(), lambda: queue is self._bulk and bool(self._urgent))

        def write(db: sqlite3.Connection) -> None:
            if self._bodies is None:
                self._bodies = Bodies(db)
            batch.write(db, self._bodies)

        try:
            await self._database.run(write)
        except StoreError as error:
            batch.failure = error  # it is closed
        finally:
            # Also where this task is cancelled: the batch is written, or is not, and those in it must be told.
            self._settle(queue, batch)
        if batch.was_busy:
            await self._wait_for_lock(queue)

    def _settle(self, queue: "deque[_Unit[object]]", batch: _Batch) -> None:
        again = [*batch.tried, *batch.waiting] if batch.was_busy else [*batch.waiting]
        queue.extendleft(unit for unit in reversed(again) if not unit.is_abandoned)
        self._unchecked += batch.written
        if batch.was_busy:
            return
        self._busy_since = None
        if batch.position is not None:
            self.transactions += 1
            self._committed(batch.position)
        for unit in batch.tried:
            unit.end(batch.failure)

    async def _wait_for_lock(self, queue: "deque[_Unit[object]]") -> None:
        """Somebody else holds the database: nothing is lost by waiting; at the end of the patience, say so."""
        now = anyio.current_time()
        self._busy_since = now if self._busy_since is None else self._busy_since
        if now - self._busy_since < self._patience:
            await anyio.sleep(_BUSY_PAUSE)
            return
        self._busy_since = None
        while queue:
            queue.popleft().end(StoreError(f"{self._database.path} is locked by another process"))

    def _hand_over(self) -> None:
        """Let the next one write; it may be that its change is written by then."""
        self._writing = next(iter(self._urgent or self._bulk), None)
        if self._writing is not None:
            self._writing.turn.set()


def _taken(queue: "deque[_Unit[object]]") -> "list[_Unit[object]]":
    """Take the first of *queue*, and those behind it as long as their bodies stay small together."""
    taken = [queue.popleft()]
    octets = taken[0].octets
    while queue and octets + queue[0].octets <= MOST_OCTETS:
        octets += queue[0].octets
        taken.append(queue.popleft())
    return taken
