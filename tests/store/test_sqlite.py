import asyncio
import hashlib
import os
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import textwrap
import threading
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import closing
from datetime import datetime, timedelta
from itertools import count
from pathlib import Path
from typing import Any

import anyio
import pytest

from idlepush.errors import StaleGeneration, StoreError, StoreFull, StoreLocked
from idlepush.imap.uidset import UidSet
from idlepush.store import (
    sqlite_bodies,
    sqlite_commit,
    sqlite_listing,
    sqlite_read,
    sqlite_transaction,
    sqlite_upkeep,
)
from idlepush.store.base import Sweep
from idlepush.store.sqlite import SqliteStore, open_reader, open_store
from idlepush.store.sqlite_bodies import CHUNK, STEP
from idlepush.store.sqlite_open import bundled_migrations
from idlepush.store.sqlite_thread import store_error
from idlepush.store.sqlite_transaction import Transaction
from tests.store.conformance import StoreConformance
from tests.store.making import (
    INBOX,
    START,
    Clock,
    all_events,
    begin,
    changes,
    message,
    mirror,
    part,
    raw,
    replayed,
    row,
    rows,
    shown_alike,
)

ROOT = Path(__file__).parents[2]


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "mirror.db"


@pytest.fixture
async def store(path: Path, clock: Clock) -> AsyncIterator[SqliteStore]:
    async with open_store(path, clock=clock) as store:
        yield store


class TestSqliteStore(StoreConformance):
    """The promises every store makes."""


def asked(path: Path, sql: str) -> list[tuple[object, ...]]:
    """Look into the database past the store, changing nothing."""
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as db:
        return db.execute(sql).fetchall()


def last_position(path: Path) -> int:
    """The position the next event comes after; it is not lowered where events are deleted."""
    [(position,)] = asked(path, "SELECT coalesce(max(seq), 0) FROM sqlite_sequence WHERE name = 'event'")
    assert isinstance(position, int)
    return position


def is_sound(path: Path) -> bool:
    return (
        asked(path, "PRAGMA integrity_check") == [("ok",)]
        and asked(path, "PRAGMA foreign_key_check") == []
        and asked(path, "SELECT count(*) FROM event") == [(last_position(path),)]
        and asked(path, _MISCOUNTED) == []
        and asked(path, _ORPHANS) == []
        and asked(path, _STRAYS) == []
    )


_MISCOUNTED = """
    SELECT id FROM generation WHERE alive <> (
        SELECT count(*) FROM message WHERE message.generation = generation.id AND message.expunged IS NULL
    )
"""
_STRAYS = """
    SELECT id FROM message WHERE NOT EXISTS (
        SELECT 1 FROM generation WHERE generation.id = message.generation AND generation.mailbox = message.mailbox
    )
"""
_ORPHANS = """
    SELECT id FROM body WHERE NOT EXISTS (SELECT 1 FROM message WHERE message.body = body.id)
        OR chunks <> (SELECT count(*) FROM body_chunk WHERE body_chunk.id / 1048576 = body.id)
"""


def child(*arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, *arguments], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


