"""What is written to SQLite beside change sets: accounts, how far the sinks are, and what retention takes away.

Retention works in steps of bounded size, a transaction each, so that no push waits behind a year of old mail. A step
returns whether there is more to do; killed between two of them, the next sweep or purge does the rest.
"""

from datetime import date
from typing import Final

from idlepush.store.base import AccountRow, Sweep
from idlepush.store.spelling import details_of_state
from idlepush.store.sqlite_index import body_is_gone, row_is_gone
from idlepush.store.sqlite_rows import account_from, micros, micros_or_null, spell_json
from idlepush.store.sqlite_transaction import Transaction
from idlepush.sync.events import EventType

STEP_BODIES: Final = 64
STEP_ROWS: Final = 500
STEP_OCTETS: Final = 16 * 1024 * 1024

_ACCOUNT: Final = "SELECT name, state, since, class, reason, details FROM account WHERE name = ?"
_SET_ACCOUNT: Final = """
    INSERT OR REPLACE INTO account (name, state, since, class, reason, details) VALUES (?, ?, ?, ?, ?, ?)
"""

_COUNT_TRAFFIC: Final = "INSERT OR REPLACE INTO traffic (account, day, octets) VALUES (?, ?, ?)"
_MOVE_CURSOR: Final = "INSERT OR REPLACE INTO cursor (sink, account, position) VALUES (?, ?, ?)"

# Bodies whose last row was expunged before the moment: nobody live refers to them, and nobody who went since.
_OLD_BODIES: Final = """
    SELECT body.id, body.octets
    FROM message AS gone JOIN body ON body.id = gone.body
    WHERE gone.expunged < :before AND gone.body IS NOT NULL
      AND NOT EXISTS (
          SELECT 1 FROM message AS kept
          WHERE kept.body = gone.body AND (kept.expunged IS NULL OR kept.expunged >= :before)
      )
    GROUP BY body.id
    LIMIT :step
"""
_LET_GO: Final = "UPDATE message SET body = NULL WHERE body = ?"

_OLD_ROWS: Final = "SELECT id, body FROM message WHERE expunged < ? LIMIT ?"
# Live rows and expunged ones are in indexes of their own.
_ROWS_OF: Final = """
    SELECT id, body FROM message
    WHERE mailbox IN (SELECT id FROM mailbox WHERE account = :account) AND expunged IS NULL
    UNION ALL
    SELECT id, body FROM message
    WHERE mailbox IN (SELECT id FROM mailbox WHERE account = :account) AND expunged IS NOT NULL
    LIMIT :step
"""
_DELETE_ROW: Final = "DELETE FROM message WHERE id = ?"
_IS_REFERRED_TO: Final = "SELECT 1 FROM message WHERE body = ? LIMIT 1"

# A generation that ended is kept for as long as a row tells its UIDVALIDITY.
_EMPTY_GENERATIONS: Final = """
    SELECT generation.id FROM generation
    WHERE generation.alive = 0
      AND NOT EXISTS (SELECT 1 FROM mailbox WHERE mailbox.generation = generation.id)
      AND NOT EXISTS (
          SELECT 1 FROM message
          WHERE message.mailbox = generation.mailbox AND message.generation = generation.id
            AND message.expunged IS NOT NULL
      )
"""


def set_account(transaction: Transaction, row: AccountRow) -> None:
    """See `Store.set_account`."""
    found = transaction.db.execute(_ACCOUNT, (row.name,)).fetchone()
    before = None if found is None else account_from(found)
    transaction.db.execute(
        _SET_ACCOUNT,
        (row.name, row.state, micros(row.since), row.failure_class, row.reason, spell_json(dict(row.details))),
    )
    details = details_of_state(before, row)
    if details is not None:
        transaction.tell(EventType.ACCOUNT_STATE, row.name, details)


def move_cursor(transaction: Transaction, position: int, sink: str, account: str) -> None:
    """See `Store.move_cursor`."""
    transaction.db.execute(_MOVE_CURSOR, (sink, account, position))


def count_traffic(transaction: Transaction, account: str, day: date, octets: int) -> None:
    """See `Store.count_traffic`."""
    transaction.db.execute(_COUNT_TRAFFIC, (account, day.isoformat(), octets))


def sweep_step(transaction: Transaction, sweep: Sweep) -> bool:
    """Take away some of what `Store.sweep` is to; return whether there may be more."""
    return _sweep_bodies(transaction, micros_or_null(sweep.bodies_before)) or _sweep_rows(
        transaction, micros_or_null(sweep.rows_before)
    )


def purge_begin(transaction: Transaction, account: str) -> None:
    """Forget the account, and let go of its mailboxes: what is still on its way to them is stale from here on."""
    transaction.db.execute("UPDATE mailbox SET generation = NULL WHERE account = ?", (account,))
    transaction.db.execute("DELETE FROM account WHERE name = ?", (account,))
    transaction.db.execute("DELETE FROM alert WHERE account = ?", (account,))
    transaction.db.execute("DELETE FROM cursor WHERE account = ?", (account,))
    transaction.db.execute("DELETE FROM traffic WHERE account = ?", (account,))


def purge_step(transaction: Transaction, account: str) -> bool:
    """Delete some of an account's rows, with the last of them its mailboxes; return whether there is more to do."""
    db = transaction.db
    rows = db.execute(_ROWS_OF, {"account": account, "step": STEP_ROWS}).fetchall()
    if rows:
        _delete_rows(transaction, rows)
        return True
    mailboxes = db.execute("SELECT id FROM mailbox WHERE account = ?", (account,)).fetchall()
    for mailbox in mailboxes:
        db.execute("DELETE FROM quarantine WHERE generation IN (SELECT id FROM generation WHERE mailbox = ?)", mailbox)
        db.execute("UPDATE mailbox SET generation = NULL WHERE id = ?", mailbox)
        db.execute("DELETE FROM generation WHERE mailbox = ?", mailbox)
        db.execute("DELETE FROM mailbox WHERE id = ?", mailbox)
    return False


def _sweep_bodies(transaction: Transaction, before: int | None) -> bool:
    if before is None:
        return False
    db = transaction.db
    octets = 0
    found = db.execute(_OLD_BODIES, {"before": before, "step": STEP_BODIES}).fetchall()
    for body, size in found:
        db.execute(_LET_GO, (body,))
        body_is_gone(db, body)
        transaction.bodies.drop(body)
        octets += size
        if octets > STEP_OCTETS:
            break
    return bool(found)


def _sweep_rows(transaction: Transaction, before: int | None) -> bool:
    db = transaction.db
    rows = [] if before is None else db.execute(_OLD_ROWS, (before, STEP_ROWS)).fetchall()
    if rows:
        _delete_rows(transaction, rows)
        return True
    for generation in db.execute(_EMPTY_GENERATIONS).fetchall():
        db.execute("DELETE FROM quarantine WHERE generation = ?", generation)
        db.execute("DELETE FROM generation WHERE id = ?", generation)
    return False


def _delete_rows(transaction: Transaction, rows: list[tuple[int, int | None]]) -> None:
    """Delete rows of `message`, and with the last row of a body the body: nothing could find it any more."""
    db = transaction.db
    db.executemany(_DELETE_ROW, [(number,) for number, _ in rows])
    for number, body in rows:
        row_is_gone(db, number, body)
    for body in {body for _, body in rows if body is not None}:
        if db.execute(_IS_REFERRED_TO, (body,)).fetchone() is None:
            body_is_gone(db, body)
            transaction.bodies.drop(body)
