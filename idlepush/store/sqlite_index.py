"""What keeps the index of words up to the rows: found out by `prepare`, written by `write`.

    prepare   reads, in a thread of its own: which rows are not in the index yet, their words and attachments
    write     in the writer's transactions, each a few milliseconds, so that no push waits for it

Both are level-triggered: what is due is seen from the tables, nobody is told of a message. Rows are done newest first,
in ranges of their ids as the mirror does holes of UIDs, so that what came just now is found within a second though a
first mirror of a million messages is behind it. A body is read once an account, however many rows have it. Killed
anywhere, nothing is lost: a row is looked at again, and what is there already is passed over.
"""

# ruff: noqa: S608 - statements are put together from constants alone

import json
import sqlite3
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Final

import zstandard

from idlepush.store.sqlite_bodies import chunk_of
from idlepush.store.sqlite_rows import addresses_from, spell_json
from idlepush.store.sqlite_transaction import Transaction
from idlepush.sync.content import Attachment, Content, content_of
from idlepush.sync.message import Headers
from idlepush.sync.query import Document, Place, document_of
from idlepush.sync.words import VERSION

PREPARE_SECONDS: Final = 0.05
WRITE_SECONDS: Final = 0.010
ROWS: Final = 200
AGAIN: Final = 10
MOST_RANGES: Final = 64

# Marks stand in a column of their own, and begin as no word does.
ATTACHED: Final = "\ue001"
INDEXED: Final = "\ue002"

_COLUMNS: Final = (*Place, "marks")
_BETWEEN_COLUMNS: Final = "\x1f"

_PROGRESS: Final = "SELECT mark, ranges FROM indexing WHERE version = ?"
_NEWEST: Final = "SELECT coalesce(max(id), 0) FROM message"
_ROW: Final = """
    SELECT message.id, mailbox.account, body.id, body.chunks, message.subject, message.sender, message.recipients
    FROM message JOIN mailbox ON mailbox.id = message.mailbox
    LEFT JOIN body ON body.id = message.body AND body.sha256 IS NOT NULL
"""
_ROWS_OF_RANGE: Final = (
    f"{_ROW} WHERE message.id BETWEEN ? AND ? AND message.expunged IS NULL ORDER BY message.id DESC LIMIT ?"
)
_ROWS_AGAIN: Final = (
    f"{_ROW} WHERE message.id IN (SELECT message FROM indexing_again LIMIT ?) AND message.expunged IS NULL"
)
_AGAIN: Final = "SELECT message FROM indexing_again LIMIT ?"
_ORPHANS: Final = "SELECT id FROM document WHERE body IS NULL AND message IS NULL LIMIT ?"
_OF_BODY: Final = "SELECT id FROM document WHERE body = ? AND account = ?"
_OF_MESSAGE: Final = "SELECT id FROM document WHERE message = ?"
_ATTACHMENTS: Final = "SELECT name, type, size, content_id, inline FROM attachment WHERE owner = ? ORDER BY place"

_INSERT_DOCUMENT: Final = "INSERT INTO document (account, body, message, thread) VALUES (?, ?, ?, ?)"
_INSERT_PACKED: Final = "INSERT INTO document_words (id, packed) VALUES (?, ?)"
_INSERT_WORDS: Final = f"INSERT INTO words (rowid, {', '.join(_COLUMNS)}) VALUES (?{', ?' * len(_COLUMNS)})"
_INSERT_ATTACHMENT: Final = """
    INSERT OR REPLACE INTO attachment (owner, place, name, type, size, content_id, inline) VALUES (?, ?, ?, ?, ?, ?, ?)
"""
_PACKED: Final = "SELECT packed FROM document_words WHERE id = ?"
_DELETE_WORDS: Final = (
    f"INSERT INTO words (words, rowid, {', '.join(_COLUMNS)}) VALUES ('delete', ?{', ?' * len(_COLUMNS)})"
)
# One whose body is still coming is known by its header meanwhile.
_HAS_NO_BODY: Final = """
    SELECT 1 FROM message LEFT JOIN body ON body.id = message.body WHERE message.id = ? AND body.sha256 IS NULL
"""
_SET_PROGRESS: Final = "INSERT OR REPLACE INTO indexing (version, mark, ranges) VALUES (?, ?, ?)"


@dataclass(frozen=True, slots=True)
class Entry:
    """A document on its way into the index: of a body, or of a message without one."""

    account: str
    body: int | None
    message: int
    columns: tuple[str, ...]
    attachments: tuple[Attachment, ...] | None
    """None: as they stand in the table."""
    thread: tuple[str, ...]