class TestOpening:
    async def test_all_files_are_for_the_owner_alone(self, tmp_path: Path, clock: Clock) -> None:
        path = tmp_path / "state" / "idlepush" / "mirror.db"
        before = os.umask(0)
        try:
            async with open_store(path, clock=clock) as store:
                await begin(store)
                modes = {one.name: one.stat().st_mode & 0o777 for one in path.parent.iterdir()}
        finally:
            os.umask(before)

        assert sorted(modes) == ["mirror.db", "mirror.db-shm", "mirror.db-wal", "mirror.db.lock"]
        assert {*modes.values()} == {0o600}
        assert [one.stat().st_mode & 0o777 for one in (path.parent, path.parent.parent)] == [0o700, 0o700]

    async def test_the_database_is_set_up_for_large_bodies_and_durable_commits(self, store: SqliteStore) -> None:
        def settings(db: sqlite3.Connection) -> dict[str, object]:
            names = ("page_size", "journal_mode", "synchronous", "foreign_keys", "wal_autocheckpoint")
            return {name: db.execute(f"PRAGMA {name}").fetchone()[0] for name in names}

        assert await store._writer._database.run(settings) == {
            "page_size": 16384,
            "journal_mode": "wal",
            "synchronous": 2,
            "foreign_keys": 1,
            "wal_autocheckpoint": 0,
        }

    async def test_a_store_is_found_again_as_it_was(self, path: Path, clock: Clock) -> None:
        async with open_store(path, clock=clock) as store:
            generation = await begin(store)
            await store.commit(changes(generation, new=(message(1), message(2, b"be", complete=False))))
            before = await rows(store), await all_events(store), await mirror(store)

        async with open_store(path, clock=clock) as store:
            assert (await rows(store), await all_events(store), await mirror(store)) == before
            await store.commit(changes(generation, slices=(part(2, 2, b"gin", final=True),)))
            assert await store.position() == 4
        assert not path.with_name("mirror.db-wal").exists(), "closed in order, the log is in the database"

    async def test_two_services_never_share_a_store(self, store: SqliteStore, path: Path, clock: Clock) -> None:
        with pytest.raises(StoreLocked, match=rf"mirror\.db is in use by another idlepush \(pid {os.getpid()}\)"):
            async with open_store(path, clock=clock):
                pass

        await begin(store)  # the first one is none the worse

    async def test_the_lock_of_a_killed_process_is_free(self, path: Path, clock: Clock) -> None:
        with child("-m", "tests.store.writing_child", str(path)) as process:
            assert process.stdout is not None
            process.stdout.readline()
            with pytest.raises(StoreLocked, match=f"pid {process.pid}"):
                async with open_store(path, clock=clock):
                    pass
            process.kill()
            process.communicate()

        async with open_store(path, clock=clock) as store:
            assert await store.position() > 0

    async def test_a_reader_needs_a_store(self, tmp_path: Path) -> None:
        for path in (tmp_path / "none.db", tmp_path / "no" / "directory.db"):
            with pytest.raises(StoreError, match="there is no store at"):
                async with open_reader(path):
                    pass
        assert [*tmp_path.iterdir()] == []

    @pytest.mark.parametrize("content", [b"# notes\n" * 9000, b"x"], ids=["long", "short"])
    async def test_a_file_that_is_no_database_is_left_alone(self, path: Path, clock: Clock, content: bytes) -> None:
        path.write_bytes(content)
        for opening in (open_store(path, clock=clock), open_reader(path)):
            with pytest.raises(StoreError, match="is not an SQLite database"):
                async with opening:
                    pass
        assert path.read_bytes() == content

    async def test_a_database_of_somebody_else_is_left_alone(self, path: Path, clock: Clock) -> None:
        with closing(sqlite3.connect(path)) as db:
            db.executescript("CREATE TABLE diary (day TEXT); PRAGMA user_version = 1")
        before = path.read_bytes()
        for opening in (open_store(path, clock=clock), open_reader(path)):
            with pytest.raises(StoreError, match="not a store of idlepush"):
                async with opening:
                    pass
        assert path.read_bytes() == before

    async def test_an_empty_file_becomes_a_store(self, path: Path, clock: Clock) -> None:
        path.touch()
        async with open_store(path, clock=clock) as store:
            await begin(store)

    async def test_what_cannot_be_a_store_is_named(self, tmp_path: Path, clock: Clock) -> None:
        (tmp_path / "file").touch()
        for path, sentence in ((tmp_path, "is a directory"), (tmp_path / "file" / "db", "not a directory")):
            with pytest.raises(StoreError, match=sentence):
                async with open_store(path, clock=clock):
                    pass

    @pytest.mark.skipif(os.geteuid() == 0, reason="root may read and write anything")
    async def test_a_store_that_may_not_be_read_is_named(self, path: Path, clock: Clock) -> None:
        async with open_store(path, clock=clock):
            pass
        path.chmod(0)
        for opening in (open_store(path, clock=clock), open_reader(path)):
            with pytest.raises(StoreError, match="permission denied"):
                async with opening:
                    pass

    async def test_an_opening_that_fails_leaves_no_thread_and_no_lock(self, path: Path, clock: Clock) -> None:
        path.write_bytes(b"not a database at all" * 1000)
        before = {*threading.enumerate()}
        for _ in range(3):
            with pytest.raises(StoreError):
                async with open_store(path, clock=clock):
                    pass
        for thread in {*threading.enumerate()} - before:
            if "connection_worker" in thread.name:
                thread.join(10)
                assert not thread.is_alive()
        path.unlink()
        async with open_store(path, clock=clock):
            pass

    async def test_a_closed_store_says_so(self, path: Path, clock: Clock) -> None:
        async with open_store(path, clock=clock) as store:
            generation = await begin(store)
        with pytest.raises(StoreError, match="is closed"):
            await store.commit(changes(generation))
        with pytest.raises(StoreError, match="is closed"):
            await store.position()


