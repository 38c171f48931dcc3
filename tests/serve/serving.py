"""The HTTP interface before a store and accounts that are what a test says, with or without a socket between."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import anyio
import httpx
from prometheus_client import CollectorRegistry, Counter
from starlette.types import ASGIApp

from idlepush.engine.credentials import Secret
from idlepush.engine.observations import State, StateChanged
from idlepush.errors import ConfigError
from idlepush.imap.types import MailboxName
from idlepush.imap.uidset import UidSet
from idlepush.serve.api import application
from idlepush.serve.behind import Behind
from idlepush.serve.listener import listening
from idlepush.serve.settings import HttpSettings
from idlepush.store.base import Store
from idlepush.telemetry.health import AccountHealth, Health
from tests.store.making import Clock

TOKEN = "tok-aVerySecretOne"
BEARER = {"Authorization": f"Bearer {TOKEN}"}


@dataclass
class Accounts:
    """A service that does nothing but remember what it was told."""

    health: Health
    told: list[tuple[str, str]] = field(default_factory=list)
    lack: str | None = None
    mistake: str | None = None
    configured: set[str] = field(default_factory=set)

    @property
    def accounts(self) -> Mapping[str, AccountHealth]:
        return self.health.accounts

    def unready(self) -> str | None:
        return self.lack

    def wake(self, account: str) -> None:
        self.told.append(("wake", account))

    def repair(self, account: str, mailbox: MailboxName, damaged: UidSet) -> bool:
        self.told.append((f"repair {mailbox} {damaged}", account))
        return self.accounts[account].state is not State.PAUSED

    async def pause(self, account: str) -> None:
        self.told.append(("pause", account))
        self.health(StateChanged(account=account, state=State.PAUSED, reason="paused by an operator"))

    async def resume(self, account: str) -> None:
        self.told.append(("resume", account))
        self.health(StateChanged(account=account, state=State.STARTING))

    async def reload(self) -> None:
        if self.mistake:
            raise ConfigError(self.mistake)
        self.told.append(("reload", ""))

    async def purge(self, account: str) -> bool:
        await self.reload()
        self.told.append(("purge", account))
        return account not in self.configured


@dataclass
class Served:
    """All parts of one application."""

    store: Store
    accounts: Accounts
    registry: CollectorRegistry = field(default_factory=CollectorRegistry)
    settings: HttpSettings = field(default_factory=HttpSettings)
    token: str | None = None
    keepalive: float = 15.0
    stopping: anyio.Event = field(default_factory=anyio.Event)

    @classmethod
    def of(cls, store: Store, *states: StateChanged) -> "Served":
        health = Health(Clock())
        for state in states:
            health(state)
        served = cls(store, Accounts(health, configured={state.account for state in states}))
        Counter("idlepush_things", "Things.", registry=served.registry).inc(3)
        return served

    @property
    def application(self) -> ASGIApp:
        behind = Behind(
            reader=self.store,
            control=self.accounts,
            metrics=self.registry,
            stopping=self.stopping,
            keepalive=self.keepalive,
        )
        return application(behind, self.settings, lambda: None if self.token is None else Secret(self.token))

    @asynccontextmanager
    async def client(self) -> AsyncIterator[httpx.AsyncClient]:
        """Talk to the application without a socket."""
        transport = httpx.ASGITransport(app=self.application)
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:8143") as client:
            yield client

    @asynccontextmanager
    async def listening(self) -> AsyncIterator[httpx.AsyncClient]:
        """Talk to the application over a real one."""
        if self.settings.listen == HttpSettings().listen:
            self.settings = HttpSettings(listen="127.0.0.1:0")
        async with listening(self.application, self.settings, stopping=self.stopping) as url:
            assert url is not None
            unix = self.settings.unix_path
            transport = httpx.AsyncHTTPTransport(uds=str(unix)) if unix else None
            base = "http://localhost" if unix else url
            async with httpx.AsyncClient(transport=transport, base_url=base, timeout=30) as client:
                yield client


def watching(account: str) -> StateChanged:
    return StateChanged(account=account, state=State.WATCHING)


def socket_path(directory: Path) -> Path:
    return directory / "http.sock"
