"""Mod-sequences: QRESYNC, CONDSTORE and neither end alike, cost what they should, and are believed until they lie."""

import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import pytest

from idlepush.engine.observations import Feature, FeatureDistrusted
from idlepush.imap.types import MailboxName
from tests.engine.rig import Rig, mail
from tests.peers.fake import CAPABILITIES, CONDSTORE, QRESYNC, FakeImap
from tests.peers.virtual import run_virtually, virtual_time

MODES = pytest.mark.parametrize("capabilities", [QRESYNC, CONDSTORE, CAPABILITIES], ids=["qresync", "condstore", "uid"])


def filled(count: int, **knobs: Any) -> FakeImap:
    fake = FakeImap(**knobs)
    for number in range(count):
        fake.deliver(mail(number))
    return fake


@asynccontextmanager
async def mirrored(count: int, **knobs: Any) -> AsyncIterator[tuple[FakeImap, Rig]]:
    """Yield a server with so many messages, and the account that has mirrored them and idles."""
    fake = filled(count, **knobs)
    rig = Rig(fake)
    async with rig.running():
        await rig.becomes_equal()
        await fake.until(lambda: fake.idling == 1)
        yield fake, rig


def names_since(fake: FakeImap, count: int) -> list[str]:
    """Return the names of the commands from the *count*th on, those of opening and waiting left out."""
    opening = {"LOGIN", "AUTHENTICATE", "ID", "ENABLE", "CAPABILITY", "IDLE", "DONE", "LOGOUT"}
    return [command.name for command in fake.commands[count:] if command.name not in opening]


async def reconnect(rig: Rig, fake: FakeImap) -> None:
    sessions = fake.sessions_ever
    fake.end_all()
    await fake.until(lambda: fake.sessions_ever > sessions and fake.idling == 1, within=60)


async def modseq(rig: Rig) -> int | None:
    mirror = await rig.store.mirror("alice", MailboxName.from_text("INBOX"))
    assert mirror is not None
    return mirror.checkpoint.modseq


@MODES
def test_what_happened_while_it_was_away_is_mirrored_in_every_mode_alike(capabilities: str) -> None:
    async def one(seed: int) -> None:
        dice, fake = random.Random(seed), filled(40, capabilities=capabilities)
        rig = Rig(fake)
        async with rig.running():
            await fake.until(lambda: fake.idling == 1)
            for _ in range(4):
                fake.end_all()
                for _ in range(dice.randrange(12)):
                    uids = [message.uid for message in fake.mailbox().messages]
                    match dice.randrange(3):
                        case 0:
                            fake.deliver(mail(dice.randrange(10**9)))
                        case 1:
                            fake.expunge(dice.choice(uids))
                        case _:
                            fake.set_flags(dice.choice(uids), dice.sample(["\\Seen", "\\Flagged", "$Work"], 2))
                await rig.becomes_equal(within=30)
                await fake.until(lambda: fake.idling == 1, within=30)
            await rig.replays_exactly()
            if capabilities != CAPABILITIES:
                await anyio.sleep(300)  # a renewal, whose EXAMINE shows the last mod-sequence
                assert await modseq(rig) == fake.mailbox().highestmodseq
            assert rig.observed(FeatureDistrusted) == []

    for seed in range(25):
        run_virtually(one(seed))


@pytest.mark.parametrize(("capabilities", "count"), [(QRESYNC, 500), (CONDSTORE, 500), (QRESYNC, 5), (CONDSTORE, 5)])
@virtual_time
async def test_a_reconnect_to_an_unchanged_mailbox_is_one_examine(capabilities: str, count: int) -> None:
    async with mirrored(count, capabilities=capabilities) as (fake, rig):
        before, position = len(fake.commands), await rig.store.position()
        await reconnect(rig, fake)
        assert names_since(fake, before) == ["EXAMINE"]
        assert await rig.store.position() == position


@virtual_time
async def test_with_qresync_flags_and_expunges_come_with_the_examine() -> None:
    async with mirrored(300, capabilities=QRESYNC) as (fake, rig):
        before = len(fake.commands)
        fake.end_all()
        fake.set_flags(7, ["\\Seen"])
        fake.expunge(9)
        await rig.becomes_equal()
        await fake.until(lambda: fake.idling == 1)
        # The expunge is believed once a SEARCH does not list it either.
        assert names_since(fake, before) == ["EXAMINE", "UID SEARCH"]
        assert "QRESYNC (" in next(one for one in fake.commands[before:] if one.name == "EXAMINE").arguments


@virtual_time
async def test_with_condstore_alone_only_what_changed_is_fetched() -> None:
    async with mirrored(300, capabilities=CONDSTORE) as (fake, rig):
        before = len(fake.commands)
        fake.end_all()
        fake.set_flags(7, ["\\Seen"])
        await rig.becomes_equal()
        await fake.until(lambda: fake.idling == 1)
        assert names_since(fake, before) == ["EXAMINE", "UID FETCH"]
        row = await rig.store.find("alice", MailboxName.from_text("INBOX"), 7)
        assert row is not None
        assert row.modseq == fake.mailbox().message(7).modseq