@dataclass(slots=True)
class Batch:
    """What is to be written next."""

    gone: list[int] = field(default_factory=list)
    """Documents to be taken out."""
    again: list[int] = field(default_factory=list)
    """Messages whose documents are to be taken out before the entries are put in."""
    entries: list[Entry] = field(default_factory=list)
    ranges: list[list[int]] = field(default_factory=list)
    mark: int = 0
    is_anew: bool = False
    """The words that are there were cut by another version: nothing of them is kept."""

    @property
    def steps(self) -> int:
        """How much there is to do; the last step is to note that it is done."""
        return len(self.gone) + len(self.again) + len(self.entries) + 1


def account_mark(account: str) -> str:
    """Return the mark of an account's documents."""
    return "\ue003" + account.encode().hex()


# ---- finding out


def prepare(db: sqlite3.Connection) -> Batch | None:
    """Return some of what is due, None where nothing is."""
    found = db.execute(_PROGRESS, (VERSION,)).fetchone()
    if found is None:
        return Batch(is_anew=True)
    mark, ranges = found
    batch = Batch(mark=mark, ranges=json.loads(ranges))
    (newest,) = db.execute(_NEWEST).fetchone()
    if newest > mark:
        batch.ranges.append([mark + 1, newest])
        batch.mark = newest
    if len(batch.ranges) > MOST_RANGES:
        # What is done already between the two is seen to be, row by row.
        batch.ranges[:2] = [[batch.ranges[0][0], batch.ranges[1][1]]]
    batch.gone = [number for (number,) in db.execute(_ORPHANS, (ROWS,))]
    batch.again = [number for (number,) in db.execute(_AGAIN, (AGAIN,))]
    if batch.again:
        batch.entries = [_entry(db, *row) for row in db.execute(_ROWS_AGAIN, (AGAIN,)).fetchall()]
    elif batch.ranges:
        _read_range(db, batch, time.perf_counter() + PREPARE_SECONDS)
    elif not batch.gone:
        return None
    return batch


def _read_range(db: sqlite3.Connection, batch: Batch, ends: float) -> None:
    first, last = batch.ranges.pop()
    rows = db.execute(_ROWS_OF_RANGE, (first, last, ROWS)).fetchall()
    seen: set[tuple[int | None, str]] = set()
    for row in rows:
        number, account, body = row[:3]
        last = number - 1
        is_there = (
            db.execute(_OF_MESSAGE, (number,)) if body is None else db.execute(_OF_BODY, (body, account))
        ).fetchone()
        if is_there is None and (body is None or (body, account) not in seen):
            seen.add((body, account))
            batch.entries.append(_entry(db, *row))
            if time.perf_counter() > ends:
                break
    else:
        last = last if len(rows) == ROWS else first - 1
    if last >= first:
        batch.ranges.append([first, last])


def _entry(
    db: sqlite3.Connection,
    message: int,
    account: str,
    body: int | None,
    chunks: int | None,
    subject: str | None,
    sender: str,
    recipients: str,
) -> Entry:
    content = None if body is None else _read(db, body, chunks or 0)
    if content is not None:
        shown = document_of(content.headers, content.cc, content.attachments, content.text)
        return Entry(account, body, message, columns_of(shown, account), content.attachments, content.references)
    attachments = () if body is not None else attachments_of(db, -message)
    headers = Headers(None, subject, addresses_from(sender), addresses_from(recipients))
    return Entry(account, body, message, columns_of(document_of(headers, (), attachments, ""), account), None, ())


def _read(db: sqlite3.Connection, body: int, chunks: int) -> Content | None:
    """Read a message; None where a bug of ours keeps it from being read, which is to cost its text and no more."""
    try:
        return content_of(_pieces(db, body, chunks))
    except sqlite3.Error:
        raise
    except Exception:
        return None


def _pieces(db: sqlite3.Connection, body: int, chunks: int) -> Iterator[bytes]:
    for number in range(chunks):
        piece = chunk_of(db, body, number)
        if piece is None:
            return  # swept meanwhile: nothing of it will be written
        yield piece


def columns_of(shown: Document, account: str) -> tuple[str, ...]:
    """Return what a document is in the index: the words of each place, and its marks."""
    marks = [INDEXED, account_mark(account)] + [ATTACHED] * shown.attached
    return (*(" ".join(shown.words[place]) for place in Place), " ".join(marks))


def attachments_of(db: sqlite3.Connection, owner: int) -> tuple[Attachment, ...]:
    """Return what is attached to a body, or to a message without one, whose id is negated then."""
    return tuple(
        Attachment(name, type_, size, content_id, bool(inline))
        for name, type_, size, content_id, inline in db.execute(_ATTACHMENTS, (owner,))
    )


# ---- writing


