"""Opening an SQLite store: the lock, the file, its settings and its schema.

    lock ─▶ file (0600) ─▶ settings ─▶ ours? ─▶ newer than we? ─▶ migrate, a transaction each ─▶ ready

A service owns its store through `flock` on a file beside it, which the kernel lets go of however the process ends.
The database itself cannot be asked: SQLite's own locks are held for moments only.

Nothing here, and nobody else, may open the database's files but SQLite: closing any descriptor of them would drop
the POSIX locks that SQLite holds in this process.
"""

import fcntl
import os
import sqlite3
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import Final, Self
from urllib.parse import quote

from idlepush.errors import StoreError, StoreLocked

Migration = tuple[int, str]

APPLICATION_ID: Final = int.from_bytes(b"idlp")
PAGE_SIZE: Final = 16384
SMALLEST_DATABASE: Final = 512

# Short, since a write that finds the database locked is tried again without holding the thread (sqlite_writer.py).
WRITER_BUSY_MS: Final = 250
OPENING_BUSY_MS: Final = 10_000
READER_BUSY_MS: Final = 10_000


class Lock:
    """Ownership of a store by this process, for as long as the descriptor is open."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor: int | None = descriptor

    @classmethod
    def take(cls, store: Path) -> Self:
        """Own the store, and write down who does.

        Raises:
            StoreLocked: another process does; the sentence names it.
        """
        descriptor = os.open(_beside(store, ".lock"), os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            owner = os.pread(descriptor, 32, 0).decode("ascii", "replace").strip() or "unknown"
            os.close(descriptor)
            raise StoreLocked(f"{store} is in use by another idlepush (pid {owner})") from None
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, b"%d\n" % os.getpid(), 0)
        return cls(descriptor)

    def release(self) -> None:
        """Let go; a second time does nothing. The file stays: deleting it could give two owners a lock each."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            os.close(descriptor)


def bundled_migrations() -> Sequence[Migration]:
    """Return the numbered scripts that make the schema, in order."""
    scripts = files("idlepush.store") / "migrations" / "sqlite"
    return [
        (int(script.name[:4]), script.read_text("utf-8"))
        for script in sorted(scripts.iterdir(), key=lambda script: script.name)
        if script.name.endswith(".sql")
    ]


def connect_writer(path: Path, migrations: Sequence[Migration]) -> sqlite3.Connection:
    """Open the one connection that writes, creating or migrating the database; the caller holds the lock.

    Raises:
        StoreError: what is there is not ours to write.
    """
    if path.is_dir():
        raise StoreError(f"{path} is a directory")
    if path.exists():
        _check_size(path)
    else:
        # SQLite would go by the umask; its -wal and -shm files take over the mode of the database.
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
    db = sqlite3.connect(_uri(path, "rw"), uri=True, isolation_level=None, cached_statements=256)
    try:
        db.execute(f"PRAGMA busy_timeout = {OPENING_BUSY_MS}")
        version = _version(db, path, newest=migrations[-1][0])
        _set_up(db, path)
        _migrate(db, path, version, migrations)
        db.execute(f"PRAGMA busy_timeout = {WRITER_BUSY_MS}")
    except BaseException:
        db.close()
        raise
    return db


def connect_reader(path: Path, newest: int) -> sqlite3.Connection:
    """Open a connection that can only read, beside a running service or without one.

    Raises:
        StoreError: there is no store, or it has another schema than *newest*.
    """
    if not path.exists():
        raise StoreError(f"there is no store at {path}")
    _check_size(path)
    # mode=ro: a connection that may write would checkpoint when it is the last one to close, and only the writer may.
    db = sqlite3.connect(_uri(path, "ro"), uri=True, isolation_level=None, cached_statements=256)
    try:
        db.execute(f"PRAGMA busy_timeout = {READER_BUSY_MS}")
        db.execute("PRAGMA query_only = ON")
        version = _version(db, path, newest)
        _check_migrated(path, version, newest)
    except BaseException:
        db.close()
        raise
    return db


