"""The store's settings, and the base that every other ring's settings stand on."""

from pathlib import Path
from typing import Annotated, Final, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, PlainSerializer, WithJsonSchema

from idlepush.store.quantities import Duration, Size, parse_duration, spell_duration

Bodies = Literal["full", "headers"]

SQLITE: Final = "sqlite:///"


class Settings(BaseModel):
    """A table of the configuration: frozen, no key but its own, no value coerced, no value shown in an error."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, hide_input_in_errors=True, defer_build=True)


def _file(path: Path) -> Path:
    if path == Path() or not str(path).isprintable():
        raise ValueError("must be the path of a file")
    return path


FilePath = Annotated[Path, Field(strict=False), AfterValidator(_file)]
"""The path of a file that need not exist yet; the configuration makes it absolute."""


def _store_url(url: str) -> str:
    if url.startswith(("postgres:", "postgresql:", "postgresql+")):
        raise ValueError('this version stores in SQLite only: write "sqlite:///mirror.db"')
    path = url.removeprefix(SQLITE)
    if path == url:
        raise ValueError('expected "sqlite:///mirror.db" (beside this file) or "sqlite:////var/lib/idlepush/mirror.db"')
    if not path or path.endswith("/"):
        raise ValueError('the file is missing: expected one, like "sqlite:///mirror.db"')
    if path.startswith(":memory:"):
        raise ValueError('a mirror has to outlive its process: name a file, like "sqlite:///mirror.db"')
    if "?" in path or "#" in path or not path.isprintable():
        raise ValueError('expected a plain path after "sqlite:///", without ?, # or control characters')
    return url


def _event_retention(value: object) -> object:
    if value is None or value == "forever":
        return None
    try:
        return parse_duration(value)
    except ValueError as error:
        raise ValueError(f'{error}, or "forever"') from None


class StoreSettings(Settings):
    """`[store]`: where the mirror is kept, and how much of it."""

    url: Annotated[str, AfterValidator(_store_url)] = Field(
        description="sqlite:///x is relative to this file, sqlite:////x absolute. "
        "Without it: $STATE_DIRECTORY/mirror.db, else $XDG_STATE_HOME/idlepush/mirror.db.",
        examples=["sqlite:///mirror.db"],
    )
    bodies: Bodies = Field(
        default="full", description="Mirror whole messages, or their headers and structure.", examples=["full"]
    )
    max_message_bytes: Size = Field(
        default=50 * 1024**2,
        description="A larger message is mirrored by its headers and structure; 0 is no bound.",
        examples=["50MiB"],
    )
    retain_expunged: Duration = Field(
        default=30 * 86_400.0, description="How long a row outlives its message.", examples=["30d"]
    )
    keep_expunged_bodies: bool = Field(
        default=False, description="Keep raw bytes as long as their rows, not 15 minutes.", examples=[False]
    )
    event_retention: Annotated[
        float | None,
        BeforeValidator(_event_retention),
        PlainSerializer(lambda kept: "forever" if kept is None else spell_duration(kept), when_used="json"),
        WithJsonSchema({"type": "string", "examples": ["30d", "forever"]}),
    ] = Field(default=30 * 86_400.0, description='How long events are kept; "forever" keeps all.', examples=["30d"])

    @property
    def path(self) -> Path:
        """The database's file; the configuration makes it absolute before anyone asks."""
        return Path(self.url.removeprefix(SQLITE))
