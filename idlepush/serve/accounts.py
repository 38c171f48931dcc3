"""`/v1/accounts`, `/v1/health`: how the accounts and their mailboxes stand."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from http import HTTPStatus
from typing import Annotated

from fastapi import APIRouter, Path, Query
from starlette.responses import Response

from idlepush.serve.answers import MOST_ITEMS, Limit, answer, documented, page
from idlepush.serve.behind import Behind, Control
from idlepush.serve.problems import Problem
from idlepush.serve.records import Account, AccountPage, HealthPage, MailboxPage
from idlepush.store.base import MailboxRow
from idlepush.sync.events import Json, rfc3339
from idlepush.telemetry.health import AccountHealth, ServiceHealth

Name = Annotated[str, Path(max_length=128, description="The account's name.")]
After = Annotated[str | None, Query(max_length=1000, description="The last page's `next`.")]


def routes(behind: Behind) -> APIRouter:
    """Make the routes."""
    router = APIRouter(tags=["accounts"])
    control, reader = behind.control, behind.reader

    @router.get("/v1/accounts", responses=documented(AccountPage))
    async def list_accounts(after: After = None, limit: Limit = MOST_ITEMS) -> Response:
        """How every account stands: the line that `idlepush status --json` prints."""
        names, next_name = _cut(sorted(control.accounts), after, limit)
        of: dict[str, list[MailboxRow]] = {}
        for row in await reader.mailboxes():
            of.setdefault(row.account, []).append(row)
        stand = control.accounts
        return page([status_of(stand[name], of.get(name, [])) for name in names if name in stand], next_name)

    @router.get("/v1/accounts/{name}", responses=documented(Account, 404))
    async def show_account(name: Name) -> Response:
        """How one account stands."""
        return answer(await status(behind, name))

    @router.get("/v1/accounts/{name}/mailboxes", responses=documented(MailboxPage, 404))
    async def list_mailboxes(name: Name, after: After = None, limit: Limit = MOST_ITEMS) -> Response:
        """How the account's mailboxes stand in the mirror."""
        known(control, name)
        by_name = {row.name: row for row in await reader.mailboxes(name)}
        names, next_name = _cut(sorted(by_name), after, limit)
        return page([mailbox_record(by_name[each]) for each in names], next_name)

    @router.get("/v1/health", responses=documented(HealthPage), tags=["health"])
    async def health(after: After = None, limit: Limit = MOST_ITEMS) -> Response:
        """How well every account is, and the service with them: as well as the one that is worst."""
        stand = dict(control.accounts)
        names, next_name = _cut(sorted(stand), after, limit)
        all_of_them = ServiceHealth.of([*stand.values()])
        return page(
            [stand[name].health_record() for name in names],
            next_name,
            health=all_of_them.health.value,
            score=all_of_them.health_score,
        )

    return router


def known(control: Control, name: str) -> AccountHealth:
    """Return how the account stands, or end the request: there is none."""
    found = control.accounts.get(name)
    if found is None:
        raise Problem(HTTPStatus.NOT_FOUND, "there is no such account, or it is not enabled")
    return found


async def status(behind: Behind, name: str) -> dict[str, Json]:
    """Return the line of one account, or end the request: there is none."""
    stands = known(behind.control, name)
    return status_of(stands, await behind.reader.mailboxes(name))


def _cut(names: Sequence[str], after: str | None, limit: int) -> tuple[Sequence[str], str | None]:
    """Return the names of one page, and the cursor to the next one."""
    behind = [name for name in names if after is None or name > after]
    shown = behind[:limit]
    return shown, shown[-1] if len(behind) > limit else None


def status_of(stands: AccountHealth, mailboxes: Iterable[MailboxRow]) -> dict[str, Json]:
    """Return the account's line: what the health knows, and what only the store can count."""
    rows = [row for row in mailboxes if row.state != "gone"]
    states = Counter(row.state for row in rows)
    counted = replace(stands, mailboxes=states.total(), messages=sum(row.messages for row in rows))
    return counted.record(running=True)


def mailbox_record(row: MailboxRow) -> dict[str, Json]:
    """Return the mailbox's line."""
    return {
        "account": row.account,
        "mailbox": row.name,
        "state": row.state,
        "uidvalidity": row.uidvalidity,
        "messages": row.messages,
        "backfill_remaining": row.remaining,
        "looked_at": rfc3339(row.looked_at),
        "audited_at": rfc3339(row.audited_at),
    }
