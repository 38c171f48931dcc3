"""Searching: a query put into FTS5's words and SQL's conditions, and its answer page by page, newest first.

Nothing that anybody typed is spelled into either: words hold letters and digits alone, and stand in quotes.
"""

# ruff: noqa: S608 - statements are put together from constants alone

import sqlite3
from collections import deque
from typing import Any, Final

from idlepush.imap.types import MailboxName
from idlepush.store.base import MessageRow
from idlepush.store.sqlite_index import ATTACHED, INDEXED, account_mark
from idlepush.store.sqlite_listing import AGE, MESSAGES, YOUNGER_THAN_ALL
from idlepush.store.sqlite_listing import Place as PlaceInOrder
from idlepush.store.sqlite_rows import message_from, micros, spell_json
from idlepush.sync.query import Phrase, Query

AHEAD: Final = 20_000

_MAILBOXES: Final = """
    SELECT id, name FROM mailbox
    WHERE (:account IS NULL OR account = :account) AND (:raw IS NULL OR raw = :raw)
"""
# A message may be in the index by its header still, when its body is already.
_WITH_WORDS: Final = f"""
    SELECT {AGE} AS age, message.id
    FROM words CROSS JOIN document ON document.id = words.rowid
    CROSS JOIN message ON message.body = document.body OR message.id = document.message
    WHERE words MATCH :words AND %s
      AND (document.message IS NULL OR message.body IS NULL OR NOT EXISTS (
          SELECT 1 FROM document AS other WHERE other.body = message.body AND other.account = document.account
      ))
    ORDER BY age DESC, message.id DESC
    LIMIT :count
"""
# Documents of one body in two accounts would each find the rows of both.
_SAME_ACCOUNT: Final = "document.account = (SELECT account FROM mailbox WHERE mailbox.id = message.mailbox)"
_WITHOUT: Final = f"""
    SELECT {AGE} AS age, message.id FROM message WHERE %s ORDER BY age DESC, message.id DESC LIMIT :count
"""
_BY_ID: Final = f"{MESSAGES} WHERE message.id = ? AND message.expunged IS NULL"


class ByMatch:
    """The live rows that answer *query*, newest first; behind *last*, where there is one. See `Listing`."""

    def __init__(
        self,
        query: Query,
        account: str | None,
        mailbox: MailboxName | None,
        last: PlaceInOrder | None,
    ) -> None:
        self._query = query
        self._filter = {"account": account, "raw": None if mailbox is None else mailbox.raw}
        self._words = spell_words(query, account) if query.needs_words else None
        self._ahead: deque[int] = deque()
        self._asked = 0
        self._key = last.by_age if last else YOUNGER_THAN_ALL

    def page(self, db: sqlite3.Connection, count: int) -> list[MessageRow]:
        """See `Listing.page`."""
        rows: list[MessageRow] = []
        while len(rows) < count and (self._ahead or self._look_ahead(db, count)):
            columns = db.execute(_BY_ID, (self._ahead.popleft(),)).fetchone()
            if columns is not None:  # it was there when the index was asked
                rows.append(message_from(columns))
        return rows

    def _look_ahead(self, db: sqlite3.Connection, count: int) -> bool:
        """Ask the index for what follows; return whether anything does."""
        if any(not phrase.words for phrase in self._query.wanted):
            return False
        mailboxes = [number for number, name in db.execute(_MAILBOXES, self._filter) if self._may_be_in(name)]
        conditions, values = self._conditions(mailboxes)
        if self._words is not None and self._filter["account"] is None:
            conditions.append(_SAME_ACCOUNT)
        sql = (_WITHOUT if self._words is None else _WITH_WORDS) % " AND ".join(conditions)
        # All that match are looked at, however few are wanted: who goes on and on is not to have that done each page.
        wanted = count if self._asked == 0 else AHEAD
        keys = db.execute(sql, {**values, "words": self._words, "count": wanted}).fetchall()
        self._asked += 1
        if keys:
            self._key = keys[-1]
            self._ahead.extend(number for _, number in keys)
        return bool(keys)

    def _may_be_in(self, name: str) -> bool:
        query = self._query
        return name not in query.other_mailboxes and (not query.mailboxes or name in query.mailboxes)

    def _conditions(self, mailboxes: list[int]) -> tuple[list[str], dict[str, Any]]:
        query = self._query
        age, number = self._key
        conditions = [
            "message.expunged IS NULL",
            "message.mailbox IN (SELECT value FROM json_each(:mailboxes))",
            f"{AGE} <= :age AND ({AGE} < :age OR message.id < :id)",
        ]
        values: dict[str, Any] = {"mailboxes": spell_json(mailboxes), "age": age, "id": number}
        if query.before is not None:
            conditions.append(f"{AGE} < :before")
            values["before"] = micros(query.before)
        if query.since is not None:
            conditions.append(f"{AGE} >= :since")
            values["since"] = micros(query.since)
        for place, (flag, is_set) in enumerate(query.flags.items()):
            conditions.append(f"instr(message.flags, :flag{place}) {'>' if is_set else '='} 0")
            values[f"flag{place}"] = spell_json(flag)
        return conditions, values


def spell_words(query: Query, account: str | None) -> str:
    """Spell what FTS5 is asked for. Something is always wanted, for it knows no bare NOT."""
    wanted = [f'marks : "{INDEXED if account is None else account_mark(account)}"']
    wanted += [_spell(phrase) for phrase in query.wanted]
    unwanted = [_spell(phrase) for phrase in query.unwanted]
    if query.attached is not None:
        (wanted if query.attached else unwanted).append(f'marks : "{ATTACHED}"')
    spelled = " AND ".join(wanted)
    return f"({spelled}) NOT ({' OR '.join(unwanted)})" if unwanted else spelled


def _spell(phrase: Phrase) -> str:
    place = "" if phrase.place is None else f"{phrase.place.value} : "
    return f'{place}"{" ".join(phrase.words)}"{" *" if phrase.is_begun else ""}'
