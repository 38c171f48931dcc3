"""Many accounts at once, each with a history of its own, on one server and in one mirror.

    round:  other clients act (a few threads, every account in turn) ─▶ quiet ─▶ the mirror must become equal

A quiet moment is shared by all accounts, so it costs little. In it, what an independent client sees on the server is
what the mirror shows, and the log folded from its beginning gives the mirror. After the last one, another look finds
nothing to do, `verify --deep` nothing to complain of, and the service ends well.
"""

import asyncio
import imaplib
import json
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from idlepush.errors import StoreError
from tests.live.histories.clients import Client, Server
from tests.live.histories.pictures import Mirrored, Picture, close, differences, in_mirror, log_of, on_server
from tests.live.service import Service, service
from tests.peers.dovecot import PASSWORD as DOVECOT_PASSWORD
from tests.peers.dovecot import Dovecot
from tests.peers.pymap_server import PASSWORD as PYMAP_PASSWORD
from tests.peers.pymap_server import PymapServer
from tests.peers.replay import Contradiction, Replay, Told

THREADS: Final = 4
ACTS: Final = 9
"""Of each account between two quiet moments."""
PATIENCE: Final = 60.0
"""Seconds within which the mirror becomes equal; the aim is two polls."""
LOOK_AGAIN: Final = 10.0
"""Seconds after which the server is looked at once more: it may not have been quiet itself."""
SHOWN: Final = 4
"""Failed accounts of which everything is told."""

_OFFERED: Final = "IMAP4rev1 SASL-IR ID ENABLE IDLE LITERAL+ NAMESPACE UIDPLUS MOVE UNSELECT CHILDREN LIST-EXTENDED"
_CONDSTORE: Final = f"{_OFFERED} LIST-STATUS SPECIAL-USE ESEARCH CONDSTORE"


@dataclass(frozen=True, slots=True)
class Running:
    """A server: what its clients may do, how it is reached, and how it is restarted where that keeps its mail."""

    server: Server
    delimiter: str
    settings: str
    bump: Callable[[str, str, int], object] | None = None
    restart: Callable[[], object] | None = None
    kick: Callable[[str], object] | None = None
    """End the sessions of an account."""


@contextmanager
def _dovecot(capabilities: str | None) -> Iterator[Running]:
    with Dovecot(capabilities=capabilities) as server:

        def bump(user: str, mailbox: str, uidvalidity: int) -> None:
            server.doveadm("mailbox", "update", "-u", user, "--uid-validity", str(uidvalidity), mailbox)

        settings = (
            f'host = "localhost"\nport = {server.tls_port}\ntls_ca = "{server.ca_pem}"\npassword = "{DOVECOT_PASSWORD}"'
        )
        yield Running(server, ".", settings, bump, server.restart, lambda user: server.doveadm("kick", user))


@contextmanager
def _pymap(users: Iterable[str]) -> Iterator[Running]:
    with PymapServer(users) as server:
        yield Running(
            server,
            "/",
            f'host = "{server.host}"\nport = {server.port}\ntls = "none"\npassword = "{PYMAP_PASSWORD}"',
        )


MODES: Final[Mapping[str, Callable[[Sequence[str]], AbstractContextManager[Running]]]] = {
    "qresync": lambda _users: _dovecot(None),
    "condstore": lambda _users: _dovecot(_CONDSTORE),
    "plain": lambda _users: _dovecot(_OFFERED),
    "pymap": _pymap,
}
"""Dovecot as it is; without QRESYNC; with neither QRESYNC nor CONDSTORE; and pymap, which knows neither."""


def configuration(running: Running, users: Sequence[str]) -> str:
    accounts = "".join(f'\n[accounts.{user}]\nusername = "{user}"\n' for user in users)
    return f"""
[store]
url = "sqlite:///mirror.db"
[http]
listen = ""
[limits]
logins_per_second = 0
[defaults]
{running.settings}
mailboxes = ["*"]
poll_interval = "2s"
flags_interval = "2s"
idle_renew = "4s"
{accounts}"""