def make_directory(path: Path) -> None:
    """Create the directory of a store and what is missing above it, for the owner alone."""
    missing = [directory for directory in path.absolute().parents if not directory.exists()]
    for directory in reversed(missing):
        directory.mkdir(mode=0o700, exist_ok=True)


def _version(db: sqlite3.Connection, path: Path, newest: int) -> int:
    """Return the number of the last migration that was applied, 0 for an empty file.

    Raises:
        StoreError: it is somebody else's database, or one of a newer idlepush.
    """
    (application,) = db.execute("PRAGMA application_id").fetchone()
    (version,) = db.execute("PRAGMA user_version").fetchone()
    (tables,) = db.execute("SELECT count(*) FROM sqlite_schema").fetchone()
    if application != APPLICATION_ID and (application or version or tables):
        raise StoreError(f"{path} is an SQLite database, but not a store of idlepush")
    if version > newest:
        raise StoreError(
            f"{path} was written by a newer idlepush (its schema is {version}, this one knows {newest}): "
            "upgrade, or restore the backup that was made before its migration"
        )
    return int(version)


def _check_size(path: Path) -> None:
    """SQLite takes a file too short to be a database for an empty one, and would write over it."""
    if 0 < path.stat().st_size < SMALLEST_DATABASE:
        raise StoreError(f"{path} is not an SQLite database")


def _check_migrated(path: Path, version: int, newest: int) -> None:
    if version < newest:
        raise StoreError(
            f"{path} is of an older idlepush (its schema is {version}, this one reads {newest}): "
            "start the service once to migrate it"
        )


def _set_up(db: sqlite3.Connection, path: Path) -> None:
    db.execute(f"PRAGMA page_size = {PAGE_SIZE}")  # counts only for a file that is still empty, and before WAL
    (mode,) = db.execute("PRAGMA journal_mode = WAL").fetchone()
    if mode != "wal":
        raise StoreError(f"{path} cannot be opened in WAL mode: its file system has no shared memory")
    db.execute("PRAGMA synchronous = FULL")
    db.execute("PRAGMA foreign_keys = ON")
    db.execute("PRAGMA wal_autocheckpoint = 0")  # the writer decides when
    db.execute("PRAGMA cache_size = -16384")
    db.execute("PRAGMA temp_store = MEMORY")
    # Debian's SQLite overwrites all that is deleted; of a mirror of mail that would be half of the writing.
    db.execute("PRAGMA secure_delete = FAST")


def _migrate(db: sqlite3.Connection, path: Path, version: int, migrations: Sequence[Migration]) -> None:
    """Bring the schema up to date, a transaction each: killed at any moment, the schema is the old or the new one."""
    due = [(number, script) for number, script in migrations if number > version]
    if version and due:
        _back_up(db, _beside(path, f".before-{due[0][0]:04}.bak"))
    for number, script in due:
        try:
            # executescript() would commit a transaction that was begun outside of the script.
            db.executescript(
                f"BEGIN IMMEDIATE;\n{script}\n"
                f"PRAGMA application_id = {APPLICATION_ID};\nPRAGMA user_version = {number};\nCOMMIT;"
            )
        finally:
            if db.in_transaction:
                db.execute("ROLLBACK")


def _back_up(db: sqlite3.Connection, target: Path) -> None:
    """Copy the database to *target*, which has all of it or is not there."""
    unfinished = target.with_name(target.name + ".unfinished")
    unfinished.unlink(missing_ok=True)
    descriptor = os.open(unfinished, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        db.execute("VACUUM INTO ?", (str(unfinished),))
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    unfinished.replace(target)


def _beside(path: Path, suffix: str) -> Path:
    return path.with_name(path.name + suffix)


def _uri(path: Path, mode: str) -> str:
    return f"file:{quote(str(path.absolute()))}?mode={mode}"
