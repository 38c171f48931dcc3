"""pymap, a second opinion on IMAP: in a process of its own, on a free port of loopback, with its mail in memory.

It has IDLE, UIDPLUS and OBJECTID, but neither CONDSTORE nor TLS here. Run as a program, this file is that process: it
serves the users named in its arguments, prints its port, and ends when its standard input does.
"""

import asyncio
import imaplib
import subprocess
import sys
import threading
from argparse import Namespace
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final, Self

PASSWORD: Final = "pass-of-everyone"  # an account of a throw-away server


class PymapServer:
    """A running pymap; use it as a context manager."""

    def __init__(self, users: Mapping[str, str] | Iterable[str] = ("alice",)) -> None:
        """Take the users' names and passwords, or names alone, whose password is then `PASSWORD`."""
        self.host = "127.0.0.1"
        self.port = 0
        self._users = dict(users) if isinstance(users, Mapping) else dict.fromkeys(users, PASSWORD)
        self._process: subprocess.Popen[bytes] | None = None
        self._writers: dict[str, imaplib.IMAP4] = {}
        self._lock = threading.Lock()

    def start(self) -> None:
        """Start it and return when it listens."""
        words = [word for pair in self._users.items() for word in pair]
        self._process = subprocess.Popen(
            [sys.executable, str(Path(__file__).resolve()), *words], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        assert self._process.stdout
        line = self._process.stdout.readline()
        if not line:
            self.close()
            raise RuntimeError("pymap did not start")
        self.port = int(line)

    def close(self) -> None:
        """End it; its mail is gone."""
        for writer in self._writers.values():
            writer.shutdown()
        self._writers.clear()
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.communicate()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def imap(self, user: str) -> imaplib.IMAP4:
        """Log in with the standard library's client; it is a context manager."""
        client = imaplib.IMAP4(self.host, self.port, timeout=30)
        try:
            client.login(user, self._users[user])
        except BaseException:
            client.shutdown()
            raise
        return client

    def deliver(self, user: str, raw: bytes, *, mailbox: str = "INBOX", flags: Iterable[str] = ()) -> int:
        """Append a message and return its UID. Line ends become CRLF. Blocks: from a loop, call it in a thread."""
        with self._lock:
            writer = self._writers.get(user)
            if writer is None:
                writer = self._writers[user] = self.imap(user)
            status, answer = writer.append(f'"{mailbox}"', f"({' '.join(flags)})", "", raw)
            if status != "OK":
                raise RuntimeError(f"pymap did not take the message: {answer!r}")
            _, codes = writer.response("APPENDUID")
            return int(codes[-1].split()[1])


async def _serve(users: Mapping[str, str]) -> None:
    """Be the server until standard input ends."""
    # pymap is imported here, so that the tests' own process never holds it.
    from proxyprotocol.reader import ProxyProtocolReader  # noqa: PLC0415
    from pymap.backend.dict import DictBackend  # noqa: PLC0415
    from pymap.imap import IMAPServer  # noqa: PLC0415
    from pymap.user import Passwords, UserMetadata  # noqa: PLC0415

    name, password = next(iter(users.items()))
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
    backend, config = await DictBackend.init(arguments, invalid_user_sleep=0, secure_auth=False)
    config.apply_context()
    for name, password in users.items():
        hashed = await Passwords(config).hash_password(password)
        backend.login.users_dict[name] = UserMetadata(config, name, password=hashed)
    accept = ProxyProtocolReader(config.proxy_protocol).get_callback(IMAPServer(backend.login, config))
    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    async with server:
        print(server.sockets[0].getsockname()[1], flush=True)
        await asyncio.to_thread(sys.stdin.read)


if __name__ == "__main__":
    asyncio.run(_serve(dict(zip(sys.argv[1::2], sys.argv[2::2], strict=True))))
