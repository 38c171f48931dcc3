"""systemd: say when the service is ready, reloading and stopping, how it is, and that its event loop is alive.

The protocol of sd_notify(3): datagrams of `NAME=value` lines to the unix socket named by $NOTIFY_SOCKET. Without
one, as everywhere but under systemd, all of this does nothing; a message that cannot be sent is lost and ends nothing.

The watchdog is fed by a task of the event loop and by nothing else. A loop that is stuck feeds nothing, and systemd
starts the service anew: that is the point of it.
"""

import math
import os
import socket
import time
from collections.abc import Mapping
from contextlib import suppress
from typing import Final

import anyio

from idlepush.telemetry.health import Health, ServiceHealth
from idlepush.telemetry.text import printable

STATUS_EVERY: Final = 5.0
LONGEST_STATUS: Final = 200
_KINDS: Final = ("/", "@")
"""A path, or a name in the abstract namespace; anything else (vsock) is none of ours."""


class Systemd:
    """Speaks to the service manager that *environment* names; `pid` is this process's."""

    def __init__(self, environment: Mapping[str, str], *, pid: int | None = None) -> None:
        address = environment.get("NOTIFY_SOCKET", "")
        self._address = address if address.startswith(_KINDS) else None
        self._watchdog = _watchdog_seconds(environment, os.getpid() if pid is None else pid)
        self._told = ""

    @property
    def watchdog(self) -> float | None:
        """Seconds after which systemd takes silence for death; None where it does not."""
        return self._watchdog

    def ready(self, status: str = "") -> None:
        """Say that the service has started, or has reloaded."""
        self._send("READY=1", *self._status(status))

    def reloading(self) -> None:
        """Say that the configuration is being read again; `ready` says that it was."""
        self._send("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}")

    def stopping(self) -> None:
        """Say that the service ends."""
        self._send("STOPPING=1", *self._status("stopping"))

    def status(self, status: str) -> None:
        """Show *status* in `systemctl status`, unless it is there already."""
        if status != self._told:
            self._send(*self._status(status))

    async def keep(self, health: Health) -> None:
        """Keep the status true and the watchdog quiet, for ever; where nobody listens, return."""
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._keep_status, health)
            tasks.start_soon(self._keep_alive)

    async def _keep_status(self, health: Health) -> None:
        while self._address is not None:
            self.status(status_line(health.service))
            await anyio.sleep(STATUS_EVERY)

    async def _keep_alive(self) -> None:
        while self._watchdog is not None:
            self._send("WATCHDOG=1")
            await anyio.sleep(self._watchdog / 2)

    def _status(self, status: str) -> list[str]:
        self._told = status
        return [f"STATUS={printable(status, most=LONGEST_STATUS)}"] if status else []

    def _send(self, *lines: str) -> None:
        if self._address is None:
            return
        address = "\0" + self._address[1:] if self._address.startswith("@") else self._address
        with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as connection:
            connection.settimeout(0)  # a manager that does not read must not hold up the loop it watches
            connection.sendto("\n".join(lines).encode(), address)


def status_line(service: ServiceHealth) -> str:
    """Say how many accounts stand how: "197 watching, 2 polling, 1 parked"."""
    told = [f"{count} {state.value.replace('_', ' ')}" for state, count in service.states.items() if count]
    return ", ".join(told) or "no accounts"


def _watchdog_seconds(environment: Mapping[str, str], pid: int) -> float | None:
    """Return what $WATCHDOG_USEC says, if it is meant for this process."""
    if environment.get("WATCHDOG_PID", str(pid)) != str(pid):
        return None
    try:
        seconds = int(environment.get("WATCHDOG_USEC", "")) / 1_000_000
    except ValueError:
        return None
    return seconds if 0 < seconds < math.inf else None
