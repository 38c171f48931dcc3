"""How the accounts stand: as the service says, or as was last stored where none answers."""

from collections.abc import Mapping, Sequence
from typing import Any

import anyio

from idlepush.cli.asking import NotRunning, ServiceAt
from idlepush.cli.options import environment
from idlepush.config import Config
from idlepush.store.base import AccountRow, MailboxRow
from idlepush.store.sqlite import open_reader
from idlepush.sync.events import Json, rfc3339

Record = Mapping[str, Any]

_NEVER_RUN = {"state": "starting", "class": None, "reason": "it has not run yet", "since": None}


def standing(config: Config) -> Sequence[Record]:
    """Return the line of each enabled account, by name."""
    service = ServiceAt(config.http, environment())
    try:
        return list(service.items("/v1/accounts"))
    except NotRunning:
        return [_stored_line(name, *kept) for name, kept in _kept(config).items()]


def healths(config: Config) -> Sequence[Record]:
    """Return how well each enabled account is, by name."""
    service = ServiceAt(config.http, environment())
    try:
        return list(service.items("/v1/health"))
    except NotRunning:
        return [_stored_health(name, row) for name, (row, _) in _kept(config).items()]


_Kept = tuple[AccountRow | None, Sequence[MailboxRow]]


def _kept(config: Config) -> Mapping[str, _Kept]:
    """Return what is stored of each enabled account."""
    if not config.store.path.exists():
        return _matched(config, [], [])
    rows, mailboxes = anyio.run(_read, config)
    return _matched(config, rows, mailboxes)


async def _read(config: Config) -> tuple[Sequence[AccountRow], Sequence[MailboxRow]]:
    async with open_reader(config.store.path) as reader:
        return await reader.accounts(), await reader.mailboxes()


def _matched(config: Config, rows: Sequence[AccountRow], mailboxes: Sequence[MailboxRow]) -> Mapping[str, _Kept]:
    by_name = {row.name: row for row in rows}
    enabled = sorted(name for name, account in config.accounts.items() if account.enabled)
    alive = [row for row in mailboxes if row.state != "gone"]
    return {name: (by_name.get(name), [row for row in alive if row.account == name]) for name in enabled}


def _stored_line(name: str, row: AccountRow | None, mailboxes: Sequence[MailboxRow]) -> Record:
    kept: Mapping[str, Json] = row.details if row else {}
    stood = _NEVER_RUN
    if row is not None:
        stood = {
            "state": row.state,
            "class": row.failure_class,
            "reason": row.reason,
            "since": rfc3339(row.since),
        }
    return {
        "account": name,
        "state": stood["state"],
        "since": stood["since"],
        "class": stood["class"],
        "reason": stood["reason"],
        "health": kept.get("health"),
        "health_score": kept.get("health_score"),
        "mailboxes": len(mailboxes),
        "messages": sum(one.messages for one in mailboxes),
        "watch": kept.get("watch"),
        "backfill_remaining": kept.get("backfill_remaining", 0),
        "backfill_eta_seconds": None,
        "last_push": kept.get("last_push"),
        "last_poll": kept.get("last_poll"),
        "last_commit": kept.get("last_commit"),
        "last_audit": kept.get("last_audit"),
        "throttled_until": kept.get("throttled_until"),
        "running": False,
    }


def _stored_health(name: str, row: AccountRow | None) -> Record:
    kept: Mapping[str, Json] = row.details if row else {}
    return {
        "account": name,
        "score": kept.get("health_score"),
        "health": kept.get("health"),
        "reasons": kept.get("reasons", [_NEVER_RUN["reason"]] if row is None else []),
    }
