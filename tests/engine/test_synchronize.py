"""The mirror reaches the server, whatever happened between two looks, during one, or at any byte of the wire.

Histories are enumerated where they are short and drawn from seeds where they are long. Every one ends the same way:
the mirror equals the server, replaying the log gives the mirror, and one more look does nothing.
"""

import itertools
import os
import random
from collections.abc import Callable

import anyio
import pytest

from idlepush.errors import StoreFull
from idlepush.store.base import Committed
from idlepush.store.memory import MemoryStore
from idlepush.sync.changes import ChangeSet
from idlepush.sync.events import EventType
from tests.engine.rig import Rig, mail, virtual_now
from tests.peers.fake import CAPABILITIES, CONDSTORE, QRESYNC, FakeImap
from tests.peers.virtual import run_virtually, virtual_time

Act = Callable[[FakeImap, random.Random], None]


def arrive(fake: FakeImap, dice: random.Random) -> None:
    fake.deliver(mail(dice.randrange(10**9)), flags=dice.choice([[], ["\\Seen"], ["$Work", "\\Flagged"]]))


def expunge(fake: FakeImap, dice: random.Random) -> None:
    if fake.mailbox().messages:
        fake.expunge(dice.choice(fake.mailbox().messages).uid)


def flag(fake: FakeImap, dice: random.Random) -> None:
    if fake.mailbox().messages:
        flags = dice.sample(["\\Seen", "\\Flagged", "\\Answered", "\\Deleted", "Later", "$Junk"], dice.randrange(4))
        fake.set_flags(dice.choice(fake.mailbox().messages).uid, flags)


def flood(fake: FakeImap, dice: random.Random) -> None:
    for _ in range(dice.randrange(22, 60)):
        arrive(fake, dice)


def cut(fake: FakeImap, _dice: random.Random) -> None:
    fake.end_all("reset")


def reset(fake: FakeImap, _dice: random.Random) -> None:
    fake.bump_uidvalidity()


SHORT: list[Act] = [arrive, expunge, flag]


async def ends_well(rig: Rig, *, within: float = 30) -> None:
    """Mirror and server are equal, the log replays, and another look writes nothing."""
    rig.watch.wake.set()
    await rig.becomes_equal(within=within)
    await rig.fake.until(lambda: rig.fake.idling == 1, within=within)
    await rig.replays_exactly()
    position = await rig.store.position()
    before = len(rig.fake.commands)
    rig.watch.wake.set()
    await rig.fake.until(lambda: len(rig.fake.commands) > before + 1 and rig.fake.idling == 1, within=within)
    assert await rig.store.position() == position, "a second look wrote something"
    assert rig.fake.changes_by_clients == []


@pytest.mark.parametrize("capabilities", [CAPABILITIES, CONDSTORE, QRESYNC], ids=["uid", "condstore", "qresync"])
@pytest.mark.parametrize("connected", [True, False], ids=["while it idles", "while it is away"])
def test_every_short_history_between_two_looks_is_mirrored(connected: bool, capabilities: str) -> None:
    """All sequences of up to four arrivals, expunges and flag changes."""

    async def one(history: tuple[Act, ...]) -> None:
        fake, dice = FakeImap(capabilities=capabilities), random.Random(repr(history))
        for number in range(3):
            fake.deliver(mail(number))
        rig = Rig(fake)
        async with rig.running():
            await fake.until(lambda: fake.idling == 1)
            if not connected:
                fake.end_all()
            for act in history:
                act(fake, dice)
            await ends_well(rig)

    for length in range(1, 5):
        for history in itertools.product(SHORT, repeat=length):
            run_virtually(one(history))


@pytest.mark.parametrize("lane", [False, True], ids=["one connection", "with the lane"])
@pytest.mark.parametrize("capabilities", [CAPABILITIES, QRESYNC], ids=["uid", "qresync"])
@pytest.mark.parametrize("act", SHORT, ids=lambda act: act.__name__)
def test_whatever_happens_at_any_command_of_a_look_is_mirrored(act: Act, capabilities: str, lane: bool) -> None:
    """One act just before each command of: login, first mirror, push, renewal."""

    async def one(at: int) -> bool:
        fake, dice = FakeImap(capabilities=capabilities), random.Random(at)
        for number in range(4):
            fake.deliver(mail(number))
        count = 0

        def on_command(_session: object, _command: object) -> None:
            nonlocal count
            count += 1
            if count == at:
                act(fake, dice)

        fake.on_command = on_command
        rig = Rig(fake, lane=lane)
        async with rig.running():
            await fake.until(lambda: fake.idling == 1)
            fake.deliver(mail(100))
            await rig.becomes_equal()
            await anyio.sleep(600)
            fake.on_command = None
            await ends_well(rig)
        return count >= at

    for at in itertools.count(1):
        if not run_virtually(one(at)):
            assert at > 10
            return


