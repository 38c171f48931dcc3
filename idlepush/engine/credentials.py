"""Secrets: the value that never shows itself, the places it is kept, and how it is read from them.

A source is read at each login attempt, never when the configuration is loaded: a rotated file, credential or
keyring entry is picked up by the next login, and a place that cannot be read is one account's trouble alone.
"""

import hmac
import importlib
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Final, Never, assert_never, final

import anyio
import anyio.abc
import anyio.to_thread
from pydantic import (
    AfterValidator,
    BeforeValidator,
    Discriminator,
    Field,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    Tag,
    model_serializer,
    model_validator,
)
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

from idlepush.errors import SecretUnreadable
from idlepush.store.settings import FilePath, Settings

MASK: Final = "***"
READ_LIMIT: Final = 30.0  # seconds: a hung command, FIFO, network file or keyring dialog ends here
MAX_BYTES: Final = 64 * 1024  # of a secret; more is a wrong path or a command gone wild


@final
class Secret:
    """A text that shows itself to nobody but the caller of `reveal`.

    `str`, `repr` and every format are `***`, whatever the format's specification; it cannot be pickled, and a copy
    of it is itself. Two are compared in a time that does not depend on where they differ.
    """

    __slots__ = ("_text",)
    _text: str

    def __init__(self, text: str) -> None:
        object.__setattr__(self, "_text", text)

    def reveal(self) -> str:
        """Return the text; hold it no longer than the command that is made of it."""
        return self._text

    def __setattr__(self, name: str, value: object) -> Never:
        raise AttributeError("a secret does not change")

    def __repr__(self) -> str:
        return MASK

    def __format__(self, spec: str) -> str:
        return MASK

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Secret):
            return NotImplemented
        ours, theirs = (text.encode("utf-8", "surrogatepass") for text in (self._text, other._text))
        return hmac.compare_digest(ours, theirs)

    def __hash__(self) -> int:
        return hash((Secret, self._text))

    def __copy__(self) -> "Secret":
        return self

    def __deepcopy__(self, memo: object) -> "Secret":
        return self

    # `object.__getstate__` would hand out the slots to anyone who asks, pickling or not.
    def __getstate__(self) -> Never:
        raise TypeError("a secret is not pickled")

    def __reduce_ex__(self, protocol: object) -> Never:
        raise TypeError("a secret is not pickled")

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        """Take a text or a secret; write `***`."""
        return core_schema.union_schema(
            [
                core_schema.is_instance_schema(cls),
                core_schema.no_info_after_validator_function(cls, core_schema.str_schema(strict=True)),
            ],
            serialization=core_schema.plain_serializer_function_ser_schema(
                lambda _: MASK, return_schema=core_schema.str_schema(), when_used="json"
            ),
        )


def _entry(text: str) -> str:
    """Accept a name that names one thing: not empty, and in one piece."""
    if not text or not text.isprintable():
        raise ValueError("must be a name, not empty and without control characters")
    return text


def _variable(name: str) -> str:
    if "=" in _entry(name):
        raise ValueError("must be the name of an environment variable alone")
    return name


def _credential(name: str) -> str:
    # systemd names credentials like files; a path here would read from outside $CREDENTIALS_DIRECTORY.
    if "/" in _entry(name) or name in {".", ".."}:
        raise ValueError("must be the name of a systemd credential, without a slash")
    return name


def _argv(argv: tuple[str, ...]) -> tuple[str, ...]:
    if not argv or not argv[0] or not argv[0].isprintable():
        raise ValueError('must name a program and its arguments, like ["pass", "mail/alice"]')
    if any("\0" in argument for argument in argv):
        raise ValueError("must not hold NUL")
    return argv


class _Source(Settings):
    """Where a secret is kept; `str` and `repr` name the place and nothing else, and so does every dump."""

    @property
    def place(self) -> str:
        """The kind and the place, for an error's sentence; never content."""
        raise NotImplementedError

    def __str__(self) -> str:
        return self.place

    def __repr__(self) -> str:
        return f"<{self.place}>"

    @model_serializer(mode="plain")
    def _serialized(self) -> object:
        return self._shown()

    def _shown(self) -> object:
        """Write the source as the configuration does, with nothing secret in it."""
        return {key: str(getattr(self, key)) for key in type(self).model_fields}


