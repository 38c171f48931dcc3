"""The unit's own command line, run as systemd would: told of by datagrams, with credentials and a state directory."""

import os
import shlex
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.live.service import wait_until
from tests.peers.dovecot import PASSWORD, Dovecot

UNIT = Path(__file__).parents[2] / "systemd" / "idlepush.service"


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as bound:
        bound.bind(str(tmp_path / "notify"))
        bound.settimeout(30)
        yield bound


def test_the_units_command_runs_as_systemd_runs_it(
    dovecot: Dovecot, user: str, manager: socket.socket, tmp_path: Path
) -> None:
    credentials, state, config = (tmp_path / name for name in ("credentials", "state", "idlepush.toml"))
    for folder in (credentials, state):
        folder.mkdir(mode=0o700)
    (credentials / "alice").write_text(PASSWORD + "\n")
    config.write_text(f"""
[http]
listen = ""
[accounts.alice]
host = "127.0.0.1"
port = {dovecot.port}
tls = "none"
username = "{user}"
password = {{ credential = "alice" }}
""")
    [line] = [line for line in UNIT.read_text().splitlines() if line.startswith("ExecStart=")]
    program, *arguments = shlex.split(line.removeprefix("ExecStart="))
    assert Path(program).name == "idlepush"
    arguments = [str(config) if argument.endswith(".toml") else argument for argument in arguments]
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "idlepush", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd="/",
            env={
                "PATH": os.environ["PATH"],
                "NOTIFY_SOCKET": str(tmp_path / "notify"),
                "WATCHDOG_USEC": "1000000",
                "CREDENTIALS_DIRECTORY": str(credentials),
                "STATE_DIRECTORY": str(state),
            },
        )
    heard: list[str] = []

    def hears(wanted: str) -> None:
        while not any(wanted in datagram.splitlines() for datagram in heard):
            heard.append(manager.recv(4096).decode())

    try:
        hears("READY=1")
        hears("STATUS=1 watching")
        hears("WATCHDOG=1")
        dovecot.deliver(user, "hello")
        wait_until((state / "mirror.db").exists, within=10, what="the store is in the state directory")

        heard.clear()
        process.send_signal(signal.SIGHUP)
        hears("RELOADING=1")
        assert any(line.startswith("MONOTONIC_USEC=") for line in heard[-1].splitlines())
        hears("READY=1")

        process.send_signal(signal.SIGTERM)
        hears("STOPPING=1")
        assert process.wait(timeout=15) == 0
    finally:
        process.kill()
        process.wait()
    assert PASSWORD not in (tmp_path / "log").read_text()
