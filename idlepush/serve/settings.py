"""Where the HTTP side listens, and whom it answers."""

import re
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, Field, model_validator
from pydantic_core import PydanticCustomError

from idlepush.engine.credentials import SecretSource
from idlepush.engine.settings import is_loopback, parse_host
from idlepush.store.settings import Settings

_WANTED = 'expected "host:port", "unix:/path/of/socket", or "" for none, like "127.0.0.1:8143"'


def _split(listen: str) -> tuple[str, int]:
    host, colon, port = listen.rpartition(":")
    if not colon or not re.fullmatch("[0-9]{1,5}", port) or int(port) > 65535 or (":" in host and host[0] != "["):
        raise ValueError(_WANTED)
    return (parse_host(host) if host else ""), int(port)


def _listen(listen: str) -> str:
    if listen.startswith("unix:"):
        if listen == "unix:" or not listen.isprintable():
            raise ValueError(_WANTED)
    elif listen:
        try:
            _split(listen)
        except ValueError:
            raise ValueError(_WANTED) from None
    return listen


class HttpSettings(Settings):
    """`[http]`: at most one of `address` and `unix_path` is there; neither: nothing listens."""

    listen: Annotated[str, AfterValidator(_listen)] = Field(
        default="127.0.0.1:8143",
        description='"host:port" (port 0: any free one), "unix:/path", or "" for none.',
        examples=["127.0.0.1:8143"],
    )
    token: SecretSource | None = Field(
        default=None,
        description="The bearer token; needed wherever listen is not loopback or a unix socket.",
        examples=[{"file": "api-token"}],
    )

    @property
    def address(self) -> tuple[str, int] | None:
        """Host and port of a TCP listener; an empty host is every address of this machine."""
        return _split(self.listen) if self.listen and self.unix_path is None else None

    @property
    def unix_path(self) -> Path | None:
        """The socket's path of a unix listener."""
        return Path(self.listen.removeprefix("unix:")) if self.listen.startswith("unix:") else None

    @model_validator(mode="after")
    def _no_open_door(self) -> "HttpSettings":
        if self.address and self.token is None and not is_loopback(self.address[0]):
            raise PydanticCustomError(
                "together",
                "{sentence}",
                {
                    "sentence": "others can reach this address, so a token is needed: "
                    'set token = { file = "api-token" }, or listen on 127.0.0.1 or a unix socket',
                    "key": "listen",
                },
            )
        return self
