"""`SqliteReader`: the reading half of the store, beside a running service or without one.

Nothing here keeps a read transaction open while somebody looks at the rows: lists are fetched a page at a time, each
page by the key of the last row of the one before. A long read transaction would keep the writer from ever starting
its log anew.
"""

# ruff: noqa: S608 - statements are put together from constants alone

import itertools
import json
import sqlite3
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from datetime import date, datetime
from typing import Any, Final, TypeVar

import anyio
import anyio.lowlevel

from idlepush.errors import StoreError
from idlepush.imap.types import MAX_UID, Flags, MailboxName, Uid
from idlepush.imap.uidset import UidSet
from idlepush.store import sqlite_alerts
from idlepush.store.base import AccountRow, AlertRow, MailboxRow, MessageRow, Mirror, Twins
from idlepush.store.spelling import number_of, span
from idlepush.store.sqlite_bodies import chunk_of
from idlepush.store.sqlite_listing import MESSAGES, ByAge, ByPlace, Listing, place_of
from idlepush.store.sqlite_rows import (
    EVENT_COLUMNS,
    account_from,
    checkpoint_from,
    event_from,
    flags_from,
    holes_from,
    last_position,
    message_from,
    moment_of,
    moment_or_none,
)
from idlepush.store.sqlite_search import ByMatch
from idlepush.store.sqlite_thread import Database
from idlepush.sync.changes import NewMessage
from idlepush.sync.checkpoint import Quarantine
from idlepush.sync.events import Event
from idlepush.sync.query import Query

Result = TypeVar("Result")

PAGE: Final = 500
POLL_SECONDS: Final = 0.2

_BY_ID: Final = f"{MESSAGES} WHERE message.id = ?"
_BY_UID: Final = f"""
    {MESSAGES}
    WHERE message.mailbox = (SELECT id FROM mailbox WHERE account = ? AND raw = ?)
      AND message.uid = ? AND message.generation = mailbox.generation AND message.expunged IS NULL
"""
_THREAD_OF: Final = """
    SELECT document.thread
    FROM message JOIN mailbox ON mailbox.id = message.mailbox
    JOIN document ON document.body = message.body AND document.account = mailbox.account
    WHERE message.id = ?
"""
_BODY_OF: Final = """
    SELECT body.id, body.chunks FROM message JOIN body ON body.id = message.body
    WHERE message.id = ? AND body.sha256 IS NOT NULL
"""

_EVENTS: Final = f"SELECT {EVENT_COLUMNS} FROM event WHERE position > ? ORDER BY position LIMIT ?"
_TRAFFIC: Final = "SELECT day, octets FROM traffic WHERE account = ?"
_CURSOR: Final = "SELECT position FROM cursor WHERE sink = ? AND account = ?"
_ACCOUNTS: Final = "SELECT name, state, since, class, reason, details FROM account ORDER BY name"
_MAILBOXES: Final = """
    SELECT mailbox.account, mailbox.name, mailbox.raw, mailbox.state, current.uidvalidity, current.holes,
           mailbox.looked_at, (SELECT total(alive) FROM generation WHERE generation.mailbox = mailbox.id),
           mailbox.object_id, mailbox.audited_at
    FROM mailbox LEFT JOIN generation AS current ON current.id = mailbox.generation
    WHERE :account IS NULL OR mailbox.account = :account
    ORDER BY mailbox.account, mailbox.name, mailbox.raw
"""

_MIRROR: Final = """
    SELECT generation.id, generation.uidvalidity, generation.high, generation.holes, generation.modseq,
           generation.alive, mailbox.looked_at, mailbox.audited_at,
           (SELECT total(alive) FROM generation AS older
            WHERE older.mailbox = mailbox.id AND older.id <> mailbox.generation)
    FROM mailbox JOIN generation ON generation.id = mailbox.generation
    WHERE mailbox.account = ? AND mailbox.raw = ?
"""
_PARTS: Final = """
    SELECT message.uid, coalesce(body.octets, 0)
    FROM message LEFT JOIN body ON body.id = message.body
    WHERE message.generation = ? AND message.complete = 0 AND message.expunged IS NULL
    ORDER BY message.uid
"""
_QUARANTINE: Final = "SELECT uid, reason, tries, next_try FROM quarantine WHERE generation = ? ORDER BY uid"

# The mailbox too, for that is what the index of live rows begins with.
_OF_GENERATION: Final = """
    mailbox = (SELECT mailbox FROM generation WHERE id = :generation) AND uid BETWEEN :first AND :last
    AND generation = :generation AND expunged IS NULL
"""
_UIDS: Final = f"SELECT uid FROM message WHERE {_OF_GENERATION} ORDER BY uid"
_FLAGS: Final = f"SELECT uid, flags FROM message WHERE {_OF_GENERATION} ORDER BY uid"
_SIZES: Final = f"SELECT uid, size, internal_date FROM message WHERE {_OF_GENERATION} ORDER BY uid"


