"""The commands. Exit status: 0 done; 2 the command line or the configuration is wrong; 1 all else.

The reason is the last line on stderr. What a server or a message says is printed with its control characters taken out.
"""

import sys
from typing import Annotated

import typer

import idlepush
from idlepush.cli import check, mirror, run
from idlepush.cli.printing import complain
from idlepush.errors import ConfigError, IdlepushError

app = typer.Typer(
    name="idlepush",
    help="Keep mirrors of IMAP mailboxes seconds behind their servers.",
    epilog="Begin with: idlepush check   then: idlepush run",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)
run.register(app)
check.register(app)
mirror.register(app)


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
        app()
    except ConfigError as error:
        complain(str(error))
        sys.exit(2)
    except (IdlepushError, OSError) as error:
        complain(str(error))
        sys.exit(1)
    except BrokenPipeError:
        sys.exit(1)
