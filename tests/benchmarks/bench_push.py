"""Push: from LMTP's answer and from EXISTS to the commit, beside a raw socket that idles, fetches and commits.

`python -m tests.benchmarks.bench_push [--samples 200] [--tls] [--compress]`

Both watch a user of the same Dovecot in the same run, each in a process of its own, and are sent the same mails in
turn. The raw client knows nothing but this one mail: no flags, no events, no checkpoint. It is the limit, not a peer.
"""

import argparse
import json
import os
import re
import socket
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import IO

import anyio

from idlepush.app.clock import utc_now
from idlepush.engine.limits import LoginLimit
from idlepush.engine.observations import Mirrored, Observation, Woken
from idlepush.engine.settings import AccountSettings
from idlepush.engine.supervise import Supervisor
from idlepush.engine.watch import Surroundings, Watch
from idlepush.store.sqlite import open_store
from tests.peers.dovecot import COMPRESSES, PASSWORD, Dovecot

_FETCH = b"DONE\r\nf UID FETCH %d:4294967295 (UID FLAGS INTERNALDATE RFC822.SIZE BODY.PEEK[])\r\n"


def say(**fact: object) -> None:
    """Report one fact to the parent."""
    print(json.dumps(fact), flush=True)


def raw(host: str, port: int, user: str, folder: Path) -> None:
    """Idle on a plain socket; fetch and commit what comes."""
    database = sqlite3.connect(folder / "raw.db", isolation_level=None)
    database.execute("PRAGMA journal_mode = WAL")
    database.execute("PRAGMA synchronous = FULL")
    database.execute("CREATE TABLE message (uid INTEGER PRIMARY KEY, meta BLOB, body BLOB)")
    connection = socket.create_connection((host, port))
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    data = b""

    def until(pattern: bytes) -> re.Match[bytes]:
        nonlocal data
        while not (found := re.search(pattern, data, re.DOTALL)):
            data += connection.recv(262_144)
        return found

    def exchange(line: bytes, pattern: bytes) -> re.Match[bytes]:
        nonlocal data
        data = b""
        connection.sendall(line)
        return until(pattern)

    until(rb"\r\n")
    exchange(f"a LOGIN {user} {PASSWORD}\r\n".encode(), rb"a OK.*\r\n")
    uidnext = int(exchange(b"b EXAMINE INBOX\r\n", rb"UIDNEXT (\d+).*b OK")[1])
    exchange(b"i IDLE\r\n", rb"\+ [^\r]*\r\n")
    say(ready=True)
    while True:
        until(rb"\* \d+ EXISTS\r\n")
        woken = time.monotonic()
        found = exchange(_FETCH % uidnext, rb"UID (\d+) ([^{]*)\{(\d+)\}\r\n(.*)\r\nf OK")
        database.execute("BEGIN")
        database.execute("INSERT INTO message VALUES (?, ?, ?)", (int(found[1]), found[2], found[4][: int(found[3])]))
        database.execute("COMMIT")
        say(woken=woken, committed=time.monotonic())
        uidnext = int(found[1]) + 1
        exchange(b"i IDLE\r\n", rb"\+ [^\r]*\r\n")


def idlepush(host: str, port: int, user: str, folder: Path, ca: str, *, compress: bool) -> None:
    """Run the engine with its real store; report when it woke and when it had committed."""

    woken = [0.0]

    def observe(seen: Observation) -> None:
        if isinstance(seen, Woken):
            woken[0] = time.monotonic()
            if seen.source == "reconnect":
                say(ready=True)
        elif isinstance(seen, Mirrored):
            say(woken=woken[0], committed=time.monotonic())

    keys = {"name": "bench", "host": host, "port": port, "username": user, "password": PASSWORD, "compress": compress}
    settings = AccountSettings.model_validate({**keys, **({"tls_ca": ca} if ca else {"tls": "none"})})

    async def main() -> None:
        async with open_store(folder / "mirror.db", clock=utc_now) as store:
            limit = LoginLimit(0, 1)
            around = Surroundings(store=store, observe=observe, now=utc_now, environment={}, logins=limit)
            await Supervisor(Watch(settings, around), observe, lambda: 0.5, {}).run()

    anyio.run(main, backend_options={"use_uvloop": True})


class Client:
    """One of the two, in a process of its own."""

    def __init__(self, *words: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.benchmarks.bench_push", *words], stdout=subprocess.PIPE, text=True
        )
        assert self.process.stdout is not None
        self._lines: IO[str] = self.process.stdout
        self.read()

    def read(self) -> dict[str, float]:
        """Return its next fact."""
        fact: dict[str, float] = json.loads(self._lines.readline())
        return fact


def quantiles(seconds: Sequence[float]) -> tuple[float, float, float]:
    """Return p50, p95, p99 in milliseconds."""
    cut = statistics.quantiles(seconds, n=100)
    return cut[49] * 1000, cut[94] * 1000, cut[98] * 1000


def main() -> None:
    """Measure both and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=200)
    parser.add_argument("--tls", action="store_true", help="idlepush over TLS; the raw client stays in clear")
    parser.add_argument("--compress", action="store_true", help="idlepush compresses; the raw client does not")
    asked = parser.parse_args()
    pause = threading.Event()
    body = os.urandom(3600).hex().encode()
    lines = b"\r\n".join(body[at : at + 72] for at in range(0, len(body), 72))
    with tempfile.TemporaryDirectory() as folder, Dovecot(extra=COMPRESSES) as server:
        port, ca = (server.tls_port, str(server.ca_pem)) if asked.tls else (server.port, "")
        clients = {
            "raw": Client("raw", server.host, str(server.port), "raw", folder),
            "idlepush": Client(
                "idlepush",
                "localhost" if asked.tls else server.host,
                str(port),
                "idlepush",
                folder,
                str(int(asked.compress)),
                ca,
            ),
        }
        times: dict[str, list[tuple[float, float]]] = {name: [] for name in clients}
        pause.wait(2)
        with server.lmtp() as lmtp:
            for number in range(asked.samples):
                for name, client in clients.items():
                    lmtp.deliver(name, b"Subject: %d\r\nMessage-ID: <%d@x>\r\n\r\n" % (number, number) + lines)
                    answered = time.monotonic()
                    fact = client.read()
                    times[name].append((fact["committed"] - answered, fact["committed"] - fact["woken"]))
                    pause.wait(0.02)
        for client in clients.values():
            client.process.kill()
            client.process.wait()
    print(f"{asked.samples} samples, 7 kB each; milliseconds, p50 / p95 / p99")
    print(f"{'':10} {'LMTP 250 → commit':>28} {'EXISTS → commit':>28}")
    for name, samples in times.items():
        columns = [quantiles([sample[column] for sample in samples]) for column in (0, 1)]
        print(f"{name:10} " + " ".join("{:>10.1f} {:>8.1f} {:>8.1f}".format(*column) for column in columns))
    ratio = [statistics.median(pair[1] for pair in times[name]) for name in ("idlepush", "raw")]
    print(f"EXISTS → commit, p50: {ratio[0] / ratio[1]:.2f} x the raw limit")


if __name__ == "__main__":
    if len(sys.argv) > 1 and sys.argv[1] in ("raw", "idlepush"):
        role, host_, port_, user_, folder_, *rest = sys.argv[1:]
        compress_, ca_ = rest or ("0", "")
        if role == "raw":
            raw(host_, int(port_), user_, Path(folder_))
        else:
            idlepush(host_, int(port_), user_, Path(folder_), ca_, compress=compress_ == "1")
    else:
        main()