def write(transaction: Transaction, batch: Batch, done: int) -> int:
    """Do some of the steps behind the first *done*; return how many are done by then."""
    db = transaction.db
    if batch.is_anew:
        _begin_anew(db)
        return batch.steps
    gone, again = len(batch.gone), len(batch.gone) + len(batch.again)
    ends = time.perf_counter() + WRITE_SECONDS
    for step in range(done, batch.steps - 1):
        if step < gone:
            _take_out(db, batch.gone[step])
        elif step < again:
            _take_out_message(db, batch.again[step - gone])
        else:
            _put_in(db, batch.entries[step - again])
        if time.perf_counter() > ends:
            return step + 1
    db.execute(_SET_PROGRESS, (VERSION, batch.mark, json.dumps(batch.ranges)))
    return batch.steps


def _begin_anew(db: sqlite3.Connection) -> None:
    db.execute("INSERT INTO words (words) VALUES ('delete-all')")
    db.execute("DELETE FROM attachment WHERE owner > 0")
    for table in ("document_words", "document", "indexing", "indexing_again"):
        db.execute(f"DELETE FROM {table}")
    db.execute(_SET_PROGRESS, (VERSION, 0, "[]"))


def _put_in(db: sqlite3.Connection, entry: Entry) -> None:
    if entry.body is None:
        is_wanted = _HAS_NO_BODY, (entry.message,)
        is_there: tuple[str, tuple[Any, ...]] = _OF_MESSAGE, (entry.message,)
    else:
        is_wanted = "SELECT 1 FROM body WHERE id = ?", (entry.body,)
        is_there = _OF_BODY, (entry.body, entry.account)
    if db.execute(*is_wanted).fetchone() is None or db.execute(*is_there).fetchone() is not None:
        return
    message = entry.message if entry.body is None else None
    number = db.execute(_INSERT_DOCUMENT, (entry.account, entry.body, message, spell_json(entry.thread))).lastrowid
    packed = zstandard.compress(_BETWEEN_COLUMNS.join(entry.columns).encode(), 3)
    db.execute(_INSERT_PACKED, (number, packed))
    db.execute(_INSERT_WORDS, (number, *entry.columns))
    if entry.body is not None and entry.attachments:
        insert_attachments(db, entry.body, entry.attachments)


def insert_attachments(db: sqlite3.Connection, owner: int, attachments: Iterable[Attachment]) -> None:
    """Write down what is attached to a body, or to a message without one, whose id is negated then."""
    db.executemany(
        _INSERT_ATTACHMENT,
        [
            (owner, place, one.name, one.type, one.size, one.content_id, one.inline)
            for place, one in enumerate(attachments)
        ],
    )


def _take_out_message(db: sqlite3.Connection, message: int) -> None:
    for (number,) in db.execute(_OF_MESSAGE, (message,)).fetchall():
        _take_out(db, number)
    db.execute("DELETE FROM indexing_again WHERE message = ?", (message,))


def _take_out(db: sqlite3.Connection, number: int) -> None:
    found = db.execute(_PACKED, (number,)).fetchone()
    if found is not None:
        columns = zstandard.decompress(found[0]).decode().split(_BETWEEN_COLUMNS)
        db.execute(_DELETE_WORDS, (number, *columns))
        db.execute("DELETE FROM document_words WHERE id = ?", (number,))
    db.execute("DELETE FROM document WHERE id = ?", (number,))


# ---- what others let go of: seen to in their transactions, taken out of the index later


def body_is_gone(db: sqlite3.Connection, body: int) -> None:
    """Let go of all that is known of a body by its text."""
    db.execute("UPDATE document SET body = NULL WHERE body = ?", (body,))
    db.execute("DELETE FROM attachment WHERE owner = ?", (body,))


_NO_LONGER_HAS: Final = """
    UPDATE document SET body = NULL
    WHERE body = ? AND NOT EXISTS (
        SELECT 1 FROM message JOIN mailbox ON mailbox.id = message.mailbox
        WHERE message.body = document.body AND mailbox.account = document.account
    )
"""


def row_is_gone(db: sqlite3.Connection, message: int, body: int | None) -> None:
    """Let go of a deleted row, and of its body where no other row of its account has it."""
    db.execute("UPDATE document SET message = NULL WHERE message = ?", (message,))
    db.execute("DELETE FROM attachment WHERE owner = ?", (-message,))
    if body is not None:
        db.execute(_NO_LONGER_HAS, (body,))


def body_has_come(db: sqlite3.Connection, message: int) -> None:
    """Have a message read again, whose body was not there when it may have been read."""
    db.execute("INSERT OR IGNORE INTO indexing_again (message) VALUES (?)", (message,))
    db.execute("DELETE FROM attachment WHERE owner = ?", (-message,))