class TestDamage:
    @pytest.mark.parametrize("damage", ["X'00'", "zeroblob(5)", "substr(data, 1, 9)"])
    async def test_a_damaged_body_is_an_error_and_is_mended_by_the_same_message(
        self, path: Path, clock: Clock, damage: str
    ) -> None:
        right = message(1, b"Subject: x\r\n\r\n" + b"text " * 1000)
        async with open_store(path, clock=clock) as store:
            generation = await begin(store)
            await store.commit(changes(generation, new=(right, message(2, right.body))))
        with closing(sqlite3.connect(path)) as db:
            db.execute(f"UPDATE body_chunk SET data = {damage}")
            db.commit()
        async with open_store(path, clock=clock) as store:
            for uid in (1, 2):
                found = await row(store, uid)
                with pytest.raises(StoreError, match="--repair"):
                    await raw(store, found.id)
                await store.commit(changes(generation, replaced=(message(uid, right.body),)))
                assert await raw(store, found.id) == right.body

    async def test_a_damaged_page_is_a_clear_error_and_nothing_is_overwritten(self, path: Path, clock: Clock) -> None:
        async with open_store(path, clock=clock) as store:
            generation = await begin(store)
            await store.commit(changes(generation, new=tuple(message(uid, os.urandom(9000)) for uid in range(1, 200))))
        content = bytearray(path.read_bytes())
        for page in range(1, len(content) // 16384):
            content[page * 16384 : page * 16384 + 64] = b"\xa5" * 64
        path.write_bytes(content)

        with pytest.raises(StoreError, match=r"mirror\.db is damaged .*nothing was overwritten"):
            async with open_reader(path) as reader:
                await rows(reader)
        with pytest.raises(StoreError, match=r"mirror\.db is damaged"):
            async with open_store(path, clock=clock) as store:
                await store.commit(changes(generation, new=(message(999),)))
        assert path.read_bytes() == content

    def test_each_error_of_sqlite_has_its_sentence(self, path: Path) -> None:
        with closing(sqlite3.connect(path)) as db:
            db.execute("CREATE TABLE t (x)")
        with (
            closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as db,
            pytest.raises(sqlite3.Error) as read_only,
        ):
            db.execute("INSERT INTO t VALUES (1)")
        with closing(sqlite3.connect(path)) as db:
            db.execute("PRAGMA max_page_count = 2")
            with pytest.raises(sqlite3.Error) as full:
                db.execute("INSERT INTO t VALUES (zeroblob(100000))")
        with pytest.raises(sqlite3.Error) as missing:
            sqlite3.connect(path.parent / "none" / "db")

        assert str(store_error(path, read_only.value)) == f"{path} is read-only"
        assert "cannot grow: no space is left" in str(store_error(path, full.value))
        assert isinstance(store_error(path, full.value), StoreFull)
        assert "cannot be opened: missing" in str(store_error(path, missing.value))
        assert isinstance(store_error(path, KeyError("x")), KeyError)


NEWEST = bundled_migrations()[-1][0]
SECOND = (NEWEST + 1, "CREATE TABLE extra (x INTEGER) STRICT; INSERT INTO extra SELECT id FROM message;")
BROKEN = (NEWEST + 1, "CREATE TABLE extra (x INTEGER) STRICT; INSERT INTO nowhere VALUES (1);")


class TestMigrations:
    @pytest.fixture
    async def old(self, path: Path, clock: Clock) -> Path:
        async with open_store(path, clock=clock) as store:
            generation = await begin(store)
            await store.commit(changes(generation, new=tuple(message(uid) for uid in range(1, 101))))
        return path

    async def test_an_older_store_is_backed_up_and_migrated(self, old: Path, clock: Clock) -> None:
        migrations = [*bundled_migrations(), SECOND, (NEWEST + 2, "DROP TABLE extra;")]

        async with open_store(old, clock=clock, migrations=migrations) as store:
            assert len(await rows(store)) == 100

        assert sorted(one.name for one in old.parent.iterdir()) == [
            "mirror.db",
            f"mirror.db.before-{NEWEST + 1:04}.bak",
            "mirror.db.lock",
        ]
        assert asked(old, "PRAGMA user_version") == [(NEWEST + 2,)]
        backup = old.with_name(f"mirror.db.before-{NEWEST + 1:04}.bak")
        assert backup.stat().st_mode & 0o777 == 0o600
        assert asked(backup, "PRAGMA user_version") == [(NEWEST,)]
        async with open_reader(backup) as reader:
            assert len(await rows(reader)) == 100

    async def test_a_store_is_migrated_once(self, old: Path, clock: Clock) -> None:
        for _ in range(2):
            async with open_store(old, clock=clock, migrations=[*bundled_migrations(), SECOND]):
                pass
        assert asked(old, "SELECT count(*) FROM extra") == [(100,)]

    async def test_a_new_store_needs_no_backup(self, path: Path, clock: Clock) -> None:
        async with open_store(path, clock=clock, migrations=[*bundled_migrations(), SECOND]):
            assert not [*path.parent.glob("*.bak*")]

    async def test_a_migration_that_fails_leaves_the_old_schema(self, old: Path, clock: Clock) -> None:
        with pytest.raises(StoreError, match="nowhere"):
            async with open_store(old, clock=clock, migrations=[*bundled_migrations(), BROKEN]):
                pass

        assert asked(old, "PRAGMA user_version") == [(NEWEST,)]
        assert asked(old, "SELECT name FROM sqlite_schema WHERE name = 'extra'") == []
        async with open_store(old, clock=clock, migrations=[*bundled_migrations(), SECOND]) as store:
            assert len(await rows(store)) == 100

    async def test_a_newer_store_is_refused_and_left_alone(self, old: Path, clock: Clock) -> None:
        async with open_store(old, clock=clock, migrations=[*bundled_migrations(), SECOND]):
            pass
        before = old.read_bytes()

        for opening in (open_store(old, clock=clock), open_reader(old)):
            with pytest.raises(
                StoreError, match=rf"newer idlepush \(its schema is {NEWEST + 1}, this one knows {NEWEST}\): upgrade"
            ):
                async with opening:
                    pass
        assert old.read_bytes() == before

    async def test_a_reader_does_not_migrate(self, old: Path) -> None:
        with pytest.raises(StoreError, match="start the service once to migrate it"):
            async with open_reader(old, migrations=[*bundled_migrations(), SECOND]):
                pass
        assert asked(old, "PRAGMA user_version") == [(NEWEST,)]

    @pytest.mark.parametrize("instructions", [1, 10, 100, 1000, 3000, 10_000, 30_000, 100_000, 300_000])
    async def test_killed_in_a_migration_the_schema_is_old_or_new(
        self, old: Path, clock: Clock, instructions: int
    ) -> None:
        # The process kills itself when the database has executed so many thousand instructions.
        script = f"""
            import asyncio, os, signal, sqlite3
            from idlepush.store.sqlite import open_store
            from idlepush.store.sqlite_open import bundled_migrations
            from tests.store.making import Clock
            from tests.store.test_sqlite import SLOW

            class Doomed(sqlite3.Connection):
                def executescript(self, script):
                    self.left = {instructions}
                    self.set_progress_handler(self.tick, 10)
                    return super().executescript(script)
                def tick(self):
                    self.left -= 10
                    if self.left < 0:
                        os.kill(os.getpid(), signal.SIGKILL)

            connect = sqlite3.connect
            sqlite3.connect = lambda *args, **kwargs: connect(*args, **(kwargs | {{"factory": Doomed}}))

            async def main():
                async with open_store({str(old)!r}, clock=Clock(), migrations=[*bundled_migrations(), SLOW]):
                    pass
            asyncio.run(main())
        """
        with child("-c", textwrap.dedent(script)) as process:
            _, errors = process.communicate()
        assert process.returncode in (0, -signal.SIGKILL), errors

        async with open_store(old, clock=clock, migrations=[*bundled_migrations(), SLOW]) as store:
            assert len(await rows(store)) == 100
        assert asked(old, "SELECT count(*), count(DISTINCT x) FROM extra") == [(20_000, 20_000)]
        assert asked(old, "PRAGMA integrity_check") == [("ok",)]


SLOW = (
    NEWEST + 1,
    """
    CREATE TABLE extra (x INTEGER PRIMARY KEY) STRICT;
    WITH RECURSIVE number (x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM number WHERE x < 20000)
    INSERT INTO extra SELECT x FROM number;
    ALTER TABLE message ADD COLUMN extra TEXT;
    UPDATE message SET extra = 'x';
    """,
)


class TestKilled:
    def test_killed_at_any_commit_all_that_was_reported_is_there_and_sound(self, path: Path) -> None:
        reported = 0
        for times in range(12):
            with child("-m", "tests.store.writing_child", str(path)) as process:
                assert process.stdout is not None
                for _ in range(1 + times * 7):
                    reported = max(reported, int(process.stdout.readline()))
                process.kill()
                # What it managed to say before it died was durable too.
                rest, errors = process.communicate()
                reported = max([reported, *(int(line) for line in rest.split("\n")[:-1])])
                assert process.returncode == -signal.SIGKILL, errors
            assert is_sound(path)
            assert last_position(path) >= reported
        asyncio.run(self._replays(path))

    @pytest.mark.skipif(shutil.which("strace") is None, reason="strace stops a process at a system call of our choice")
    @pytest.mark.parametrize(
        "at",
        [
            *(f"fdatasync:{times}" for times in (1, 4, 30)),
            *(f"pwrite64:{times}" for times in (1, 3, 34, 233, 1597)),
            *(f"ftruncate:{times}" for times in (1, 2)),
            *(f"unlink:{times}" for times in (1, 2)),
        ],
    )
    def test_killed_at_a_system_call_the_store_is_sound(self, path: Path, at: str) -> None:
        call, times = at.split(":")
        with subprocess.Popen(
            [
                *("strace", "-f", "-qq", "-o", os.devnull, "-e", f"trace={call}"),
                *("-e", f"inject={call}:signal=KILL:when={times}"),
                *(sys.executable, "-m", "tests.store.writing_child", str(path), "150"),
            ],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            text=True,
        ) as process:
            said, _ = process.communicate()
        assert process.returncode == -signal.SIGKILL, "it is to be killed in the middle of its work"
        reported = max([0, *(int(line) for line in said.split("\n")[:-1])])

        asyncio.run(self._replays(path))
        assert is_sound(path)
        assert last_position(path) >= reported

    async def _replays(self, path: Path) -> None:
        async with open_store(path, clock=Clock()) as store:
            live = await rows(store)
            assert replayed(await all_events(store)) == {one.id: shown_alike(one) for one in live}
            for one in live:
                if one.complete:
                    assert hashlib.sha256(await raw(store, one.id)).hexdigest() == one.sha256


class Ticks:
    """A clock that never says the same moment twice: the store asks it once a transaction."""

    def __init__(self) -> None:
        self._ticks = count()

    def __call__(self) -> datetime:
        return START + timedelta(seconds=next(self._ticks))


class TestTheWriter:
    @pytest.fixture
    async def ticking(self, path: Path) -> AsyncIterator[SqliteStore]:
        async with open_store(path, clock=Ticks()) as store:
            yield store

    async def test_commits_that_wait_share_a_transaction(self, ticking: SqliteStore) -> None:
        generation = await begin(ticking)
        before = ticking.transactions

        async with anyio.create_task_group() as tasks:
            for uid in range(1, 201):
                tasks.start_soon(ticking.commit, changes(generation, new=(message(uid),)))

        assert (await mirror(ticking)).alive == 200
        assert ticking.transactions - before < 20

    async def test_urgent_commits_go_first_and_alone(self, ticking: SqliteStore) -> None:
        generation = await begin(ticking)

        async with anyio.create_task_group() as tasks:
            for uid in range(1, 41):
                new = (message(uid, os.urandom(50_000)),)
                tasks.start_soon(ticking.commit, changes(generation, new=new))
            for uid in range(101, 104):
                tasks.start_soon(ticking.commit, changes(generation, new=(message(uid),), urgent=True))

        events = [one for one in await all_events(ticking) if one.uid]
        urgent = [one for one in events if one.uid and one.uid > 100]
        bulk = [one for one in events if one.uid and one.uid <= 100]
        assert {one.time for one in urgent}.isdisjoint({one.time for one in bulk})
        assert len({one.time for one in urgent}) == 1, "urgent ones share theirs"
        # Only what was being written when they came is before them.
        assert len({one.time for one in bulk if one.position < urgent[0].position}) <= 1

    async def test_bulk_transactions_stay_small(self, ticking: SqliteStore) -> None:
        generation = await begin(ticking)

        async with anyio.create_task_group() as tasks:
            for uid in range(1, 41):
                new = (message(uid, os.urandom(50_000)),)
                tasks.start_soon(ticking.commit, changes(generation, new=new))
            tasks.start_soon(ticking.commit, changes(generation, new=(message(50, os.urandom(2_000_000)),)))

        octets: Counter[datetime] = Counter()
        sizes = {one.uid: one.size for one in await rows(ticking)}
        for one in await all_events(ticking):
            octets[one.time] += sizes.get(one.uid or 0, 0)
        assert max(octets.values()) == 2_000_000, "one that is larger by itself is written by itself"
        assert all(size <= 256 * 1024 for size in octets.values() if size != 2_000_000)

    async def test_what_is_wrong_with_one_change_reaches_no_other(self, ticking: SqliteStore) -> None:
        generation = await begin(ticking)
        ended: dict[int, BaseException | None] = {}

        async def commit(uid: int, generation: int, **given: Any) -> None:
            try:
                await ticking.commit(changes(generation, new=(message(uid, **given),)))
            except Exception as error:
                ended[uid] = error
            else:
                ended[uid] = None

        async with anyio.create_task_group() as tasks:
            for uid in range(1, 31):
                match uid % 5:
                    case 3:
                        tasks.start_soon(commit, uid, 999)
                    case 4:
                        tasks.start_soon(lambda uid: commit(uid, generation, size=2**70), uid)
                    case 0:
                        tasks.start_soon(lambda uid: commit(uid, generation, found_by=None), uid)
                    case _:
                        tasks.start_soon(commit, uid, generation)

        kinds = {remainder: {type(ended[uid]) for uid in ended if uid % 5 == remainder} for remainder in range(5)}
        assert kinds == {
            0: {AttributeError},
            1: {type(None)},
            2: {type(None)},
            3: {StaleGeneration},
            4: {OverflowError},
        }
        assert [one.uid for one in await rows(ticking)] == [uid for uid in range(1, 31) if uid % 5 in (1, 2)]
        assert [one.position for one in await all_events(ticking)] == list(range(1, 14))

    @pytest.mark.parametrize("passes", range(8))
    async def test_cancelled_waiters_leave_the_others_alone(
        self, ticking: SqliteStore, path: Path, passes: int
    ) -> None:
        generation = await begin(ticking)
        reported: set[int] = set()

        async def commit(uid: int) -> None:
            new = (message(uid), message(uid + 1000))
            await ticking.commit(changes(generation, new=new, urgent=uid % 3 == 0))
            reported.add(uid)

        # Bare asyncio tasks: their cancellation is the one that no shield of anyio's holds off.
        tasks = [asyncio.ensure_future(commit(uid)) for uid in range(1, 31)]
        for turn in range(passes):
            await asyncio.sleep(0)
            tasks[turn].cancel()
        for task in tasks[::2]:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

        await commit(500)
        live = {one.uid for one in await rows(ticking)}
        assert {uid for uid in live if uid < 1000} == {uid - 1000 for uid in live if uid > 1000}, "none is half there"
        assert reported <= live, "none that was reported is missing"
        assert {uid for uid in range(1, 31) if uid % 2 == 0 and uid > passes} <= reported
        assert is_sound(path)

    async def test_a_lock_held_by_somebody_else_loses_no_write(self, ticking: SqliteStore, path: Path) -> None:
        generation = await begin(ticking)
        with closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            async with anyio.create_task_group() as tasks:
                for uid in range(1, 11):
                    tasks.start_soon(ticking.commit, changes(generation, new=(message(uid),)))
                # Until it was found locked, more than once.
                while ticking._writer._busy_since is None:
                    await anyio.lowlevel.checkpoint()
                assert (await mirror(ticking)).alive == 0, "reading goes on"
                other.execute("ROLLBACK")

        assert [one.position for one in await all_events(ticking)] == list(range(1, 12))

    async def test_a_lock_that_is_held_too_long_is_an_error_and_writes_nothing(self, path: Path) -> None:
        async with open_store(path, clock=Ticks(), patience=0) as store:
            generation = await begin(store)
            with closing(sqlite3.connect(path, isolation_level=None)) as other:
                other.execute("BEGIN IMMEDIATE")
                with pytest.raises(StoreError, match="locked by another process"):
                    await store.commit(changes(generation, new=(message(1),)))
                other.execute("ROLLBACK")

            await store.commit(changes(generation, new=(message(2),)))
            assert [one.uid for one in await rows(store)] == [2]

    async def test_a_long_reader_holds_up_neither_commits_nor_checkpoints(
        self, ticking: SqliteStore, path: Path
    ) -> None:
        generation = await begin(ticking)
        with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True, isolation_level=None)) as other:
            other.execute("BEGIN")
            other.execute("SELECT count(*) FROM message").fetchone()
            with anyio.fail_after(30):
                for uid in range(1, 31):
                    await ticking.commit(changes(generation, new=(message(uid, os.urandom(1_000_000)),)))
                await ticking._writer.checkpoint(truncate=True)
            assert other.execute("SELECT count(*) FROM message").fetchone() == (0,)
        assert (await mirror(ticking)).alive == 30

    async def test_the_log_does_not_grow_with_what_is_written(self, ticking: SqliteStore, path: Path) -> None:
        generation = await begin(ticking)
        for uid in range(1, 61):
            await ticking.commit(changes(generation, new=(message(uid, os.urandom(1_000_000)),)))

        assert path.with_name("mirror.db-wal").stat().st_size < 16 * 1024 * 1024
        assert path.stat().st_size > 40_000_000

    async def test_the_logs_space_is_given_back_when_nothing_is_written(self, ticking: SqliteStore, path: Path) -> None:
        await begin(ticking)
        log = path.with_name("mirror.db-wal")
        assert log.stat().st_size > 0

        with anyio.fail_after(30):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(lambda: ticking.tend(every=0.001))
                while log.stat().st_size:
                    await anyio.lowlevel.checkpoint()
                tasks.cancel_scope.cancel()
        assert (await mirror(ticking)).alive == 0


