"""A server that carries out a command for so many messages only (RFC 9738) gives complete answers all the same."""

from typing import Any

import pytest

from idlepush.sync.events import EventType
from tests.engine.rig import Rig, mail
from tests.peers.fake import CAPABILITIES, FakeImap
from tests.peers.virtual import virtual_time

OVER = ["newest", "oldest", "NO"]


@pytest.mark.parametrize("esearch", [True, False], ids=["ESEARCH", "SEARCH"])
@pytest.mark.parametrize("limit", [1, 7, 100])
@pytest.mark.parametrize("over", OVER)
def test_nothing_is_lost_and_nothing_is_taken_for_gone(over: Any, limit: int, esearch: bool) -> None:
    @virtual_time
    async def run() -> None:
        capabilities = CAPABILITIES if esearch else CAPABILITIES.replace(" ESEARCH", "")
        fake = FakeImap(capabilities=f"{capabilities} MESSAGELIMIT={limit}", message_limit=limit, over_limit=over)
        for number in range(1, 151):
            fake.deliver(mail(number), uid=number * 3)
        rig = Rig(fake, flags_interval="20s", poll_interval="10s")
        async with rig.running():
            await rig.becomes_equal(within=60)
            await fake.until(lambda: fake.idling == 1, within=60)
            fake.end_all()
            for number in range(151, 200):
                fake.deliver(mail(number), uid=number * 3)
            fake.expunge(30)
            for uid in (3, 150, 300):
                fake.set_flags(uid, ["\\Flagged"])
            await rig.becomes_equal(within=60)
            fake.end_all()
            await rig.becomes_equal(within=60)
            await rig.replays_exactly()
            expunged = [event for event in await rig.events() if event.type is EventType.MESSAGE_EXPUNGED]
            assert [event.uid for event in expunged] == [30]

    run()


@virtual_time
async def test_a_limit_costs_one_round_trip_for_each_of_it() -> None:
    fake = FakeImap(capabilities=f"{CAPABILITIES} MESSAGELIMIT=1000", message_limit=1000)
    for number in range(3000):
        fake.deliver(mail(number))
    rig = Rig(fake)
    async with rig.running():
        await rig.becomes_equal(within=60)
        searches = [command for command in fake.commands if command.name == "UID SEARCH"]
        # One of the whole survey in three parts, one behind each window of 500.
        assert len(searches) <= 3 + 6 + 1
