"""Find the configuration, read it, and make frozen settings or readable sentences of it.

`load` looks at nothing but the files and the environment it is given, so a reload is a second `load`.
"""

import os
import shlex
import stat
import tomllib
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, Final, TypeVar

from pydantic import Field, ValidationError, create_model

from idlepush.config import lines, spelling
from idlepush.config.mistakes import Mistake, missing, mistakes, syntax, unknown_key
from idlepush.engine.settings import AccountSettings, LimitSettings
from idlepush.errors import ConfigError
from idlepush.serve.settings import HttpSettings
from idlepush.store.settings import SQLITE, Settings, StoreSettings
from idlepush.telemetry.settings import AlertSettings, MetricsSettings

SYSTEM_PATH: Final = Path("/etc/idlepush/idlepush.toml")
MAX_BYTES: Final = 256 * 1024**2  # of one file: a hundred thousand accounts are a tenth of it, a device has no end

_Settings = TypeVar("_Settings", bound=Settings)


def _optional(model: type[Settings], *, without: Collection[str]) -> type[Settings]:
    """Return *model* with every key free to be missing, each judged alone: nothing is judged together."""
    fields: dict[str, Any] = {
        name: (
            Annotated[(info.annotation, *info.metadata)] if info.metadata else info.annotation,
            Field(default=None, description=info.description, examples=info.examples),
        )
        for name, info in model.model_fields.items()
        if name not in without
    }
    return create_model("DefaultSettings", __base__=Settings, __doc__="`[defaults]`: any key of an account.", **fields)


DefaultSettings: Final = _optional(AccountSettings, without={"name"})

SECTIONS: Final[Mapping[str, type[Settings]]] = MappingProxyType(
    {
        "store": StoreSettings,
        "http": HttpSettings,
        "alerts": AlertSettings,
        "limits": LimitSettings,
        "metrics": MetricsSettings,
        "defaults": DefaultSettings,
    }
)
_STORE_DEFAULTS: Final = frozenset({"bodies", "max_message_bytes"})
_ACCOUNT_TABLE: Final = "expected a table for each account, headed like [accounts.alice]"


@dataclass(frozen=True, slots=True)
class Problem:
    """A file of `accounts.d` that was skipped, and every mistake in it."""

    file: Path
    sentences: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """The whole configuration, nothing in it left to default or to resolve.

    `accounts` holds the disabled ones too. An account whose file is among `problems` is not there: a reload that finds
    any keeps what it had.
    """

    path: Path
    store: StoreSettings
    http: HttpSettings
    alerts: AlertSettings
    limits: LimitSettings
    metrics: MetricsSettings
    accounts: Mapping[str, AccountSettings]
    files: tuple[Path, ...]  # whatever was read, the main file first
    problems: tuple[Problem, ...] = ()
    warnings: tuple[str, ...] = ()  # works, and is worth a line in the log


def service_environment() -> dict[str, str]:
    """Return the environment of this process; nothing else reads it."""
    return dict(os.environ)  # noqa: TID251 - this is the one place


def find(explicit: Path | None, environment: Mapping[str, str]) -> Path:
    """Return the configuration's file: the one that was named, else the first that is there.

    Raises:
        ConfigError: none was named and none is there; the sentence says where it was looked for.
    """
    if explicit is not None:
        return explicit
    if named := environment.get("IDLEPUSH_CONFIG"):
        return Path(named)
    candidates = [Path("idlepush.toml"), SYSTEM_PATH]
    home = _home_of(environment, "XDG_CONFIG_HOME", ".config")
    if home is not None:
        candidates.insert(1, home / "idlepush" / "idlepush.toml")
    for candidate in candidates:
        if _is_there(candidate):
            return candidate
    *first, last = (spelling.printable(str(candidate)) for candidate in candidates)
    raise ConfigError(
        f"no configuration: looked for {', '.join(first)} and {last}; name one with --config or $IDLEPUSH_CONFIG"
    )


