"""What a look costs on the wire: commands, not seconds."""

import anyio
import pytest

from idlepush.store.base import Committed
from idlepush.store.memory import MemoryStore
from idlepush.sync.changes import ChangeSet
from tests.engine.rig import Rig, mail, virtual_now
from tests.peers.fake import FakeImap, Session
from tests.peers.virtual import virtual_time


@virtual_time
async def test_a_thousand_sparse_uids_after_an_outage_cost_windows_and_not_a_command_each() -> None:
    fake = FakeImap()
    fake.deliver(mail(0))
    rig = Rig(fake)
    async with rig.running():
        await fake.until(lambda: fake.idling == 1)
        fake.end_all()
        for number in range(1, 1001):
            fake.deliver(mail(number), uid=number * 7)
        before = len(fake.commands)
        await rig.becomes_equal(within=20)
        await anyio.sleep(1)
        assert len(fake.commands) - before < 30


@pytest.mark.parametrize(
    ("introduction", "names"),
    [
        pytest.param(None, ["DONE", "UID FETCH", "NOOP", "UID SEARCH", "IDLE"], id="an unknown server"),
        pytest.param("Dovecot", ["DONE", "UID FETCH", "IDLE"], id="Dovecot"),
    ],
)
def test_a_push_is_one_write_and_a_check_where_the_server_is_not_known(
    introduction: str | None, names: list[str]
) -> None:
    @virtual_time
    async def run() -> None:
        fake = FakeImap()
        if introduction:

            def introduce(session: Session, tag: str) -> bool:
                session.say(f'* ID ("name" "{introduction}")')
                session.complete(tag, "OK")
                return False

            fake.at("ID", introduce, times=None)
        rig = Rig(fake)
        async with rig.running():
            await fake.until(lambda: fake.idling == 1)
            before = len(fake.commands)
            fake.deliver(mail(1))
            await rig.becomes_equal()
            await fake.until(lambda: fake.idling == 1)
            assert [command.name for command in fake.commands[before:]] == names

    run()


@virtual_time
async def test_a_backlog_of_many_turns_compares_no_flags_in_each_of_them() -> None:
    class SlowStore(MemoryStore):
        async def commit(self, change: ChangeSet) -> Committed:
            await anyio.sleep(1)
            return await super().commit(change)

    fake = FakeImap()
    for number in range(6000):
        fake.deliver(mail(number))
    rig = Rig(fake, store=SlowStore(clock=virtual_now), connections=1)
    async with rig.running():
        await fake.until(lambda: fake.idling == 1, within=600)
        await rig.becomes_equal()
        turns = [command for command in fake.commands if command.name == "EXAMINE"]
        compared = [command for command in fake.commands if command.arguments.endswith("(UID FLAGS)")]
        assert len(turns) > 3
        assert not compared
