"""What `run` runs: the service with its logs, until a signal ends it."""

import logging
import resource
from contextlib import suppress
from pathlib import Path

import anyio
import structlog

from idlepush.app.service import service, tell_problems
from idlepush.cli.options import configuration, environment
from idlepush.cli.printing import complain
from idlepush.config import Config
from idlepush.telemetry import logs


def run(config: Path | None, *, verbose: int, quiet: bool) -> None:
    """Read the configuration and serve."""
    logs.configure(level_of(verbose, quiet=quiet))
    settings = configuration(config)
    tell_problems(settings)
    _allow_many_files()
    anyio.run(_serve, settings, backend_options={"use_uvloop": True})


def _allow_many_files() -> None:
    """Take as many descriptors as this process may have: each account needs one, and 1024 is a usual beginning."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def level_of(verbose: int, *, quiet: bool) -> int:
    """Return the log level that -v and -q ask for."""
    if quiet:
        return logging.WARNING
    return logging.DEBUG if verbose else logging.INFO


async def _serve(settings: Config) -> None:
    enabled = [name for name, account in settings.accounts.items() if account.enabled]
    if not enabled:
        complain("there is no enabled account in the configuration; add one with: idlepush account add")
    async with service(settings, environment(), [logs.Logs()]) as running:
        log = structlog.get_logger()
        log.info("service.started", accounts=len(enabled), store=str(settings.store.path))
        await running.run()
        log.info("service.stopped")
