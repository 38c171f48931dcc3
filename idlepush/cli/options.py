"""The options that many commands take, and what they lead to: the configuration, an account, the store."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import typer

from idlepush.config import Config, find, load, service_environment
from idlepush.engine.settings import AccountSettings
from idlepush.errors import IdlepushError

ConfigOption = Annotated[
    Path | None,
    typer.Option("-c", "--config", help="The configuration; by default it is looked for in the usual places."),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON Lines instead of a table.")]
VerboseOption = Annotated[int, typer.Option("-v", "--verbose", count=True, help="Log more; twice: all.")]
QuietOption = Annotated[bool, typer.Option("-q", "--quiet", help="Log warnings and errors only.")]


def environment() -> Mapping[str, str]:
    """Return the process's environment."""
    return service_environment()


def configuration(path: Path | None) -> Config:
    """Find and load the configuration.

    Raises:
        ConfigError: there is none, or it is wrong.
    """
    return load(find(path, environment()), environment())


def accounts_of(config: Config, names: list[str] | None) -> dict[str, AccountSettings]:
    """Return the accounts named, or all that are enabled.

    Raises:
        IdlepushError: there is no such account.
    """
    if not names:
        return {name: account for name, account in config.accounts.items() if account.enabled}
    for name in names:
        if name not in config.accounts:
            raise IdlepushError(f"there is no account {name!r}; configured are: {', '.join(config.accounts) or 'none'}")
    return {name: config.accounts[name] for name in names}
