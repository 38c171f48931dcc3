"""The fleet: every account's loop, begun and ended on its own, and which of them are paused.

    enabled ─▶ paused? ─no─▶ running ─ pause, removed, changed ─▶ stopping: at most 5 s for a LOGOUT ─▶ ended
                  └────────── resume ──────────┘

An account that is paused stays so when the service starts again, until somebody resumes it.
"""

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

import anyio
import anyio.abc

from idlepush.engine.observations import Observe, State, StateChanged
from idlepush.engine.settings import AccountSettings
from idlepush.engine.supervise import Supervisor
from idlepush.imap.types import MailboxName
from idlepush.imap.uidset import UidSet

GRACE: Final = 5.0
"""Seconds an account has to come to a quiet moment before it is cut short."""
PAUSED: Final = "paused by an operator"

MakeSupervisor = Callable[[AccountSettings], Supervisor]


@dataclass(slots=True)
class _Running:
    supervisor: Supervisor
    scope: anyio.CancelScope = field(default_factory=anyio.CancelScope)
    ended: anyio.Event = field(default_factory=anyio.Event)

    @property
    def settings(self) -> AccountSettings:
        return self.supervisor.watch.settings


class Fleet:
    """The accounts that are enabled. Changes take turns: none is made while another one waits for an account to end."""

    def __init__(self, supervisor: MakeSupervisor, observe: Observe) -> None:
        self._supervisor = supervisor
        self._observe = observe
        self._tasks: anyio.abc.TaskGroup | None = None
        self._settings: dict[str, AccountSettings] = {}
        self._running: dict[str, _Running] = {}
        self._paused: set[str] = set()
        self._turn = anyio.Lock()
        self._patience = anyio.CancelScope()

    @property
    def names(self) -> Collection[str]:
        """The enabled accounts, the paused ones too."""
        return self._settings.keys()

    def begin(
        self, tasks: anyio.abc.TaskGroup, accounts: Mapping[str, AccountSettings], paused: Collection[str]
    ) -> None:
        """Start every account's loop within *tasks*, save those of *paused*."""
        self._tasks = tasks
        self._paused = set(paused)
        self._settings = _enabled(accounts)
        for name in self._settings:
            self._start(name)

    def wake(self, names: Iterable[str] | None = None) -> None:
        """Have the accounts look at once, by default all of them."""
        for name in [*self._running] if names is None else names:
            if name in self._running:
                self._running[name].supervisor.watch.wake.set()

    def repair(self, name: str, mailbox: MailboxName, damaged: UidSet) -> bool:
        """Have one mailbox compared in full, at once, and *damaged* fetched anew; False where nothing runs for it."""
        running = self._running.get(name)
        if running is not None:
            running.supervisor.watch.repair(mailbox, damaged)
        return running is not None

    async def pause(self, name: str) -> None:
        """End the account's session; begin none until it is resumed."""
        async with self._turn:
            if name in self._settings and name not in self._paused:
                self._paused.add(name)
                await self._stop([name])
                self._observe(StateChanged(account=name, state=State.PAUSED, reason=PAUSED))

    async def resume(self, name: str) -> None:
        """Watch a paused account again."""
        async with self._turn:
            if name in self._paused:
                self._paused.discard(name)
                self._start(name)

    async def change(self, accounts: Mapping[str, AccountSettings]) -> Collection[str]:
        """Go on with *accounts*: those that did not change keep their sessions. Return the names of those that went."""
        async with self._turn:
            wanted = _enabled(accounts)
            removed = [name for name in self._settings if name not in wanted]
            await self._stop([name for name, one in self._running.items() if wanted.get(name) != one.settings])
            self._paused &= wanted.keys()
            before, self._settings = self._settings, wanted
            for name in wanted:
                if name not in self._running and (name not in self._paused or name not in before):
                    self._start(name)
            return removed

    async def end(self) -> None:
        """Stop every account; none starts again."""
        self._tasks = None
        self._patience.cancel()  # whoever waits for an account to end has waited enough
        async with self._turn:
            await self._stop([*self._running])

    def _start(self, name: str) -> None:
        if name in self._paused:
            self._observe(StateChanged(account=name, state=State.PAUSED, reason=PAUSED))
        elif self._tasks is not None:
            running = self._running[name] = _Running(self._supervisor(self._settings[name]))
            self._tasks.start_soon(self._keep, name, running, name=f"account {name}")

    async def _keep(self, name: str, running: _Running) -> None:
        try:
            with running.scope:
                await running.supervisor.run()
        finally:
            running.ended.set()
            del self._running[name]

    async def _stop(self, names: Collection[str]) -> None:
        ending = [self._running[name] for name in names if name in self._running]
        for running in ending:
            running.supervisor.stop()
        with anyio.move_on_after(GRACE) as self._patience:
            for running in ending:
                await running.ended.wait()
        for running in ending:
            running.scope.cancel()
            await running.ended.wait()


def _enabled(accounts: Mapping[str, AccountSettings]) -> dict[str, AccountSettings]:
    return {name: settings for name, settings in accounts.items() if settings.enabled}
