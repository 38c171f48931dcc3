"""systemd hears from the service over a real socket, as sd_notify(3) spells it."""

import socket
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import anyio
import pytest

from idlepush.engine.observations import State, StateChanged
from idlepush.telemetry.health import Health, ServiceHealth
from idlepush.telemetry.systemd import Systemd, status_line
from tests.peers.virtual import virtual_time

NOW = datetime(2026, 11, 21, 20, 0, tzinfo=UTC)


class Manager:
    """The service manager's end of the socket."""

    def __init__(self, address: str) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.setblocking(False)
        self._socket.bind("\0" + address[1:] if address.startswith("@") else address)
        self.address = address

    def heard(self) -> list[str]:
        """All that came since, a datagram each."""
        found = []
        while True:
            try:
                found.append(self._socket.recv(4096).decode())
            except BlockingIOError:
                return found

    def close(self) -> None:
        self._socket.close()


@pytest.fixture(params=["path", "abstract"])
def manager(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Manager]:
    made = Manager(str(tmp_path / "notify") if request.param == "path" else f"@idlepush-{tmp_path.name}-{id(request)}")
    yield made
    made.close()


def stands(account: str, state: State) -> StateChanged:
    return StateChanged(account=account, state=state)


def test_the_story_of_a_service_is_told(manager: Manager) -> None:
    systemd = Systemd({"NOTIFY_SOCKET": manager.address})
    systemd.ready("2 starting")
    systemd.status("2 starting")
    systemd.status("2 watching")
    before = time.monotonic_ns() // 1000
    systemd.reloading()
    after = time.monotonic_ns() // 1000
    systemd.ready()
    systemd.stopping()
    ready, status, reloading, again, stopping = manager.heard()
    assert (ready, status, again) == ("READY=1\nSTATUS=2 starting", "STATUS=2 watching", "READY=1")
    assert stopping == "STOPPING=1\nSTATUS=stopping"
    first, _, second = reloading.partition("\n")
    assert first == "RELOADING=1"
    assert before <= int(second.removeprefix("MONOTONIC_USEC=")) <= after


@pytest.mark.parametrize(
    "environment",
    [{}, {"NOTIFY_SOCKET": ""}, {"NOTIFY_SOCKET": "vsock:2:1234"}, {"NOTIFY_SOCKET": "/nowhere/notify"}],
    ids=["none", "empty", "another kind", "nobody there"],
)
def test_without_anybody_who_listens_nothing_happens(environment: dict[str, str]) -> None:
    systemd = Systemd(environment)
    systemd.ready("fine")
    systemd.reloading()
    systemd.status("fine")
    systemd.stopping()


def test_a_manager_that_does_not_read_holds_nobody_up(manager: Manager) -> None:
    systemd = Systemd({"NOTIFY_SOCKET": manager.address})
    for number in range(10_000):
        systemd.status(f"number {number}")
    assert 0 < len(manager.heard()) < 10_000


def test_a_status_is_one_line_whatever_is_in_it(manager: Manager) -> None:
    Systemd({"NOTIFY_SOCKET": manager.address}).status("a\nREADY=1\x1b[2J" + "x" * 9000)
    [datagram] = manager.heard()
    assert datagram.startswith("STATUS=a READY=1 [2Jxxx")
    assert datagram.isprintable()
    assert len(datagram) < 300


def test_the_status_counts_the_accounts_by_state() -> None:
    health = Health(lambda: NOW)
    assert status_line(health.service) == "no accounts"
    for account, state in (("a", State.WATCHING), ("b", State.BACKING_OFF), ("c", State.WATCHING)):
        health(stands(account, state))
    assert status_line(health.service) == "2 watching, 1 backing off"
    assert status_line(ServiceHealth.of([])) == "no accounts"


@virtual_time
async def test_the_watchdog_is_fed_twice_in_its_time_and_the_status_kept(manager: Manager) -> None:
    health = Health(lambda: NOW)
    health(stands("a", State.STARTING))
    systemd = Systemd({"NOTIFY_SOCKET": manager.address, "WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "77"}, pid=77)
    assert systemd.watchdog == 30
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(systemd.keep, health)
        await anyio.sleep(29)
        health(stands("a", State.WATCHING))
        await anyio.sleep(32)
        tasks.cancel_scope.cancel()
    heard = manager.heard()
    assert heard.count("WATCHDOG=1") == 5
    assert [line for line in heard if line != "WATCHDOG=1"] == ["STATUS=1 starting", "STATUS=1 watching"]


@virtual_time
async def test_a_loop_that_is_held_up_feeds_no_watchdog(manager: Manager) -> None:
    systemd = Systemd({"NOTIFY_SOCKET": manager.address, "WATCHDOG_USEC": "100000"})
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(systemd.keep, Health(lambda: NOW))
        await anyio.sleep(0.01)
        manager.heard()
        ends = time.monotonic() + 0.3
        while time.monotonic() < ends:  # the loop stands still for three times the limit
            pass
        assert manager.heard() == []
        tasks.cancel_scope.cancel()


@pytest.mark.parametrize(
    "environment",
    [{}, {"WATCHDOG_USEC": "0"}, {"WATCHDOG_USEC": "soon"}, {"WATCHDOG_USEC": "1000000", "WATCHDOG_PID": "1"}],
    ids=["none", "zero", "nonsense", "for another process"],
)
def test_a_watchdog_that_is_not_ours_is_not_fed(environment: dict[str, str]) -> None:
    assert Systemd(environment, pid=77).watchdog is None
