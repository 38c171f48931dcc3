"""The index of words in SQLite: kept up in small pieces, begun anew when words change, and emptied of what is gone."""

import asyncio
import json
import re
import sqlite3
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from idlepush.imap.uidset import UidSet
from idlepush.store import sqlite_index
from idlepush.store.base import Sweep
from idlepush.store.sqlite import SqliteStore, open_store
from idlepush.store.sqlite_open import bundled_migrations
from idlepush.store.sqlite_search import spell_words
from idlepush.sync.query import Place, document, read_query
from idlepush.sync.words import VERSION
from tests.store.making import Clock, begin, changes, message, rows

[WORDS_TABLE] = re.findall(
    r"CREATE VIRTUAL TABLE words .*?;", " ".join(sql for _, sql in bundled_migrations()), re.DOTALL
)


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


def letter(uid: int, text: str = "word") -> bytes:
    return f"Subject: letter {uid}\r\n\r\n{text} of {uid}\r\n".encode()


def words(path: Path) -> list[str]:
    """Every word that the index holds."""
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as db:
        db.execute("CREATE VIRTUAL TABLE temp.vocabulary USING fts5vocab(main, words, 'row')")
        return [word for (word,) in db.execute("SELECT term FROM temp.vocabulary")]


def count(path: Path, table: str) -> int:
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as db:
        return int(db.execute(f"SELECT count(*) FROM {table}").fetchone()[0])


async def found(store: SqliteStore, typed: str) -> list[int]:
    return [row.uid for row in await rows(store, "alice", query=read_query(typed))]


async def test_nothing_of_what_was_swept_is_left_in_the_index(store: SqliteStore, path: Path, clock: Clock) -> None:
    generation = await begin(store)
    await store.commit(changes(generation, new=(message(1, letter(1, "secret")), message(2, None))))
    await store.index()
    assert "secret" in words(path)

    await store.commit(changes(generation, expunged=UidSet.of(1, 2)))
    await store.sweep(Sweep(bodies_before=clock.pass_by(hours=1), rows_before=clock.now))
    await store.index()

    assert words(path) == []
    assert [count(path, table) for table in ("document", "document_words", "attachment")] == [0, 0, 0]


async def test_purging_an_account_empties_the_index_of_it(store: SqliteStore, path: Path) -> None:
    for account in ("alice", "bob"):
        generation = await begin(store, account)
        shared = message(1, letter(1, "shared"))
        await store.commit(changes(generation, account, new=(shared, message(2, letter(2, account)), message(3, None))))
    await store.index()
    await store.purge("alice")
    await store.index()

    assert "alice" not in words(path)
    assert {"shared", "bob"} <= set(words(path))
    assert count(path, "document") == 3


async def test_a_shared_body_is_in_the_index_once_an_account(store: SqliteStore, path: Path) -> None:
    generation = await begin(store)
    await store.commit(changes(generation, new=tuple(message(uid, letter(1)) for uid in (1, 2, 3))))
    await store.index()
    await store.commit(changes(generation, new=(message(4, letter(1)),)))
    await store.index()

    assert count(path, "document") == 1
    assert sorted(await found(store, "word")) == [1, 2, 3, 4]


async def test_what_was_indexed_is_not_looked_at_again(store: SqliteStore, path: Path) -> None:
    generation = await begin(store)
    await store.commit(changes(generation, new=tuple(message(uid, letter(uid)) for uid in range(1, 500))))
    await store.index()
    written = store.transactions

    await store.index()

    assert store.transactions == written
    assert count(path, "document") == 499


async def test_the_newest_is_found_before_a_backlog_is_done(store: SqliteStore) -> None:
    generation = await begin(store)
    await store.commit(changes(generation, new=tuple(message(uid, letter(uid)) for uid in range(1, 3000))))
    async with asyncio.TaskGroup() as tasks:
        indexing = tasks.create_task(store.index())
        while not await found(store, "word"):
            await asyncio.sleep(0)
        await store.commit(changes(generation, new=(message(5000, letter(5000, "fresh")),), urgent=True))
        while not await found(store, "fresh"):
            await asyncio.sleep(0)
        assert not indexing.done()
    assert len(await found(store, "word")) == 2999


