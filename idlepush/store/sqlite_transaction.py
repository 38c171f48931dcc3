"""A transaction under way, and the mailbox it is about: what every kind of change to SQLite begins with."""

import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from idlepush.imap.types import MailboxName
from idlepush.store.sqlite_bodies import Bodies
from idlepush.store.sqlite_rows import EVENT_COLUMNS, checkpoint_from, last_position, micros, spell_json
from idlepush.sync.checkpoint import Checkpoint
from idlepush.sync.events import EventType, Json

_INSERT_EVENT: Final = f"INSERT INTO event ({EVENT_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"  # noqa: S608 - constants
_INSERT_MAILBOX: Final = "INSERT INTO mailbox (account, raw, name, state) VALUES (?, ?, ?, ?)"
_MAILBOX: Final = """
    SELECT mailbox.id, mailbox.name, mailbox.generation,
           generation.uidvalidity, generation.high, generation.holes, generation.modseq
    FROM mailbox LEFT JOIN generation ON generation.id = mailbox.generation
    WHERE mailbox.account = ? AND mailbox.raw = ?
"""


class Transaction:
    """One transaction: the connection, the moment its events happen at, and where the log ends."""

    def __init__(self, db: sqlite3.Connection, bodies: Bodies, now: datetime) -> None:
        self.db = db
        self.bodies = bodies
        self.now = micros(now)
        self.position = last_position(db)
        self._events: list[tuple[int | str | None, ...]] = []

    def tell(
        self,
        type: EventType,
        account: str,
        details: Mapping[str, Json],
        *,
        message: int | None = None,
        mailbox: str | None = None,
        uidvalidity: int | None = None,
        uid: int | None = None,
    ) -> None:
        """Write a line of the log; it is there after `write_events`."""
        self.position += 1
        place = (message, mailbox, uidvalidity, uid)
        self._events.append((self.position, self.now, account, type.value, *place, spell_json(details)))

    def write_events(self) -> None:
        """Write what was told."""
        self.db.executemany(_INSERT_EVENT, self._events)
        self._events.clear()

    def forget_events(self) -> None:
        """Take back what was told and not yet written."""
        self.position -= len(self._events)
        self._events.clear()


@dataclass(slots=True)
class Mailbox:
    """A mailbox and its current generation, both None where it is gone or was never seen."""

    id: int
    account: str
    name: str
    generation: int | None
    checkpoint: Checkpoint | None


def mailbox_of(db: sqlite3.Connection, account: str, name: MailboxName) -> Mailbox | None:
    """Return the mailbox as it stands, None where it has no row."""
    found = db.execute(_MAILBOX, (account, name.raw)).fetchone()
    if found is None:
        return None
    number, text, generation, *checkpoint = found
    return Mailbox(number, account, text, generation, None if generation is None else checkpoint_from(*checkpoint))


def add_mailbox(db: sqlite3.Connection, account: str, name: MailboxName, state: str) -> Mailbox:
    """Give a mailbox its row, without a generation."""
    number = db.execute(_INSERT_MAILBOX, (account, name.raw, name.text, state)).lastrowid
    assert number is not None
    return Mailbox(number, account, name.text, None, None)
