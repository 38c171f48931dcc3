"""The demo's mail server: pymap, with its mail in memory, on a free port of loopback.

Run as a program it is that process: it reads its users and their passwords from stdin, prints its port, and ends when
stdin does, so it cannot outlive the demo, however that ends.
"""

import asyncio
import imaplib
import json
import subprocess
import sys
from argparse import Namespace
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from typing import Final

import anyio
import anyio.abc
import anyio.to_thread

from idlepush.errors import IdlepushError

START_WITHIN: Final = 30.0
PATIENCE: Final = 20.0


@dataclass(frozen=True, slots=True)
class MailServer:
    """A running server."""

    host: str
    port: int
    passwords: Mapping[str, str]

    async def deliver(self, user: str, raw: bytes) -> None:
        """Put a message into the user's INBOX."""
        await anyio.to_thread.run_sync(self._deliver, user, raw, abandon_on_cancel=True)

    async def tidy(self, user: str, *, expunge: bool) -> None:
        """Do what a person does with the oldest message that was not read yet: read it, or delete it."""
        await anyio.to_thread.run_sync(self._tidy, user, expunge, abandon_on_cancel=True)

    def _deliver(self, user: str, raw: bytes) -> None:
        with self._session(user) as session:
            session.append("INBOX", "", "", raw)

    def _tidy(self, user: str, expunge: bool) -> None:  # noqa: FBT001 - positional through a thread
        with self._session(user) as session:
            session.select("INBOX")
            _, (found, *_) = session.uid("SEARCH", "UNSEEN")
            uids = found.split() if isinstance(found, bytes) else []
            if not uids:
                return
            session.uid("STORE", uids[0].decode(), "+FLAGS", r"(\Deleted)" if expunge else r"(\Seen)")
            if expunge:
                session.expunge()

    @contextmanager
    def _session(self, user: str) -> Iterator[imaplib.IMAP4]:
        with imaplib.IMAP4(self.host, self.port, timeout=PATIENCE) as session:
            session.login(user, self.passwords[user])
            yield session


@asynccontextmanager
async def mail_server(passwords: Mapping[str, str]) -> AsyncIterator[MailServer]:
    """Run a server with these users until the block ends.

    Raises:
        IdlepushError: it did not start.
    """
    # A session of its own: Ctrl-C is for the demo, which says LOGOUT before it ends the server.
    process = await anyio.open_process(
        [sys.executable, "-m", "idlepush.demo.mailserver"], stderr=subprocess.DEVNULL, start_new_session=True
    )
    try:
        yield MailServer("127.0.0.1", await _port_of(process, passwords), passwords)
    finally:
        with anyio.CancelScope(shield=True):
            with suppress(ProcessLookupError):
                process.kill()
            await process.aclose()


async def _port_of(process: anyio.abc.Process, passwords: Mapping[str, str]) -> int:
    assert process.stdin is not None
    assert process.stdout is not None
    with (
        suppress(TimeoutError, anyio.EndOfStream, anyio.BrokenResourceError, ValueError),
        anyio.fail_after(START_WITHIN),
    ):
        await process.stdin.send(json.dumps(dict(passwords)).encode() + b"\n")
        said = b""
        while not said.endswith(b"\n"):
            said += await process.stdout.receive()
        return int(said)
    raise IdlepushError("the demo's mail server did not start; is pymap installed? pip install 'idlepush[demo]'")


async def _serve(passwords: Mapping[str, str]) -> None:
    """Be the server until stdin ends."""
    # Only the server's own process holds pymap.
    from proxyprotocol.reader import ProxyProtocolReader  # noqa: PLC0415
    from pymap.backend.dict import DictBackend  # noqa: PLC0415
    from pymap.imap import IMAPServer  # noqa: PLC0415
    from pymap.user import Passwords, UserMetadata  # noqa: PLC0415
    from pysasl.hashing import BuiltinHash  # noqa: PLC0415

    name, password = next(iter(passwords.items()))
    arguments = Namespace(
        host="127.0.0.1",
        port=0,
        debug=False,
        cert=None,
        key=None,
        tls=False,
        passlib_cfg=None,
        proxy_protocol=None,
        demo_data=False,
        demo_user=name,
        demo_password=password,
    )
    # The passwords stand in this process's memory anyway; half a million rounds would only cost a third of a second a
    # login.
    hashing = BuiltinHash(rounds=1)
    backend, config = await DictBackend.init(arguments, invalid_user_sleep=0, secure_auth=False, hash_context=hashing)
    config.apply_context()
    for name, password in passwords.items():
        hashed = await Passwords(config).hash_password(password)
        backend.login.users_dict[name] = UserMetadata(config, name, password=hashed)
    accept = ProxyProtocolReader(config.proxy_protocol).get_callback(IMAPServer(backend.login, config))
    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    async with server:
        print(server.sockets[0].getsockname()[1], flush=True)  # noqa: T201 - how the demo learns the port
        await asyncio.to_thread(sys.stdin.read)


if __name__ == "__main__":
    asyncio.run(_serve(json.loads(sys.stdin.readline())))