class PlainSecret(_Source):
    """The secret itself, in the configuration's text."""

    text: Secret

    @property
    def place(self) -> str:
        return "plain text in the configuration"

    def _shown(self) -> object:
        return MASK

    @model_validator(mode="before")
    @classmethod
    def _from_text(cls, value: object) -> object:
        return {"text": value} if isinstance(value, str) else value

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        return {"type": "string", "minLength": 1, "description": "Then the file must not be readable by others."}


class FileSecret(_Source):
    """A file that holds the secret and at most one newline behind it."""

    file: FilePath = Field(examples=["secret.txt"])

    @property
    def place(self) -> str:
        return f"file {self.file}"


class EnvironmentSecret(_Source):
    """A variable of the service's environment."""

    env: Annotated[str, AfterValidator(_variable)] = Field(examples=["ALICE_PASSWORD"])

    @property
    def place(self) -> str:
        return f"environment variable {self.env}"


class CommandSecret(_Source):
    """A program whose first line of output is the secret, as mbsync's PassCmd has it."""

    command: Annotated[tuple[str, ...], Field(strict=False), AfterValidator(_argv)] = Field(
        examples=[["pass", "mail/alice"]]
    )

    @property
    def place(self) -> str:
        return f"command {self.command[0]}"

    def _shown(self) -> object:
        # People do put secrets among the arguments.
        return {"command": [self.command[0], *(MASK for _ in self.command[1:])]}


class CredentialSecret(_Source):
    """A systemd credential (LoadCredential=, LoadCredentialEncrypted=)."""

    credential: Annotated[str, AfterValidator(_credential)] = Field(examples=["alice"])

    @property
    def place(self) -> str:
        return f"systemd credential {self.credential}"


class KeyringSecret(_Source):
    """An entry of the desktop's keyring: `"service/username"`, or a username of the service `idlepush`."""

    keyring: Annotated[str, AfterValidator(_entry)] = Field(examples=["idlepush/alice"])

    @property
    def place(self) -> str:
        return f"keyring entry {self.keyring}"


SOURCES: Final[Mapping[str, type[_Source]]] = {
    "file": FileSecret,
    "env": EnvironmentSecret,
    "command": CommandSecret,
    "credential": CredentialSecret,
    "keyring": KeyringSecret,
}
_SHAPES: Final = (
    '{ file = "…" }, { env = "…" }, { command = ["…"] }, { credential = "…" }, { keyring = "…" } or a plain string'
)


def _shape(value: object) -> object:
    """Refuse what is no source before pydantic tries six models on it and tells of all six."""
    if isinstance(value, _Source):
        return value
    if isinstance(value, str):
        if not value:
            raise PydanticCustomError("secret", "must not be empty")
        if any(character in value for character in "\r\n\0"):
            raise PydanticCustomError("secret", "must be a single line")
        return value
    if not isinstance(value, dict):
        raise PydanticCustomError("secret", f"expected a secret: {_SHAPES}")
    unknown = [key for key in value if key not in SOURCES]
    if unknown:
        raise PydanticCustomError("secret_key", f"expected a secret: {_SHAPES}", {"unknown": unknown})
    if len(value) != 1:
        raise PydanticCustomError("secret", f"expected exactly one place of the secret: {_SHAPES}")
    return value


def _kind(value: object) -> str:
    if isinstance(value, dict):
        return str(next(iter(value)))
    return next((key for key, source in SOURCES.items() if isinstance(value, source)), "plain")


SecretSource = Annotated[
    Annotated[PlainSecret, Tag("plain")]
    | Annotated[FileSecret, Tag("file")]
    | Annotated[EnvironmentSecret, Tag("env")]
    | Annotated[CommandSecret, Tag("command")]
    | Annotated[CredentialSecret, Tag("credential")]
    | Annotated[KeyringSecret, Tag("keyring")],
    Discriminator(_kind),
    BeforeValidator(_shape),
]
"""Where a secret is kept, as one key of a settings model."""


