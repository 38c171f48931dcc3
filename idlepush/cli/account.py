"""`account`: list, add and remove accounts in the configuration; pause, resume and wake those of the service."""

import shlex
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import anyio
import typer

from idlepush.app.clock import utc_now
from idlepush.cli.asking import NotRunning, ServiceAt, account_path
from idlepush.cli.drop_in import remove_drop_in, write_drop_in
from idlepush.cli.options import ConfigOption, JsonOption, configuration, environment
from idlepush.cli.printing import print_record, print_table
from idlepush.cli.standing import standing
from idlepush.config import Config
from idlepush.errors import IdlepushError
from idlepush.store.sqlite import open_reader, open_store

app = typer.Typer(
    name="account",
    help="List, add, pause, resume, wake and remove accounts.",
    epilog="Examples:\n\n"
    "idlepush account add alice --host imap.example.org --username alice@example.org\n\n"
    "idlepush account list\n\n"
    "idlepush account pause alice",
    no_args_is_help=True,
)

NameArgument = Annotated[str, typer.Argument(help="The account's name.")]


@app.command("list", epilog="Examples:\n\nidlepush account list\n\nidlepush account list --json")
def list_accounts(as_json: JsonOption = False, config: ConfigOption = None) -> None:
    """List the accounts that are configured, the disabled ones too."""
    settings = configuration(config)
    stand = {str(line["account"]): line for line in standing(settings)}
    records: list[dict[str, Any]] = []
    for name, account in sorted(settings.accounts.items()):
        line = stand.get(name, {})
        records.append(
            {
                "account": name,
                "enabled": account.enabled,
                "host": account.host or ", ".join(account.hosts or ()),
                "username": account.username,
                "state": line.get("state"),
                "running": bool(line.get("running")),
            }
        )
    if as_json:
        for record in records:
            print_record(record)
        return
    print_table(
        ("account", "enabled", "host", "username", "state", "running"), (tuple(one.values()) for one in records)
    )


# Orders


@app.command(epilog="Example:\n\nidlepush account pause alice")
def pause(name: NameArgument, config: ConfigOption = None) -> None:
    """End the account's session, and begin none until it is resumed; a restart changes nothing of that."""
    _order(name, "pause", config)


@app.command(epilog="Example:\n\nidlepush account resume alice")
def resume(name: NameArgument, config: ConfigOption = None) -> None:
    """Watch a paused account again."""
    _order(name, "resume", config)


@app.command(epilog="Example:\n\nidlepush account wake alice")
def wake(name: NameArgument, config: ConfigOption = None) -> None:
    """Have the account look at its server at once; a parked one tries its password again."""
    _order(name, "wake", config)


def _order(name: str, order: str, config: Path | None) -> None:
    settings = configuration(config)
    _must_be_configured(settings, name)
    line = ServiceAt(settings.http, environment()).post(account_path(name, order))
    print(f"{name}: {line['state']}")


def _must_be_configured(settings: Config, name: str) -> None:
    if name not in settings.accounts:
        raise IdlepushError(f"there is no account {name!r}; configured are: {', '.join(settings.accounts) or 'none'}")


# The configuration


