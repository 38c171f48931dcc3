"""The second lane: it takes the backlog, never holds up a push, and what goes wrong with it is nobody else's."""

import random
from typing import Any

import anyio
import pytest

from idlepush.engine.lane import REFUSED_FOR, RESTS_FOR
from idlepush.engine.observations import Backfilling, LaneClosed, LaneOpened, Mirrored
from idlepush.store.base import Committed
from idlepush.store.memory import MemoryStore
from idlepush.sync.changes import ChangeSet
from tests.engine.rig import Rig, mail, virtual_now
from tests.peers.fake import CAPABILITIES, CONDSTORE, QRESYNC, FakeImap, Session
from tests.peers.virtual import run_virtually, virtual_time


class SlowStore(MemoryStore):
    """A store whose bulk commits take a second each, and whose urgent ones take none."""

    async def commit(self, change: ChangeSet) -> Committed:
        if not change.urgent:
            await anyio.sleep(1)
        return await super().commit(change)


def filled(count: int, size: int = 0, **knobs: Any) -> FakeImap:
    fake = FakeImap(**knobs)
    for number in range(count):
        fake.deliver(mail(number, size=size))
    return fake


@virtual_time
async def test_a_push_during_a_long_backlog_is_fetched_at_once_on_the_idling_connection() -> None:
    fake = filled(1200, size=6000)
    rig = Rig(fake, store=SlowStore(clock=virtual_now))
    async with rig.running():
        await fake.until(lambda: len(fake.sessions) == 2 and fake.idling == 1, within=60)
        for number in range(5):
            await anyio.sleep(3)
            assert len(fake.sessions) == 2, "the backlog is still being worked off"
            begun = anyio.current_time()
            uid = fake.deliver(mail(100_000 + number))
            while uid not in await rig.in_mirror():
                await anyio.sleep(0.01)
            assert anyio.current_time() - begun < 0.1
        await rig.becomes_equal(within=600)
        await fake.until(lambda: len(fake.sessions) == 1 and fake.idling == 1)
        await rig.replays_exactly()
    assert fake.sessions_most == 2
    assert fake.sessions_ever == 2
    assert [seen.reason for seen in rig.observed(LaneClosed)] == [None]


@virtual_time
async def test_the_time_a_backlog_will_take_is_told_while_it_is_worked_off() -> None:
    fake = filled(900, size=20_000)
    rig = Rig(fake, store=SlowStore(clock=virtual_now))
    async with rig.running():
        await fake.until(lambda: fake.sessions_ever == 2 and len(fake.sessions) == 1, within=600)
        told = [(seen.remaining, seen.eta) for seen in rig.observed(Backfilling) if seen.eta is not None]
        assert told
        took = anyio.current_time()
        remaining, eta = told[0]
        assert remaining and 0.2 * took < eta < 2 * took


@virtual_time
async def test_a_small_backlog_opens_no_second_connection() -> None:
    fake = filled(300)
    rig = Rig(fake)
    async with rig.running():
        await rig.becomes_equal()
        await anyio.sleep(300)
    assert fake.sessions_most == 1


@virtual_time
async def test_an_account_of_one_connection_never_opens_another() -> None:
    fake = filled(300)
    rig = Rig(fake, lane=True, connections=1)
    async with rig.running():
        await rig.becomes_equal(within=60)
    assert fake.sessions_most == 1


@virtual_time
async def test_a_giant_body_comes_beside_the_pushes() -> None:
    fake = FakeImap()
    rig = Rig(fake, lane=True, max_message_bytes=0)
    async with rig.running():
        await fake.until(lambda: fake.idling == 1)
        fake.deliver(mail(1, size=5_000_000))
        await fake.until(lambda: len(fake.sessions) == 2)
        fake.deliver(mail(2))
        await rig.becomes_equal()
        slices = [one for one in fake.commands if "BODY.PEEK[]<" in one.arguments and "<0." not in one.arguments]
        assert {one.session for one in slices} == {2}
        await rig.replays_exactly()


@pytest.mark.parametrize(
    "refusal",
    [
        "NO [LIMIT] too many connections",
        "NO [INUSE] busy",
        "NO [ALERT] Too many simultaneous connections. (Failure)",
        "NO [AUTHENTICATIONFAILED] no",
    ],
)
def test_where_no_second_connection_is_allowed_the_first_does_all_and_none_is_asked_for_within_the_hour(
    refusal: str,
) -> None:
    @virtual_time
    async def run() -> None:
        fake = filled(50)

        def second(session: Session, tag: str) -> bool:
            if session.number == 1:
                return True
            session.complete(tag, refusal)
            return False

        fake.at("AUTHENTICATE", second, times=None)
        rig = Rig(fake, lane=True)
        async with rig.running():
            await rig.becomes_equal(within=60)
            await fake.until(lambda: fake.idling == 1, within=60)
            assert rig.states == ["starting", "watching"]
            for number in range(30):
                fake.deliver(mail(number, size=300_000))
                await anyio.sleep(100)
                await rig.becomes_equal()
            assert fake.sessions_ever == 2
            await anyio.sleep(REFUSED_FOR)
            fake.deliver(mail(1, size=300_000))
            await rig.becomes_equal()
            assert fake.sessions_ever == 3
            assert rig.observed(LaneOpened) == []

    run()


