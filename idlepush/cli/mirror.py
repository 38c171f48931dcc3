"""`messages`, `raw`, `events`: read the mirror, whether the service runs or not."""

import sys
from pathlib import Path
from typing import Annotated

import anyio
import typer

from idlepush.cli.options import ConfigOption, JsonOption, configuration
from idlepush.cli.printing import print_record, print_table
from idlepush.errors import IdlepushError, InvalidQuery
from idlepush.imap.types import MailboxName
from idlepush.store.base import Reader
from idlepush.store.sqlite import open_reader
from idlepush.sync.events import rfc3339
from idlepush.sync.query import Query, read_query

_NEWEST = 50
_FOLLOW_EVERY = 0.25
_COLUMNS = ("mailbox", "uid", "date", "from", "subject", "flags", "size")


app = typer.Typer()


@app.command(
    epilog="Examples:\n\n"
    "idlepush messages alice\n\n"
    "idlepush messages alice --mailbox Archive -n 5\n\n"
    "idlepush messages alice --search 'invoice from:bob has:attachment after:2026-01-01'\n\n"
    "idlepush messages alice --json | jq -r .subject"
)
def messages(
    account: Annotated[str, typer.Argument(help="The account's name.")],
    mailbox: Annotated[str | None, typer.Option("--mailbox", "-m", help="Only this mailbox.")] = None,
    search: Annotated[
        str | None,
        typer.Option(
            "--search",
            "-s",
            help='Only what is found, newest first: words, "phrases", from: to: subject: filename: in: before: after: '
            "has:attachment is:unread, and -not.",
        ),
    ] = None,
    limit: Annotated[int | None, typer.Option("--limit", "-n", min=1, help="At most so many.")] = None,
    expunged: Annotated[bool, typer.Option("--expunged", help="Those that are gone, instead.")] = False,
    as_json: JsonOption = False,
    config: ConfigOption = None,
) -> None:
    """List an account's messages: the newest 50, or with --json every one by mailbox and UID."""
    if search is not None and expunged:
        raise typer.BadParameter("only live messages are searched", param_hint="--search with --expunged")
    try:
        query = None if search is None else read_query(search)
    except InvalidQuery as error:
        raise typer.BadParameter(str(error), param_hint="--search") from None
    store = configuration(config).store.path
    anyio.run(_messages, store, account, mailbox, limit, expunged, query, as_json)


async def _messages(
    store: Path,
    account: str,
    mailbox: str | None,
    limit: int | None,
    expunged: bool,
    query: Query | None,
    as_json: bool,
) -> None:
    name = MailboxName.from_text(mailbox) if mailbox is not None else None
    async with open_reader(store) as reader:
        await _must_know(reader, account)
        newest = not as_json
        bound = limit if limit is not None or as_json else _NEWEST
        rows = reader.messages(account, name, limit=bound, newest=newest, expunged=expunged, query=query)
        if as_json:
            async for row in rows:
                print_record(row.record())
            return
        listed = [row async for row in rows]
        print_table(
            _COLUMNS,
            (
                (
                    row.mailbox,
                    row.uid,
                    row.internal_date.strftime("%Y-%m-%d %H:%M") if row.internal_date else None,
                    ", ".join(one.name or one.address or "" for one in row.sender),
                    row.subject,
                    row.flags,
                    row.size,
                )
                for row in listed
            ),
        )


async def _must_know(reader: Reader, account: str) -> None:
    known = [row.name for row in await reader.accounts()] + [row.account for row in await reader.mailboxes(account)]
    if account not in known:
        raise IdlepushError(f"nothing is mirrored of an account {account!r}")


@app.command(epilog="Examples:\n\nidlepush raw alice INBOX 42 > message.eml")
def raw(
    account: Annotated[str, typer.Argument(help="The account's name.")],
    mailbox: Annotated[str, typer.Argument(help="The mailbox's name.")],
    uid: Annotated[int, typer.Argument(help="The message's UID.", min=1)],
    config: ConfigOption = None,
) -> None:
    """Write a raw message to stdout, byte for byte."""
    anyio.run(_raw, configuration(config).store.path, account, MailboxName.from_text(mailbox), uid)


async def _raw(store: Path, account: str, mailbox: MailboxName, uid: int) -> None:
    async with open_reader(store) as reader:
        row = await reader.find(account, mailbox, uid)
        if row is None:
            raise IdlepushError(f"there is no message {uid} in {mailbox} of {account}")
        try:
            async for part in reader.raw(row.id):
                sys.stdout.buffer.write(part)
        except KeyError:
            raise IdlepushError(f"message {uid} in {mailbox} of {account} is not mirrored whole") from None
        sys.stdout.buffer.flush()


@app.command(
    epilog="Examples:\n\n"
    "idlepush events --follow\n\n"
    "idlepush events --after 1200 --json\n\n"
    "idlepush events -f --json | jq -c 'select(.type == \"message.new\" and .initial == false)'"
)
def events(
    after: Annotated[int, typer.Option("--after", min=0, help="Only what came after this position.")] = 0,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on with what is coming.")] = False,
    as_json: JsonOption = False,
    config: ConfigOption = None,
) -> None:
    """Print the event log: what changed in the mirror, in order."""
    anyio.run(_events, configuration(config).store.path, after, follow, as_json)


async def _events(store: Path, after: int, follow: bool, as_json: bool) -> None:
    async with open_reader(store) as reader:
        while True:
            found = await reader.events(after)
            for event in found:
                if as_json:
                    print_record(event.record())
                else:
                    where = f"{event.mailbox or '':<20} {event.uid or '':>8}"
                    print(f"{event.position:>8}  {rfc3339(event.time)}  {event.type:<16} {event.account:<16} {where}")
                after = event.position
            if not found:
                if not follow:
                    return
                sys.stdout.flush()
                await anyio.sleep(_FOLLOW_EVERY)
