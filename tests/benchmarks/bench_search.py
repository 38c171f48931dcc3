"""How fast mail is indexed and found, beside bare FTS5 and LIKE over the same texts in the same run.

Run `python -m tests.benchmarks.bench_search [MESSAGES]`; 100,000 by default.

Words are drawn as language has them: few very often, most hardly ever (Zipf), every tenth letter holds Chinese, every
fifth an attachment. A query is measured to its first 50 rows, as they are shown.
"""

import asyncio
import random
import sqlite3
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing
from email.message import EmailMessage
from pathlib import Path

from idlepush.store.sqlite import SqliteStore, open_store
from idlepush.sync.query import read_query
from tests.store.making import Clock, begin, changes, message, mirror

COMMIT = 500
BEGINNINGS = [f"{one}{vowel}" for one in "bdfgklmnprst" for vowel in ("a", "e", "io", "ou", "u")]
ENDS = ("ber", "d", "gen", "ken", "lich", "mont", "n", "rin", "s", "ton", "tung", "x", "zahl", "cht", "v", "sel")
VOCABULARY = [one + end for one in BEGINNINGS for end in ENDS]
KANJI = "東京都千代田区請求書会議資料送付確認御中様株式会社日本語電話番号住所年月日時分"
FTS = "SELECT rowid FROM found WHERE found MATCH ?"
LIKE = "SELECT id FROM plain WHERE text LIKE '%' || ? || '%'"
SIZES = (
    "SELECT total(length(block)) FROM words_data",
    "SELECT total(length(packed)) FROM document_words",
)
QUERIES = {
    "a word in every second message": VOCABULARY[3],
    "a rare word": VOCABULARY[-1],
    "two words": f"{VOCABULARY[20]} {VOCABULARY[40]}",
    "a beginning": VOCABULARY[60][:3],
    "a phrase": f'"{VOCABULARY[5]} {VOCABULARY[9]}"',
    "Chinese, two characters": "請求",
    "from:, has:attachment": "from:sender5 has:attachment",
    "not a word": f"{VOCABULARY[30]} -{VOCABULARY[10]}",
    "no word at all, is:unread": "is:unread",
    "nothing": "nosuchword",
}


def letters(count: int) -> Iterator[tuple[str, str, bytes]]:
    """Subject, text and all of each message."""
    dice = random.Random(1)
    weights = [1 / (rank + 1) for rank in range(len(VOCABULARY))]
    drawn = dice.choices(VOCABULARY, weights, k=400_000)
    for number in range(count):
        at = dice.randrange(len(drawn) - 400)
        words = drawn[at : at + dice.randrange(20, 300)]
        if number % 10 == 0:
            words.insert(len(words) // 2, "".join(dice.choices(KANJI, k=30)))
        letter = EmailMessage()
        letter["Subject"] = subject = " ".join(words[:5])
        letter["From"] = f"Sender {number % 50} <sender{number % 50}@example.org>"
        letter["To"] = "me@example.com"
        letter["Message-ID"] = f"<{number}@example.org>"
        text = " ".join(words)
        letter.set_content(text, cte="8bit")
        if number % 5 == 0:
            letter.add_attachment(b"%PDF" * 50, maintype="application", subtype="pdf", filename=f"file {number}.pdf")
        yield subject, text, letter.as_bytes()


async def fill(store: SqliteStore, mails: list[tuple[str, str, bytes]]) -> None:
    generation = await begin(store)
    for first in range(0, len(mails), COMMIT):
        new = [message(first + at + 1, raw) for at, (_, _, raw) in enumerate(mails[first : first + COMMIT])]
        await store.commit(changes(generation, new=tuple(new)))


def shown(name: str, figure: float, unit: str, *others: tuple[str, float]) -> None:
    beside = "".join(f"  {other} {value:>9.2f}" for other, value in others)
    print(f"{name:<36} {figure:>9.2f} {unit:<4}{beside}")


async def bare(mails: list[tuple[str, str, bytes]], path: Path) -> tuple[sqlite3.Connection, float]:
    """FTS5 and a plain table with the same texts; returns seconds to index them."""
    db = sqlite3.connect(path, isolation_level=None)
    db.executescript(
        "PRAGMA page_size = 16384; PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL;"
        "CREATE TABLE plain (id INTEGER PRIMARY KEY, subject TEXT, text TEXT);"
        "CREATE VIRTUAL TABLE found USING fts5 (subject, text, content = '')"
    )
    begun = time.perf_counter()
    for first in range(0, len(mails), COMMIT):
        db.execute("BEGIN")
        for at, (subject, text, _) in enumerate(mails[first : first + COMMIT]):
            db.execute("INSERT INTO found (rowid, subject, text) VALUES (?, ?, ?)", (first + at, subject, text))
        db.execute("COMMIT")
    taken = time.perf_counter() - begun
    db.executemany("INSERT INTO plain VALUES (NULL, ?, ?)", ((subject, text) for subject, text, _ in mails))
    return db, taken


async def page(store: SqliteStore, typed: str) -> int:
    rows = store.messages("alice", query=read_query(typed), limit=50)
    return len([row async for row in rows])


def timed_bare(db: sqlite3.Connection, sql: str, value: str) -> float:
    begun = time.perf_counter()
    db.execute(sql, (value,)).fetchall()
    return (time.perf_counter() - begun) * 1000


async def push_beside(store: SqliteStore, generation: int, uid: int) -> float:
    begun = time.perf_counter()
    await store.commit(changes(generation, new=(message(uid, b"Subject: push\r\n\r\nhello"),), urgent=True))
    return (time.perf_counter() - begun) * 1000


async def main(count: int) -> None:
    mails = list(letters(count))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "mirror.db"
        async with open_store(path, clock=Clock()) as store:
            await fill(store, mails)
            db, bare_seconds = await bare(mails, Path(folder) / "bare.db")
            generation = (await mirror(store)).generation
            alone = [await push_beside(store, generation, count + n) for n in range(1, 101)]
            begun = time.perf_counter()
            pushes: list[float] = []
            indexing = asyncio.create_task(store.index())
            uid = count + 1000
            while not indexing.done():
                uid += 1
                pushes.append(await push_beside(store, generation, uid))
                await asyncio.sleep(0.05)
            await indexing
            taken = time.perf_counter() - begun
            await store.index()
            shown("indexed", count / taken, "/s", ("bare FTS5", count / bare_seconds))
            for name, samples in (("alone", alone), ("beside indexing", pushes)):
                p99 = sorted(samples)[int(len(samples) * 0.99)]
                shown(f"a push, {name}", statistics.median(samples), "ms", ("p99", p99), ("max", max(samples)))
            octets = sum(len(raw) for *_, raw in mails)
            with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as reader:
                size = sum(reader.execute(sql).fetchone()[0] for sql in SIZES)
            shown("the index", size / 2**20, "MiB", ("MiB of mails", octets / 2**20))
            for name, typed in QUERIES.items():
                taken_by_each = []
                for _ in range(11):
                    begun = time.perf_counter()
                    rows = await page(store, typed)
                    taken_by_each.append((time.perf_counter() - begun) * 1000)
                word = typed.strip('"').split()[0].split(":")[-1]
                fts = statistics.median(timed_bare(db, FTS, f'"{word}"') for _ in range(5))
                like = timed_bare(db, LIKE, word)
                shown(
                    f"{name} ({rows})", statistics.median(taken_by_each), "ms", ("FTS5, one word", fts), ("LIKE", like)
                )
            db.close()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]) if len(sys.argv) > 1 else 100_000))
