"""After a UIDVALIDITY change nothing is fetched twice, nothing is told as new that was known, and nothing is mixed."""

import hashlib
import random
from typing import Any

import anyio
import pytest

from idlepush.sync.events import EventType
from tests.engine.rig import Rig, mail
from tests.peers.fake import CAPABILITIES, QRESYNC, FakeImap
from tests.peers.virtual import run_virtually, virtual_time

WITH_NAMES = QRESYNC + " OBJECTID"
BOTH = pytest.mark.parametrize("capabilities", [WITH_NAMES, CAPABILITIES], ids=["by name", "by header"])


def filled(count: int, **knobs: Any) -> FakeImap:
    fake = FakeImap(**knobs)
    for number in range(count):
        fake.deliver(mail(number, size=3000), emailid=f"M{number}")
    return fake


async def ids_by_hash(rig: Rig) -> dict[str | None, str]:
    return {row.sha256: row.id async for row in rig.store.messages("alice")}


@BOTH
@virtual_time
async def test_no_body_that_is_known_is_fetched_again(capabilities: str) -> None:
    fake = filled(300, capabilities=capabilities)
    rig = Rig(fake)
    async with rig.running():
        await rig.becomes_equal(within=60)
        await fake.until(lambda: fake.idling == 1)
        await anyio.sleep(2 * 3600)  # what came since the last look would be news, not backlog
        before, sent, count = await ids_by_hash(rig), fake.sent, len(fake.commands)
        fake.bump_uidvalidity()
        fake.expunge(7)
        fake.deliver(mail(1000, size=3000), emailid="M1000")
        await rig.becomes_equal(within=60)
        await fake.until(lambda: fake.idling == 1, within=60)
        await rig.replays_exactly()

        after = await ids_by_hash(rig)
        new = hashlib.sha256(mail(1000, size=3000)).hexdigest()
        assert {key: value for key, value in after.items() if key != new} == {
            key: value for key, value in before.items() if key in after
        }
        whole = [one for one in fake.commands[count:] if one.name == "UID FETCH" and "BODY.PEEK[]" in one.arguments]
        assert len(whole) <= 2
        assert fake.sent - sent < 300 * 700
        log = await rig.events()
        told = [event.type for event in log if not event.details.get("initial")]
        assert told.count(EventType.MAILBOX_RESET) == 1
        assert told.count(EventType.MESSAGE_MOVED) == 299
        assert told.count(EventType.MESSAGE_EXPUNGED) == 1


@BOTH
def test_a_reset_that_is_cut_anywhere_goes_on_where_it_was(capabilities: str) -> None:
    async def one(seed: int) -> None:
        dice, fake = random.Random(seed), filled(60, capabilities=capabilities)
        rig = Rig(fake)
        async with rig.running():
            await rig.becomes_equal(within=60)
            await fake.until(lambda: fake.idling == 1)
            before = await ids_by_hash(rig)
            for _ in range(2):
                fake.bump_uidvalidity()
                fake.cut_after = fake.sent + dice.randrange(200, 20_000)
                await rig.becomes_equal(within=300)
                await fake.until(lambda: fake.idling == 1, within=300)
            await rig.replays_exactly()
            assert await ids_by_hash(rig) == before

    for seed in range(12):
        run_virtually(one(seed))


@virtual_time
async def test_messages_alike_in_their_headers_are_told_apart_by_their_bodies() -> None:
    head = b"Message-ID: <same@x.example>\r\n\r\n"
    fake = FakeImap()
    for letter in (b"a", b"b", b"a"):
        fake.deliver(head + letter * 100)
    rig = Rig(fake)
    async with rig.running():
        await rig.becomes_equal()
        await fake.until(lambda: fake.idling == 1)
        fake.bump_uidvalidity()
        fake.mailbox().messages[0].raw, fake.mailbox().messages[1].raw = (
            fake.mailbox().messages[1].raw,
            fake.mailbox().messages[0].raw,
        )
        await rig.becomes_equal(within=60)
        await fake.until(lambda: fake.idling == 1, within=60)
        await rig.replays_exactly()
        assert EventType.MESSAGE_EXPUNGED not in [event.type for event in await rig.events()]


@virtual_time
async def test_a_server_that_does_not_understand_the_names_it_offers_is_asked_without_them() -> None:
    fake = FakeImap(capabilities=CAPABILITIES + " X-GM-EXT-1")  # the fake knows no X-GM-MSGID: BAD
    for number in range(30):
        fake.deliver(mail(number))
    rig = Rig(fake)
    async with rig.running():
        await rig.becomes_equal()
        assert sum("X-GM-MSGID" in one.arguments for one in fake.commands) == 1
