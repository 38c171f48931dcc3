"""`idlepush run`: the service."""

import typer

from idlepush.cli.ending import ending_cleanly
from idlepush.cli.options import ConfigOption, QuietOption, VerboseOption

app = typer.Typer()


@app.command(
    epilog="Examples:\n\n"
    "idlepush run\n\n"
    "idlepush run -c ./idlepush.toml -v\n\n"
    "kill -HUP PID reads the configuration again; kill -USR1 PID looks at once."
)
def run(config: ConfigOption = None, verbose: VerboseOption = 0, quiet: QuietOption = False) -> None:
    """Watch every account until SIGTERM or Ctrl-C.

    SIGHUP reads the configuration again, SIGUSR1 looks at every account at once.
    """
    # What takes its time is imported where the signals are heeded already.
    with ending_cleanly():
        from idlepush.cli import serving  # noqa: PLC0415

        serving.run(config, verbose=verbose, quiet=quiet)
