"""Sending an alert through Apprise: the one place that knows it, and the URLs.

Each service has a thread of its own for as long as it takes: Apprise blocks, and some of what it calls has no
deadline. Nobody waits for a thread beyond the limit, not even the end of the process, and no second one is started
while the first still hangs; so a service that is unreachable or trickles costs one thread and nothing else.

An Apprise URL is a secret. It is read when it is needed, goes into no log and no error, and Apprise and what it is
built on, which do log it, are silenced.
"""

import asyncio
import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any, Final

import anyio
import structlog

from idlepush.engine.credentials import Secret, SecretSource, read_secret
from idlepush.errors import SecretUnreadable

LIMIT: Final = 20.0
_TALKATIVE: Final = ("apprise", "urllib3", "requests", "charset_normalizer", "smtplib", "paho", "slixmpp")


class Apprise:
    """Hands messages to every service of `[alerts] urls`; *limit* is how many seconds each may take."""

    def __init__(
        self, sources: Sequence[SecretSource], environment: Mapping[str, str], *, limit: float = LIMIT
    ) -> None:
        self._sources = sources
        self._environment = environment
        self._limit = limit
        self._last: dict[int, list[str | None]] = {}
        """What became of each service's last message; empty while its thread is at it."""

    @property
    def has_services(self) -> bool:
        """Somebody is to be told at all."""
        return bool(self._sources)

    async def send(self, title: str, body: str, *, resolved: bool) -> bool:
        """Tell every service; return whether one of them took it. Never raises but for cancellation."""
        reasons: dict[int, str | None] = {}
        async with anyio.create_task_group() as tasks:
            for number in range(len(self._sources)):
                tasks.start_soon(self._send_to, number, title, body, resolved, reasons)
        for number, reason in sorted(reasons.items()):
            if reason is not None:
                place = self._sources[number].place
                structlog.get_logger().error("alert.failed", service=number + 1, place=place, reason=reason)
        return any(reason is None for reason in reasons.values())

    async def _send_to(
        self,
        number: int,
        title: str,
        body: str,
        resolved: bool,  # noqa: FBT001 - start_soon passes by position
        reasons: dict[int, str | None],
    ) -> None:
        if self._last.get(number) == []:
            reasons[number] = "the alert before still hangs"
            return
        try:
            url = await read_secret(self._sources[number], self._environment)
        except SecretUnreadable as error:
            reasons[number] = str(error)
            return
        reasons[number] = await self._in_thread(number, lambda: _notify(url, title, body, resolved=resolved))

    async def _in_thread(self, number: int, work: Callable[[], str | None]) -> str | None:
        """Return what *work* returns; a thread that takes too long is left to itself."""
        loop, done = asyncio.get_running_loop(), anyio.Event()
        outcome = self._last[number] = list[str | None]()

        def run() -> None:
            outcome.append(work())
            with suppress(RuntimeError):  # the loop is closed: nobody waits any more
                loop.call_soon_threadsafe(done.set)

        # Not a worker thread of anyio's: the interpreter waits for those when it exits.
        thread = threading.Thread(target=run, name=f"alert {number + 1}", daemon=True)
        try:
            thread.start()
        except RuntimeError:
            outcome.append("no thread could be started")
            return outcome[0]
        with anyio.move_on_after(self._limit):
            await done.wait()
        return outcome[0] if outcome else f"no answer within {self._limit:g} s"


def _notify(url: Secret, title: str, body: str, *, resolved: bool) -> str | None:
    """Hand the message to one service; return why it could not be. Runs in a thread."""
    try:
        apprise = _apprise()
        asset = apprise.AppriseAsset(app_id="idlepush", app_desc="idlepush", async_mode=False, storage_mode="memory")
        service = apprise.Apprise.instantiate(url.reveal(), asset=asset)
        if service is None:
            return "Apprise knows no service of this URL"
        services = apprise.Apprise(asset=asset)
        services.add(service)
        kind = apprise.NotifyType.SUCCESS if resolved else apprise.NotifyType.FAILURE
        # As text: where a service wants HTML, Apprise escapes what a server said.
        was_sent = services.notify(title=title, body=body, notify_type=kind, body_format=apprise.NotifyFormat.TEXT)
    except BaseException as error:  # whatever a plug-in raises, SystemExit too; its words may hold the URL
        return f"Apprise failed ({type(error).__name__})"
    return None if was_sent else "the service did not take it"


def _apprise() -> Any:
    """Import Apprise when the first alert is sent: it takes most of a second, and 40 MB that few services need."""
    for name in _TALKATIVE:
        logging.getLogger(name).setLevel(logging.CRITICAL + 1)
    import apprise  # noqa: PLC0415 - see above

    return apprise
