"""One sqlite3 connection and the thread it lives in; and what SQLite's errors mean in plain words."""

import asyncio
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, Generic, Self, TypeVar, cast

import aiosqlite
import anyio

from idlepush.errors import StoreError, StoreFull

Result = TypeVar("Result")


class Work(Generic[Result]):
    """Something to do in the thread, once, and how it ended."""

    def __init__(self, task: Callable[[], Result]) -> None:
        self._task = task
        self._result: Result | None = None
        self._error: BaseException | None = None
        self.is_over = False

    def __call__(self) -> None:
        """Do it; what it raises is kept for `result`."""
        try:
            self._result = self._task()
        except BaseException as error:
            self._error = error
        self.is_over = True

    @property
    def failed(self) -> bool:
        """Whether it ended by raising."""
        return self._error is not None

    def result(self) -> Result:
        """Return or raise what it ended with."""
        if self._error is not None:
            raise self._error
        return cast("Result", self._result)


class Database:
    """A connection that is made, used and closed in one thread of its own, which does one thing after the other."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._opened: sqlite3.Connection | None = None
        self._connection: aiosqlite.Connection | None = None

    @classmethod
    async def open(cls, path: Path, connect: Callable[[], sqlite3.Connection]) -> Self:
        """Start the thread and make the connection in it.

        Raises:
            StoreError: *connect* raised it, or an error of SQLite or of the operating system; no thread is left.
        """
        self = cls(path)
        attempt = Work(connect)

        def connector() -> sqlite3.Connection:
            attempt()
            # aiosqlite leaves its thread behind when a connector raises: it is given a connection in any case, and
            # is closed the ordinary way if that is not the one we wanted.
            self._opened = sqlite3.connect(":memory:") if attempt.failed else attempt.result()
            return self._opened

        with anyio.CancelScope(shield=True):
            self._connection = await aiosqlite.Connection(connector, iter_chunk_size=1)
            try:
                attempt.result()
            except BaseException as error:
                await self.close()
                raise store_error(path, error) from error
        return self

    async def run(self, task: Callable[[sqlite3.Connection], Result]) -> Result:
        """Do *task* in the thread and return its result.

        It is over when this returns or raises, even if the caller is cancelled meanwhile: nobody else's work meets a
        half-done one, and who looks afterwards sees what became of it.

        Raises:
            StoreError: SQLite refused; all else that *task* raises passes through.
        """
        connection, opened = self._connection, self._opened
        if connection is None or opened is None:
            raise StoreError(f"the store {self.path} is closed")
        work = Work(lambda: task(opened))
        cancelled: BaseException | None = None

        # The shield holds off anyio's cancellation; a bare asyncio one comes through, so the work is waited for again:
        # the thread takes one thing after the other, and doing nothing behind it ends after it.
        step: Callable[[], None] = work
        while not work.is_over:
            try:
                with anyio.CancelScope(shield=True):
                    await _hop(connection, step)
            except asyncio.CancelledError as error:
                cancelled, step = error, _nothing

        if cancelled is not None:
            raise cancelled
        try:
            return work.result()
        except sqlite3.Error as error:
            raise store_error(self.path, error) from error

    async def close(self) -> None:
        """Close the connection and end the thread; a second time does nothing."""
        connection, self._connection, self._opened = self._connection, None, None
        if connection is not None:
            with anyio.CancelScope(shield=True):
                await connection.close()


async def _hop(connection: aiosqlite.Connection, step: Callable[[], None]) -> None:
    """Have the thread take one step.

    The one private call of aiosqlite: its public ones take a hop to the thread and back for each statement, where a
    whole transaction needs no more than one. The callable carries no argument, for aiosqlite logs what it calls.
    """
    await cast("Any", connection)._execute(step)


def _nothing() -> None:
    pass


_MEANINGS: Final[dict[int, str]] = {
    sqlite3.SQLITE_NOTADB: "{path} is not an SQLite database",
    sqlite3.SQLITE_CORRUPT: "{path} is damaged ({what}); nothing was overwritten: restore a backup or move it away",
    sqlite3.SQLITE_READONLY: "{path} is read-only",
    sqlite3.SQLITE_PERM: "{path} may not be accessed: permission denied",
    sqlite3.SQLITE_CANTOPEN: "{path} cannot be opened: missing, not a file, or permission denied",
    sqlite3.SQLITE_BUSY: "{path} is locked by another process",
    sqlite3.SQLITE_LOCKED: "{path} is locked by another process",
    sqlite3.SQLITE_IOERR: "{path} cannot be read or written: the disk reports an error ({what})",
}

# Running into a quota or a file size limit is an error of writing to SQLite, as a failing disk is. Both mean:
# nothing can be written now, and trying again later is right.
_FULL: Final = frozenset(
    {
        sqlite3.SQLITE_FULL,
        sqlite3.SQLITE_IOERR_WRITE,
        sqlite3.SQLITE_IOERR_TRUNCATE,
        sqlite3.SQLITE_IOERR_SHMSIZE,
    }
)


_OF_THE_WHOLE: Final = frozenset(
    {
        sqlite3.SQLITE_BUSY,
        sqlite3.SQLITE_LOCKED,
        sqlite3.SQLITE_FULL,
        sqlite3.SQLITE_IOERR,
        sqlite3.SQLITE_READONLY,
        sqlite3.SQLITE_CANTOPEN,
        sqlite3.SQLITE_NOMEM,
    }
)


def is_busy(error: sqlite3.Error) -> bool:
    """Tell whether somebody else's lock is all that is wrong."""
    return _primary(error) in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)


def concerns_all(error: BaseException) -> bool:
    """Tell whether the database or the disk is at fault, so that nobody else's change could be written either.

    A damaged page is not among them: it is met by those whose rows are on it.
    """
    return isinstance(error, sqlite3.Error) and _primary(error) in _OF_THE_WHOLE


def store_error(path: Path, error: BaseException) -> BaseException:
    """Put what SQLite or the operating system says into a sentence; anything else is returned as it is."""
    if isinstance(error, OSError):
        return StoreError(f"{path} cannot be opened: {(error.strerror or 'the system refuses').lower()}")
    if not isinstance(error, sqlite3.Error):
        return error
    code = getattr(error, "sqlite_errorcode", None)
    what = getattr(error, "sqlite_errorname", None) or str(error)
    if code in _FULL:
        return StoreFull(f"{path} cannot grow: no space is left, or a quota or size limit is reached ({what})")
    meaning = _MEANINGS.get(_primary(error), "{path} refuses: {said}")
    return StoreError(meaning.format(path=path, what=what, said=error))


def _primary(error: sqlite3.Error) -> int:
    """Return SQLite's error code without its extension."""
    return getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF
