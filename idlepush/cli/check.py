"""`check` and `verify`: log in beside whatever runs, and tell what is so."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated

import anyio
import typer

from idlepush.cli.options import ConfigOption, JsonOption, accounts_of, configuration, environment
from idlepush.cli.printing import complain, print_record, print_table
from idlepush.cli.repairing import repairing
from idlepush.config import Config
from idlepush.engine.probe import AccountCheck, check_account
from idlepush.engine.settings import AccountSettings
from idlepush.engine.verify import Differences, verify_account
from idlepush.errors import Trouble
from idlepush.store.base import Reader
from idlepush.store.sqlite import open_reader

_AT_ONCE = 10
"""Accounts that are logged in to at the same time."""


app = typer.Typer()


AccountsArgument = Annotated[list[str] | None, typer.Argument(help="Accounts; by default all that are enabled.")]


@app.command(epilog="Examples:\n\nidlepush check\n\nidlepush check alice --json\n\nidlepush check --offline")
def check(
    accounts: AccountsArgument = None,
    offline: Annotated[bool, typer.Option("--offline", help="Read the configuration and the secrets only.")] = False,
    as_json: JsonOption = False,
    config: ConfigOption = None,
) -> None:
    """Read the configuration, log in, and tell what each server can do.

    Exits with 1 where an account has problems.
    """
    settings = configuration(config)
    for problem in settings.problems:
        complain("\n".join(problem.sentences))
    chosen = accounts_of(settings, accounts)
    found = anyio.run(_check_all, chosen, offline)
    if as_json:
        for one in found:
            print_record(one.record())
    else:
        print_table(
            ("account", "host", "mailbox", "watch", "compare", "problems"),
            ((one.account, one.host, one.mailbox, one.watch, one.compare, "; ".join(one.problems)) for one in found),
            wrapped=("problems",),
        )
    if settings.problems or any(one.problems for one in found):
        raise typer.Exit(1)


async def _check_all(chosen: dict[str, AccountSettings], offline: bool) -> list[AccountCheck]:
    found: dict[str, AccountCheck] = {}
    limiter = anyio.CapacityLimiter(_AT_ONCE)

    async def one(account: AccountSettings) -> None:
        async with limiter:
            found[account.name] = await check_account(account, environment(), offline=offline)

    async with anyio.create_task_group() as tasks:
        for account in chosen.values():
            tasks.start_soon(one, account)
    return [found[name] for name in chosen]


@app.command(epilog="Examples:\n\nidlepush verify\n\nidlepush verify alice --deep\n\nidlepush verify --json")
def verify(
    accounts: AccountsArgument = None,
    deep: Annotated[bool, typer.Option("--deep", help="Compare every body's bytes, too.")] = False,
    repair: Annotated[
        bool, typer.Option("--repair", help="Make the mirror equal; by the service, where one runs.")
    ] = False,
    as_json: JsonOption = False,
    config: ConfigOption = None,
) -> None:
    """Hold the mirror against the server; exits with 1 where they differ, and not all of it was repaired."""
    settings = configuration(config)
    same = anyio.run(_verify_all, settings, accounts_of(settings, accounts), deep, repair, as_json)
    if not same:
        raise typer.Exit(1)


async def _verify_all(
    settings: Config, chosen: dict[str, AccountSettings], deep: bool, repair: bool, as_json: bool
) -> bool:
    same, reached, rows = True, True, []
    async with repairing(settings) if repair else _only_reading(settings) as (reader, repair_of):
        for account in chosen.values():
            try:
                async for found in verify_account(
                    account, environment(), reader, deep=deep, repair=repair_of(account) if repair_of else None
                ):
                    same = same and not found.left
                    if as_json:
                        print_record(found.record())
                    rows.append(found)
            except Trouble as trouble:
                complain(f"{account.name}: {trouble}")
                reached = False
    if not as_json:
        columns = ("account", "mailbox", "missing", "extra", "flags", "sizes", "bodies", "repaired")
        print_table(columns, map(_counts, rows))
    if not same:
        complain("mirror and server differ")
    elif not reached:
        complain("not every account could be compared")
    return same and reached


@asynccontextmanager
async def _only_reading(settings: Config) -> AsyncIterator[tuple[Reader, None]]:
    async with open_reader(settings.store.path) as reader:
        yield reader, None


def _counts(found: Differences) -> tuple[object, ...]:
    sets = (found.missing, found.extra, found.flags, found.sizes, found.bodies, found.repaired)
    return (found.account, found.mailbox, *map(len, sets))
