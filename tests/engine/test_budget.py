"""The byte budget of a day: older mail waits for the next one, new mail never."""

import anyio
import pytest

from idlepush.engine.observations import BudgetSpent
from tests.engine.rig import Rig, mail, virtual_now
from tests.peers.fake import FakeImap
from tests.peers.virtual import virtual_time

DAY = 86_400.0
UNTIL_MIDNIGHT = 4 * 3600.0  # the rig begins at 20:00


def filled(count: int) -> FakeImap:
    fake = FakeImap()
    for number in range(count):
        fake.deliver(mail(number, size=100_000))
    return fake


@pytest.mark.parametrize("lane", [False, True], ids=["one connection", "with the lane"])
def test_a_first_mirror_larger_than_the_budget_takes_days_and_pushes_take_none(lane: bool) -> None:
    @virtual_time
    async def run() -> None:
        fake = filled(200)
        rig = Rig(fake, lane=lane, daily_bytes=8_000_000)
        async with rig.running():
            await fake.until(lambda: fake.idling == 1, within=60)
            await anyio.sleep(600)
            first_day = len(await rig.in_mirror())
            assert 60 <= first_day <= 130
            assert len(fake.sessions) == 1
            for number in range(3):
                uid = fake.deliver(mail(1000 + number, size=50_000))
                await anyio.sleep(1)
                assert uid in await rig.in_mirror()
            fake.end_all()
            for number in range(30):
                fake.deliver(mail(2000 + number))
            await anyio.sleep(60)
            assert len(await rig.in_mirror()) == first_day + 33, "what came in an outage is news"
            assert len(rig.observed(BudgetSpent)) == 1
            commands = len(fake.commands)
            await anyio.sleep(3000)
            assert len(fake.commands) - commands < 60, "waiting costs next to nothing"
            await anyio.sleep(UNTIL_MIDNIGHT)
            assert first_day + 33 < len(await rig.in_mirror()) < 233
            await anyio.sleep(2 * DAY)
            await rig.becomes_equal()
            await rig.replays_exactly()
        assert len(rig.observed(BudgetSpent)) >= 2

    run()


@virtual_time
async def test_a_restart_begins_no_new_day() -> None:
    fake = filled(200)
    rig = Rig(fake, daily_bytes=8_000_000)
    async with rig.running():
        await fake.until(lambda: fake.idling == 1, within=60)
        await anyio.sleep(10)
        before = len(await rig.in_mirror())
    traffic = await rig.store.traffic("alice")
    assert traffic is not None
    assert traffic[0] == virtual_now().date()
    assert traffic[1] > 4_000_000
    again = Rig(fake, store=rig.store, daily_bytes=8_000_000)
    async with again.running():
        await anyio.sleep(600)
        assert len(await again.in_mirror()) - before < 80