async def test_it_may_be_cut_anywhere_and_goes_on(path: Path, clock: Clock) -> None:
    async with open_store(path, clock=clock) as store:
        generation = await begin(store)
        await store.commit(changes(generation, new=tuple(message(uid, letter(uid)) for uid in range(1, 1000))))
    for _ in range(5):
        async with open_store(path, clock=clock) as store:
            indexing = asyncio.create_task(store.index())
            before = store.transactions
            while store.transactions <= before + 1 and not indexing.done():
                await asyncio.sleep(0)
            indexing.cancel()
            await asyncio.wait([indexing])
    async with open_store(path, clock=clock) as store:
        await store.index()
        assert len(await found(store, "word")) == 999
    assert count(path, "document") == 999


def change(path: Path, sql: str, value: object) -> None:
    """Change a database that no store has open."""
    with closing(sqlite3.connect(path)) as db:
        db.execute(sql, (value,))
        db.commit()


async def test_words_that_were_cut_in_another_way_are_indexed_anew(path: Path, clock: Clock) -> None:
    async with open_store(path, clock=clock) as store:
        generation = await begin(store)
        await store.commit(changes(generation, new=(message(1, letter(1)), message(2, None))))
        await store.index()
    change(path, "UPDATE indexing SET version = ?", VERSION - 1)
    change(path, "UPDATE document SET thread = ?", "stale")
    async with open_store(path, clock=clock) as store:
        await store.index()
        assert await found(store, "word") == [1]
        assert await found(store, "subject:grusse") == [2]
    with closing(sqlite3.connect(path)) as db:
        assert db.execute("SELECT thread FROM document").fetchall() == [("[]",), ("[]",)]
        assert db.execute("SELECT version FROM indexing").fetchall() == [(VERSION,)]


async def test_what_many_interruptions_left_is_done_and_stays_a_short_list(path: Path, clock: Clock) -> None:
    async with open_store(path, clock=clock) as store:
        generation = await begin(store)
        await store.commit(changes(generation, new=tuple(message(uid, letter(uid)) for uid in range(1, 401))))
        await store.index()
    many = [[4 * number + 1, 4 * number + 2] for number in range(100)]
    change(path, "UPDATE indexing SET ranges = ?", json.dumps(many))
    change(path, "UPDATE document SET body = NULL WHERE id > ?", 0)
    async with open_store(path, clock=clock) as store:
        await store.index()
        done = set(await found(store, "word"))
    assert {uid for first, last in many for uid in (first, last)} <= done
    with closing(sqlite3.connect(path)) as db:
        assert db.execute("SELECT ranges FROM indexing").fetchall() == [("[]",)]


async def test_a_message_of_many_words_is_indexed_within_the_bounds(store: SqliteStore) -> None:
    generation = await begin(store)
    text = " ".join(f"w{number}" for number in range(100_000))
    await store.commit(changes(generation, new=(message(1, letter(1, text)),)))
    await store.index()
    assert await found(store, "w99") == [1]
    assert await found(store, "w99999") == [], "beyond what is read of a message"


# Few letters, so that words are found in each other; signs that FTS5 has a meaning for; writing without spaces.
letters = st.text(st.sampled_from(list("abBéß 東京タ-_.,:*^\"'()+{}\x00\ue001\n")), max_size=24)
places = st.dictionaries(st.sampled_from(Place), st.lists(letters, max_size=2), max_size=5)
terms = st.builds(
    "{}{}{}".format,
    st.sampled_from(["", "-"]),
    st.sampled_from(["", "from:", "to:", "subject:", "filename:", "has:attachment ", "near:"]),
    letters | letters.map('"{}"'.format),
)


@settings(max_examples=200, deadline=None)
@given(places, st.booleans(), st.lists(terms, max_size=4).map(" ".join))
def test_sqlite_finds_exactly_what_a_look_at_the_words_finds(
    texts: dict[Place, list[str]], attached: bool, typed: str
) -> None:
    mail = document({place: texts.get(place, []) for place in Place}, attached=attached)
    query = read_query(typed)
    if any(not phrase.words for phrase in query.wanted):
        assert not mail.answers(query)
        return
    columns = sqlite_index.columns_of(mail, "alice")
    asked = [spell_words(query, account) for account in ("alice", None, "bob")]
    with closing(sqlite3.connect(":memory:")) as db:
        db.execute(WORDS_TABLE)
        db.execute(
            "INSERT INTO words (rowid, subject, sender, recipients, names, text, marks) VALUES (1, ?, ?, ?, ?, ?, ?)",
            columns,
        )
        counted = [db.execute("SELECT count(*) FROM words WHERE words MATCH ?", (one,)).fetchone()[0] for one in asked]
    assert counted == [mail.answers(query), mail.answers(query), False]