class TestReadersBeside:
    async def test_a_reader_sees_each_commit_and_never_writes(self, store: SqliteStore, path: Path) -> None:
        generation = await begin(store)
        async with open_reader(path) as reader:
            for uid in range(1, 4):
                await store.commit(changes(generation, new=(message(uid),)))
                assert [one.uid for one in await rows(reader)] == list(range(1, uid + 1))
            with pytest.raises(StoreError, match="read-only"):
                await reader._ask(lambda db: db.execute("DELETE FROM message"))

    async def test_a_reader_in_another_process_waits_for_news(self, store: SqliteStore, path: Path) -> None:
        with anyio.fail_after(30):
            async with open_reader(path) as reader, anyio.create_task_group() as tasks:
                tasks.start_soon(reader.wait_beyond, 0)
                await begin(store)
            assert await store.position() == 1

    def test_a_reader_that_closes_last_does_not_checkpoint(self, path: Path) -> None:
        with child("-m", "tests.store.writing_child", str(path)) as process:
            assert process.stdout is not None
            for _ in range(20):
                position = int(process.stdout.readline())
            process.kill()
            process.communicate()
        log = path.with_name("mirror.db-wal")
        before = path.read_bytes(), log.read_bytes()

        async def read() -> int:
            async with open_reader(path) as reader:
                return await reader.position()

        assert asyncio.run(read()) >= position
        assert (path.read_bytes(), log.read_bytes()) == before

    async def test_a_body_swept_under_a_reader_is_an_error_not_a_short_message(
        self, store: SqliteStore, clock: Clock
    ) -> None:
        generation = await begin(store)
        await store.commit(changes(generation, new=(message(1, os.urandom(1_000_000)),)))
        reading = store.raw((await row(store, 1)).id)
        await anext(reading)

        await store.purge("alice")

        with pytest.raises(StoreError, match="was swept while it was read"):
            await anext(reading)


