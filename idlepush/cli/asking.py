"""The service, asked over HTTP at `listen`: a client as small as what it asks, for TCP and unix sockets."""

import http.client
import json
import socket
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote, urlencode

import anyio

from idlepush.engine.credentials import Secret, read_secret
from idlepush.errors import IdlepushError
from idlepush.serve.settings import HttpSettings

PATIENCE: Final = 15.0
PAGE: Final = 1000
_EVERY_ADDRESS: Final = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - where others listen


class NotRunning(IdlepushError):
    """Nobody answers where the service would listen."""


class ServiceAt:
    """The service that the configuration tells of. Each question is a connection of its own."""

    def __init__(self, settings: HttpSettings, environment: Mapping[str, str]) -> None:
        self._settings = settings
        self._environment = environment

    @property
    def place(self) -> str:
        """Where it listens, for a sentence."""
        return self._settings.listen or "nowhere: listen is empty in [http]"

    def get(self, path: str, **asked: str | int) -> Mapping[str, Any]:
        """Ask.

        Raises:
            NotRunning: nobody answers there.
            IdlepushError: the answer is a problem; the sentence is its detail.
        """
        return self._exchange("GET", f"{path}?{urlencode(asked)}" if asked else path)

    def post(self, path: str) -> Mapping[str, Any]:
        """Give an order; raises what `get` does."""
        return self._exchange("POST", path)

    def items(self, path: str) -> Iterator[Mapping[str, Any]]:
        """Ask for a list, all pages of it."""
        asked: dict[str, str | int] = {"limit": PAGE}
        while True:
            page = self.get(path, **asked)
            yield from page["items"]
            if page["next"] is None:
                return
            asked["after"] = page["next"]

    def _exchange(self, method: str, path: str) -> Mapping[str, Any]:
        connection = self._connection()
        try:
            connection.request(method, path, headers=self._headers())
            answer = connection.getresponse()
            kind, body = answer.headers.get_content_type(), answer.read()
        except (ConnectionRefusedError, FileNotFoundError):
            raise NotRunning(f"no service answers at {self.place}; start one with: idlepush run") from None
        except TimeoutError:
            raise IdlepushError(f"the service at {self.place} does not answer within {PATIENCE:.0f} s") from None
        except (OSError, http.client.HTTPException) as error:
            reason = str(error) or type(error).__name__
            raise IdlepushError(f"the service at {self.place} could not be asked: {reason}") from None
        finally:
            connection.close()
        return self._understood(kind, body, answer.status)

    def _connection(self) -> http.client.HTTPConnection:
        if self._settings.unix_path is not None:
            return _UnixConnection(self._settings.unix_path)
        if self._settings.address is None:
            raise NotRunning('no service can be asked: listen is "" in [http]')
        host, port = self._settings.address
        return http.client.HTTPConnection(_EVERY_ADDRESS.get(host, host), port, timeout=PATIENCE)

    def _headers(self) -> Mapping[str, str]:
        if self._settings.token is None:
            return {}
        token: Secret = anyio.run(read_secret, self._settings.token, self._environment)
        return {"Authorization": f"Bearer {token.reveal()}"}

    def _understood(self, kind: str, body: bytes, status: int) -> Mapping[str, Any]:
        try:
            record = json.loads(body) if kind in ("application/json", "application/problem+json") else None
        except ValueError:
            record = None
        if not isinstance(record, dict):
            raise IdlepushError(f"what answers at {self.place} is no idlepush")
        if status == http.client.UNAUTHORIZED:
            raise IdlepushError(f"the service at {self.place} does not take the token of [http]")
        if status >= http.client.BAD_REQUEST:
            raise IdlepushError(str(record.get("detail", f"the service answers with status {status}")))
        return record


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=PATIENCE)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(PATIENCE)
        self.sock.connect(str(self._path))


def account_path(name: str, *rest: str) -> str:
    """Return the path of an account, or of something of it."""
    return "/".join(("/v1/accounts", quote(name, safe=""), *rest))