@app.command(
    epilog="Examples:\n\n"
    "idlepush account add alice\n\n"
    "idlepush account add alice --host imap.example.org --username alice@example.org --password-file /run/alice\n\n"
    "idlepush account add bob --host imap.example.org --username bob --password-command 'pass mail/bob' -m '*'\n\n"
    "pass mail/carol | idlepush account add carol --host imap.example.org --username carol --password-stdin"
)
def add(
    name: NameArgument,
    host: Annotated[str | None, typer.Option("--host", help="The IMAP server.")] = None,
    username: Annotated[str | None, typer.Option("--username", "-u", help="The login's name.")] = None,
    port: Annotated[int | None, typer.Option("--port", help="By default 993, or 143 without implicit TLS.")] = None,
    tls: Annotated[str | None, typer.Option("--tls", help="implicit (the default), starttls or none.")] = None,
    tls_ca: Annotated[Path | None, typer.Option("--tls-ca", help="A PEM file of extra trust.")] = None,
    auth: Annotated[str | None, typer.Option("--auth", help="password (the default), xoauth2 or oauthbearer.")] = None,
    mailbox: Annotated[
        list[str] | None, typer.Option("--mailbox", "-m", help="A pattern of what to mirror; may be repeated.")
    ] = None,
    password_file: Annotated[Path | None, typer.Option("--password-file", help="A file that holds it.")] = None,
    password_env: Annotated[str | None, typer.Option("--password-env", help="A variable of the service's.")] = None,
    password_command: Annotated[
        str | None, typer.Option("--password-command", help="A command whose first line of output it is.")
    ] = None,
    password_credential: Annotated[
        str | None, typer.Option("--password-credential", help="A systemd credential's name.")
    ] = None,
    password_keyring: Annotated[str | None, typer.Option("--password-keyring", help="A keyring entry.")] = None,
    password_stdin: Annotated[
        bool, typer.Option("--password-stdin", help="Read it from stdin, and keep it in the account's file.")
    ] = False,
    config: ConfigOption = None,
) -> None:
    """Write accounts.d/NAME.toml beside the configuration, for its owner alone to read.

    What is not given is asked for; a password that is typed is not shown. A service that runs takes the account up.
    """
    settings = configuration(config)
    if name in settings.accounts:
        raise IdlepushError(f"there is an account {name!r} already")
    places = {
        "file": password_file and str(password_file.absolute()),
        "env": password_env,
        "command": password_command and shlex.split(password_command),
        "credential": password_credential,
        "keyring": password_keyring,
    }
    keys: dict[str, Any] = {
        "host": host or _asked("IMAP server", "--host"),
        "port": port,
        "tls": tls,
        "tls_ca": tls_ca and str(tls_ca.absolute()),
        "auth": auth,
        "username": username or _asked("Username", "--username"),
        "password": _password({key: place for key, place in places.items() if place}, from_stdin=password_stdin),
        "mailboxes": mailbox or None,
    }
    given = {key: value for key, value in keys.items() if value is not None}
    print(f"wrote {write_drop_in(settings, name, given, environment())}")
    _tell_of_change(ServiceAt(settings.http, environment()), f"to try it: idlepush check {name}")


def _asked(what: str, option: str) -> str:
    if not sys.stdin.isatty():
        raise typer.BadParameter("it is missing, and there is no terminal to ask on", param_hint=option)
    return str(typer.prompt(what))


def _password(places: Mapping[str, object], *, from_stdin: bool) -> object:
    """Return the password's place, or the password itself where it is to be kept in the account's file."""
    if len(places) + from_stdin > 1:
        raise typer.BadParameter("a password is in one place only", param_hint="--password-…")
    if places:
        return places
    if from_stdin:
        return sys.stdin.readline().rstrip("\r\n")
    if not sys.stdin.isatty():
        raise typer.BadParameter("it is missing, and there is no terminal to ask on", param_hint="--password-file")
    return str(typer.prompt("Password", hide_input=True))


@app.command(epilog="Examples:\n\nidlepush account remove alice\n\nidlepush account remove alice --purge")
def remove(
    name: NameArgument,
    purge: Annotated[bool, typer.Option("--purge", help="Delete what was mirrored of it, too.")] = False,
    config: ConfigOption = None,
) -> None:
    """Delete accounts.d/NAME.toml; what was mirrored stays, unless --purge says otherwise."""
    settings = configuration(config)
    service = ServiceAt(settings.http, environment())
    if name in settings.accounts:
        print(f"removed {remove_drop_in(settings, name)}")
    elif not (purge and anyio.run(_is_stored, settings, name)):
        _must_be_configured(settings, name)
    if not purge:
        _tell_of_change(service, f"what was mirrored stays; to delete it: idlepush account remove {name} --purge")
        return
    try:
        service.post(account_path(name, "purge"))
    except NotRunning:
        anyio.run(_purge, settings, name)
    print(f"deleted what was mirrored of {name}")


def _tell_of_change(service: ServiceAt, hint: str) -> None:
    try:
        service.post("/v1/reload")
    except NotRunning:
        print(hint)
    else:
        print(f"the service knows; {hint}")


async def _is_stored(settings: Config, name: str) -> bool:
    if not settings.store.path.exists():
        return False
    async with open_reader(settings.store.path) as reader:
        return name in {row.name for row in await reader.accounts()} or bool(await reader.mailboxes(name))


async def _purge(settings: Config, name: str) -> None:
    if settings.store.path.exists():
        async with open_store(settings.store.path, clock=utc_now) as store:
            await store.purge(name)