@virtual_time
async def test_with_qresync_a_push_of_vanished_asks_for_those_uids_alone() -> None:
    async with mirrored(300, capabilities=QRESYNC) as (fake, rig):
        before = len(fake.commands)
        fake.expunge(120)
        await rig.becomes_equal()
        await fake.until(lambda: fake.idling == 1)
        searches = [command.arguments for command in fake.commands[before:] if command.name == "UID SEARCH"]
        assert len(searches) == 1
        assert searches[0].endswith("UID 120")


@pytest.mark.parametrize("enables", ["nothing", "mute", "BAD"])
@virtual_time
async def test_qresync_that_is_not_confirmed_is_not_used(enables: Any) -> None:
    async with mirrored(30, capabilities=QRESYNC, enables=enables) as (fake, rig):
        fake.end_all()
        fake.expunge(3)
        fake.set_flags(5, ["\\Seen"])
        await rig.becomes_equal()
        assert not [one for one in fake.commands if one.name == "EXAMINE" and "QRESYNC" in one.arguments]


@virtual_time
async def test_a_message_that_is_said_to_have_vanished_and_is_there_stays_and_qresync_is_latched_off() -> None:
    async with mirrored(30, capabilities=QRESYNC) as (fake, rig):
        fake.end_all()
        fake.vanished_besides = {4, 5}
        fake.set_flags(7, ["\\Seen"])
        await rig.becomes_equal()
        (latched,) = rig.observed(FeatureDistrusted)
        assert latched.feature is Feature.QRESYNC
        before = len(fake.commands)
        await reconnect(rig, fake)
        assert not [one for one in fake.commands[before:] if "QRESYNC" in one.arguments]
        await rig.becomes_equal()
        # It ages out.
        await anyio.sleep(25 * 3600)
        before = len(fake.commands)
        fake.vanished_besides = set()
        await reconnect(rig, fake)
        assert [one for one in fake.commands[before:] if one.name == "EXAMINE" and "QRESYNC" in one.arguments]


@virtual_time
async def test_expunges_that_qresync_does_not_tell_of_are_found_by_the_count_and_it_is_latched_off() -> None:
    async with mirrored(30, capabilities=QRESYNC, hides_vanished=True) as (fake, rig):
        fake.end_all()
        fake.expunge(4)
        await rig.becomes_equal()
        assert [seen.feature for seen in rig.observed(FeatureDistrusted)] == [Feature.QRESYNC]
        await rig.replays_exactly()


@pytest.mark.parametrize("capabilities", [QRESYNC, CONDSTORE])
@virtual_time
async def test_a_highestmodseq_that_stands_still_is_latched_off_and_flags_are_compared(capabilities: str) -> None:
    async with mirrored(30, capabilities=capabilities, highestmodseq="still") as (fake, rig):
        fake.set_flags(3, ["\\Flagged"])  # pushed, so it is known that it must rise
        await rig.becomes_equal()
        fake.end_all()
        fake.set_flags(5, ["\\Seen"])
        await rig.becomes_equal(within=60)
        assert Feature.CONDSTORE in [seen.feature for seen in rig.observed(FeatureDistrusted)]


@pytest.mark.parametrize("capabilities", [QRESYNC, CONDSTORE])
@virtual_time
async def test_a_modseq_that_went_back_means_that_everything_is_compared(capabilities: str) -> None:
    async with mirrored(30, capabilities=capabilities) as (fake, rig):
        fake.end_all()
        # The server lost its index: it counts from 1 again.
        for message in fake.mailbox().messages:
            message.modseq = 1
        fake.mailbox().highestmodseq = 1
        fake.set_flags(5, ["\\Seen"])
        fake.mailbox().expunged.clear()
        fake.expunge(8)
        await rig.becomes_equal(within=30)
        assert await modseq(rig) == fake.mailbox().highestmodseq
        assert rig.observed(FeatureDistrusted) == []
        await rig.replays_exactly()


@pytest.mark.parametrize("lost", ["missing", "NOMODSEQ"])
@virtual_time
async def test_mod_sequences_that_are_gone_and_come_back_lose_no_flags(lost: Any) -> None:
    async with mirrored(30, capabilities=QRESYNC) as (fake, rig):
        fake.highestmodseq = lost
        fake.end_all()
        fake.set_flags(5, ["\\Seen"])
        await rig.becomes_equal(within=60)
        await fake.until(lambda: fake.idling == 1)
        assert await modseq(rig) is None
        fake.highestmodseq = "told"
        fake.end_all()
        fake.set_flags(6, ["\\Seen"])
        await rig.becomes_equal(within=60)
        await fake.until(lambda: fake.idling == 1)
        assert await modseq(rig) == fake.mailbox().highestmodseq


@virtual_time
async def test_other_mailboxes_with_new_flags_are_looked_at_by_their_mod_sequence() -> None:
    fake = FakeImap(capabilities=QRESYNC)
    fake.create("Work")
    for number in range(5):
        fake.deliver(mail(number), mailbox="Work")
    rig = Rig(fake, mailboxes=["INBOX", "Work"], poll_interval="1m", flags_interval="1h")
    async with rig.running():
        await rig.becomes_equal("INBOX", "Work")
        await fake.until(lambda: fake.idling == 1)
        fake.set_flags(2, ["\\Seen"], "Work")
        await rig.becomes_equal("INBOX", "Work", within=70)
        before = len(fake.commands)
        await anyio.sleep(600)
        looked = [one for one in fake.commands[before:] if one.name == "EXAMINE" and "Work" in one.arguments]
        assert looked == []
