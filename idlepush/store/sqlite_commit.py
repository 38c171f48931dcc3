"""What a change set does to the tables of SQLite: the statements of `Store.commit`.

Everything here runs in the database's thread, within a transaction that `sqlite_writer.py` begins and ends. An
exception means that nothing of this change set may stay; the writer rolls it back.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from idlepush.errors import StaleGeneration
from idlepush.imap.types import Flags, ModSeq, Uid, same_flags
from idlepush.imap.uidset import UidSet
from idlepush.store.base import Committed
from idlepush.store.spelling import details_of_body, details_of_move, details_of_new, sorted_flags
from idlepush.store.sqlite_bodies import sha256_of
from idlepush.store.sqlite_index import body_has_come, insert_attachments, row_is_gone
from idlepush.store.sqlite_recognition import Known, Recognition
from idlepush.store.sqlite_rows import (
    flags_from,
    micros,
    micros_or_null,
    spell_addresses,
    spell_flags,
    spell_holes,
    spell_identity,
)
from idlepush.store.sqlite_transaction import Mailbox, Transaction, add_mailbox, mailbox_of
from idlepush.sync.changes import Begin, BodySlice, ChangeSet, KnownAgain, NewMessage, advance
from idlepush.sync.checkpoint import Checkpoint
from idlepush.sync.events import EventType, Json

_INSERT_GENERATION: Final = "INSERT INTO generation (mailbox, uidvalidity, high, holes, modseq) VALUES (?, ?, ?, ?, ?)"
_BEGIN_AGAIN: Final = "UPDATE mailbox SET generation = ?, state = 'ok' WHERE id = ?"
# A mailbox of a name that was there before is another mailbox: it was never looked at.
_BEGIN_ANEW: Final = "UPDATE mailbox SET generation = ?, state = 'ok', looked_at = NULL, audited_at = NULL WHERE id = ?"
_ADVANCE: Final = "UPDATE generation SET high = ?, holes = ?, modseq = ?, alive = alive + ? WHERE id = ?"
_COUNT_OLDER: Final = "UPDATE generation SET alive = alive + ? WHERE id = ?"
_LOOKED_AT: Final = "UPDATE mailbox SET looked_at = ? WHERE id = ?"
_AUDITED_AT: Final = "UPDATE mailbox SET audited_at = ? WHERE id = ?"

_QUARANTINE: Final = (
    "INSERT OR REPLACE INTO quarantine (generation, uid, reason, tries, next_try) VALUES (?, ?, ?, ?, ?)"
)
_RELEASE: Final = "DELETE FROM quarantine WHERE generation = ? AND uid BETWEEN ? AND ?"

# Each of these names the mailbox too, and says `expunged IS NULL`: that is what the index of live rows begins with.
_LIVE_UIDS: Final = """
    SELECT uid FROM message WHERE mailbox = ? AND uid BETWEEN ? AND ? AND generation = ? AND expunged IS NULL
"""
_LIVE_BETWEEN: Final = """
    SELECT message.id, message.generation, generation.uidvalidity, message.uid, message.complete, message.body
    FROM message JOIN generation ON generation.id = message.generation
    WHERE message.mailbox = ? AND message.uid BETWEEN ? AND ? AND message.generation = ? AND message.expunged IS NULL
    ORDER BY message.uid
"""
_LIVE_OLDER: Final = """
    SELECT message.id, message.generation, generation.uidvalidity, message.uid, message.complete, message.body
    FROM message JOIN generation ON generation.id = message.generation
    WHERE message.mailbox = ? AND message.generation <> ? AND message.expunged IS NULL
    ORDER BY message.uid, message.id
"""
_FLAGS_OF: Final = """
    SELECT id, flags FROM message WHERE mailbox = ? AND uid = ? AND generation = ? AND expunged IS NULL
"""

_INSERT_MESSAGE: Final = """
    INSERT INTO message (
        mailbox, generation, uid, fingerprint, message_id, subject, sender, recipients, date, internal_date, size,
        flags, modseq, found_by, truncated, complete, body, sha256, email_id, thread_id, labels
    ) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