def _twins_by(column: str) -> str:
    """Mailbox by mailbox, each through its index."""
    return f"""
        SELECT mailbox.raw, message.generation, generation.uidvalidity, message.uid
        FROM mailbox CROSS JOIN message ON message.mailbox = mailbox.id
        JOIN generation ON generation.id = message.generation
        WHERE mailbox.account = ? AND mailbox.raw <> ? AND message.{column} = ? AND message.expunged IS NULL
        AND message.generation = mailbox.generation
    """


_TWINS_BY_NAME: Final = _twins_by("email_id")
_TWINS_BY_FINGERPRINT: Final = _twins_by("fingerprint")


class SqliteReader:
    """A `Reader` of an SQLite store; `open_reader` makes one."""

    def __init__(self, databases: Sequence[Database]) -> None:
        # Each piece of work is short, so taking turns is as good as looking for one that is free.
        self._turns = itertools.cycle(databases)

    async def messages(
        self,
        account: str | None = None,
        mailbox: MailboxName | None = None,
        *,
        limit: int | None = None,
        newest: bool = False,
        expunged: bool = False,
        after: str | None = None,
        query: Query | None = None,
    ) -> AsyncIterator[MessageRow]:
        """See `Reader.messages`."""
        last = None
        if after is not None:
            last = await self._ask(lambda db: place_of(db, number_of(after)))
            if last is None:
                raise KeyError(after)
        listing: Listing
        if query is not None:
            listing = ByMatch(query, account, mailbox, last)
        else:
            listing = (ByAge if newest else ByPlace)(account, mailbox, last, expunged=expunged)
        left = limit
        while left is None or left > 0:
            count = PAGE if left is None else min(PAGE, left)
            page = await self._page(listing, count)
            for row in page:
                yield row
            if len(page) < count:
                return
            left = None if left is None else left - count

    async def message(self, id: str) -> MessageRow | None:
        """See `Reader.message`."""
        return await self._one_message(_BY_ID, (number_of(id),))

    async def references(self, id: str) -> tuple[str, ...]:
        """See `Reader.references`."""
        found = await self._first(_THREAD_OF, (number_of(id),))
        return () if found is None else tuple(json.loads(found[0]))

    async def raw(self, id: str) -> AsyncIterator[bytes]:
        """See `Reader.raw`."""
        found = await self._first(_BODY_OF, (number_of(id),))
        if found is None:
            raise KeyError(id)
        body, chunks = found
        for number in range(chunks):
            chunk = await self._chunk(body, number)
            if chunk is None:
                raise StoreError(f"the body of message {id} was swept while it was read")
            yield chunk

    async def find(self, account: str, mailbox: MailboxName, uid: int) -> MessageRow | None:
        """See `Reader.find`."""
        return await self._one_message(_BY_UID, (account, mailbox.raw, uid))

    async def events(self, after: int = 0, *, limit: int = 1000) -> Sequence[Event]:
        """See `Reader.events`."""
        return await self._ask(
            lambda db: [event_from(columns) for columns in db.execute(_EVENTS, (after, max(limit, 0)))]
        )

    async def position(self) -> int:
        """See `Reader.position`."""
        return await self._ask(last_position)

    async def wait_beyond(self, position: int) -> None:
        """See `Reader.wait_beyond`; another process is asked five times a second."""
        while await self.position() <= position:  # noqa: ASYNC110 - nothing tells of another process's commits
            await anyio.sleep(POLL_SECONDS)

    async def cursor(self, sink: str, account: str) -> int | None:
        """See `Reader.cursor`."""
        found = await self._first(_CURSOR, (sink, account))
        return None if found is None else int(found[0])

    async def traffic(self, account: str) -> tuple[date, int] | None:
        """See `Reader.traffic`."""
        found = await self._first(_TRAFFIC, (account,))
        return None if found is None else (date.fromisoformat(found[0]), int(found[1]))

    async def accounts(self) -> Sequence[AccountRow]:
        """See `Reader.accounts`."""
        return await self._ask(lambda db: [account_from(columns) for columns in db.execute(_ACCOUNTS)])

    async def alerts(self) -> Sequence[AlertRow]:
        """See `Reader.alerts`."""
        return await self._ask(sqlite_alerts.alerts)

    async def mailboxes(self, account: str | None = None) -> Sequence[MailboxRow]:
        """See `Reader.mailboxes`."""
        return await self._ask(
            lambda db: [_mailbox_from(columns) for columns in db.execute(_MAILBOXES, {"account": account})]
        )

    async def mirror(self, account: str, mailbox: MailboxName) -> Mirror | None:
        """See `Reader.mirror`."""
        return await self._ask(lambda db: _mirror(db, account, mailbox))

    async def uids(self, generation: int) -> UidSet:
        """See `Reader.uids`."""
        return await self._ask(lambda db: _uids(db, generation))

    async def flags(self, generation: int, first: int, last: int) -> Mapping[Uid, Flags]:
        """See `Reader.flags`."""
        span = {"generation": generation, "first": first, "last": last}
        return await self._ask(lambda db: {Uid(uid): flags_from(flags) for uid, flags in db.execute(_FLAGS, span)})

    async def twins(self, account: str, mailbox: MailboxName, messages: Sequence[NewMessage]) -> Sequence[Twins]:
        """See `Reader.twins`."""

        def look_up(db: sqlite3.Connection) -> Sequence[Twins]:
            found: dict[tuple[bytes, int, int], list[int]] = {}
            for message in messages:
                name = message.identity.email_id
                query, key = (_TWINS_BY_FINGERPRINT, message.fingerprint) if name is None else (_TWINS_BY_NAME, name)
                for raw, generation, uidvalidity, uid in db.execute(query, (account, mailbox.raw, key)):
                    found.setdefault((raw, generation, uidvalidity), []).append(uid)
            return [
                Twins(MailboxName(raw), generation, uidvalidity, UidSet.from_uids(uids))
                for (raw, generation, uidvalidity), uids in found.items()
            ]

        return await self._ask(look_up)

    async def sizes(self, generation: int, first: int, last: int) -> Mapping[Uid, tuple[int, datetime | None]]:
        """See `Reader.sizes`."""
        span = {"generation": generation, "first": first, "last": last}
        return await self._ask(
            lambda db: {Uid(uid): (size, moment_or_none(date)) for uid, size, date in db.execute(_SIZES, span)}
        )

    # ---- within

    async def _ask(self, question: Callable[[sqlite3.Connection], Result]) -> Result:
        await anyio.lowlevel.checkpoint_if_cancelled()
        return await next(self._turns).run(question)

    async def _first(self, sql: str, values: tuple[Any, ...]) -> tuple[Any, ...] | None:
        def ask(db: sqlite3.Connection) -> tuple[Any, ...] | None:
            found: tuple[Any, ...] | None = db.execute(sql, values).fetchone()
            return found

        return await self._ask(ask)

    async def _one_message(self, sql: str, values: tuple[Any, ...]) -> MessageRow | None:
        found = await self._first(sql, values)
        return None if found is None else message_from(found)

    async def _chunk(self, body: int, number: int) -> bytes | None:
        return await self._ask(lambda db: chunk_of(db, body, number))

    async def _page(self, listing: Listing, count: int) -> list[MessageRow]:
        return await self._ask(lambda db: listing.page(db, count))