SEEDS = int(os.environ.get("IDLEPUSH_SEEDS", "60"))
KNOBS: list[dict[str, object]] = [
    {},
    {"silent_expunges": True},
    {"push_uids": True, "fetch_order": "down"},
    {"pushes_before_confirming": True, "lower_case": True},
    {"pushes": "on DONE", "keepalive": 30.0},
    {"idle_cut_after": 7.0},
    {"capabilities": "IMAP4rev1 AUTH=PLAIN"},
    {"expunged_body": "stand-in", "silent_expunges": True, "fetch_twice": True},
    {"expunged_body": "empty", "reverses_completions": True},
    {"idle_ends_after": 11.0, "expunged_body": "omitted"},
    {"capabilities": QRESYNC},
    {"capabilities": CONDSTORE, "push_uids": True},
    {"capabilities": QRESYNC, "silent_expunges": True, "idle_cut_after": 9.0},
]


@pytest.mark.parametrize("seed", range(SEEDS))
def test_a_long_random_history_ends_equal(seed: int) -> None:
    """Arrivals, floods, expunges, flags, cuts and resets at random moments, on a server of some kind."""

    async def run() -> None:
        dice = random.Random(seed)
        fake = FakeImap(**KNOBS[seed % len(KNOBS)])  # type: ignore[arg-type]
        for _ in range(dice.randrange(60)):
            arrive(fake, dice)
        lane = seed // len(KNOBS) % 2 == 1
        rig = Rig(fake, poll_interval="30s", idle_renew="1m", flags_interval="1m", dice=dice.random(), lane=lane)
        acts: list[Act] = [arrive] * 8 + [expunge] * 5 + [flag] * 6 + [flood, cut, cut]
        resets = 0
        async with rig.running():
            for _ in range(60):
                await anyio.sleep(dice.choice([0, 0, 0.001, 0.05, 1, 8, 40]))
                act = dice.choice(acts)
                act(fake, dice)
                if resets < 2 and dice.random() < 0.02:
                    resets += 1
                    reset(fake, dice)
            fake.idle_cut_after = fake.idle_ends_after = None
            await anyio.sleep(130)
            await rig.becomes_equal(within=130)
            await rig.replays_exactly()
        assert fake.changes_by_clients == []
        log = await rig.events()
        told = sum(event.type is EventType.MAILBOX_RESET for event in log)
        assert told <= resets  # two changes between two looks are one

    run_virtually(run(), real_limit=60)


# The wire, byte by byte


def _scene(number: int) -> bytes:
    return mail(number, size=300)


LANE = pytest.mark.parametrize("lane", [False, True], ids=["one connection", "with the lane"])


@LANE
@pytest.mark.parametrize("how", ["reset", "close", "stall"])
def test_a_session_cut_after_any_byte_the_server_sends_ends_like_the_uncut_one(how: str, lane: bool) -> None:
    """A whole session (greeting … first mirror … push) is cut after each of its bytes in turn (faults.md, a2)."""

    async def one(offset: int | None) -> tuple[int, list[tuple[object, ...]]]:
        fake = FakeImap(cut_after=offset, cut_how=how)  # type: ignore[arg-type]
        for number in range(3):
            fake.deliver(_scene(number))
        rig = Rig(fake, command_timeout="20s", lane=lane)
        async with rig.running():
            await rig.becomes_equal(within=600)
            await fake.until(lambda: fake.idling == 1, within=600)
            sent = fake.sent
            fake.deliver(_scene(9))
            await rig.becomes_equal(within=600)
            await rig.replays_exactly()
        news = [(event.uid,) for event in await rig.events() if event.type is EventType.MESSAGE_NEW]
        return sent, sorted(news)

    length, uncut = run_virtually(one(None))
    step = 1 if os.environ.get("IDLEPUSH_EVERY_BYTE") else 17 if lane else 7
    for offset in range(how == "close", length + 200, step):
        assert run_virtually(one(offset))[1] == uncut, f"cut after {offset} bytes"