@dataclass(slots=True)
class Outcome:
    """What a run was and found."""

    seeds: int = 0
    events: int = 0
    moves: int = 0
    moved: int = 0
    kicked: int = 0
    """Sessions that the server told an old list of mailboxes."""
    settled: list[float] = field(default_factory=list)
    """Seconds from the last act of each round until mirror and server were equal."""


@dataclass(slots=True)
class _History:
    client: Client
    server: Picture = field(default_factory=dict)
    refused: frozenset[str] = frozenset()


def run(mode: str, seeds: Sequence[int], folder: Path, *, rounds: int = 4, acts: int = ACTS) -> Outcome:
    """Live through the histories of these seeds.

    Raises:
        AssertionError: somebody's mirror did not become equal, or the log does not give it; tells whose, what was
            done, what differs, and how to run it alone.
    """
    users = [f"seed{seed}" for seed in seeds]
    with ExitStack() as stack:
        running = stack.enter_context(MODES[mode](users))
        histories = {
            f"seed{seed}": _History(
                Client(
                    running.server,
                    f"seed{seed}",
                    seed=f"{running.delimiter}-{seed}",
                    delimiter=running.delimiter,
                    bump=running.bump,
                )
            )
            for seed in seeds
        }
        pool = stack.enter_context(ThreadPoolExecutor(THREADS))
        for history in histories.values():
            stack.callback(history.client.leave)
        list(pool.map(lambda history: history.client.furnish(), histories.values()))
        mirror = stack.enter_context(service(folder, configuration(running, users)))
        watched = Watched(mode, mirror, histories, running)
        outcome = Outcome(len(seeds))
        for number in range(rounds):
            for turn in range(acts):
                list(pool.map(lambda history: history.client.act(), histories.values()))
                if running.restart is not None and (number, turn) == (1, acts // 2):
                    running.restart()
            list(pool.map(lambda history: _look(running.server, history), histories.values()))
            outcome.settled.append(watched.becomes_equal())
        watched.stays_equal()
        _verify(mirror, histories)
        assert mirror.end() == 0
        assert "Traceback" not in mirror.log_text
        outcome.events = watched.replay.position
        outcome.kicked = watched.kicked
        outcome.moves = sum(history.client.moves for history in histories.values())
        outcome.moved = sum(told.moved for told in watched.replay.accounts.values())
        return outcome


def _verify(mirror: Service, histories: Mapping[str, _History]) -> None:
    """The command compares every byte; it complains of nothing but what the server lists and refuses."""
    done = mirror.idlepush("verify", "--deep", "--json", check=False)
    found = [json.loads(line) for line in done.stdout.splitlines()]
    bad = [one for one in found if any(one[what] for what in ("missing", "extra", "flags", "sizes", "bodies"))]
    assert found and not bad, f"verify --deep finds {bad}"
    assert done.returncode == 0 or any(history.refused for history in histories.values()), done.stderr.decode()


def _look(server: Server, history: _History) -> None:
    # Dovecot 2.3 lets a session wait for half a minute, or end, when UIDVALIDITY was changed beneath it (seen).
    for _ in range(3):
        reader = server.imap(history.client.account)
        try:
            history.server, history.refused = on_server(reader)
        except (imaplib.IMAP4.abort, OSError):
            continue
        else:
            return
        finally:
            close(reader)
    raise AssertionError(f"{history.client.account} cannot be read on the server")


class Watched:
    """The mirror of all accounts, and the fold of its log."""

    def __init__(self, mode: str, mirror: Service, histories: Mapping[str, _History], running: Running) -> None:
        self.kicked = 0
        self.replay = Replay()
        self._mode = mode
        self._mirror = mirror
        self._histories = histories
        self._running = running

    @property
    def _store(self) -> Path:
        return self._mirror.folder / "mirror.db"

    def becomes_equal(self) -> float:
        """Wait until every mirror equals its server and the log gives it; return the seconds it took."""
        begun = looked = time.monotonic()
        pause = threading.Event()
        while True:
            found = self._different()
            now = time.monotonic()
            if not found:
                return now - begun
            if now > begun + PATIENCE:
                raise AssertionError(self._report(found))
            if now > looked + LOOK_AGAIN:
                for name in found:
                    self._look_again(name, found[name])
                looked = time.monotonic()
            pause.wait(0.25)

    def _look_again(self, name: str, lines: Sequence[str]) -> None:
        """Ask the server itself again.

        Dovecot 2.3 may put back a message that was expunged while its UIDVALIDITY changed (seen); and a session may see
        an old list of mailboxes for as long as it lives (seen), so that only another one can be told of a new mailbox.
        """
        _look(self._running.server, self._histories[name])
        unlisted = {f"{mailbox}: only on the server" for mailbox in self._histories[name].server}
        if self._running.kick is not None and unlisted.issuperset(lines):
            self.kicked += 1
            self._running.kick(name)

    def stays_equal(self) -> None:
        """Another look at everything writes nothing."""
        before = self.replay.position
        assert self._mirror.process is not None
        self._mirror.process.send_signal(signal.SIGUSR1)
        threading.Event().wait(3)
        told = asyncio.run(log_of(self._store, before))
        written = [event.record() for event in told if not event.type.value.startswith("account.")]
        assert not written, f"{self._mode}: looked again, and wrote {written[:5]}"

    def _different(self) -> dict[str, list[str]]:
        try:
            mirrored = asyncio.run(in_mirror(self._store))
        except StoreError as error:  # the service has not made it yet
            return {name: [str(error)] for name in self._histories}
        try:
            for event in asyncio.run(log_of(self._store, self.replay.position)):
                self.replay.fold(event)
        except Contradiction as error:
            raise AssertionError(f"{self._mode}: the log contradicts itself: {error}") from None
        found = {}
        for name, history in self._histories.items():
            here = mirrored.get(name, Mirrored())
            lines = differences(here.picture, history.server, history.refused)
            lines += _untold(here, self.replay.accounts.get(name, Told()))
            if lines:
                found[name] = lines
        return found

    def _report(self, found: Mapping[str, Sequence[str]]) -> str:
        told = [f"{self._mode}: {len(found)} of {len(self._histories)} mirrors are not equal after {PATIENCE:g} s"]
        for name, lines in list(found.items())[:SHOWN]:
            seed = name.removeprefix("seed")
            told.append(f"\n{name}, alone: python -m tests.soak.histories --mode {self._mode} --seed {seed}")
            told += [f"  differs: {line}" for line in lines[:12]]
            told += [f"  {number:3}. {line}" for number, line in enumerate(self._histories[name].client.diary, 1)]
            told += [
                f"  log: {line[:400]}" for line in self._mirror.log_text.splitlines() if f'"account": "{name}"' in line
            ][-12:]
        return "\n".join(told)


def _untold(mirror: Mirrored, told: Told) -> list[str]:
    """Say where the log, folded, is not what the mirror shows."""
    lines = []
    shelves = {name: shelf.uidvalidity for name, shelf in mirror.picture.items()}
    if told.mailboxes != shelves:
        lines.append(f"the log tells of the mailboxes {told.mailboxes}, the mirror shows {shelves}")
    for key in told.places.keys() | mirror.places.keys():
        here, there = mirror.places.get(key), told.places.get(key)
        if here != there:
            lines.append(f"{key}: the log tells of {there}, the mirror shows {here}")
            continue
        shown = mirror.picture[here[0]].messages.get(here[2]) if here else None
        if shown is not None and (shown.flags, shown.size) != (told.flags[key], told.sizes[key]):
            lines.append(f"{key}: the log tells of {sorted(told.flags[key])}, the mirror shows {sorted(shown.flags)}")
    return lines
