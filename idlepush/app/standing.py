"""Standing: how every account stands, kept in the store, so that `status` and `health` answer when nothing runs.

A state that changed is written at once, for `account.state` is told by it; all else every few seconds at most.
"""

from collections.abc import Iterable
from typing import Final

import anyio
import structlog

from idlepush.engine.observations import Observation, StateChanged
from idlepush.errors import StoreError
from idlepush.store.base import AccountRow, Store
from idlepush.telemetry.health import AccountHealth, Health

EVERY: Final = 5.0
AT_ONCE: Final = 100
"""Writes that wait together: as many go into one transaction."""


class Standing:
    """A reader of observations; it stands behind the health, which must have taken each of them in before."""

    def __init__(self, store: Store, health: Health) -> None:
        self._store = store
        self._health = health
        self._written: dict[str, AccountRow] = {}
        self._changed: set[str] = set()
        self._touched: set[str] = set()
        self._hurry = anyio.Event()
        self._is_failing = False

    def __call__(self, seen: Observation) -> None:
        """Note that *seen* may have changed how its account stands."""
        if isinstance(seen, StateChanged):
            self._changed.add(seen.account)
            self._hurry.set()
        else:
            self._touched.add(seen.account)

    def forget(self, account: str) -> None:
        """Write no more of *account*; its row stays, as its messages do."""
        self._written.pop(account, None)
        self._changed.discard(account)
        self._touched.discard(account)

    async def keep(self) -> None:
        """Write down what changed, as it does. For ever; a store that cannot be written is tried again."""
        due = anyio.current_time() + EVERY
        while True:
            with anyio.move_on_at(due):
                await self._hurry.wait()
            self._hurry = anyio.Event()
            names = set(self._changed)
            if anyio.current_time() >= due:
                due = anyio.current_time() + EVERY
                names |= self._touched
            await self._try(names)

    async def write(self) -> None:
        """Write down all that changed.

        Raises:
            StoreError: it could not be written, or not all of it.
        """
        await self._write(self._changed | self._touched)

    async def _try(self, names: Iterable[str]) -> None:
        try:
            await self._write(names)
        except StoreError as error:
            # Said once; whoever fetches says it again for each account.
            if not self._is_failing:
                structlog.get_logger().error("store.trouble", reason=str(error))
            self._is_failing = True
        else:
            self._is_failing = False

    async def _write(self, names: Iterable[str]) -> None:
        todo = [self._health.accounts[name] for name in sorted(names) if name in self._health.accounts]
        for first in range(0, len(todo), AT_ONCE):
            failed: list[StoreError] = []
            async with anyio.create_task_group() as tasks:
                for stands in todo[first : first + AT_ONCE]:
                    tasks.start_soon(self._write_one, stands, failed)
            if failed:
                raise failed[0]

    async def _write_one(self, stands: AccountHealth, failed: list[StoreError]) -> None:
        row = row_of(stands)
        self._changed.discard(row.name)
        self._touched.discard(row.name)
        if self._written.get(row.name) == row:
            return
        try:
            await self._store.set_account(row)
        except StoreError as error:
            self._changed.add(row.name)
            failed.append(error)
        else:
            self._written[row.name] = row


def row_of(stands: AccountHealth) -> AccountRow:
    """Return the row that an account's standing is kept in: `details` is the line of `status`, and the reasons."""
    return AccountRow(
        name=stands.account,
        state=stands.state.value,
        since=stands.since,
        failure_class=stands.failure_class.value if stands.failure_class else None,
        reason=stands.reason,
        details=stands.record(running=False) | {"reasons": list(stands.reasons)},
    )
