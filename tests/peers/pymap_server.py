"""pymap, a second opinion on IMAP: in a process of its own, on a free port of loopback, with its mail in memory.

It has IDLE, UIDPLUS and OBJECTID, but neither CONDSTORE nor TLS here. The demo's `mailserver` is that process.
"""

import imaplib
import json
import socket
import subprocess
import sys
import threading
from collections.abc import Iterable, Mapping
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
        program = [sys.executable, "-m", "idlepush.demo.mailserver"]
        self._process = subprocess.Popen(program, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write(json.dumps(self._users).encode() + b"\n")
        self._process.stdin.flush()
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
        # imaplib writes a literal behind its command; without this it would wait 40 ms for that to be acknowledged.
        client.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
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