@LANE
def test_mail_that_lands_between_any_two_bytes_the_client_sends_is_neither_lost_nor_doubled(lane: bool) -> None:
    """Delivery at every step of the client's cycle (faults.md, b18)."""

    async def one(offset: int | None) -> int:
        fake = FakeImap()
        fake.deliver(_scene(1))
        landed = 0

        def on_bytes(count: int) -> None:
            nonlocal landed
            if offset is not None and count >= offset and not landed:
                landed = fake.deliver(_scene(2))

        fake.on_client_bytes = on_bytes
        rig = Rig(fake, idle_renew="1m", lane=lane)
        async with rig.running():
            await fake.until(lambda: fake.idling == 1)
            fake.deliver(_scene(3))
            await rig.becomes_equal()
            await anyio.sleep(61)
            await fake.until(lambda: fake.idling == 1)
            await rig.becomes_equal(within=1)
            await rig.replays_exactly()
            fake.on_client_bytes = None
            received = fake.received
        news = [event.uid for event in await rig.events() if event.type is EventType.MESSAGE_NEW]
        assert len(news) == len(set(news)) == 2 + bool(landed)
        return received

    length = run_virtually(one(None))
    for offset in range(1, length):
        run_virtually(one(offset))


# The store


class CutStore(MemoryStore):
    """A store whose service dies right before or right behind its n-th commit."""

    countdown = -1
    behind = False

    async def commit(self, change: ChangeSet) -> Committed:
        self.countdown -= 1
        if self.countdown == 0 and not self.behind:
            raise Killed
        done = await super().commit(change)
        if self.countdown == 0:
            raise Killed
        return done


class Killed(BaseException):
    """The process is gone."""


@LANE
@pytest.mark.parametrize("behind", [False, True], ids=["before", "behind"])
def test_a_service_killed_at_any_commit_goes_on_where_it_was(behind: bool, lane: bool) -> None:
    def story() -> FakeImap:
        fake = FakeImap()
        for number in range(30):
            fake.deliver(mail(number, size=20_000))
        fake.deliver(mail(31, size=700_000))
        return fake

    async def one(at: int) -> bool:
        fake = story()
        store = CutStore(clock=virtual_now)
        store.countdown, store.behind = at, behind
        rig = Rig(fake, store=store, lane=lane)
        died = False
        try:
            async with rig.running():
                await fake.until(lambda: fake.idling == 1)
                fake.expunge(3)
                fake.set_flags(4, ["\\Seen"])
                fake.deliver(mail(77))
                await rig.becomes_equal()
        except* Killed:
            died = True
        fake.end_all()
        store.countdown = -1
        again = Rig(fake, store=store)
        async with again.running():
            await again.becomes_equal()
            await again.replays_exactly()
        return died

    for at in itertools.count(1):
        if not run_virtually(one(at)):
            assert at > 5
            return


@virtual_time
async def test_a_store_that_fails_stops_fetching_until_it_works_again() -> None:
    class FullStore(MemoryStore):
        full = False

        async def commit(self, change: ChangeSet) -> Committed:
            if self.full:
                raise StoreFull("the disk is full")
            return await super().commit(change)

    fake = FakeImap()
    store = FullStore(clock=virtual_now)
    rig = Rig(fake, store=store)
    async with rig.running():
        await fake.until(lambda: fake.idling == 1)
        store.full = True
        fake.deliver(mail(1))
        seen = await rig.comes_to("backing_off")
        assert seen.reason is not None and "disk is full" in seen.reason
        before = len(fake.commands)
        await anyio.sleep(60)
        assert len(fake.commands) - before < 80
        store.full = False
        await rig.becomes_equal(within=60)
        await rig.replays_exactly()


def test_an_account_cancelled_at_any_byte_leaves_no_session_open_and_loses_nothing() -> None:
    """Cancellation wherever the engine waits for the wire (faults.md, d8)."""

    async def one(offset: int | None) -> int:
        fake = FakeImap()
        for number in range(3):
            fake.deliver(_scene(number))
        rig, length = Rig(fake), 0
        async with anyio.create_task_group() as tasks:

            def on_bytes(count: int) -> None:
                if count == offset:
                    tasks.cancel_scope.cancel()

            fake.on_client_bytes = on_bytes
            tasks.start_soon(rig.supervisor.run)
            await fake.until(lambda: fake.idling == 1)
            fake.deliver(_scene(9))
            await rig.becomes_equal()
            length = fake.received
            tasks.cancel_scope.cancel()
        await fake.until(lambda: not fake.sessions)
        fake.on_client_bytes = None
        again = Rig(fake, store=rig.store)
        async with again.running():
            await again.becomes_equal()
            await again.replays_exactly()
        return length

    length = run_virtually(one(None))
    for offset in range(1, length, 3):
        run_virtually(one(offset))