class TestBodiesAtRest:
    async def test_equal_bodies_are_stored_once(self, store: SqliteStore, path: Path) -> None:
        generation = await begin(store)
        body = os.urandom(600_000)
        await store.commit(changes(generation, new=(message(1, body), message(2, body))))
        await store.commit(changes(generation, new=(message(3, body[:9], complete=False),)))
        await store.commit(changes(generation, slices=(part(3, 9, body[9:], final=True),)))

        assert asked(path, "SELECT count(*) FROM body") == [(1,)]
        assert asked(path, "SELECT count(*), sum(length(data)) FROM body_chunk") == [(3, 600_000)]
        assert is_sound(path)

    async def test_a_long_body_begun_before_a_restart_is_hashed_in_steps_that_pushes_pass(
        self, path: Path, clock: Clock
    ) -> None:
        body = os.urandom(20 * CHUNK * STEP // 8)
        cut = len(body) - CHUNK
        async with open_store(path, clock=clock) as store:
            generation = await begin(store)
            await store.commit(changes(generation, new=(message(1, body[:CHUNK], complete=False),)))
            await store.commit(changes(generation, slices=(part(1, CHUNK, body[CHUNK:cut]),)))

        async with open_store(path, clock=clock) as store:
            order: list[str] = []

            async def finish() -> None:
                await store.commit(changes(generation, slices=(part(1, cut, body[cut:], final=True),)))
                order.append("whole")

            async def push() -> None:
                await store.commit(changes(generation, new=(message(2, b"push"),), urgent=True))
                order.append("push")

            async with anyio.create_task_group() as tasks:
                tasks.start_soon(finish)
                await anyio.sleep(0)
                tasks.start_soon(push)
            assert order == ["push", "whole"]
            assert await raw(store, (await row(store, 1)).id) == body
            assert (await row(store, 1)).sha256 == hashlib.sha256(body).hexdigest()

    async def test_a_slice_that_was_rolled_back_is_not_in_the_hash(self, path: Path, clock: Clock) -> None:
        async with open_store(path, clock=clock) as store:
            generation = await begin(store)
            await store.commit(changes(generation, new=(message(1, b"head ", complete=False),)))
            [(body,)] = asked(path, "SELECT id FROM body")

            def broken(transaction: Transaction) -> None:
                transaction.bodies.append(int(str(body)), b"lies ")
                raise ValueError("rolled back")

            with pytest.raises(ValueError, match="rolled back"):
                await store._writer.write(broken)
            await store.commit(changes(generation, slices=(part(1, 5, b"true "),)))
            await store.commit(changes(generation, slices=(part(1, 10, b"tail", final=True),)))

            assert (await row(store, 1)).sha256 == hashlib.sha256(b"head true tail").hexdigest()

    async def test_a_long_body_that_equals_another_is_taken_away_in_steps(self, store: SqliteStore, path: Path) -> None:
        generation = await begin(store)
        body = os.urandom(CHUNK * (2 * STEP + 3))
        await store.commit(changes(generation, new=(message(1, body), message(2, body[:CHUNK], complete=False))))
        await store.commit(changes(generation, slices=(part(2, CHUNK, body[CHUNK:], final=True),)))
        assert (await row(store, 1)).sha256 == (await row(store, 2)).sha256

        before = store.transactions
        await store.sweep(Sweep(bodies_before=None, rows_before=None))

        assert store.transactions - before > 3
        assert asked(path, "SELECT count(*), sum(chunks) FROM body") == [(1, 2 * STEP + 3)]
        assert asked(path, "SELECT count(*) FROM body_chunk") == [(2 * STEP + 3,)]
        assert await raw(store, (await row(store, 2)).id) == body
        assert is_sound(path)

    async def test_bodies_are_compressed_where_that_helps(self, store: SqliteStore, path: Path) -> None:
        generation = await begin(store)
        await store.commit(changes(generation, new=(message(1, b"mail " * 200_000), message(2, os.urandom(1000)))))

        found = asked(path, "SELECT packed, sum(length(data)) FROM body_chunk GROUP BY id / 1048576")
        (dull, dull_octets), (random, random_octets) = found
        assert (dull, random, random_octets) == (1, 0, 1000)
        assert isinstance(dull_octets, int) and dull_octets < 2000

    async def test_parts_leave_nothing_behind(self, store: SqliteStore, path: Path) -> None:
        for gone in ("expunged", "forgotten", "mailbox gone", "purged"):
            first = await begin(store, gone)
            await store.commit(changes(first, gone, new=(message(1, b"part", complete=False),)))
        await store.commit(changes((await mirror(store, "expunged")).generation, "expunged", expunged=UidSet.of(1)))
        await store.commit(changes(await begin(store, "forgotten"), "forgotten", forget_older=True))
        await store.mailbox_gone("mailbox gone", INBOX)
        await store.purge("purged")

        assert asked(path, "SELECT count(*) FROM body") == [(0,)]
        assert asked(path, "SELECT count(*) FROM body_chunk") == [(0,)]
        assert is_sound(path)

    async def test_retention_leaves_no_empty_generation_behind(
        self, store: SqliteStore, path: Path, clock: Clock
    ) -> None:
        for uidvalidity in range(1, 6):
            generation = await begin(store, "alice", INBOX, uidvalidity)
            await store.commit(changes(generation, new=(message(uidvalidity),), forget_older=True))
        later = clock.pass_by(days=1)

        await store.sweep(Sweep(bodies_before=later, rows_before=later))

        assert asked(path, "SELECT count(*) FROM generation") == [(1,)]
        assert asked(path, "SELECT count(*) FROM body") == [(1,)]
        assert is_sound(path)


def test_a_full_disk_loses_nothing_and_is_left_behind_when_there_is_space(path: Path) -> None:
    # A limit on the size of files is a full disk to SQLite, and needs neither root nor a disk.
    script = f"""
        import asyncio, os, resource
        from idlepush.errors import StoreFull
        from idlepush.store.sqlite import open_store
        from tests.store.making import *

        async def main():
            async with open_store({str(path)!r}, clock=Clock()) as store:
                generation = await begin(store)
                await store.commit(changes(generation, new=(message(1, os.urandom(100_000)),)))
                resource.setrlimit(resource.RLIMIT_FSIZE, (2_000_000, resource.RLIM_INFINITY))
                failed = []
                for uid in range(2, 60):
                    try:
                        await store.commit(changes(generation, new=(message(uid, os.urandom(100_000)),)))
                    except StoreFull as error:
                        failed.append(uid)
                        sentence = str(error)
                assert failed, "the limit was never reached"
                assert "cannot grow" in sentence, sentence
                there = {{one.uid for one in await rows(store)}}
                assert there == set(range(1, 60)) - set(failed), "reading goes on, and nothing is half there"
                resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
                for uid in failed:
                    await store.commit(changes(generation, new=(message(uid, os.urandom(100_000)),)))
                assert (await mirror(store)).alive == 59

        asyncio.run(main())
    """
    with child("-c", textwrap.dedent(script)) as process:
        _, errors = process.communicate()
    assert process.returncode == 0, errors
    assert is_sound(path)
    assert asked(path, "SELECT count(*) FROM event") == [(60,)]


def statements() -> Iterator[tuple[str, str]]:
    for module in (sqlite_bodies, sqlite_commit, sqlite_listing, sqlite_read, sqlite_transaction, sqlite_upkeep):
        for name, value in vars(module).items():
            if isinstance(value, str) and re.match(r"\s*(SELECT|UPDATE|DELETE)\s", value) and name != "MESSAGES":
                yield f"{module.__name__}.{name}", value.replace("%s", "NULL")


@pytest.mark.parametrize(("name", "sql"), [pytest.param(*one, id=one[0]) for one in statements()])
async def test_no_statement_walks_through_all_messages_or_bodies(
    store: SqliteStore, path: Path, name: str, sql: str
) -> None:
    names = re.findall(r":(\w+)", sql)
    bound = dict.fromkeys(names, 1) if names else (1,) * sql.count("?")
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as db:
        plan = [str(one[3]) for one in db.execute(f"EXPLAIN QUERY PLAN {sql}", bound)]
    assert not [step for step in plan if re.match(r"SCAN (message|body|body_chunk|gone|event)\b", step)], plan
    if "_listing" in name and "message" in sql:
        assert not [step for step in plan if "ORDER BY" in step], "a page is read, not sorted"


def test_migrations_are_numbered_without_a_gap_and_none_twice() -> None:
    numbers = [number for number, _ in bundled_migrations()]
    assert numbers == list(range(1, len(numbers) + 1))
