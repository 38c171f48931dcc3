"""`idlepush run`: the service."""

import logging
import sys

import anyio
import structlog
import typer

from idlepush.app.service import service, tell_problems
from idlepush.cli.options import ConfigOption, QuietOption, VerboseOption, configuration, environment
from idlepush.config import Config
from idlepush.telemetry import logs

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
    logs.configure(level_of(verbose, quiet=quiet))
    settings = configuration(config)
    tell_problems(settings)
    anyio.run(_serve, settings, backend_options={"use_uvloop": True})


def level_of(verbose: int, *, quiet: bool) -> int:
    """Return the log level that -v and -q ask for."""
    if quiet:
        return logging.WARNING
    return logging.DEBUG if verbose else logging.INFO


async def _serve(settings: Config) -> None:
    enabled = [name for name, account in settings.accounts.items() if account.enabled]
    if not enabled:
        print("there is no enabled account in the configuration; add [accounts.NAME] to it", file=sys.stderr)
    async with service(settings, environment(), [logs.Logs()]) as running:
        log = structlog.get_logger()
        log.info("service.started", accounts=len(enabled), store=str(settings.store.path))
        await running.run()
        log.info("service.stopped")