"""
_MOVE: Final = """
    UPDATE message SET mailbox = ?, generation = ?, uid = ?, flags = ?, modseq = ?, size = ?, internal_date = ?,
           email_id = ?, thread_id = ?, labels = ?
    WHERE id = ?
"""
_HELD: Final = "SELECT sha256, fingerprint, size, truncated, complete FROM message WHERE id = ?"
_REPLACE: Final = """
    UPDATE message
    SET fingerprint = ?, message_id = ?, subject = ?, sender = ?, recipients = ?, date = ?, internal_date = ?, size = ?,
        truncated = ?, complete = ?, body = ?, sha256 = ?
    WHERE id = ?
"""
_TAKE_BODY: Final = "UPDATE message SET body = ?, sha256 = ?, complete = 1, truncated = ? WHERE id = ?"
_SET_BODY: Final = "UPDATE message SET body = ? WHERE id = ?"
_FINISH_BODY: Final = "UPDATE message SET body = ?, sha256 = ?, complete = 1 WHERE id = ?"
_SET_FLAGS: Final = "UPDATE message SET flags = ?, modseq = coalesce(?, modseq) WHERE id = ?"
# Without `body`: an UPDATE of a foreign key keeps a journal of its own, which makes 5,000 of them take 25 s, not 0.3.
_EXPUNGE: Final = "UPDATE message SET expunged = ? WHERE id = ?"


def commit(transaction: Transaction, change: ChangeSet) -> Committed:
    """Apply a change set; see `Store.commit`."""
    mailbox = mailbox_of(transaction.db, change.account, change.mailbox)
    current = mailbox.generation if mailbox else None
    if change.generation != current or (current is None and change.begin is None):
        raise StaleGeneration(f"{change.account}: {change.mailbox} is not in generation {change.generation}")
    if mailbox is None:
        mailbox = add_mailbox(transaction.db, change.account, change.mailbox, "ok")
    return _Commit(transaction, mailbox, change).apply()


def catch_up(transaction: Transaction, change: ChangeSet) -> bool:
    """Hash some of a long body that *change* makes whole and that was begun before a restart; see `Bodies.catch_up`.

    Return whether there is more: until there is none, the commit would take as long as the body is long.
    """
    mailbox = mailbox_of(transaction.db, change.account, change.mailbox)
    if mailbox is None or change.generation is None:
        return False
    for part in change.slices:
        found = transaction.db.execute(_LIVE_BETWEEN, (mailbox.id, part.uid, part.uid, change.generation)).fetchone()
        row = None if found is None else _Row(*found)
        if not part.final or row is None or row.complete or row.body is None:
            continue
        if transaction.bodies.catch_up(row.body):
            return True
    return False


@dataclass(slots=True)
class _Row:
    """A live row, as far as what is done to it needs."""

    id: int
    generation: int
    uidvalidity: int
    uid: int
    complete: bool
    body: int | None


class _Commit:
    """One change set on its way into the tables of one mailbox."""

    def __init__(self, transaction: Transaction, mailbox: Mailbox, change: ChangeSet) -> None:
        self._transaction = transaction
        self._db = transaction.db
        self._bodies = transaction.bodies
        self._mailbox = mailbox
        self._change = change
        self._told: Counter[EventType] = Counter()
        self._alive: Counter[int] = Counter()
        """By generation: how many live rows this commit adds, less those it takes."""

    def apply(self) -> Committed:
        change = self._change
        if change.begin is not None:
            self._begin(change.begin)
        generation, checkpoint = self._mailbox.generation, self._mailbox.checkpoint
        assert generation is not None
        assert checkpoint is not None

        known = self._know_again(generation, checkpoint.uidvalidity) if change.known_again else UidSet()
        if change.new:
            self._take_in(generation, checkpoint.uidvalidity)
        for message in change.replaced:
            self._replace(generation, checkpoint.uidvalidity, message)
        # In their order, whatever theirs was: a slice that waits for its turn would be applied the second time.
        for part in sorted(change.slices, key=lambda part: (part.uid, part.origin)):
            self._append(generation, checkpoint.uidvalidity, part)
        for uid, flags in sorted(change.flags.items()):
            self._set_flags(generation, checkpoint.uidvalidity, uid, flags, change.modseqs.get(uid))
        for first, last in change.expunged.ranges:
            self._expunge(self._db.execute(_LIVE_BETWEEN, (self._mailbox.id, first, last, generation)).fetchall())
        if change.forget_older:
            self._expunge(self._db.execute(_LIVE_OLDER, (self._mailbox.id, generation)).fetchall())

        self._quarantine(generation)
        self._advance(generation, checkpoint, known)
        return Committed(
            position=self._transaction.position,
            new=self._told[EventType.MESSAGE_NEW],
            moved=self._told[EventType.MESSAGE_MOVED],
            flags=self._told[EventType.MESSAGE_FLAGS],
            expunged=self._told[EventType.MESSAGE_EXPUNGED],
            known=known,
        )

    # ---- generations and the checkpoint

    def _begin(self, begin: Begin) -> None:
        before, mailbox = self._mailbox.checkpoint, self._mailbox
        mailbox.checkpoint = Checkpoint(begin.uidvalidity, begin.high, begin.holes, begin.modseq)
        mailbox.generation = self._db.execute(
            _INSERT_GENERATION,
            (mailbox.id, begin.uidvalidity, begin.high, spell_holes(begin.holes), begin.modseq),
        ).lastrowid
        self._db.execute(_BEGIN_ANEW if before is None else _BEGIN_AGAIN, (mailbox.generation, mailbox.id))
        if before is None:
            self._tell(EventType.MAILBOX_NEW, begin.uidvalidity, {})
        else:
            self._tell(EventType.MAILBOX_RESET, begin.uidvalidity, {"uidvalidity_before": before.uidvalidity})

    def _advance(self, generation: int, before: Checkpoint, known: UidSet) -> None:
        after = advance(before, self._change, known)
        more = self._alive.pop(generation, 0)
        if more or after != before:  # what changes nothing writes nothing
            self._db.execute(_ADVANCE, (after.high, spell_holes(after.holes), after.modseq, more, generation))
        self._db.executemany(_COUNT_OLDER, [(more, older) for older, more in self._alive.items()])
        if self._change.looked_at is not None:
            self._db.execute(_LOOKED_AT, (micros(self._change.looked_at), self._mailbox.id))
        if self._change.audited_at is not None:
            self._db.execute(_AUDITED_AT, (micros(self._change.audited_at), self._mailbox.id))

    def _quarantine(self, generation: int) -> None:
        change = self._change
        self._db.executemany(
            _QUARANTINE,
            [(generation, uid, one.reason, one.tries, micros(one.next_try)) for uid, one in change.quarantined.items()],
        )
        leaving = UidSet.from_uids(message.uid for message in change.new) | change.expunged | change.released
        for uid in {part.uid for part in change.slices}:
            row = self._live(generation, uid)
            if row is not None and row.complete:
                leaving |= UidSet.of(uid)
        self._db.executemany(_RELEASE, [(generation, first, last) for first, last in leaving.ranges])

    # ---- new messages

    def _take_in(self, generation: int, uidvalidity: int) -> None:
        new = self._change.new
        uids = [message.uid for message in new]
        there = self._db.execute(_LIVE_UIDS, (self._mailbox.id, min(uids), max(uids), generation))
        passed_over = {uid for (uid,) in there}
        recognition = Recognition(self._db, self._mailbox.id, generation, self._change.leaving)
        for message in new:
            # What this very change set knows to be gone is never introduced.
            if message.uid in passed_over or message.uid in self._change.expunged:
                continue
            passed_over.add(message.uid)
            before = recognition.of(message)
            if before is None:
                self._insert(generation, uidvalidity, message)
            else:
                self._take_over(before, generation, uidvalidity, message)
            self._alive[generation] += 1

    def _insert(self, generation: int, uidvalidity: int, message: NewMessage) -> None:
        body, sha256 = self._body_of(message)
        headers = message.headers
        number = self._db.execute(
            _INSERT_MESSAGE,
            (
                *(self._mailbox.id, generation, message.uid, message.fingerprint, headers.message_id),
                *(headers.subject, spell_addresses(headers.sender), spell_addresses(headers.to)),
                *(micros_or_null(headers.date), micros_or_null(message.internal_date), message.size),
                *(spell_flags(message.flags), message.modseq, message.found_by.value),
                *(message.truncated, message.complete, body, sha256, *spell_identity(message.identity)),
            ),
        ).lastrowid
        if message.attachments:
            assert number is not None
            insert_attachments(self._db, -number, message.attachments)
        self._tell(EventType.MESSAGE_NEW, uidvalidity, details_of_new(message), number, message.uid)

    def _body_of(self, message: NewMessage) -> tuple[int | None, bytes | None]:
        """Store what has come of the body; return its id, and its SHA-256 where it is whole."""
        if message.body is None:
            return None, None
        if message.complete:
            return self._bodies.store(message.body)
        return self._bodies.begin(message.body), None

    def _know_again(self, generation: int, uidvalidity: int) -> UidSet:
        """Take over what is known without its body; return which UIDs that were."""
        recognition = Recognition(self._db, self._mailbox.id, generation, self._change.leaving)
        known: list[Uid] = []
        for message in self._change.known_again:
            if self._live(generation, message.uid) is not None:
                continue
            before = recognition.of_known_again(message)
            if before is not None:
                self._move(before, generation, uidvalidity, message)
                self._alive[generation] += 1
                known.append(message.uid)
        return UidSet.from_uids(known)

    def _take_over(self, row: Known, generation: int, uidvalidity: int, message: NewMessage) -> None:
        """Take a row over as `_move` does, and the body where it has none."""
        self._move(row, generation, uidvalidity, message)
        if message.body is not None and message.complete and not (row.complete and row.body is not None):
            body, sha256 = self._bodies.store(message.body)
            self._db.execute(_TAKE_BODY, (body, sha256, message.truncated, row.id))
            body_has_come(self._db, row.id)
            if row.body is not None:
                self._bodies.drop(row.body)
            self._tell_body(uidvalidity, row.id, message.uid, sha256)

    def _move(self, row: Known, generation: int, uidvalidity: int, message: NewMessage | KnownAgain) -> None:
        """Take a row of another generation over into this one: it keeps its id and, where it has one, its body."""
        self._db.execute(
            _MOVE,
            (
                *(self._mailbox.id, generation, message.uid, spell_flags(message.flags), message.modseq),
                *(message.size, micros_or_null(message.internal_date), *spell_identity(message.identity), row.id),
            ),
        )
        self._alive[row.generation] -= 1
        details = details_of_move(message.flags, mailbox=row.mailbox_name, uidvalidity=row.uidvalidity, uid=row.uid)
        self._tell(EventType.MESSAGE_MOVED, uidvalidity, details, row.id, message.uid)

    def _replace(self, generation: int, uidvalidity: int, message: NewMessage) -> None:
        """Give a row that held something else what the server holds; it keeps its id, and what it was found by."""
        row = self._live(generation, message.uid)
        if row is None or self._holds(row, message):
            return
        if row.body is not None and row.complete and not self._bodies.is_sound(row.body):
            self._bodies.disown(row.body)
        body, sha256 = self._body_of(message)
        headers = message.headers
        self._db.execute(
            _REPLACE,
            (
                *(message.fingerprint, headers.message_id, headers.subject),
                *(spell_addresses(headers.sender), spell_addresses(headers.to), micros_or_null(headers.date)),
                *(micros_or_null(message.internal_date), message.size),
                *(message.truncated, message.complete, body, sha256, row.id),
            ),
        )
        if row.body is not None and not row.complete:
            self._bodies.drop(row.body)
        # Its words and attachments are those of what it held.
        row_is_gone(self._db, row.id, row.body)
        body_has_come(self._db, row.id)
        insert_attachments(self._db, -row.id, message.attachments)
        details = details_of_body(sha256.hex() if sha256 else None, complete=message.complete)
        self._tell(EventType.MESSAGE_BODY, uidvalidity, details, row.id, row.uid)

    def _holds(self, row: _Row, message: NewMessage) -> bool:
        """Tell whether the row is *message* already, all of it."""
        sha256, *other = self._db.execute(_HELD, (row.id,)).fetchone()
        if not message.complete or other != [message.fingerprint, message.size, message.truncated, True]:
            return False
        if message.body is None or row.body is None:
            return message.body is None and row.body is None
        return bool(sha256 == sha256_of(message.body)) and self._bodies.is_sound(row.body)

    # ---- long bodies

    def _append(self, generation: int, uidvalidity: int, part: BodySlice) -> None:
        row = self._live(generation, part.uid)
        if row is None or row.complete:
            return
        kept = 0 if row.body is None else self._bodies.kept(row.body)
        # Below what is kept: it was applied before. Above: something is missing between, and it will come again.
        if part.origin != kept:
            return
        body = self._bodies.begin(b"") if row.body is None else row.body
        self._bodies.append(body, part.data)
        if not part.final:
            self._db.execute(_SET_BODY, (body, row.id))
            return

        whole, sha256 = self._bodies.finish(body)
        self._db.execute(_FINISH_BODY, (whole, sha256, row.id))
        body_has_come(self._db, row.id)
        if whole != body:
            self._bodies.drop(body)
        self._tell_body(uidvalidity, row.id, part.uid, sha256)

    def _live(self, generation: int, uid: int) -> _Row | None:
        found = self._db.execute(_LIVE_BETWEEN, (self._mailbox.id, uid, uid, generation)).fetchone()
        return None if found is None else _Row(*found)

    # ---- flags and expunges

    def _set_flags(self, generation: int, uidvalidity: int, uid: Uid, flags: Flags, modseq: ModSeq | None) -> None:
        found = self._db.execute(_FLAGS_OF, (self._mailbox.id, uid, generation)).fetchone()
        if found is None:
            return
        number, before = found
        after = spell_flags(flags)
        if before == after or same_flags(flags_from(before), flags):
            return
        self._db.execute(_SET_FLAGS, (after, modseq, number))
        self._tell(EventType.MESSAGE_FLAGS, uidvalidity, {"flags": sorted_flags(flags)}, number, uid)

    def _expunge(self, found: Iterable[tuple[Any, ...]]) -> None:
        for columns in found:
            row = _Row(*columns)
            self._db.execute(_EXPUNGE, (self._transaction.now, row.id))
            # What has come of a body that will never be whole goes with the row; a whole one is left to `sweep`.
            if row.body is not None and not row.complete:
                self._db.execute(_SET_BODY, (None, row.id))
                self._bodies.drop(row.body)
            self._alive[row.generation] -= 1
            self._tell(EventType.MESSAGE_EXPUNGED, row.uidvalidity, {}, row.id, row.uid)

    # ---- events

    def _tell(
        self,
        type: EventType,
        uidvalidity: int,
        details: Mapping[str, Json],
        message: int | None = None,
        uid: int | None = None,
    ) -> None:
        self._told[type] += 1
        self._transaction.tell(
            type,
            self._mailbox.account,
            details,
            message=message,
            mailbox=self._mailbox.name,
            uidvalidity=uidvalidity,
            uid=uid,
        )

    def _tell_body(self, uidvalidity: int, message: int, uid: int, sha256: bytes) -> None:
        self._tell(EventType.MESSAGE_BODY, uidvalidity, details_of_body(sha256.hex()), message, uid)
