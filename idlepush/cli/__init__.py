"""The commands. Exit status: 0 done; 2 the command line or the configuration is wrong; 1 all else.

The reason is the last line on stderr. What a server or a message says is printed with its control characters taken out.

A command's module is imported when that command runs: `--help` and a listing of messages do not wait for an HTTP
server to be imported.
"""

import importlib
import sys
from collections.abc import Mapping
from typing import Annotated, Any, Final

import typer
import typer.core
import typer.main

import idlepush
from idlepush.cli.printing import complain
from idlepush.errors import ConfigError, IdlepushError

COMMANDS: Final[Mapping[str, tuple[str, str]]] = {
    "run": ("run", "Watch every account until SIGTERM or Ctrl-C."),
    "demo": ("demo", "Show it all, with nothing to set up."),
    "check": ("check", "Read the configuration, log in, and tell what each server can do."),
    "status": ("status", "How every account stands."),
    "top": ("top", "How every account stands, kept on the screen."),
    "health": ("status", "How well every account is, and what is wrong with it."),
    "account": ("account", "List, add, pause, resume, wake and remove accounts."),
    "messages": ("mirror", "List an account's messages."),
    "raw": ("mirror", "Write a raw message to stdout, byte for byte."),
    "events": ("mirror", "Print the event log: what changed in the mirror, in order."),
    "verify": ("check", "Hold the mirror against the server."),
    "config": ("config", "Show the configuration that is in force, and its schema."),
}
"""Each command's module, and the line that `--help` has for it."""


class _OnDemand(typer.core.TyperGroup):
    """Knows every command by name, and imports the one that is run."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Put the command itself in the place of its line."""
        if args and args[0] in COMMANDS:
            self.commands[args[0]] = load(args[0])
        return super().resolve_command(ctx, args)


def load(name: str) -> Any:
    """Import and build the command *name*."""
    module = importlib.import_module(f"idlepush.cli.{COMMANDS[name][0]}")
    group = typer.main.get_group(module.app)
    return group.commands.get(name, group)


app = typer.Typer(
    cls=_OnDemand,
    name="idlepush",
    help="Keep mirrors of IMAP mailboxes seconds behind their servers.",
    epilog="Begin with:\n\nidlepush demo\n\nidlepush check\n\nidlepush run",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)


def _unloaded() -> None:
    raise AssertionError("a command is loaded before it runs")


for _name, (_, _line) in COMMANDS.items():
    app.command(_name, help=_line)(_unloaded)


def _version(asked: bool) -> None:
    if asked:
        print(f"idlepush {idlepush.__version__}")
        raise typer.Exit


@app.callback()
def _main(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Keep mirrors of IMAP mailboxes seconds behind their servers."""


def main() -> None:
    """Run the command line; every error of ours is one readable sentence, never a traceback."""
    try:
        sys.exit(app(prog_name="idlepush", standalone_mode=False))
    except typer.TyperException as error:
        # Not in a box: the reason is the last line.
        show = getattr(error, "show", None)
        complain(str(error)) if show is None else show()
        sys.exit(error.exit_code)
    except typer.Abort:
        complain("given up")
        sys.exit(1)
    except ConfigError as error:
        complain(str(error))
        sys.exit(2)
    except (IdlepushError, OSError) as error:
        complain(str(error))
        sys.exit(1)
