"""What becomes of whole mailboxes in SQLite: they go, they are renamed, and what is known of them beside their mail."""

from typing import Final

from idlepush.imap.types import MailboxName
from idlepush.store.sqlite_transaction import Mailbox, Transaction, add_mailbox, mailbox_of
from idlepush.sync.events import EventType

_SET_STATE: Final = "UPDATE mailbox SET state = ?, generation = NULL WHERE id = ?"
_PARTS: Final = """
    SELECT body FROM message WHERE mailbox = ? AND expunged IS NULL AND complete = 0 AND body IS NOT NULL
"""
_EXPUNGE_ALL: Final = """
    UPDATE message SET expunged = ?, body = CASE WHEN complete THEN body END WHERE mailbox = ? AND expunged IS NULL
"""
_NONE_ALIVE: Final = "UPDATE generation SET alive = 0 WHERE mailbox = ?"

_RENAME: Final = "UPDATE mailbox SET raw = ?, name = ? WHERE id = ?"
_TAKE_PAST_ROWS: Final = "UPDATE message SET mailbox = ? WHERE mailbox = ? AND expunged IS NOT NULL"
_TAKE_PAST: Final = "UPDATE generation SET mailbox = ? WHERE mailbox = ?"
_DELETE: Final = "DELETE FROM mailbox WHERE id = ?"

_NOTE: Final = """
    UPDATE mailbox SET state = coalesce(:state, state), object_id = coalesce(:object_id, object_id) WHERE id = :id
"""


def gone(transaction: Transaction, account: str, name: MailboxName, state: str) -> None:
    """See `Store.mailbox_gone`."""
    mailbox = mailbox_of(transaction.db, account, name)
    if mailbox is not None:
        _go(transaction, mailbox, state)
    elif state != "gone":
        add_mailbox(transaction.db, account, name, state)


def _go(transaction: Transaction, mailbox: Mailbox, state: str) -> None:
    db = transaction.db
    db.execute(_SET_STATE, (state, mailbox.id))
    if mailbox.checkpoint is None:
        return
    uidvalidity = mailbox.checkpoint.uidvalidity
    transaction.tell(EventType.MAILBOX_GONE, mailbox.account, {}, mailbox=mailbox.name, uidvalidity=uidvalidity)
    parts = db.execute(_PARTS, (mailbox.id,)).fetchall()
    db.execute(_EXPUNGE_ALL, (transaction.now, mailbox.id))
    db.execute(_NONE_ALIVE, (mailbox.id,))
    for (body,) in parts:
        transaction.bodies.drop(body)


def renamed(transaction: Transaction, account: str, before: MailboxName, after: MailboxName) -> None:
    """See `Store.mailbox_renamed`."""
    db = transaction.db
    mailbox = mailbox_of(db, account, before)
    if mailbox is None or mailbox.checkpoint is None or before == after:
        return
    other = mailbox_of(db, account, after)
    if other is not None:
        _go(transaction, other, "gone")
        # What was there under this name before stays there, as the past of whatever has the name now.
        db.execute(_TAKE_PAST_ROWS, (mailbox.id, other.id))
        db.execute(_TAKE_PAST, (mailbox.id, other.id))
        db.execute(_DELETE, (other.id,))
    db.execute(_RENAME, (after.raw, after.text, mailbox.id))
    transaction.tell(
        EventType.MAILBOX_RENAMED,
        account,
        {"mailbox_before": mailbox.name},
        mailbox=after.text,
        uidvalidity=mailbox.checkpoint.uidvalidity,
    )


def note(transaction: Transaction, account: str, name: MailboxName, state: str | None, object_id: str | None) -> None:
    """See `Store.note_mailbox`."""
    mailbox = mailbox_of(transaction.db, account, name)
    if mailbox is None:
        if state is None:
            return
        mailbox = add_mailbox(transaction.db, account, name, state)
    transaction.db.execute(_NOTE, {"state": state, "object_id": object_id, "id": mailbox.id})
