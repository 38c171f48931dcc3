"""How the accounts stand is written down: a state at once, all else now and then, and never lost to a full disk."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio
import pytest

from idlepush.app.standing import EVERY, Standing
from idlepush.engine.observations import Looked, Observation, State, StateChanged, WakeSource
from idlepush.errors import FailureClass, StoreFull
from idlepush.store.base import AccountRow
from idlepush.store.memory import MemoryStore
from idlepush.telemetry.health import Health
from tests.engine.rig import virtual_now
from tests.peers.virtual import virtual_time


class Disk(MemoryStore):
    """A store that counts what is written of accounts, and is full when it is told so."""

    def __init__(self) -> None:
        super().__init__(clock=virtual_now)
        self.is_full = False
        self.writes: list[tuple[float, str, str]] = []

    async def set_account(self, row: AccountRow) -> None:
        if self.is_full:
            raise StoreFull("the disk is full")
        self.writes.append((anyio.current_time(), row.name, row.state))
        await super().set_account(row)


class Seen:
    """A store, and the readers before it."""

    def __init__(self) -> None:
        self.disk = Disk()
        self.health = Health(virtual_now)
        self.standing = Standing(self.disk, self.health)

    def __call__(self, *observations: Observation) -> None:
        for seen in observations:
            self.health(seen)
            self.standing(seen)

    @asynccontextmanager
    async def kept(self) -> AsyncIterator[None]:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self.standing.keep)
            yield
            tasks.cancel_scope.cancel()


def stands(account: str, state: State, failure_class: FailureClass | None = None) -> StateChanged:
    return StateChanged(account=account, state=state, failure_class=failure_class)


def looked(account: str) -> Looked:
    return Looked(account=account, mailbox="INBOX", source=WakeSource.PUSH, seconds=0.1, new=1)


@virtual_time
async def test_a_state_is_written_at_once_and_all_else_every_few_seconds_at_most() -> None:
    seen = Seen()
    async with seen.kept():
        await anyio.sleep(1)
        seen(stands("alice", State.WATCHING))
        await anyio.sleep(0.01)
        assert [(name, state) for _, name, state in seen.disk.writes] == [("alice", "watching")]
        for _ in range(100):
            seen(looked("alice"))
            await anyio.sleep(0.1)
    assert len(seen.disk.writes) <= 2 + 10 / EVERY
    (row,) = await seen.disk.accounts()
    assert row.details["last_push"] is not None and row.details["running"] is False


@virtual_time
async def test_states_that_keep_changing_do_not_keep_all_else_from_being_written() -> None:
    seen = Seen()
    async with seen.kept():
        seen(stands("bob", State.WATCHING), looked("bob"))
        for number in range(100):
            seen(stands("alice", State.WATCHING if number % 2 else State.POLLING))
            await anyio.sleep(0.1)
    (_, bob) = await seen.disk.accounts()
    assert bob.details["last_push"] is not None


@virtual_time
async def test_what_did_not_change_is_not_written() -> None:
    seen = Seen()
    async with seen.kept():
        seen(stands("alice", State.WATCHING))
        for _ in range(10):
            seen(StateChanged(account="alice", state=State.WATCHING))
            await anyio.sleep(1)
    assert len(seen.disk.writes) == 1


@virtual_time
async def test_a_full_disk_is_said_once_and_written_to_again_when_there_is_space() -> None:
    seen = Seen()
    async with seen.kept():
        seen.disk.is_full = True
        seen(stands("alice", State.BACKING_OFF, FailureClass.NETWORK))
        await anyio.sleep(30)
        with pytest.raises(StoreFull):
            await seen.standing.write()
        seen.disk.is_full = False
        await anyio.sleep(EVERY + 0.1)
    (row,) = await seen.disk.accounts()
    assert (row.state, row.failure_class) == ("backing_off", "network")


@virtual_time
async def test_a_thousand_accounts_are_written_in_one_go() -> None:
    seen = Seen()
    for number in range(1000):
        seen(stands(f"a{number:04}", State.WATCHING))
    await seen.standing.write()
    assert len(seen.disk.writes) == 1000
    await seen.standing.write()
    assert len(seen.disk.writes) == 1000


@virtual_time
async def test_of_an_account_that_was_removed_nothing_more_is_written() -> None:
    seen = Seen()
    seen(stands("alice", State.WATCHING))
    seen.health.forget("alice")
    seen.standing.forget("alice")
    await seen.standing.write()
    assert seen.disk.writes == []
