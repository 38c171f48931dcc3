"""The messages of an SQLite store in either order, a page at a time.

Each page is found by the key of the last row of the one before, through an index that has the order in it: the
thousandth page costs what the first does, and rows that come or go meanwhile shift nothing.
"""

# ruff: noqa: S608 - statements are put together from constants alone

import heapq
import sqlite3
from collections import deque
from dataclasses import dataclass
from typing import Any, Final, Protocol

from idlepush.imap.types import MailboxName
from idlepush.store.base import MessageRow
from idlepush.store.sqlite_rows import MESSAGE_COLUMNS, message_from

# Word for word as in the index `message_newest`: a message without an internal date is older than any other.
AGE: Final = "coalesce(message.internal_date, -4611686018427387904)"

# What an order goes by stands behind what is shown.
MESSAGES: Final = f"""
    SELECT {MESSAGE_COLUMNS}, message.generation, {AGE}
    FROM message
    JOIN mailbox ON mailbox.id = message.mailbox
    JOIN generation ON generation.id = message.generation
"""
_BY_PLACE: Final = f"""
    {MESSAGES}
    WHERE message.mailbox = ? AND message.expunged IS %s
      AND (message.uid, message.generation, message.id) > (?, ?, ?)
    ORDER BY message.uid, message.generation, message.id
    LIMIT ?
"""
_BY_ID: Final = f"{MESSAGES} WHERE message.id = ?"
# `age <= ?` twice over: a comparison of pairs would not be looked up in an index of an expression.
_NEWEST_KEYS: Final = f"""
    SELECT {AGE}, message.id FROM message
    WHERE message.mailbox = :mailbox AND message.expunged IS %s
      AND {AGE} <= :age AND ({AGE} < :age OR message.id < :id)
    ORDER BY {AGE} DESC, message.id DESC
    LIMIT :count
"""
_MAILBOXES: Final = """
    SELECT account, name, raw, id FROM mailbox
    WHERE (:account IS NULL OR account = :account) AND (:raw IS NULL OR raw = :raw)
    ORDER BY account, name, raw
"""
_PLACE_OF: Final = f"""
    SELECT mailbox.account, mailbox.name, mailbox.raw, message.uid, message.generation, message.id, {AGE}
    FROM message JOIN mailbox ON mailbox.id = message.mailbox
    WHERE message.id = ?
"""

_BEFORE_ALL: Final = (0, 0, 0)
YOUNGER_THAN_ALL: Final = (2**62, 0)


@dataclass(frozen=True, slots=True)
class Place:
    """Where a row stands in both orders."""

    mailbox: tuple[str, str, bytes]
    by_uid: tuple[int, int, int]
    by_age: tuple[int, int]


def place_of(db: sqlite3.Connection, number: int | None) -> Place | None:
    """Return where the row stands, None where there is none."""
    found = db.execute(_PLACE_OF, (number,)).fetchone()
    if found is None:
        return None
    account, name, raw, uid, generation, id_, age = found
    return Place((account, name, raw), (uid, generation, id_), (age, id_))


class Listing(Protocol):
    """An order, and how far it has been read. Its pages are read in a database's thread."""

    def page(self, db: sqlite3.Connection, count: int) -> list[MessageRow]:
        """Return the next *count* rows; fewer only at the end."""
        ...


class ByPlace:
    """By account, mailbox, UID; behind *last*, where there is one."""

    def __init__(self, account: str | None, mailbox: MailboxName | None, last: Place | None, *, expunged: bool) -> None:
        self._filter = {"account": account, "raw": None if mailbox is None else mailbox.raw}
        self._last = last
        self._sql = _BY_PLACE % ("NOT NULL" if expunged else "NULL")
        self._mailboxes: deque[tuple[int, tuple[int, int, int]]] | None = None
        """Those still to be read, and behind which row of them."""

    def page(self, db: sqlite3.Connection, count: int) -> list[MessageRow]:
        """See `Listing.page`."""
        if self._mailboxes is None:
            self._mailboxes = deque(self._begin(db))
        rows: list[MessageRow] = []
        while self._mailboxes and len(rows) < count:
            mailbox, key = self._mailboxes.popleft()
            wanted = count - len(rows)
            found = db.execute(self._sql, (mailbox, *key, wanted)).fetchall()
            if len(found) == wanted:
                self._mailboxes.appendleft((mailbox, _key_by_uid(found[-1])))
            rows += map(message_from, found)
        return rows

    def _begin(self, db: sqlite3.Connection) -> list[tuple[int, tuple[int, int, int]]]:
        todo: list[tuple[int, tuple[int, int, int]]] = []
        for *key, mailbox in db.execute(_MAILBOXES, self._filter):
            if self._last is None or tuple(key) > self._last.mailbox:
                todo.append((mailbox, _BEFORE_ALL))
            elif tuple(key) == self._last.mailbox:
                todo.append((mailbox, self._last.by_uid))
        return todo


class ByAge:
    """By internal date, newest first; behind *last*, where there is one."""

    def __init__(self, account: str | None, mailbox: MailboxName | None, last: Place | None, *, expunged: bool) -> None:
        self._filter = {"account": account, "raw": None if mailbox is None else mailbox.raw}
        self._key = last.by_age if last else YOUNGER_THAN_ALL
        self._sql = _NEWEST_KEYS % ("NOT NULL" if expunged else "NULL")

    def page(self, db: sqlite3.Connection, count: int) -> list[MessageRow]:
        """See `Listing.page`: the newest of each mailbox, and of these the newest."""
        age, number = self._key
        keys: list[tuple[int, int]] = []
        for *_, mailbox in db.execute(_MAILBOXES, self._filter).fetchall():
            keys += db.execute(self._sql, {"mailbox": mailbox, "age": age, "id": number, "count": count})
        newest = heapq.nlargest(count, keys)
        if newest:
            self._key = newest[-1]
        rows = [db.execute(_BY_ID, (number,)).fetchone() for _, number in newest]
        return [message_from(columns) for columns in rows]


def _key_by_uid(columns: tuple[Any, ...]) -> tuple[int, int, int]:
    return columns[4], columns[-2], columns[0]
