"""Which row a message is that was mirrored before, under another UID or in another mailbox (`sync.md`, Reset).

Looked for through an index, one message at a time: among what is left of the mailbox's older generations, and among
what is known to be leaving other mailboxes. Each row serves once, as the row that is taken over is there no more.
"""

import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from idlepush.imap.uidset import UidSet
from idlepush.store.sqlite_bodies import sha256_of
from idlepush.sync.changes import KnownAgain, NewMessage

_COLUMNS: Final = """
    SELECT message.id, message.generation, generation.uidvalidity, message.uid, message.complete, message.body,
           message.sha256, message.mailbox, mailbox.name
    FROM message JOIN generation ON generation.id = message.generation JOIN mailbox ON mailbox.id = message.mailbox
"""
# The row of the same UID first: a server that renumbers its UIDVALIDITY alone keeps them.
_ORDER: Final = " ORDER BY message.uid <> ?, message.uid, message.id"
_BY_IDENTITY: Final = (
    f"{_COLUMNS} WHERE message.mailbox = ? AND message.email_id = ? AND message.expunged IS NULL {_ORDER}"
)
_BY_FINGERPRINT: Final = (
    f"{_COLUMNS} WHERE message.mailbox = ? AND message.fingerprint = ? AND message.expunged IS NULL {_ORDER}"
)
_OLDER_ALIVE: Final = "SELECT 1 FROM generation WHERE mailbox = ? AND id <> ? AND alive > 0 LIMIT 1"
_MAILBOX_OF: Final = "SELECT mailbox FROM generation WHERE id = ?"


@dataclass(slots=True)
class Known:
    """A live row, as far as a commit needs it."""

    id: int
    generation: int
    uidvalidity: int
    uid: int
    complete: bool
    body: int | None
    sha256: bytes | None
    mailbox: int
    mailbox_name: str


class Recognition:
    """Finds rows for the messages of one commit to *mailbox*, whose current generation is *generation*."""

    def __init__(self, db: sqlite3.Connection, mailbox: int, generation: int, leaving: Mapping[int, UidSet]) -> None:
        self._db = db
        self._mailbox = mailbox
        self._generation = generation
        self._leaving = leaving
        is_reset = db.execute(_OLDER_ALIVE, (mailbox, generation)).fetchone() is not None
        self._mailboxes = [mailbox] if is_reset else []
        for other in leaving:
            self._mailboxes += [number for (number,) in db.execute(_MAILBOX_OF, (other,)) if number != mailbox]

    def of(self, message: NewMessage) -> Known | None:
        """Return the row that is *message*: none where two could be and no body decides."""
        if message.body is None or not message.complete:
            return self.of_known_again(message)
        rows, _ = self._like(message)
        if not rows:
            return None
        mine = sha256_of(message.body)  # decides even where a name is the same: not every server keeps its word
        return next((row for row in rows if row.sha256 is None or row.sha256 == mine), None)

    def of_known_again(self, message: KnownAgain | NewMessage) -> Known | None:
        """Return the row that is *message*, told without its body: none where two could be."""
        rows, is_named = self._like(message)
        return rows[0] if rows and (is_named or len(rows) == 1) else None

    def _like(self, message: KnownAgain | NewMessage) -> tuple[list[Known], bool]:
        """Return the rows of the same name, or else of the same fingerprint, and whether it is the name."""
        if not self._mailboxes:
            return [], False
        named = self._same(_BY_IDENTITY, message.identity.email_id, message.uid)
        return (named, True) if named else (self._same(_BY_FINGERPRINT, message.fingerprint, message.uid), False)

    def _same(self, query: str, key: str | bytes | None, uid: int) -> list[Known]:
        if key is None:
            return []
        found = [row for mailbox in self._mailboxes for row in self._db.execute(query, (mailbox, key, uid))]
        return [row for row in (Known(*columns) for columns in found) if self._may_be_taken(row)]

    def _may_be_taken(self, row: Known) -> bool:
        if row.mailbox == self._mailbox:
            return row.generation != self._generation
        return row.uid in self._leaving.get(row.generation, UidSet())
