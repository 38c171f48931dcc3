"""Accounts begin and end on their own: paused, resumed, changed and removed, in virtual time on a fake server."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

import anyio

from idlepush.app.fleet import GRACE, PAUSED, Fleet
from idlepush.engine.limits import LoginLimit
from idlepush.engine.observations import Observation, State, StateChanged
from idlepush.engine.settings import AccountSettings
from idlepush.engine.supervise import Supervisor
from idlepush.engine.watch import Surroundings, Watch
from tests.engine.rig import Rig, virtual_now
from tests.peers.fake import PASSWORD, FakeImap, mute
from tests.peers.virtual import virtual_time


class Yard:
    """A fleet whose accounts all live on one server."""

    def __init__(self) -> None:
        self.fake = FakeImap()
        self.rig = Rig(self.fake)
        self.seen: list[Observation] = []
        self.began: list[str] = []
        self.fleet = Fleet(self._supervisor, self.seen.append)

    def _supervisor(self, settings: AccountSettings) -> Supervisor:
        self.began.append(settings.name)
        around = Surroundings(
            store=self.rig.store,
            observe=self.seen.append,
            now=virtual_now,
            environment={},
            logins=LoginLimit(0, 1),
            dial=self.rig.dial,
        )
        return Supervisor(Watch(settings, around), self.seen.append, lambda: 0.5, {})

    @asynccontextmanager
    async def watched(self, accounts: Mapping[str, AccountSettings], *paused: str) -> AsyncIterator[Fleet]:
        async with anyio.create_task_group() as tasks:
            self.fleet.begin(tasks, accounts, paused)
            yield self.fleet
            await self.fleet.end()
            tasks.cancel_scope.cancel()

    def state(self, account: str) -> str | None:
        states = [one.state for one in self.seen if isinstance(one, StateChanged) and one.account == account]
        return states[-1].value if states else None


def accounts(*names: str, **more: object) -> dict[str, AccountSettings]:
    keys = {"host": "127.0.0.1", "tls": "none", "username": "alice", "password": PASSWORD, **more}
    return {name: AccountSettings.model_validate({"name": name, **keys}) for name in names}


@virtual_time
async def test_a_paused_account_has_no_session_until_it_is_resumed() -> None:
    yard = Yard()
    async with yard.watched(accounts("alice", "bob")) as fleet:
        await yard.fake.until(lambda: yard.fake.idling == 2)
        await fleet.pause("alice")
        assert yard.fake.idling == 1
        assert yard.seen[-1] == StateChanged(account="alice", state=State.PAUSED, reason=PAUSED)
        await fleet.pause("alice")
        fleet.wake(["alice"])
        await anyio.sleep(3600)
        assert yard.fake.idling == 1
        await fleet.resume("alice")
        await fleet.resume("alice")
        await yard.fake.until(lambda: yard.fake.idling == 2)
        assert yard.began == ["alice", "bob", "alice"]


@virtual_time
async def test_what_was_paused_before_a_restart_does_not_begin() -> None:
    yard = Yard()
    async with yard.watched(accounts("alice", "bob"), "alice", "unknown"):
        await yard.fake.until(lambda: yard.fake.idling == 1)
        assert (yard.state("alice"), yard.began) == ("paused", ["bob"])


@virtual_time
async def test_a_change_ends_and_begins_what_it_concerns_and_nothing_else() -> None:
    yard = Yard()
    before = accounts("stays", "changes", "goes", "is_disabled")
    after = (
        accounts("stays", "comes") | accounts("changes", poll_interval="7m") | accounts("is_disabled", enabled=False)
    )
    async with yard.watched(before) as fleet:
        await yard.fake.until(lambda: yard.fake.idling == 4)
        removed = await fleet.change(after)
        assert sorted(removed) == ["goes", "is_disabled"]
        await yard.fake.until(lambda: yard.fake.idling == 3)
        assert yard.began == [*before, "comes", "changes"]
        assert set(fleet.names) == {"stays", "comes", "changes"}


@virtual_time
async def test_a_paused_account_that_is_changed_stays_paused_and_one_that_is_removed_and_comes_back_does_not() -> None:
    yard = Yard()
    async with yard.watched(accounts("alice")) as fleet:
        await yard.fake.until(lambda: yard.fake.idling == 1)
        await fleet.pause("alice")
        await fleet.change(accounts("alice", poll_interval="7m"))
        await anyio.sleep(60)
        assert yard.fake.idling == 0
        await fleet.change({})
        await fleet.change(accounts("alice"))
        await yard.fake.until(lambda: yard.fake.idling == 1)


async def hang(yard: Yard) -> None:
    """Have every account wait for an answer to its fetch that never comes."""
    yard.fake.at("UID FETCH", mute, times=None)
    yard.fake.deliver(b"Subject: never fetched\r\n\r\n")
    await anyio.sleep(1)


@virtual_time
async def test_an_account_whose_server_does_not_answer_is_cut_short() -> None:
    yard = Yard()
    async with yard.watched(accounts("alice")) as fleet:
        await yard.fake.until(lambda: yard.fake.idling == 1)
        await hang(yard)
        begun = anyio.current_time()
        await fleet.end()
        assert GRACE <= anyio.current_time() - begun < GRACE + 1


@virtual_time
async def test_the_end_does_not_wait_behind_a_change_that_waits() -> None:
    yard = Yard()
    async with yard.watched(accounts("alice", "bob")) as fleet:
        await yard.fake.until(lambda: yard.fake.idling == 2)
        await hang(yard)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(fleet.pause, "alice")
            await anyio.sleep(0.1)
            begun = anyio.current_time()
            await fleet.end()
            assert anyio.current_time() - begun < GRACE + 1
    assert yard.began == ["alice", "bob"]
