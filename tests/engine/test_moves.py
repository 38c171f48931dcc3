"""A message that goes from one mailbox to another is one `message.moved`, whichever of both is seen first."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import anyio
import pytest

from idlepush.imap.types import MailboxName
from idlepush.sync.events import Event, EventType
from tests.engine.rig import Rig, mail
from tests.peers.fake import CAPABILITIES, CONDSTORE, QRESYNC, Command, FakeImap
from tests.peers.virtual import virtual_time

NEW, MOVED, EXPUNGED = EventType.MESSAGE_NEW, EventType.MESSAGE_MOVED, EventType.MESSAGE_EXPUNGED
BOTH = ("INBOX", "Archive")
MODES = pytest.mark.parametrize("capabilities", [QRESYNC, CONDSTORE, CAPABILITIES], ids=["qresync", "condstore", "uid"])


def move(fake: FakeImap, uid: int, mailbox: str, to: str) -> int:
    """Do what MOVE does: a copy there, then an expunge here."""
    message = fake.mailbox(mailbox).message(uid)
    there = fake.deliver(message.raw, message.flags, to, internaldate=message.internaldate, emailid=message.emailid)
    fake.expunge(uid, mailbox)
    return there


async def identity(rig: Rig, mailbox: str, uid: int) -> str:
    row = await rig.store.find("alice", MailboxName.from_text(mailbox), uid)
    assert row is not None
    return row.id


async def told_since(rig: Rig, position: int) -> list[Event]:
    return [event for event in await rig.events() if event.position > position and event.mailbox is not None]


async def both_mirrored(fake: FakeImap, rig: Rig) -> int:
    await rig.becomes_equal(*BOTH)
    await fake.until(lambda: fake.idling == 1)
    return await rig.store.position()


def filled(**knobs: Any) -> FakeImap:
    fake = FakeImap(**knobs)
    fake.create("Archive")
    for number in range(6):
        fake.deliver(mail(number), emailid=f"M{number}")
        fake.deliver(mail(100 + number), mailbox="Archive", emailid=f"M{100 + number}")
    return fake


@asynccontextmanager
async def mirrored(capabilities: str) -> AsyncIterator[tuple[FakeImap, Rig, int]]:
    """Yield a server with two mailboxes, the account that has mirrored both and idles, and the log's position."""
    fake = filled(capabilities=capabilities)
    rig = Rig(fake, mailboxes=[*BOTH])
    async with rig.running():
        yield fake, rig, await both_mirrored(fake, rig)


@MODES
@virtual_time
async def test_a_message_that_leaves_the_idling_mailbox_is_moved_at_once(capabilities: str) -> None:
    async with mirrored(capabilities) as (fake, rig, position):
        before = await identity(rig, "INBOX", 3)
        there = move(fake, 3, "INBOX", "Archive")
        await rig.becomes_equal(*BOTH, within=2)
        assert await identity(rig, "Archive", there) == before
        (event,) = await told_since(rig, position)
        assert (event.type, event.id, event.mailbox, event.uid) == (MOVED, before, "Archive", there)
        assert (event.details["mailbox_before"], event.details["uid_before"]) == ("INBOX", 3)
        await rig.replays_exactly(*BOTH)


@MODES
@virtual_time
async def test_a_message_that_comes_to_the_idling_mailbox_from_another_is_moved(capabilities: str) -> None:
    async with mirrored(capabilities) as (fake, rig, position):
        before = await identity(rig, "Archive", 2)
        there = move(fake, 2, "Archive", "INBOX")
        await rig.becomes_equal(*BOTH, within=2)
        assert await identity(rig, "INBOX", there) == before
        assert [event.type for event in await told_since(rig, position)] == [MOVED]
        await rig.replays_exactly(*BOTH)


@MODES
@virtual_time
async def test_moves_while_it_was_away_are_moves(capabilities: str) -> None:
    async with mirrored(capabilities) as (fake, rig, position):
        fake.end_all()
        for uid in (1, 2, 5):
            move(fake, uid, "INBOX", "Archive")
            move(fake, uid, "Archive", "INBOX")
        fake.expunge(6)
        fake.deliver(mail(77))
        await rig.becomes_equal(*BOTH, within=10)
        types = [event.type for event in await told_since(rig, position)]
        assert sorted(types) == sorted([MOVED] * 6 + [EXPUNGED, NEW])
        await rig.replays_exactly(*BOTH)


@MODES
@virtual_time
async def test_a_copy_is_a_new_message_and_what_was_copied_stays(capabilities: str) -> None:
    async with mirrored(capabilities) as (fake, rig, position):
        message = fake.mailbox("Archive").message(2)
        fake.deliver(message.raw, message.flags)
        await rig.becomes_equal(*BOTH, within=2)
        assert [event.type for event in await told_since(rig, position)] == [NEW]
        await rig.replays_exactly(*BOTH)


@MODES
@virtual_time
async def test_a_session_lost_between_leaving_and_arriving_loses_nothing(capabilities: str) -> None:
    fake = filled(capabilities=capabilities)
    rig = Rig(fake, mailboxes=[*BOTH])
    async with rig.running():
        await both_mirrored(fake, rig)
        for uid in (1, 2, 3, 4):
            move(fake, uid, "INBOX", "Archive")
            fake.cut_after = fake.sent + 300 * uid
            await rig.becomes_equal(*BOTH, within=60)
            await fake.until(lambda: fake.idling == 1, within=60)
            await rig.replays_exactly(*BOTH)
        await anyio.sleep(400)
        await rig.becomes_equal(*BOTH)
        assert [seen for seen in rig.seen if type(seen).__name__ == "FeatureDistrusted"] == []


@virtual_time
async def test_what_is_expunged_and_turns_up_nowhere_is_expunged_at_once() -> None:
    async with mirrored(QRESYNC) as (fake, rig, position):
        fake.expunge(3)
        await rig.becomes_equal(*BOTH, within=1)
        assert [event.type for event in await told_since(rig, position)] == [EXPUNGED]


def at_an_examine(fake: FakeImap, mailbox: str, act: Callable[[], object]) -> None:
    """Do something once, when *mailbox* is about to be examined."""
    pending = [act]

    def on_command(_session: object, command: Command) -> None:
        if command.name == "EXAMINE" and f'"{mailbox}"' in command.arguments and pending:
            pending.pop()()

    fake.on_command = on_command


@MODES
@virtual_time
async def test_what_leaves_the_idling_mailbox_while_another_is_looked_at_is_expunged(capabilities: str) -> None:
    fake = filled(capabilities=capabilities)
    rig = Rig(fake, mailboxes=[*BOTH], poll_interval="1m")
    async with rig.running():
        await both_mirrored(fake, rig)
        at_an_examine(fake, "Archive", lambda: fake.expunge(3))
        fake.deliver(mail(7), mailbox="Archive")
        await rig.becomes_equal(*BOTH, within=120)
        await rig.replays_exactly(*BOTH)


@MODES
@virtual_time
async def test_what_was_leaving_when_the_session_ended_is_expunged_by_the_next(capabilities: str) -> None:
    fake = filled(capabilities=capabilities)
    rig = Rig(fake, mailboxes=[*BOTH], poll_interval="1m")
    async with rig.running():
        await both_mirrored(fake, rig)
        at_an_examine(fake, "INBOX", lambda: fake.end_all("reset"))
        fake.expunge(2, "Archive")
        await rig.becomes_equal(*BOTH, within=180)
        await rig.replays_exactly(*BOTH)