def _is_there(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:
        return True  # it must not be looked into: reading it says so, passing over it would not


def _home_of(environment: Mapping[str, str], variable: str, beneath_home: str) -> Path | None:
    # The XDG specification: empty counts as unset, and a relative path is to be ignored.
    named, home = environment.get(variable, ""), environment.get("HOME", "")
    if Path(named).is_absolute():
        return Path(named)
    return Path(home, beneath_home) if Path(home).is_absolute() else None


def load(path: Path, environment: Mapping[str, str]) -> Config:
    """Read *path* and the `accounts.d` beside it.

    Raises:
        ConfigError: *path* cannot be read or is wrong. Each line of the text is one mistake, with its file, line and
            key, in the order of the lines; none holds a value of the file. Mistakes in `accounts.d` raise nothing:
            they are the `problems` of what is returned.
    """
    main = _Document.read(path, environment)
    for key in main.tables.keys() - SECTIONS.keys() - {"accounts"}:
        main.found.append(_unknown_table(key, main.tables[key], known=[*SECTIONS, "accounts"]))
    store = main.section("store", StoreSettings, _anchor_store)
    http = main.section("http", HttpSettings, _anchor_http)
    alerts = main.section("alerts", AlertSettings, _anchor_alerts)
    limits = main.section("limits", LimitSettings)
    metrics = main.section("metrics", MetricsSettings)
    main.section("defaults", DefaultSettings, _anchor_account)

    # What is wrong where it stands is told once, there, and not again by each account that inherits it.
    broken = {name: main.broken_keys(name) for name in ("store", "defaults")}
    from_store = {key: main.raw("store")[key] for key in _STORE_DEFAULTS & main.raw("store").keys() - broken["store"]}
    defaults = _anchor_account(main.raw("defaults"), main)
    inherited = from_store | {key: defaults[key] for key in defaults.keys() - broken["defaults"]}
    accounts = main.accounts(inherited, excused=broken["defaults"])
    main.plain_secrets(*_plain_secrets(main))
    main.maildirs(accounts, {}, store)
    main.close()
    assert store
    assert http
    assert alerts
    assert limits
    assert metrics

    owners = dict.fromkeys(accounts, path)
    files = [path]
    drop_ins, failed = _drop_ins(path.parent / "accounts.d")
    for file in drop_ins:
        try:
            added = _Document.read(file, environment).drop_in(inherited, owners, accounts, store)
        except ConfigError as error:
            failed.append(Problem(file, tuple(str(error).splitlines())))
            continue
        files.append(file)
        accounts |= added
        owners |= dict.fromkeys(added, file)
    return Config(
        path=path,
        store=store,
        http=http,
        alerts=alerts,
        limits=limits,
        metrics=metrics,
        accounts=MappingProxyType(accounts),
        files=tuple(files),
        problems=tuple(failed),
        warnings=_warnings(main),
    )


def _drop_ins(directory: Path) -> tuple[list[Path], list[Problem]]:
    try:
        # Hidden ones are what editors and half-done copies leave behind.
        found = sorted(file for file in directory.iterdir() if file.suffix == ".toml" and not file.name.startswith("."))
    except (FileNotFoundError, NotADirectoryError):
        return [], []
    except OSError as error:
        return [], [Problem(directory, (_unreadable(directory, error),))]
    return found, []


def _plain_secrets(document: "_Document") -> list[lines.Path]:
    """Return where passwords and tokens stand in the text itself; alert URLs are told apart, as a warning."""
    at: list[lines.Path] = [("http", "token")] if isinstance(document.raw("http").get("token"), str) else []
    if isinstance(document.raw("defaults").get("password"), str):
        at.append(("defaults", "password"))
    for name, account in document.raw("accounts").items():
        if isinstance(account, dict) and isinstance(account.get("password"), str):
            at.append(("accounts", name, "password"))
    return at


def _warnings(main: "_Document") -> tuple[str, ...]:
    urls = main.raw("alerts").get("urls", [])
    plain = next((place for place, url in enumerate(urls) if isinstance(url, str)), None)
    if plain is None or not main.is_exposed:
        return ()
    what = f'others can read this file, and most alert URLs hold a key: {main.chmod}, or use {{ file = "…" }}'
    return (main.sentence(Mistake(("alerts", "urls", plain), what)),)


def _unknown_table(key: str, table: object, *, known: Collection[str]) -> Mistake:
    account_keys = DefaultSettings.model_fields
    if key in account_keys:
        return Mistake((key,), "unknown key here; it belongs in [accounts.NAME], or in [defaults]")
    mistake = unknown_key((key,), known)
    if mistake.meant is None and isinstance(table, dict) and table.keys() & account_keys.keys():
        return Mistake((key,), f"unknown table; did you mean [{spelling.dotted(('accounts', key))}]?")
    return mistake


def _elsewhere(but: str) -> dict[str, Collection[str]]:
    tables: dict[str, Collection[str]] = {
        name: model.model_fields for name, model in SECTIONS.items() if name not in {but, "defaults"}
    }
    if but not in {"defaults", "accounts"}:
        tables["accounts.NAME"] = DefaultSettings.model_fields
    return tables


def _beneath(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Lay *above* over *below*; host and hosts are two ways to say one thing, so one of them hides the other."""
    hidden = {"host": "hosts", "hosts": "host"}
    covered = {hidden[key] for key in above if key in hidden}
    return {key: given for key, given in below.items() if key not in covered} | dict(above)


@dataclass
class _Document:
    """One TOML file, and the mistakes found in it so far."""

    file: Path
    # What may hold secrets is no part of the repr, which tracebacks with locals and debuggers print.
    text: str = field(repr=False)
    tables: dict[str, Any] = field(repr=False)
    status: os.stat_result
    environment: Mapping[str, str] = field(repr=False)
    found: list[Mistake] = field(default_factory=list)

    @classmethod
    def read(cls, file: Path, environment: Mapping[str, str]) -> "_Document":
        """Read and parse, or raise a ConfigError of one sentence."""
        text, failed = "", ""
        tables: dict[str, Any] = {}
        try:
            with file.open("rb") as stream:
                status, raw = os.fstat(stream.fileno()), stream.read(MAX_BYTES + 1)
        except (OSError, ValueError) as error:
            failed = _unreadable(file, error)
        else:
            text, failed = _decode(file, raw)
        if not failed:
            tables, failed = _parse(file, text)
        if failed:
            # Raised out here: the exceptions of decoding and parsing hold the file's text, secrets and all.
            raise ConfigError(failed)
        return cls(file=file, text=text, tables=tables, status=status, environment=environment)

    def raw(self, name: str) -> dict[str, Any]:
        """Return a table as it stands in the file, and an empty one when it is none."""
        table = self.tables.get(name, {})
        return table if isinstance(table, dict) else {}

    def section(self, name: str, model: type[_Settings], prepare: "_Preparation | None" = None) -> _Settings | None:
        """Validate one table of the file; None where it is mistaken."""
        table = self.tables.get(name, {})
        prepared = prepare(table, self) if prepare and isinstance(table, dict) else table
        try:
            return model.model_validate(prepared)
        except ValidationError as error:
            self.found += mistakes(error, table=prepared, at=(name,), model=model, elsewhere=_elsewhere(name))
            return None

    def broken_keys(self, name: str) -> set[str]:
        """Return the keys of a section that have been found mistaken."""
        return {str(mistake.path[1]) for mistake in self.found if mistake.path[0] == name and len(mistake.path) > 1}

    def accounts(self, inherited: Mapping[str, Any], excused: Collection[str] = ()) -> dict[str, AccountSettings]:
        """Validate the file's accounts; a missing key that is *excused* is one that would have been inherited."""
        tables = self.tables.get("accounts", {})
        if not isinstance(tables, dict):
            self.mistaken(("accounts",), _ACCOUNT_TABLE)
            return {}
        stray = next((name for name, table in tables.items() if not isinstance(table, dict)), None)
        if stray is not None:
            # Once is enough: whoever leaves out the name leaves it out for all of an account's keys.
            self.mistaken(("accounts", stray), _ACCOUNT_TABLE)
        found = {
            name: self._account(name, own, inherited, excused) for name, own in tables.items() if isinstance(own, dict)
        }
        return {name: account for name, account in found.items() if account is not None}

    def drop_in(
        self,
        inherited: Mapping[str, Any],
        owners: Mapping[str, Path],
        others: Mapping[str, AccountSettings],
        store: StoreSettings,
    ) -> dict[str, AccountSettings]:
        """Return the accounts of a file of `accounts.d`.

        Raises:
            ConfigError: anything in the file is wrong, or an account of it has been defined by another file.
        """
        for key in self.tables.keys() - {"accounts"}:
            if key in SECTIONS:
                self.mistaken((key,), "belongs in the main file; those in accounts.d hold only [accounts.NAME]")
            else:
                self.found.append(_unknown_table(key, self.tables[key], known=["accounts"]))
        accounts = self.accounts(inherited)
        for name in self.raw("accounts").keys() & owners.keys():
            self.mistaken(("accounts", name), f"this account is defined in {spelling.printable(str(owners[name]))}")
        self.plain_secrets(*_plain_secrets(self))
        self.maildirs(accounts, others, store)
        self.close()
        return accounts

    def maildirs(
        self,
        accounts: Mapping[str, AccountSettings],
        others: Mapping[str, AccountSettings],
        store: StoreSettings | None,
    ) -> None:
        """Refuse a Maildir of these accounts that is another account's too, within another one, or has the store."""
        taken = {account.maildir: name for name, account in others.items() if account.maildir is not None}
        database = None if store is None else store.path
        for name, account in accounts.items():
            if account.maildir is None:
                continue
            at, maildir = ("accounts", name, "maildir"), account.maildir
            owner = next((owner for other, owner in taken.items() if _overlap(other, maildir)), None)
            if owner is not None:
                self.mistaken(at, f"this folder is, or is within, or holds that of the account {owner}")
            if database is not None and _overlap(database, maildir):
                self.mistaken(at, "the store is in this folder; a Maildir needs one of its own")
            taken[maildir] = name

    def _account(
        self, name: str, own: dict[str, Any], inherited: Mapping[str, Any], excused: Collection[str]
    ) -> AccountSettings | None:
        at: lines.Path = ("accounts", name)
        if "name" in own:
            self.mistaken((*at, "name"), "unknown key; an account's name stands in its header, [accounts.NAME]")
        merged = _beneath(inherited, _anchor_account(own, self)) | {"name": name}
        try:
            return AccountSettings.model_validate(merged)
        except ValidationError as error:
            found = mistakes(error, table=merged, at=at, model=AccountSettings, elsewhere=_elsewhere("accounts"))
        if not ({"host", "hosts"} & (merged.keys() | {mistake.meant or mistake.path[-1] for mistake in found})):
            # Keys are judged together only when each is good by itself; this much can be said all the same.
            found.append(missing((*at, "host"), AccountSettings))
        for mistake in found:
            key = mistake.path[2]
            if key == "name":
                self.mistaken(at, mistake.sentence)
            elif not (mistake.is_missing and key in excused):
                self.found.append(mistake)
        return None

    def anchor(self, path: str) -> str:
        """Make *path*, which stands in this file, absolute; an empty one stays what it is, a mistake."""
        home = self.environment.get("HOME", "")
        if path.startswith("~/") and home:
            return str(Path(home, path[2:]))
        return str(self.file.absolute().parent / path) if path else path

    @cached_property
    def is_exposed(self) -> bool:
        """Whether others than the file's owner and the service can read it.

        A file of root's may be readable by its group when the service runs as another user: that is how it reads it.
        """
        mode = self.status.st_mode
        if not stat.S_ISREG(mode):
            return False
        through_group = self.status.st_uid == 0 and os.geteuid() != 0
        return bool(mode & (stat.S_IROTH if through_group else stat.S_IROTH | stat.S_IRGRP))

    @property
    def chmod(self) -> str:
        """The command that closes the file to others."""
        return f"chmod 600 {spelling.printable(shlex.quote(str(self.file)))}"

    def plain_secrets(self, *paths: lines.Path) -> None:
        """Refuse secrets that stand in a file that others can read; once, for one command mends it."""
        if self.is_exposed and paths:
            first = min(paths, key=self._line)
            self.mistaken(first, f'others can read this file: {self.chmod}, or write {first[-1]} = {{ file = "…" }}')

    def mistaken(self, path: lines.Path, sentence: str) -> None:
        """Remember what is wrong at *path*."""
        self.found.append(Mistake(path, sentence))

    def sentence(self, mistake: Mistake) -> str:
        """Write the mistake with its file, line and key."""
        file, key = spelling.printable(str(self.file)), spelling.dotted(mistake.path)
        return f"{file}:{self._line(mistake.path)}: {key}: {mistake.sentence}"

    def _line(self, path: lines.Path) -> int:
        return lines.line_of(self._lines, path)

    @cached_property
    def _lines(self) -> Mapping[lines.Path, int]:
        return lines.locate(self.text)  # slow, and wanted only when something is wrong

    def close(self) -> None:
        """Raise the ConfigError of all mistakes found, if any."""
        if self.found:
            ordered = sorted(self.found, key=lambda mistake: self._line(mistake.path))
            raise ConfigError("\n".join(dict.fromkeys(self.sentence(mistake) for mistake in ordered)))


def _overlap(one: Path, other: Path) -> bool:
    one, other = Path(os.path.normpath(one)), Path(os.path.normpath(other))
    return one.is_relative_to(other) or other.is_relative_to(one)


def _unreadable(file: Path, error: Exception) -> str:
    reason = error.strerror.lower() if isinstance(error, OSError) and error.strerror else type(error).__name__
    return f"{spelling.printable(str(file))}: cannot be read: {reason}"


def _decode(file: Path, raw: bytes) -> tuple[str, str]:
    """Return the text, or what is wrong with it."""
    shown = spelling.printable(str(file))
    if len(raw) > MAX_BYTES:
        return "", f"{shown}: cannot be read: larger than {MAX_BYTES} bytes"
    try:
        return raw.decode("utf-8-sig"), ""  # Windows editors leave a mark at the beginning
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        return "", f"{shown}:{line}: not UTF-8 text; save the file in that encoding"


def _parse(file: Path, text: str) -> tuple[dict[str, Any], str]:
    """Return the tables, or what is wrong with the text."""
    shown = spelling.printable(str(file))
    try:
        return tomllib.loads(text), ""
    except tomllib.TOMLDecodeError as error:
        line, sentence = syntax(error, text)
        return {}, f"{shown}:{line}: {sentence}"
    except (ValueError, RecursionError):
        # Beyond tomllib itself: whole numbers of thousands of digits, brackets in brackets in brackets.
        return {}, f"{shown}:1: not valid TOML: a number is too long or brackets are nested too deep"


_Preparation = Callable[[dict[str, Any], _Document], dict[str, Any]]


def _anchor_secret(source: Any, document: _Document) -> Any:
    match source:
        case {"file": str() as file, **rest}:
            return {"file": document.anchor(file), **rest}
        case {"command": [str() as program, *arguments], **rest} if program.startswith(("./", "../", "~/")):
            return {"command": [document.anchor(program), *arguments], **rest}
        case _:
            return source


def _anchor_account(table: dict[str, Any], document: _Document) -> dict[str, Any]:
    anchored = dict(table)
    if "password" in table:
        anchored["password"] = _anchor_secret(table["password"], document)
    for key in ("tls_ca", "maildir"):
        if isinstance(table.get(key), str):
            anchored[key] = document.anchor(table[key])
    return anchored


def _anchor_http(table: dict[str, Any], document: _Document) -> dict[str, Any]:
    anchored = dict(table)
    if "token" in table:
        anchored["token"] = _anchor_secret(table["token"], document)
    listen = table.get("listen")
    if isinstance(listen, str) and listen.startswith("unix:"):
        anchored["listen"] = f"unix:{document.anchor(listen.removeprefix('unix:'))}"
    return anchored


def _anchor_alerts(table: dict[str, Any], document: _Document) -> dict[str, Any]:
    if not isinstance(table.get("urls"), list):
        return table
    return table | {"urls": [_anchor_secret(url, document) for url in table["urls"]]}


def _anchor_store(table: dict[str, Any], document: _Document) -> dict[str, Any]:
    """Make the database's path absolute, or put in the place that the environment has for it."""
    url = table.get("url")
    if isinstance(url, str) and (path := url.removeprefix(SQLITE)) not in {url, ""}:
        # The slash at its end would be lost, and it is what makes a directory of the path, which is a mistake.
        return table | {"url": url if path.endswith("/") else SQLITE + document.anchor(path)}
    if url is None and (place := _state_home(document.environment)):
        return table | {"url": f"{SQLITE}{place / 'mirror.db'}"}
    return table


def _state_home(environment: Mapping[str, str]) -> Path | None:
    directory = environment.get("STATE_DIRECTORY", "").split(":")[0]  # systemd lists several this way
    if directory:
        return Path(directory)
    home = _home_of(environment, "XDG_STATE_HOME", ".local/state")
    return home / "idlepush" if home else None
