"""The demo itself: a mail server, two accounts, mail that arrives, and the service that mirrors it, event by event.

Everything lives in one temporary folder and one child process; both are gone when it ends, however that is.
"""

import importlib.util
import os
import random
import secrets
import signal
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import anyio

from idlepush.app.clock import utc_now
from idlepush.app.service import Service, service
from idlepush.config import load
from idlepush.demo.mails import mails
from idlepush.demo.mailserver import MailServer, mail_server
from idlepush.errors import IdlepushError
from idlepush.sync.events import Event, EventType
from idlepush.telemetry.text import printable

USERS: Final = ("alice", "bob")
FIRST_MAILS: Final = 3
PAUSE: Final = (1.0, 4.0)
"""Seconds between two mails, at least and at most."""

_BOLD, _DIM, _PLAIN = "\x1b[1m", "\x1b[2m", "\x1b[0m"
_COLOURS: Final = {"message.new": "\x1b[32m", "message.expunged": "\x1b[31m", "message.flags": "\x1b[36m"}


async def show(seconds: float | None, *, colours: bool, environment: Mapping[str, str]) -> None:
    """Run the demo for so long, or until a signal ends it.

    Raises:
        IdlepushError: it cannot be had here; the sentence says what to install.
    """
    if importlib.util.find_spec("pymap") is None:
        raise IdlepushError("the demo needs a mail server of its own: pip install 'idlepush[demo]'")
    dice = random.Random()  # noqa: S311 - nothing depends on nobody guessing the next subject
    passwords = {user: secrets.token_urlsafe(12) for user in USERS}
    with tempfile.TemporaryDirectory(prefix="idlepush-demo-", ignore_cleanup_errors=True) as folder:
        async with mail_server(passwords) as server:
            demo = _Demo(server, dice, colours=colours)
            for user in USERS:
                await demo.deliver(user, FIRST_MAILS)
            config = _configuration(Path(folder), server)
            async with service(load(config, environment), environment) as running:
                running.add_chores(lambda: demo.print_events(running), demo.mail_for_ever)
                if seconds is not None:
                    running.add_chores(lambda: _end_after(seconds))
                await running.run()


def _configuration(folder: Path, server: MailServer) -> Path:
    file = folder / "idlepush.toml"
    accounts = "".join(
        f'[accounts.{user}]\nusername = "{user}"\npassword = "{password}"\n'
        for user, password in server.passwords.items()
    )
    text = (
        '[store]\nurl = "sqlite:///mirror.db"\n[http]\nlisten = "127.0.0.1:0"\n'
        f'[defaults]\nhost = "{server.host}"\nport = {server.port}\ntls = "none"\n{accounts}'
    )
    with os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as stream:
        stream.write(text)
    return file


async def _end_after(seconds: float) -> None:
    await anyio.sleep(seconds)
    _end()


def _end() -> None:
    """End as Ctrl-C does."""
    os.kill(os.getpid(), signal.SIGTERM)


class _Demo:
    def __init__(self, server: MailServer, dice: random.Random, *, colours: bool) -> None:
        self._server = server
        self._dice = dice
        self._colours = colours
        self._mails = mails(utc_now, dice)

    async def deliver(self, user: str, count: int = 1) -> None:
        for _ in range(count):
            message = next(self._mails)
            message["To"] = f"{user}@demo.example"
            await self._server.deliver(user, message.as_bytes())

    async def mail_for_ever(self) -> None:
        """Have mail arrive, and now and then be read or deleted."""
        while True:
            await anyio.sleep(self._dice.uniform(*PAUSE))
            user = self._dice.choice(USERS)
            if self._dice.random() < 0.75:
                await self.deliver(user)
            else:
                await self._server.tidy(user, expunge=self._dice.random() < 0.4)

    async def print_events(self, running: Service) -> None:
        """Say where to look, then print each event as it is committed."""
        try:
            self._say(f"{self._in(_BOLD, str(running.url))}  metrics, messages, events; /docs has all of it")
            self._say(self._in(_DIM, "a mail server with two accounts, mirrored as mail arrives; Ctrl-C ends it"))
            after = 0
            while True:
                await running.store.wait_beyond(after)
                for event in await running.store.events(after):
                    after = event.position
                    self._say(await self._line(running, event))
        except BrokenPipeError:
            _end()  # whoever watched has seen enough

    async def _line(self, running: Service, event: Event) -> str:
        what = event.type.value
        where = f"{event.account:<6} {event.mailbox or '':<6}"
        shown = f"{_COLOURS.get(what, '')}{what:<17}{_PLAIN}" if self._colours else f"{what:<17}"
        return f"{event.time:%H:%M:%S}  {shown} {where} {await self._told(running, event)}".rstrip()

    async def _told(self, running: Service, event: Event) -> str:
        """What a person wants to know of it."""
        if event.type is EventType.ACCOUNT_STATE:
            return str(event.details["state"])
        row = await running.store.message(event.id) if event.id is not None else None
        if row is None:
            return ""
        sender = next((one.name or one.address or "" for one in row.sender), "")
        more = {
            EventType.MESSAGE_NEW: "the first mirror" if event.details.get("initial") else f"found by {row.found_by}",
            EventType.MESSAGE_FLAGS: " ".join(row.flags),
        }.get(event.type, "")
        return printable(f"{sender}: {row.subject}") + self._in(_DIM, f"  {more}" if more else "")

    def _in(self, style: str, text: str) -> str:
        return f"{style}{text}{_PLAIN}" if self._colours and text else text

    def _say(self, line: str) -> None:
        print(line, flush=True)  # noqa: T201 - what the demo is for