def _mailbox_from(columns: tuple[Any, ...]) -> MailboxRow:
    account, name, raw, state, uidvalidity, holes, looked_at, alive, object_id, audited_at = columns
    return MailboxRow(
        account=account,
        name=name,
        raw=raw,
        state=state,
        uidvalidity=uidvalidity,
        messages=int(alive),
        remaining=0 if holes is None else span(holes_from(holes)),
        looked_at=moment_or_none(looked_at),
        audited_at=moment_or_none(audited_at),
        object_id=object_id,
    )


def _mirror(db: sqlite3.Connection, account: str, mailbox: MailboxName) -> Mirror | None:
    db.execute("BEGIN")  # three queries, one state
    try:
        found = db.execute(_MIRROR, (account, mailbox.raw)).fetchone()
        if found is None:
            return None
        generation, uidvalidity, high, holes, modseq, alive, looked_at, audited_at, older_alive = found
        parts = db.execute(_PARTS, (generation,)).fetchall()
        quarantine = db.execute(_QUARANTINE, (generation,)).fetchall()
    finally:
        db.execute("ROLLBACK")
    return Mirror(
        generation=generation,
        checkpoint=checkpoint_from(uidvalidity, high, holes, modseq),
        alive=alive,
        parts={Uid(uid): octets for uid, octets in parts},
        quarantine={
            Uid(uid): Quarantine(reason, tries, moment_of(next_try)) for uid, reason, tries, next_try in quarantine
        },
        older_alive=int(older_alive),
        looked_at=moment_or_none(looked_at),
        audited_at=moment_or_none(audited_at),
    )


def _uids(db: sqlite3.Connection, generation: int) -> UidSet:
    # Neighbours are joined as they come: a full mailbox is one range, and 100,000 rows are never held at once.
    ranges: list[tuple[int, int]] = []
    for (uid,) in db.execute(_UIDS, {"generation": generation, "first": 1, "last": MAX_UID}):
        if ranges and ranges[-1][1] == uid - 1:
            ranges[-1] = (ranges[-1][0], uid)
        else:
            ranges.append((uid, uid))
    return UidSet(tuple(ranges))
