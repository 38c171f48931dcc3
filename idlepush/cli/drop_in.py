"""`accounts.d/NAME.toml`: one account in a file of its own, written for its owner alone, and deleted again."""

import os
import tomllib
from collections.abc import Mapping
from pathlib import Path

import typer

from idlepush.config import Config, load, spelling
from idlepush.engine.settings import ACCOUNT_NAME
from idlepush.errors import ConfigError, IdlepushError


def write_drop_in(settings: Config, name: str, keys: Mapping[str, object], environment: Mapping[str, str]) -> Path:
    """Write the account's file and return its path. A file that is there already is never touched.

    Raises:
        ConfigError: what was given makes no account; nothing was written.
        IdlepushError: there is such a file already.
    """
    if not ACCOUNT_NAME.fullmatch(name):
        raise typer.BadParameter(
            "an account's name has 1 to 128 of A-Z a-z 0-9 . _ @ + - and begins with neither . nor -", param_hint="NAME"
        )
    directory = settings.path.parent / "accounts.d"
    directory.mkdir(mode=0o700, exist_ok=True)
    file = directory / f"{name}.toml"
    lines = [
        f"[{spelling.dotted(('accounts', name))}]",
        *(f"{key} = {spelling.value(value)}" for key, value in keys.items()),
    ]
    _write_once(file, "".join(f"{line}\n" for line in lines))
    mistakes = [
        sentence
        for problem in load(settings.path, environment).problems
        if problem.file == file
        for sentence in problem.sentences
    ]
    if mistakes:
        file.unlink()
        raise ConfigError("\n".join(["nothing was written:", *mistakes]))
    return file


def _write_once(file: Path, text: str) -> None:
    # Whole or not at all: a service that reads its configuration meanwhile passes over hidden files.
    draft = file.with_name(f".{file.name}.{os.getpid()}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
            stream.write(text)
            stream.flush()
            os.fsync(stream.fileno())
        os.link(draft, file)
    except FileExistsError:
        raise IdlepushError(f"there is a file {file} already") from None
    finally:
        draft.unlink()


def remove_drop_in(settings: Config, name: str) -> Path:
    """Delete the account's file and return what its path was.

    Raises:
        IdlepushError: the account is not defined in a file of its own.
    """
    file = settings.path.parent / "accounts.d" / f"{name}.toml"
    if file not in settings.files:
        raise IdlepushError(f"{name} is not defined in {file}: take it out of the file that it stands in")
    if tomllib.loads(file.read_text("utf-8-sig"))["accounts"].keys() != {name}:
        raise IdlepushError(f"{file} defines other accounts, too: take {name} out of it by hand")
    file.unlink()
    return file