async def read_secret(source: SecretSource, environment: Mapping[str, str]) -> Secret:
    """Read the secret from where it is now; nothing of an earlier reading is kept.

    *environment* is the service's own: variables and $CREDENTIALS_DIRECTORY are looked up in it, and a command
    runs in it.

    Raises:
        SecretUnreadable: the place gave nothing usable within 30 s. The sentence names the kind and the place;
            neither it nor an exception chained to it holds a byte of what was read.
    """
    trouble = "gave nothing"
    with anyio.move_on_after(READ_LIMIT) as deadline:
        try:
            match source:
                case PlainSecret():
                    return source.text
                case FileSecret():
                    raw = await _run_blocking(_read_file, source.file)
                case EnvironmentSecret():
                    raw = _read_variable(source.env, environment)
                case CredentialSecret():
                    raw = await _run_blocking(_read_file, _credential_file(source.credential, environment))
                case CommandSecret():
                    raw = await _read_command(source.command, environment)
                case KeyringSecret():
                    raw = await _run_blocking(_read_keyring, source.keyring)
                case _:
                    assert_never(source)
            return _usable(raw)
        except _Nothing as why:
            trouble = str(why)
    if deadline.cancelled_caught:
        trouble = f"did not answer within {READ_LIMIT:.0f} s"
    # Raised out here, where no exception is being handled: a UnicodeDecodeError holds what it could not decode.
    raise SecretUnreadable(f"the secret could not be read: {source.place} {trouble}")


class _Nothing(Exception):
    """The place gave nothing usable."""


async def _run_blocking(read: Any, place: object) -> bytes:
    # Abandoned when the limit passes: a file on a dead network mount is not interruptible.
    result: bytes = await anyio.to_thread.run_sync(read, place, abandon_on_cancel=True)
    return result


def _read_file(path: Path) -> bytes:
    try:
        with path.open("rb") as stream:
            raw = stream.read(MAX_BYTES + 1)
    except (OSError, ValueError) as error:
        raise _Nothing(f"is not readable ({_reason(error)})") from None
    return raw.removesuffix(b"\n").removesuffix(b"\r") if raw.endswith(b"\n") else raw


def _reason(error: Exception) -> str:
    return error.strerror.lower() if isinstance(error, OSError) and error.strerror else type(error).__name__


def _read_variable(name: str, environment: Mapping[str, str]) -> bytes:
    if name not in environment:
        raise _Nothing("is not set")
    return environment[name].encode("utf-8", "surrogateescape")


def _credential_file(name: str, environment: Mapping[str, str]) -> Path:
    directory = environment.get("CREDENTIALS_DIRECTORY")
    if not directory:
        raise _Nothing("is not there: $CREDENTIALS_DIRECTORY is not set")
    return Path(directory) / name


async def _read_command(argv: Sequence[str], environment: Mapping[str, str]) -> bytes:
    # Not `run_process`: that collects whatever the program prints, and `yes` prints gigabytes in the time it has.
    # Its stderr is thrown away: it may say more than it should.
    try:
        process = await anyio.open_process(
            argv, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=dict(environment)
        )
    except (OSError, ValueError) as error:
        raise _Nothing(f"could not be started ({_reason(error)})") from None
    async with process:
        raw = await _read_output(process)
        if len(raw) > MAX_BYTES:
            process.kill()
            raise _Nothing(f"printed more than {MAX_BYTES} bytes")
        status = await process.wait()
    if status:
        raise _Nothing(f"failed with exit status {status}")
    return raw.split(b"\n", 1)[0].removesuffix(b"\r")


async def _read_output(process: anyio.abc.Process) -> bytes:
    raw = bytearray()
    assert process.stdout is not None
    async for piece in process.stdout:
        raw += piece
        if len(raw) > MAX_BYTES:
            break
    return bytes(raw)


def _read_keyring(entry: str) -> bytes:
    service, slash, username = entry.partition("/")
    if not slash:
        service, username = "idlepush", entry
    try:
        text = importlib.import_module("keyring").get_password(service, username)
    except ImportError:
        raise _Nothing("needs the keyring extra: pip install 'idlepush[keyring]'") from None
    except Exception as error:  # backends raise whatever D-Bus, KWallet or a plug-in of theirs does
        raise _Nothing(f"is not readable ({type(error).__name__})") from None
    if text is None:
        raise _Nothing("does not exist")
    return str(text).encode("utf-8", "surrogatepass")


def _usable(raw: bytes) -> Secret:
    if not raw:
        raise _Nothing("is empty")
    if len(raw) > MAX_BYTES:
        raise _Nothing(f"is larger than {MAX_BYTES} bytes")
    if any(byte in raw for byte in b"\r\n\0"):
        # No mail server's password has these, and a file of several lines would only count as a failed login.
        raise _Nothing("holds more than one line")
    try:
        return Secret(raw.decode("utf-8"))
    except UnicodeDecodeError:
        raise _Nothing("is not UTF-8 text") from None
