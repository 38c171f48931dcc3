"""What people were told, in SQLite: the statements of `Store.add_alerts` and what belongs to it."""

import sqlite3
from collections.abc import Sequence
from typing import Final

from idlepush.store.base import AlertRow
from idlepush.store.spelling import details_of_alert
from idlepush.store.sqlite_rows import micros, moment_of
from idlepush.store.sqlite_transaction import Transaction
from idlepush.sync.events import EventType

_ALERTS: Final = "SELECT account, since, told, class, reason FROM alert ORDER BY account"
_ADD: Final = "INSERT OR REPLACE INTO alert (account, since, told, class, reason) VALUES (?, ?, ?, ?, ?)"
_FORGET: Final = "DELETE FROM alert WHERE account = ?"


def alerts(db: sqlite3.Connection) -> Sequence[AlertRow]:
    """See `Reader.alerts`."""
    return [
        AlertRow(
            account=account,
            resolved=False,
            since=moment_of(since),
            told=moment_of(told),
            failure_class=failure_class,
            reason=reason,
        )
        for account, since, told, failure_class, reason in db.execute(_ALERTS)
    ]


def add_alerts(transaction: Transaction, rows: Sequence[AlertRow]) -> None:
    """See `Store.add_alerts`."""
    for row in rows:
        if row.resolved:
            forget_alert(transaction, row.account)
        else:
            columns = row.account, micros(row.since), micros(row.told), row.failure_class, row.reason
            transaction.db.execute(_ADD, columns)
        transaction.tell(EventType.ACCOUNT_ALERT, row.account, details_of_alert(row))


def forget_alert(transaction: Transaction, account: str) -> None:
    """See `Store.forget_alert`."""
    transaction.db.execute(_FORGET, (account,))