@pytest.mark.parametrize("at", ["EXAMINE", "UID SEARCH", "UID FETCH", "NOOP"])
def test_a_lane_that_is_cut_ends_no_session_and_what_it_had_is_fetched_all_the_same(at: str) -> None:
    @virtual_time
    async def run() -> None:
        fake = filled(80)

        def cut_the_lane(session: Session, _tag: str) -> bool:
            if session.number > 1:
                session.end("reset")
            return session.number == 1

        fake.at(at, cut_the_lane, times=None)
        rig = Rig(fake, lane=True)
        async with rig.running():
            await rig.becomes_equal(within=1000)  # what the lane set aside included
            await fake.until(lambda: fake.idling == 1)
            assert rig.states == ["starting", "watching"]
            assert len([one for one in rig.observed(LaneClosed) if one.reason]) >= 6
            sessions = fake.sessions_ever
            fake.deliver(mail(9, size=300_000))
            await rig.becomes_equal()
            assert fake.sessions_ever == sessions, "the lane rests"
            await anyio.sleep(RESTS_FOR)
            await rig.replays_exactly()

    run()


@virtual_time
async def test_a_message_the_server_dies_of_kills_the_lane_and_not_the_idling_session() -> None:
    fake = filled(40, poison={7: "cut"})
    rig = Rig(fake, lane=True)
    async with rig.running():
        await fake.until(lambda: fake.idling == 1)
        while len(await rig.in_mirror()) < 39:
            await anyio.sleep(1)
        assert set(rig.on_server()) - set(await rig.in_mirror()) == {7}
        first = [one for one in fake.sessions if one.number == 1]
        assert first, "the first session lives"
        del fake.poison[7]
        fake.deliver(mail(1000))
        await rig.becomes_equal(within=3 * 86400)


@virtual_time
async def test_the_lane_looks_into_nothing_that_its_own_connection_does_not_show_yet() -> None:
    fake = FakeImap()
    rig = Rig(fake, lane=True)
    async with rig.running():
        await fake.until(lambda: fake.idling == 1)
        gone: list[int] = []

        def behind(session: Session, _tag: str) -> bool:
            # What arrived since is hidden from this session until it examines once more.
            if session.number > 2 and not gone:
                gone.extend(message.uid for message in fake.mailbox().messages[-30:])
                hidden = fake.mailbox().messages[-30:]
                del fake.mailbox().messages[-30:]
                uidnext, fake.mailbox().uidnext = fake.mailbox().uidnext, hidden[0].uid

                def show() -> None:
                    fake.mailbox().messages.extend(hidden)
                    fake.mailbox().uidnext = uidnext

                session._loop.call_soon(show)
            return True

        fake.end_all()
        fake.at("EXAMINE", behind, times=None)
        for number in range(30):
            fake.deliver(mail(number))
        await rig.becomes_equal(within=60)
        assert gone
        assert len([event for event in await rig.events() if event.type == "message.expunged"]) == 0


@pytest.mark.parametrize("capabilities", [CAPABILITIES, CONDSTORE, QRESYNC], ids=["uid", "condstore", "qresync"])
def test_flags_that_change_and_messages_that_go_while_the_lane_works_are_not_lost(capabilities: str) -> None:
    async def one(seed: int) -> None:
        dice, fake = random.Random(seed), filled(400, size=2000, capabilities=capabilities)
        count = 0

        def on_command(_session: object, _command: object) -> None:
            nonlocal count
            count += 1
            if dice.random() < 0.4:
                uids = [message.uid for message in fake.mailbox().messages]
                match dice.randrange(4):
                    case 0:
                        fake.deliver(mail(dice.randrange(10**9), size=dice.choice([0, 0, 600_000])))
                    case 1:
                        fake.expunge(dice.choice(uids))
                    case _:
                        fake.set_flags(dice.choice(uids), dice.sample(["\\Seen", "\\Flagged", "$Work"], 2))

        rig = Rig(fake, lane=True, flags_interval="10m")
        fake.on_command = on_command
        async with rig.running():
            await anyio.sleep(300)
            fake.on_command = None
            rig.watch.wake.set()
            await rig.becomes_equal(within=30)
            await rig.replays_exactly()
        assert fake.sessions_most == 2
        assert sum(seen.count for seen in rig.observed(Mirrored)) > 350

    for seed in range(8):
        run_virtually(one(seed))


@virtual_time
async def test_a_reset_while_the_lane_works_begins_anew_and_ends_equal() -> None:
    fake = filled(500, size=20_000)
    rig = Rig(fake, store=SlowStore(clock=virtual_now))
    async with rig.running():
        await fake.until(lambda: len(fake.sessions) == 2, within=60)
        fake.bump_uidvalidity()
        await rig.becomes_equal(within=300)
        await rig.replays_exactly()
