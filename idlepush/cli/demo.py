"""`demo`: the product with nothing to set up."""

import logging
import sys
from typing import Annotated

import anyio
import typer

from idlepush.cli.ending import ending_cleanly
from idlepush.cli.options import environment
from idlepush.store.quantities import parse_duration
from idlepush.telemetry import logs

app = typer.Typer()


@app.command(epilog="Examples:\n\nidlepush demo\n\nidlepush demo --for 30s")
def demo(
    duration: Annotated[
        str | None, typer.Option("--for", metavar="DURATION", help="End after so long, like 30s or 2m.")
    ] = None,
) -> None:
    """Show it all, with nothing to set up.

    A mail server of its own, two accounts, mail that arrives every few seconds, the mirror in a temporary folder, a
    line for every event, and the HTTP interface with its metrics on a free port. Ctrl-C ends it, and nothing is left.
    """
    try:
        seconds = None if duration is None else parse_duration(duration)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--for") from None
    logs.configure(logging.WARNING)
    with ending_cleanly():
        from idlepush.demo.show import show  # noqa: PLC0415 - it takes its time

        anyio.run(
            lambda: show(
                seconds, colours=sys.stdout.isatty() and not environment().get("NO_COLOR"), environment=environment()
            ),
            backend_options={"use_uvloop": True},
        )
