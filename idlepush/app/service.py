"""The service: one process, its accounts, what they share, and the signals it obeys.

SIGTERM, SIGINT  every account ends at its next quiet moment, with LOGOUT; after 5 s it is cut short
SIGHUP           the configuration is read again; an account that did not change keeps its session
SIGUSR1          every account looks at once
"""

import random
import signal
from collections.abc import AsyncIterator, Callable, Collection, Coroutine, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any, Final

import anyio
import anyio.abc
import anyio.lowlevel
import anyio.to_thread
import structlog
from prometheus_client import CollectorRegistry

from idlepush.app.chores import index, judge, sweep
from idlepush.app.clock import utc_now
from idlepush.app.deliveries import Deliveries
from idlepush.app.fleet import Fleet
from idlepush.app.standing import Standing
from idlepush.app.token import Token
from idlepush.config import Config, load
from idlepush.engine.limits import LoginLimit
from idlepush.engine.observations import Observation, Observe, State
from idlepush.engine.settings import AccountSettings
from idlepush.engine.supervise import Supervisor
from idlepush.engine.watch import Surroundings, Watch
from idlepush.errors import ConfigError, IdlepushError, SecretUnreadable, StoreError
from idlepush.imap.types import MailboxName
from idlepush.imap.uidset import UidSet
from idlepush.serve.api import application
from idlepush.serve.behind import Behind
from idlepush.serve.listener import listening
from idlepush.store.base import Store
from idlepush.store.sqlite import open_store
from idlepush.telemetry.alerts import Alerts
from idlepush.telemetry.health import AccountHealth, Health
from idlepush.telemetry.metrics import Metrics
from idlepush.telemetry.sending import Apprise
from idlepush.telemetry.systemd import Systemd, status_line

Chore = Callable[[], Coroutine[Any, Any, None]]
"""Something that goes on for as long as the service does."""

_NEED_RESTART: Final = ("store", "http", "limits", "metrics", "alerts")


