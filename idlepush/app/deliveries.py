"""Deliveries: the sinks that the configuration asks for, begun and ended with it.

Now a Maildir for each account that has one; whatever comes next is another line in `_sink`.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import anyio
import anyio.abc

from idlepush.engine.deliver import Deliver
from idlepush.engine.observations import Observe, SinkStopped
from idlepush.engine.settings import AccountSettings
from idlepush.sinks.maildir import Maildir
from idlepush.store.base import Store


@dataclass(slots=True)
class _Running:
    path: Path
    maildir: Maildir
    deliver: Deliver
    scope: anyio.CancelScope = field(default_factory=anyio.CancelScope)
    ended: anyio.Event = field(default_factory=anyio.Event)


class Deliveries:
    """The loops of all sinks."""

    def __init__(self, store: Store, observe: Observe, dice: Callable[[], float]) -> None:
        self._store = store
        self._observe = observe
        self._dice = dice
        self._tasks: anyio.abc.TaskGroup | None = None
        self._running: dict[str, _Running] = {}
        self._delimiters: dict[str, str | None] = {}

    def learn(self, account: str, delimiter: str | None) -> None:
        """Take note of what separates the levels of a mailbox's name at the account's server."""
        self._delimiters[account] = delimiter
        if account in self._running:
            self._running[account].maildir.learn(delimiter)

    def cursors(self) -> Iterator[tuple[str, str, int]]:
        """Yield how far each sink is: account, sink, position."""
        for account, one in list(self._running.items()):
            yield account, one.maildir.name, one.deliver.position

    def begin(self, tasks: anyio.abc.TaskGroup, accounts: Mapping[str, AccountSettings]) -> None:
        """Deliver within *tasks*, which end it when they are cancelled."""
        self._tasks = tasks
        for name, path in _maildirs(accounts).items():
            self._start(name, path)

    async def change(self, accounts: Mapping[str, AccountSettings]) -> None:
        """Go on with *accounts*: a Maildir that did not change is not disturbed, one that went stays as it is."""
        wanted = _maildirs(accounts)
        ending = [one for name, one in self._running.items() if wanted.get(name) != one.path]
        for one in ending:
            one.scope.cancel()
        for one in ending:
            await one.ended.wait()
            self._observe(SinkStopped(account=one.maildir.account, sink=one.maildir.name))
        for name, path in wanted.items():
            if name not in self._running:
                self._start(name, path)

    def _start(self, account: str, path: Path) -> None:
        if self._tasks is None:
            return
        maildir = Maildir(path, account, self._store)
        if account in self._delimiters:
            maildir.learn(self._delimiters[account])
        running = _Running(path, maildir, Deliver(maildir, self._store, self._observe, self._dice))
        self._running[account] = running
        self._tasks.start_soon(self._keep, account, running, name=f"maildir of {account}")

    async def _keep(self, account: str, running: _Running) -> None:
        try:
            with running.scope:
                await running.deliver.run()
        finally:
            running.ended.set()
            del self._running[account]


def _maildirs(accounts: Mapping[str, AccountSettings]) -> dict[str, Path]:
    return {name: one.maildir for name, one in accounts.items() if one.enabled and one.maildir is not None}
