"""No change: what a synchronize costs on the wire when nothing has happened, beside interimap and mbsync.

`python -m tests.benchmarks.bench_wire [--counts 1000 10000 100000]`

All of them synchronize the INBOX of one user of one Dovecot, in the same run, through a proxy of this benchmark that
counts octets and round trips behind the login, the LOGOUT (and idlepush's IDLE) included. idlepush does it three
times: with QRESYNC, with CONDSTORE alone and with neither (the proxy spells the capability otherwise, at the same
length). Each is warmed up first and measured from then on. interimap mirrors into another user of the same Dovecot,
mbsync into a Maildir. Of idlepush the greatest RSS is printed, too: of the first mirror, and of the synchronize.
"""

import argparse
import json
import resource
import select
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anyio

from idlepush.app.clock import utc_now
from idlepush.engine.limits import LoginLimit
from idlepush.engine.observations import Observation, Waiting
from idlepush.engine.settings import AccountSettings
from idlepush.engine.supervise import Supervisor
from idlepush.engine.watch import Surroundings, Watch
from idlepush.store.sqlite import open_store
from tests.peers.dovecot import PASSWORD, Dovecot

USER = "bench"
MODES: dict[str, tuple[bytes, ...]] = {
    "idlepush, QRESYNC": (),
    "idlepush, CONDSTORE": (b"QRESYNC",),
    "idlepush, neither": (b"QRESYNC", b"CONDSTORE"),
}


@dataclass
class Cost:
    """What went over the wire since the login."""

    received: int = 0
    sent: int = 0
    round_trips: int = 0


class Proxy:
    """Passes connections on to one server and counts; `hidden` capabilities are spelled otherwise."""

    def __init__(self, server: tuple[str, int]) -> None:
        self.hidden: tuple[bytes, ...] = ()
        self.cost = Cost()
        self._server = server
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._pass_on, args=(client,), daemon=True).start()

    def _pass_on(self, client: socket.socket) -> None:
        with client, socket.create_connection(self._server) as server:
            for each in (client, server):
                each.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            is_counted = was_answered = False
            while True:
                for ready in select.select([client, server], [], [])[0]:
                    try:
                        data = ready.recv(1 << 18)
                    except OSError:
                        return
                    if not data:
                        return
                    if ready is client:
                        server.sendall(data)
                        if is_counted:
                            self.cost.sent += len(data)
                            self.cost.round_trips += was_answered
                            was_answered = False
                        continue
                    for name in self.hidden:
                        data = data.replace(b" " + name, b" X" + name[1:])
                    client.sendall(data)
                    was_answered = True
                    if is_counted:
                        self.cost.received += len(data)
                    elif b"Logged in" in data:
                        is_counted = True

    @contextmanager
    def counting(self) -> Iterator[Cost]:
        """Count what goes over the wire within the block."""
        counted = self.cost = Cost()
        yield counted
        self.cost = Cost()

    def close(self) -> None:
        self._listener.close()


# idlepush, in a process of its own