class Service:
    """Everything of one process, wired. To the HTTP interface it is the `Control`."""

    def __init__(
        self,
        config: Config,
        store: Store,
        environment: Mapping[str, str],
        readers: Sequence[Observe] = (),
        chores: Sequence[Chore] = (),
    ) -> None:
        self.config = config
        self.store = store
        self._environment = environment
        self._logins = LoginLimit(config.limits.logins_per_second, config.limits.login_burst)
        self._dice: Callable[[], float] = random.random
        self._token = Token(config.http.token, environment)
        self._has_started = False
        self.url: str | None = None
        """Where the HTTP interface is, once it listens."""
        self._reloading = anyio.Lock()

        self.health = Health(utc_now)
        self.registry = CollectorRegistry()
        self.metrics = Metrics(self.registry, health=self.health, account_label=config.metrics.account_label)
        self.metrics.measure_files(config.store.path)
        self._standing = Standing(store, self.health)
        self.alerts = Alerts(
            config.alerts,
            health=self.health,
            store=store,
            host_of=self._host_of,
            now=utc_now,
            sender=Apprise(config.alerts.urls, environment),
            count=self.metrics.alerted,
        )
        self.systemd = Systemd(environment)
        self.deliveries = Deliveries(store, self.observe, self._dice)
        self.metrics.measure_sinks(self.deliveries.cursors)
        # The health first: the others read off what it has made of an observation.
        self._readers: Sequence[Observe] = (
            self.health,
            self.metrics,
            self._standing,
            *readers,
        )
        self.fleet = Fleet(self._supervisor, self.observe)
        self._chores: list[Chore] = [
            self._standing.keep,
            self._token.keep_fresh,
            partial(sweep, store, lambda: self.config.store),
            partial(index, store),
            partial(judge, self.health),
            partial(self.metrics.follow_log, store),
            self.metrics.measure_lag,
            self.alerts.run,
            partial(self.systemd.keep, self.health),
            *chores,
        ]

    def observe(self, seen: Observation) -> None:
        """Hand *seen* to every reader."""
        for reader in self._readers:
            reader(seen)

    def add_chores(self, *chores: Chore) -> None:
        """Have these go on for as long as the accounts do; before `run`."""
        self._chores += chores

    # The story

    async def run(self) -> None:
        """Watch every account until a signal ends it.

        Raises:
            IdlepushError: it could not start: the port is in use, the token or the store unreadable, the disk full.
        """
        with anyio.open_signal_receiver(signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1) as signals:
            await self._token.read()
            behind = Behind(reader=self.store, control=self, metrics=self.registry)
            guarded = application(behind, self.config.http, self._token)
            async with listening(guarded, self.config.http, stopping=behind.stopping) as self.url:
                await self._watch(signals)

    async def _watch(self, signals: AsyncIterator[signal.Signals]) -> None:
        trouble: IdlepushError | None = None
        async with anyio.create_task_group() as tasks:
            try:
                await self._start(tasks)
                await self._obey(signals, tasks)
                await self._stop()
            except IdlepushError as error:  # leaves as itself below, not as a group of one
                trouble = error
            tasks.cancel_scope.cancel()
        if trouble is not None:
            raise trouble

    async def _start(self, tasks: anyio.abc.TaskGroup) -> None:
        paused = {row.name for row in await self.store.accounts() if row.state == State.PAUSED}
        self._expect(self.config.accounts)
        self.fleet.begin(tasks, self.config.accounts, paused)
        self.deliveries.begin(tasks, self.config.accounts)
        # Every loop says that it starts; a disk that is full already is found out by writing that down.
        await anyio.lowlevel.checkpoint()
        await self._standing.write()
        for chore in self._chores:
            tasks.start_soon(chore)
        self._has_started = True
        self.systemd.ready(status_line(self.health.service))

    async def _stop(self) -> None:
        self.systemd.stopping()
        await self.fleet.end()
        try:
            await self._standing.write()
        except StoreError as error:
            structlog.get_logger().error("store.trouble", reason=str(error))

    async def _obey(self, signals: AsyncIterator[signal.Signals], tasks: anyio.abc.TaskGroup) -> None:
        """Do what the signals say; return when one says to end."""
        async for number in signals:
            match number:
                case signal.SIGHUP:
                    tasks.start_soon(self._reload_or_say_why)
                case signal.SIGUSR1:
                    self.fleet.wake()
                case _:
                    return

    # Accounts

    def _supervisor(self, settings: AccountSettings) -> Supervisor:
        around = Surroundings(
            store=self.store,
            observe=self.observe,
            now=utc_now,
            environment=self._environment,
            logins=self._logins,
            tell_delimiter=self.deliveries.learn,
        )
        return Supervisor(Watch(settings, around), self.observe, self._dice, self._environment)

    def _expect(self, accounts: Mapping[str, AccountSettings]) -> None:
        for name, settings in accounts.items():
            if settings.enabled:
                self.health.expect(name, looks_every=max(settings.poll_interval, settings.idle_renew))
                self.metrics.expect(name, poll_interval=settings.poll_interval)

    def _forget(self, accounts: Collection[str]) -> None:
        for name in accounts:
            self.health.forget(name)
            self.metrics.forget(name)
            self._standing.forget(name)

    def _host_of(self, account: str) -> str:
        return self.config.accounts[account].endpoints[0][0] if account in self.config.accounts else ""

    # Control: what the HTTP interface may ask

    @property
    def accounts(self) -> Mapping[str, AccountHealth]:
        """How each account stands."""
        return self.health.accounts

    def unready(self) -> str | None:
        """Say what has not started yet."""
        return None if self._has_started else "the accounts have not all started yet"

    def wake(self, account: str) -> None:
        """Have the account look at once."""
        self.fleet.wake([account])

    def repair(self, account: str, mailbox: MailboxName, damaged: UidSet) -> bool:
        """See `Control.repair`."""
        return self.fleet.repair(account, mailbox, damaged)

    async def pause(self, account: str) -> None:
        """See `Control.pause`."""
        await self.fleet.pause(account)
        await self._standing.write()

    async def resume(self, account: str) -> None:
        """See `Control.resume`."""
        await self.fleet.resume(account)
        await anyio.lowlevel.checkpoint()
        await self._standing.write()

    async def reload(self) -> None:
        """Read the configuration again; one that is wrong, in part or in whole, changes nothing.

        Raises:
            ConfigError: it is.
        """
        async with self._reloading:
            self.systemd.reloading()
            try:
                # In a thread: ten thousand accounts take seconds, and the loop has mail to look after.
                await self._go_on_with(await anyio.to_thread.run_sync(self._loaded))
            finally:
                self.systemd.ready(status_line(self.health.service))

    def _loaded(self) -> Config:
        config = load(self.config.path, self._environment)
        if config.problems:
            # An account missing for a broken file is not one that was removed.
            raise ConfigError("\n".join(sentence for problem in config.problems for sentence in problem.sentences))
        return config

    async def _go_on_with(self, config: Config) -> None:
        before, self.config = self.config, config
        self._expect(config.accounts)
        await self.deliveries.change(config.accounts)
        self._forget(await self.fleet.change(config.accounts))
        log = structlog.get_logger()
        if changed := [name for name in _NEED_RESTART if getattr(before, name) != getattr(config, name)]:
            log.warning("config.needs_restart", tables=", ".join(changed))
        log.info("config.reloaded", accounts=len(self.fleet.names))
        try:
            await self._token.read()
        except SecretUnreadable as error:
            log.warning("http.token", reason=str(error))

    async def _reload_or_say_why(self) -> None:
        if self._reloading.statistics().tasks_waiting:
            return  # whoever waits reads what is there by then
        try:
            await self.reload()
        except ConfigError as error:
            structlog.get_logger().error("config.rejected", reason="; ".join(str(error).splitlines()))

    async def purge(self, account: str) -> bool:
        """See `Control.purge`."""
        await self.reload()
        if account in self.config.accounts:
            return False
        await self.store.purge(account)
        structlog.get_logger().info("account.purged", account=account)
        return True


def tell_problems(config: Config) -> None:
    """Log the account files that were skipped, and what works but is worth a change."""
    for warning in config.warnings:
        structlog.get_logger().warning("config.warning", reason=warning)
    for problem in config.problems:
        structlog.get_logger().error("config.skipped", file=str(problem.file), reason="; ".join(problem.sentences))


@asynccontextmanager
async def service(
    config: Config, environment: Mapping[str, str], readers: Sequence[Observe] = ()
) -> AsyncIterator[Service]:
    """Open the store and yield the service, ready to run."""
    async with open_store(Path(config.store.path), clock=utc_now) as store:
        yield Service(config, store, environment, readers, [store.tend])
