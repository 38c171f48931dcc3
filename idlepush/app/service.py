"""The composition root: build everything once, wire it, run it until it is told to stop.

settings ─▶ store ─▶ one supervisor for each account ─▶ observations ─▶ the readers
SIGTERM, SIGINT  every account ends at its next quiet moment, with LOGOUT; after 5 s it is cut short
SIGHUP           the configuration is read again; an account that did not change keeps its session
SIGUSR1          every account looks at once
"""

import random
import signal
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

import anyio
import anyio.abc
import structlog

from idlepush.config import Config, load
from idlepush.engine.limits import LoginLimit
from idlepush.engine.observations import Observation, Observe, StateChanged
from idlepush.engine.settings import AccountSettings
from idlepush.engine.supervise import Supervisor
from idlepush.engine.watch import Surroundings, Watch
from idlepush.errors import ConfigError, StoreError
from idlepush.store.base import AccountRow, Store, Sweep
from idlepush.store.settings import StoreSettings
from idlepush.store.sqlite import open_store

GRACE: Final = 5.0
"""Seconds an account has to come to a quiet moment before it is cut short."""
SWEEP_EVERY: Final = 300.0
BODIES_OUTLIVE_ROWS: Final = 900.0


def utc_now() -> datetime:
    """Return the moment: the one clock of the service."""
    return datetime.now(UTC)  # noqa: TID251 - the one place


@dataclass(slots=True)
class _Running:
    supervisor: Supervisor
    scope: anyio.CancelScope = field(default_factory=anyio.CancelScope)
    ended: anyio.Event = field(default_factory=anyio.Event)


class Service:
    """The accounts that run, and what they share."""

    def __init__(
        self, config: Config, store: Store, environment: Mapping[str, str], readers: Sequence[Observe] = ()
    ) -> None:
        self.config = config
        self.store = store
        self._environment = environment
        self._readers = (*readers, self._remember)
        self._running: dict[str, _Running] = {}
        self._states: dict[str, StateChanged] = {}
        self._states_changed = anyio.Event()
        self._logins = LoginLimit(config.limits.logins_per_second, config.limits.login_burst)
        self._dice: Callable[[], float] = random.random

    # Observations

    def observe(self, seen: Observation) -> None:
        """Hand *seen* to every reader."""
        for reader in self._readers:
            reader(seen)

    def _remember(self, seen: Observation) -> None:
        if isinstance(seen, StateChanged):
            self._states[seen.account] = seen
            self._states_changed.set()

    async def _store_states(self) -> None:
        """Write the accounts' states down as they change, the latest of each."""
        while True:
            await self._states_changed.wait()
            self._states_changed = anyio.Event()
            await self._write_states()

    async def _write_states(self) -> None:
        states, self._states = self._states, {}
        for seen in states.values():
            row = AccountRow(
                name=seen.account,
                state=seen.state.value,
                since=utc_now(),
                failure_class=seen.failure_class.value if seen.failure_class else None,
                reason=seen.reason,
            )
            try:
                await self.store.set_account(row)
            except StoreError as error:
                # A full disk is told of by whoever fetches; the state is written when it changes again.
                structlog.get_logger().error("store.trouble", reason=str(error))

    # Accounts

    async def run(self) -> None:
        """Watch every account until a signal ends it."""
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._store_states)
            tasks.start_soon(self._sweep)
            self._start(tasks, self.config.accounts)
            await self._obey_signals(tasks)
            await self._stop(list(self._running.values()))
            await self._write_states()
            tasks.cancel_scope.cancel()

    def _start(self, tasks: anyio.abc.TaskGroup, accounts: Mapping[str, AccountSettings]) -> None:
        for name, settings in accounts.items():
            if settings.enabled and name not in self._running:
                running = self._running[name] = _Running(self._supervisor(settings))
                tasks.start_soon(self._keep, name, running)

    def _supervisor(self, settings: AccountSettings) -> Supervisor:
        around = Surroundings(
            store=self.store,
            observe=self.observe,
            now=utc_now,
            environment=self._environment,
            logins=self._logins,
        )
        return Supervisor(Watch(settings, around), self.observe, self._dice, self._environment)

    async def _keep(self, name: str, running: _Running) -> None:
        try:
            with running.scope:
                await running.supervisor.run()
        finally:
            running.ended.set()
            if self._running.get(name) is running:
                del self._running[name]

    async def _stop(self, ending: Sequence[_Running]) -> None:
        for running in ending:
            running.supervisor.stop()
        with anyio.move_on_after(GRACE):
            for running in ending:
                await running.ended.wait()
        for running in ending:
            running.scope.cancel()
            await running.ended.wait()

    async def _sweep(self) -> None:
        """Take away what retention no longer keeps, now and then."""
        while True:
            await self.store.sweep(retention(self.config.store, utc_now()))
            await anyio.sleep(SWEEP_EVERY)

    # Signals

    async def _obey_signals(self, tasks: anyio.abc.TaskGroup) -> None:
        with anyio.open_signal_receiver(signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1) as received:
            async for number in received:
                if number in (signal.SIGTERM, signal.SIGINT):
                    return
                if number == signal.SIGHUP:
                    await self._reload(tasks)
                else:
                    for running in self._running.values():
                        running.supervisor.watch.wake.set()

    async def _reload(self, tasks: anyio.abc.TaskGroup) -> None:
        """Read the configuration again; one that is wrong changes nothing."""
        try:
            config = load(self.config.path, self._environment)
        except ConfigError as error:
            structlog.get_logger().error("config.rejected", reason=str(error))
            return
        if config.problems:
            # An account missing for a broken file is not one that was removed.
            tell_problems(config)
            return
        changed = [
            running
            for name, running in self._running.items()
            if config.accounts.get(name) != running.supervisor.watch.settings or not config.accounts[name].enabled
        ]
        self.config = config
        await self._stop(changed)
        self._start(tasks, config.accounts)
        structlog.get_logger().info("config.reloaded", accounts=len(config.accounts))


def retention(settings: StoreSettings, now: datetime) -> Sweep:
    """Return what may be taken away at *now*."""
    rows_before = now - timedelta(seconds=settings.retain_expunged)
    bodies_before = rows_before if settings.keep_expunged_bodies else now - timedelta(seconds=BODIES_OUTLIVE_ROWS)
    return Sweep(bodies_before=bodies_before, rows_before=rows_before)


def tell_problems(config: Config) -> None:
    """Log the account files that were skipped."""
    for problem in config.problems:
        structlog.get_logger().error("config.skipped", file=str(problem.file), reason="; ".join(problem.sentences))


@asynccontextmanager
async def service(
    config: Config, environment: Mapping[str, str], readers: Sequence[Observe] = ()
) -> AsyncIterator[Service]:
    """Open the store and yield the service, ready to run."""
    async with open_store(Path(config.store.path), clock=utc_now) as store:
        yield Service(config, store, environment, readers)