def idlepush(port: int, database: Path) -> None:
    """Synchronize once, until all is done and IDLE begins; print the greatest RSS and the seconds."""

    async def main() -> None:
        began = anyio.current_time()
        keys: dict[str, Any] = {"name": USER, "host": "127.0.0.1", "port": port, "tls": "none", "username": USER}
        settings = AccountSettings.model_validate({**keys, "password": PASSWORD, "audit_interval": "5200w"})

        def observe(seen: Observation) -> None:
            if isinstance(seen, Waiting):
                supervisor.stop()

        async with open_store(database, clock=utc_now) as store:
            around = Surroundings(store=store, observe=observe, now=utc_now, environment={}, logins=LoginLimit(0, 1))
            supervisor = Supervisor(Watch(settings, around), observe, lambda: 0.5, {})
            await supervisor.run()
        rss = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        print(json.dumps({"rss": rss // 1024, "seconds": anyio.current_time() - began}))

    anyio.run(main, backend_options={"use_uvloop": True})


def run_idlepush(port: int, database: Path) -> dict[str, float]:
    command = [sys.executable, "-m", "tests.benchmarks.bench_wire", "idlepush", str(port), str(database)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    facts: dict[str, float] = json.loads(done.stdout)
    return facts


# The others


def mbsync(proxy: Proxy, _server: Dovecot, folder: Path) -> list[str]:
    config = folder / "mbsyncrc"
    config.write_text(f"""
FSync no

IMAPAccount far
Host 127.0.0.1
Port {proxy.port}
User {USER}
Pass {PASSWORD}
SSLType None
AuthMechs LOGIN
Timeout 600

IMAPStore far
Account far

MaildirStore near
Path {folder}/mbsync/
Inbox {folder}/mbsync/INBOX
SubFolders Verbatim

Channel all
Far :far:
Near :near:
Patterns INBOX
Create Near
Sync Pull
SyncState *
""")
    (folder / "mbsync").mkdir(exist_ok=True)
    return ["mbsync", "-q", "-c", str(config), "all"]


def interimap(proxy: Proxy, server: Dovecot, folder: Path) -> list[str]:
    config = folder / "interimap.conf"
    login = f"type = imap\nhost = 127.0.0.1\nSTARTTLS = NO\nauth = LOGIN\npassword = {PASSWORD}\ncompress = NO\n"
    config.write_text(
        f"database = {folder}/interimap.db\nlist-mailbox = INBOX\n"
        f"[local]\n{login}port = {server.port}\nusername = {USER}-interimap\n"
        f"[remote]\n{login}port = {proxy.port}\nusername = {USER}\n"
    )
    return ["interimap", "--quiet", f"--config={config}"]


OTHERS: dict[str, Callable[[Proxy, Dovecot, Path], list[str]]] = {"interimap": interimap, "mbsync": mbsync}


def mails(count: int) -> Iterator[bytes]:
    """Make small messages, all different."""
    for number in range(count):
        yield (
            b"From: Sender <sender@example.org>\r\nTo: someone@example.org\r\nSubject: number %d\r\n"
            b"Date: Sat, 21 Nov 2026 20:00:00 +0000\r\nMessage-ID: <%d@example.org>\r\n\r\nbody\r\n" % (number, number)
        )


@dataclass
class Row:
    name: str
    cost: Cost
    seconds: float


def measure(count: int, names: Sequence[str]) -> tuple[list[Row], str]:
    """Fill a mailbox, have everybody mirror it, then measure a synchronize in which nothing has changed."""
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as path, Dovecot() as server:
        folder = Path(path)
        server.append_maildir(USER, mails(count))
        proxy = Proxy((server.host, server.port))
        database = folder / "mirror.db"
        first = run_idlepush(proxy.port, database)
        warm: dict[str, float] = {}
        for name, hidden in MODES.items():
            proxy.hidden = hidden
            run_idlepush(proxy.port, database)
            with proxy.counting() as cost:
                facts = run_idlepush(proxy.port, database)
            rows.append(Row(name, cost, facts["seconds"]))
            warm = warm or facts
        proxy.hidden = ()
        for name in names:
            command = OTHERS[name](proxy, server, folder)
            for is_counted in (False, False, True):
                began = time.monotonic()
                with proxy.counting() as cost:
                    done = subprocess.run(command, capture_output=True, check=False)
                if done.returncode:
                    print(f"{name} failed: {done.stderr.decode(errors='replace').strip()[:300]}")
                    break
                if is_counted:
                    rows.append(Row(name, cost, time.monotonic() - began))
        proxy.close()
    rss = (
        f"idlepush, {count} messages: first mirror {first['seconds']:.0f} s, greatest RSS {first['rss']:.0f} MiB; "
        f"synchronize {warm['seconds']:.2f} s, {warm['rss']:.0f} MiB"
    )
    return rows, rss


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--counts", type=int, nargs="+", default=[1000, 10_000, 100_000])
    asked = parser.parse_args()
    names = [name for name in OTHERS if shutil.which(name)]
    for name in OTHERS.keys() - set(names):
        print(
            f"{name} is not installed, so it is not measured: apt-get install {'isync' if name == 'mbsync' else name}"
        )
    for count in asked.counts:
        rows, rss = measure(count, names)
        print(f"\n{count} messages, nothing changed: octets and round trips behind the login")
        print(f"{'':22} {'received':>10} {'sent':>7} {'round trips':>12} {'x idlepush':>11}")
        ours = rows[0].cost.received + rows[0].cost.sent
        for row in rows:
            cost = row.cost
            ratio = (cost.received + cost.sent) / ours
            print(f"{row.name:22} {cost.received:>10} {cost.sent:>7} {cost.round_trips:>12} {ratio:>11.1f}")
        print(rss, flush=True)


if __name__ == "__main__":
    if len(sys.argv) > 1 and sys.argv[1] == "idlepush":
        idlepush(int(sys.argv[2]), Path(sys.argv[3]))
    else:
        main()
