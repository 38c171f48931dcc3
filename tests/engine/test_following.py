"""Mailboxes that come, go and are renamed while the account is watched, in virtual time."""

from typing import Any

import anyio
import pytest

from idlepush.engine.observations import MailboxesDoubted, MailboxTrouble, Quarantined
from idlepush.sync.events import EventType
from tests.engine.rig import Rig, mail
from tests.peers.fake import CAPABILITIES, OBJECTID, FakeImap, answer
from tests.peers.virtual import virtual_time

PLAIN = "IMAP4rev1 LITERAL+ ID IDLE UIDPLUS AUTH=PLAIN"
WAYS = [
    pytest.param(CAPABILITIES, id="LIST-STATUS"),
    pytest.param(PLAIN, id="LIST and STATUS"),
    pytest.param(OBJECTID, id="OBJECTID"),
]


def filled(fake: FakeImap, *names: str, count: int = 5) -> None:
    """Make mailboxes with mail that is found nowhere else."""
    for name in names:
        if name not in fake.mailboxes():
            fake.create(name)
        for number in range(count):
            fake.deliver(mail(hash_of(name) + number), mailbox=name)


def hash_of(name: str) -> int:
    return sum(name.encode()) * 1000


async def told(rig: Rig, kind: str = "mailbox.") -> list[tuple[str, str | None, Any]]:
    events = [event for event in await rig.events() if event.type.value.startswith(kind)]
    return [(event.type.value, event.mailbox, event.details.get("mailbox_before")) for event in events]


async def ids(rig: Rig, mailbox: str) -> set[str]:
    return {row.id async for row in rig.store.messages("alice") if row.mailbox == mailbox}


def everything(fake: FakeImap, **settings: Any) -> Rig:
    return Rig(fake, **{"mailboxes": ["*"], "poll_interval": "1m", **settings})


@pytest.mark.parametrize("capabilities", WAYS)
def test_a_mailbox_made_meanwhile_is_mirrored_and_its_mail_is_news(capabilities: str) -> None:
    @virtual_time
    async def run() -> None:
        fake = FakeImap(capabilities=capabilities)
        filled(fake, "INBOX", "Old")
        rig = everything(fake)
        async with rig.running():
            await rig.becomes_equal("INBOX", "Old")
            filled(fake, "New")
            await rig.becomes_equal("New", within=70)
            await rig.replays_exactly("INBOX", "Old", "New")
        news = [event for event in await rig.events() if event.type is EventType.MESSAGE_NEW]
        assert {event.mailbox for event in news if not event.details["initial"]} == {"New"}
        assert (await told(rig))[-1] == ("mailbox.new", "New", None)

    run()


@pytest.mark.parametrize("capabilities", WAYS)
def test_a_renamed_mailbox_keeps_its_messages_and_their_ids(capabilities: str) -> None:
    @virtual_time
    async def run() -> None:
        fake = FakeImap(capabilities=capabilities)
        filled(fake, "INBOX", "Work", "Work/2024", "Work/2025")
        rig = everything(fake)
        async with rig.running():
            await rig.becomes_equal("INBOX", "Work", "Work/2024", "Work/2025")
            await anyio.sleep(61)
            before = {name: await ids(rig, name) for name in ("Work", "Work/2024", "Work/2025")}
            for name in before:
                fake.rename(name, name.replace("Work", "Job"))
            fake.deliver(mail(1), mailbox="Job/2024")
            fake.expunge(2, mailbox="Job/2025")
            await anyio.sleep(61)
            await rig.becomes_equal("INBOX", "Job", "Job/2024", "Job/2025", within=5)
            await rig.replays_exactly("INBOX", "Job", "Job/2024", "Job/2025")
            assert await ids(rig, "Job") == before["Work"]
            assert await ids(rig, "Job/2024") > before["Work/2024"]
            assert await ids(rig, "Job/2025") < before["Work/2025"]
            assert await ids(rig, "Work") == set()
        assert [event for event in await told(rig) if event[0] != "mailbox.new"] == [
            ("mailbox.renamed", "Job", "Work"),
            ("mailbox.renamed", "Job/2024", "Work/2024"),
            ("mailbox.renamed", "Job/2025", "Work/2025"),
        ]

    run()


@pytest.mark.parametrize("capabilities", WAYS)
def test_names_that_were_swapped_are_swapped(capabilities: str) -> None:
    @virtual_time
    async def run() -> None:
        fake = FakeImap(capabilities=capabilities)
        filled(fake, "A", "B")
        rig = everything(fake)
        async with rig.running():
            await rig.becomes_equal("A", "B")
            await anyio.sleep(61)
            before = await ids(rig, "A"), await ids(rig, "B")
            for one, other in (("A", "tmp"), ("B", "A"), ("tmp", "B")):
                fake.rename(one, other)
            await anyio.sleep(61)
            await rig.becomes_equal("A", "B", within=5)
            await rig.replays_exactly("A", "B")
            assert (await ids(rig, "B"), await ids(rig, "A")) == before
        assert not [event for event in await told(rig) if event[0] in ("mailbox.gone", "mailbox.reset")]

    run()


@virtual_time
async def test_a_mailbox_that_takes_the_place_of_another_is_told_from_it() -> None:
    fake = FakeImap()
    filled(fake, "A", "B")
    rig = everything(fake)
    async with rig.running():
        await rig.becomes_equal("A", "B")
        kept = await ids(rig, "A")
        fake.delete("B")
        fake.rename("A", "B")
        filled(fake, "A")
        await anyio.sleep(61)
        await rig.becomes_equal("A", "B", within=5)
        await rig.replays_exactly("A", "B")
        assert await ids(rig, "B") == kept
        assert not await ids(rig, "A") & kept


@pytest.mark.parametrize("same_dates", [True, False])
def test_two_mailboxes_of_one_second_are_not_taken_for_each_other(same_dates: bool) -> None:
    @virtual_time
    async def run() -> None:
        fake = FakeImap()
        fake.create("A", uidvalidity=7)
        filled(fake, "A")
        rig = everything(fake)
        async with rig.running():
            await rig.becomes_equal("A")
            fake.delete("A")
            fake.create("B", uidvalidity=7)
            for number in range(5):
                date = "21-Nov-2026 20:00:00 +0000" if same_dates else "20-Nov-2026 20:00:00 +0000"
                fake.deliver(mail(number, size=9), mailbox="B", internaldate=date)
            await anyio.sleep(61)
            await rig.becomes_equal("B", within=5)
            await rig.replays_exactly("A", "B")
        assert (await told(rig))[-2:] == [("mailbox.gone", "A", None), ("mailbox.new", "B", None)]

    run()


@virtual_time
async def test_an_inbox_that_is_renamed_leaves_its_messages_to_the_new_mailbox() -> None:
    fake = FakeImap()
    filled(fake, "INBOX")
    rig = everything(fake)
    async with rig.running():
        await rig.becomes_equal()
        await fake.until(lambda: fake.idling == 1)
        # RFC 9051 section 6.3.6: a new mailbox gets the messages, INBOX stays where it is.
        fake.create("Old")
        for message in list(fake.mailbox().messages):
            fake.deliver(message.raw, message.flags, "Old")
            fake.expunge(message.uid)
        await anyio.sleep(61)
        await rig.becomes_equal("INBOX", "Old", within=5)
        await rig.replays_exactly("INBOX", "Old")
        assert await rig.in_mirror() == {}
    assert ("mailbox.gone", "INBOX", None) not in await told(rig)


@virtual_time
async def test_an_inbox_that_is_renamed_as_any_other_is_recognised_by_its_mailboxid() -> None:
    fake = FakeImap(capabilities=OBJECTID)
    filled(fake, "INBOX")
    rig = everything(fake)
    async with rig.running():
        await rig.becomes_equal()
        await anyio.sleep(61)
        before = await ids(rig, "INBOX")
        fake.rename("INBOX", "Old")
        fake.create("INBOX")
        fake.deliver(mail(99))
        await anyio.sleep(61)
        await rig.becomes_equal("INBOX", "Old", within=5)
        await rig.replays_exactly("INBOX", "Old")
        assert await ids(rig, "Old") == before


@pytest.mark.parametrize("capabilities", WAYS)
@pytest.mark.parametrize("how", ["bye", "close", "nonexistent", "unnoticed"])
def test_the_mailbox_that_idles_is_deleted_and_the_others_go_on(how: str, capabilities: str) -> None:
    @virtual_time
    async def run() -> None:
        fake = FakeImap(when_deleted=how, capabilities=capabilities)  # type: ignore[arg-type]
        filled(fake, "Work", "INBOX")
        rig = everything(fake, mailboxes=["Work", "IN*"])
        async with rig.running():
            await rig.becomes_equal("Work", "INBOX")
            await fake.until(lambda: fake.idling == 1)
            fake.delete("Work")
            await anyio.sleep(70)
            assert await rig.in_mirror("Work") == {}
            fake.deliver(mail(1))
            await rig.becomes_equal(within=65)
            fake.create("Work")
            fake.deliver(mail(2), mailbox="Work")
            await rig.becomes_equal("Work", within=70)
            await rig.replays_exactly("INBOX", "Work")
        assert [event for event in await told(rig) if event[1] == "Work"] == [
            ("mailbox.new", "Work", None),
            ("mailbox.gone", "Work", None),
            ("mailbox.new", "Work", None),
        ]

    run()


@pytest.mark.parametrize(
    "lie",
    [
        pytest.param("OK nothing here", id="the list is empty"),
        pytest.param("NO [UNAVAILABLE] later", id="the list is refused"),
        pytest.param("BAD what", id="the list is not understood"),
    ],
)
def test_a_list_that_is_empty_or_refused_is_not_believed(lie: str) -> None:
    @virtual_time
    async def run() -> None:
        fake = FakeImap()
        filled(fake, "INBOX", "A", "B")
        rig = everything(fake)
        async with rig.running():
            await rig.becomes_equal("INBOX", "A", "B")
            fake.at("LIST", answer(lie), times=20)
            await anyio.sleep(200)
            fake.deliver(mail(1))
            await rig.becomes_equal("INBOX", "A", "B", within=5)
            fake.end_all()
            fake.deliver(mail(2))
            await rig.becomes_equal("INBOX", "A", "B", within=10)
            assert rig.observed(MailboxesDoubted)
            await anyio.sleep(1200)
            fake.deliver(mail(3), mailbox="B")
            await rig.becomes_equal("INBOX", "A", "B", within=70)
        assert {event[0] for event in await told(rig)} == {"mailbox.new"}

    run()


@virtual_time
async def test_that_all_the_others_are_gone_at_once_is_believed_the_second_time() -> None:
    fake = FakeImap()
    filled(fake, "INBOX", "A", "B")
    rig = everything(fake)
    async with rig.running():
        await rig.becomes_equal("INBOX", "A", "B")
        for name in ("A", "B"):
            fake.delete(name)
        await anyio.sleep(65)
        assert await rig.in_mirror("A") != {}
        await anyio.sleep(60)
        assert await rig.in_mirror("A") == await rig.in_mirror("B") == {}
        await rig.replays_exactly("INBOX", "A", "B")


@virtual_time
async def test_a_mailbox_that_is_hidden_from_the_list_is_still_there() -> None:
    fake = FakeImap()
    filled(fake, "INBOX", "A")
    rig = everything(fake)
    async with rig.running():
        await rig.becomes_equal("INBOX", "A")

        def hide(session: Any, tag: str) -> bool:
            session.say('* LIST () "/" INBOX')
            session.complete(tag, "OK all")
            return False

        fake.at("LIST", hide, times=None)
        fake.deliver(mail(1), mailbox="A")
        await rig.becomes_equal("INBOX", "A", within=70)
    assert {event[0] for event in await told(rig)} == {"mailbox.new"}


@virtual_time
async def test_a_list_that_drops_what_is_there_is_asked_for_in_another_session() -> None:
    fake = FakeImap()
    filled(fake, "INBOX", "A")
    rig = everything(fake)
    async with rig.running():
        await rig.becomes_equal("INBOX", "A")

        def hide(session: Any, tag: str) -> bool:
            if session.number > 1:
                return True
            session.say('* LIST () "/" INBOX')
            session.complete(tag, "OK all")
            return False

        fake.at("LIST", hide, times=None)
        filled(fake, "B")
        await rig.becomes_equal("INBOX", "A", "B", within=120)
        assert fake.sessions_ever == 2
    assert {event[0] for event in await told(rig)} == {"mailbox.new"}


@virtual_time
async def test_no_message_is_to_blame_for_a_mailbox_that_goes_while_it_is_fetched() -> None:
    fake = FakeImap()
    filled(fake, "A")
    rig = everything(fake)
    fake.at("UID FETCH", answer("NO [NONEXISTENT] no such mailbox"), times=2)
    async with rig.running():
        await rig.becomes_equal("A", within=120)
        assert rig.observed(Quarantined) == []


@virtual_time
async def test_a_mailbox_that_is_refused_three_times_is_left_alone_and_asked_for_again_when_something_changes() -> None:
    fake = FakeImap()
    filled(fake, "INBOX", "A")
    rig = everything(fake, flags_interval="1h")
    async with rig.running():
        await rig.becomes_equal("INBOX", "A")

        def refuse(session: Any, tag: str) -> bool:
            if '"A"' not in fake.commands[-1].arguments:
                return True
            session.complete(tag, "NO [NOPERM] not yours")
            return False

        fake.at("EXAMINE", refuse, times=None)
        fake.deliver(mail(7), mailbox="A")
        await anyio.sleep(600)
        (row,) = [row for row in await rig.store.mailboxes("alice") if row.name == "A"]
        assert (row.state, row.messages) == ("unselectable", 5)
        tried = [one for one in fake.commands if one.name == "EXAMINE" and '"A"' in one.arguments]
        await anyio.sleep(3600)
        again = [one for one in fake.commands if one.name == "EXAMINE" and '"A"' in one.arguments]
        assert len(again) == len(tried), "it is left alone"
        fake.deliver(mail(8), mailbox="A")
        await anyio.sleep(61)
        again = [one for one in fake.commands if one.name == "EXAMINE" and '"A"' in one.arguments]
        assert len(again) > len(tried), "something was said of it"
        fake._faults.clear()
        fake.deliver(mail(9), mailbox="A")
        await rig.becomes_equal("A", within=7 * 3600)
        (row,) = [row for row in await rig.store.mailboxes("alice") if row.name == "A"]
        assert row.state == "ok"
        assert rig.observed(MailboxTrouble)


@virtual_time
async def test_a_mailbox_that_can_no_longer_be_selected_is_gone_and_comes_back() -> None:
    fake = FakeImap()
    filled(fake, "INBOX", "A", "B")
    rig = everything(fake)
    async with rig.running():
        await rig.becomes_equal("INBOX", "A", "B")
        fake.mailbox("A").attributes = (r"\Noselect",)

        def refuse(session: Any, tag: str) -> bool:
            if '"A"' in fake.commands[-1].arguments:
                session.complete(tag, "NO [NONEXISTENT] not a mailbox")
                return False
            return True

        fake.at("STATUS", refuse, times=None)
        await anyio.sleep(61)
        assert [row.state for row in await rig.store.mailboxes("alice") if row.name == "A"] == ["unselectable"]
        assert await rig.in_mirror("A") == {}
        fake.mailbox("A").attributes = ()
        fake._faults.clear()
        await rig.becomes_equal("A", within=70)
        await rig.replays_exactly("A", "B")


NAMES = [
    "Entw&APw-rfe",  # in modified UTF-7, as it is
    "&U,BTFw- &- more",
    'quo"te and \\ backslash',
    "percent % and star *",
    "..",
    "../../etc/passwd",
    "(paren) {3}",
    "inbox2",
    "trailing ",
    "x" * 200,
]


@pytest.mark.parametrize("capabilities", WAYS)
def test_mailboxes_of_any_name_are_followed_and_renamed_and_no_name_ends_a_command(capabilities: str) -> None:
    @virtual_time
    async def run() -> None:
        fake = FakeImap(capabilities=capabilities)
        filled(fake, *NAMES, count=2)
        rig = everything(fake)
        async with rig.running():
            await anyio.sleep(5)
            await fake.until(lambda: fake.idling == 1, within=60)
            rows = {row.raw: row.messages for row in await rig.store.mailboxes("alice")}
            assert {name.encode(): 2 for name in NAMES}.items() <= rows.items()
            await anyio.sleep(61)
            for name in NAMES:
                fake.rename(name, name + "!")
            await anyio.sleep(61)
            await fake.until(lambda: fake.idling == 1, within=60)
            rows = {row.raw: row.messages for row in await rig.store.mailboxes("alice")}
            assert rows == {b"INBOX": 0} | {name.encode() + b"!": 2 for name in NAMES}
        assert len([event for event in await told(rig) if event[0] == "mailbox.renamed"]) == len(NAMES)
        assert fake.changes_by_clients == []
        assert not [one for one in fake.commands if one.name not in KNOWN], "a name ended a command early"

    run()


KNOWN = {
    "CAPABILITY", "ID", "AUTHENTICATE", "LOGIN", "ENABLE", "LIST", "STATUS", "EXAMINE", "UID FETCH", "UID SEARCH",
    "NOOP", "IDLE", "DONE", "LOGOUT",
}  # fmt: skip


@virtual_time
async def test_a_moved_message_is_seen_leaving_before_it_arrives() -> None:
    fake = FakeImap()
    filled(fake, "INBOX", "A", "Z")
    rig = everything(fake)
    async with rig.running():
        await rig.becomes_equal("INBOX", "A", "Z")
        await fake.until(lambda: fake.idling == 1)
        fake.deliver(mail(50), mailbox="A")
        fake.expunge(3, mailbox="Z")
        before = len(fake.commands)
        await anyio.sleep(61)
        looked = [one.arguments.split()[0] for one in fake.commands[before:] if one.name == "EXAMINE"]
        assert looked.index('"Z"') < looked.index('"A"')


@virtual_time
async def test_without_list_status_all_numbers_are_asked_for_in_one_round_trip() -> None:
    fake = FakeImap(capabilities=PLAIN)
    filled(fake, *(f"box{number}" for number in range(40)), count=1)
    rig = everything(fake)
    async with rig.running():
        await rig.becomes_equal(*(f"box{number}" for number in range(40)))
        await fake.until(lambda: fake.idling == 1)
        before = len(fake.commands)
        await anyio.sleep(61)
        polled = fake.commands[before:]
        asked = [one for one in polled if one.name == "STATUS"]
        assert len(asked) == 41
        assert len({one.time for one in asked}) == 1
        assert [one.name for one in polled if one.name != "STATUS"] == ["DONE", "LIST", "EXAMINE", "IDLE"]


@virtual_time
async def test_what_patterns_exclude_is_neither_mirrored_nor_looked_at() -> None:
    fake = FakeImap()
    filled(fake, "INBOX", "A", "Spam", "Trash")
    fake.mailbox("Trash").attributes = (r"\Trash",)
    rig = everything(fake, mailboxes=["*", "!Spam", "!\\Trash"])
    async with rig.running():
        await rig.becomes_equal("INBOX", "A")
        filled(fake, "Spam/more", "Spam2")
        await rig.becomes_equal("Spam2", "Spam/more", within=70)
        assert [row.name for row in await rig.store.mailboxes("alice")] == ["A", "INBOX", "Spam/more", "Spam2"]
        fake.rename("A", "Trash/A")
        await anyio.sleep(61)
        await rig.becomes_equal("Trash/A", within=5)
        assert ("mailbox.renamed", "Trash/A", "A") in await told(rig)
        fake.rename("Trash/A", "A")
        fake.delete("Spam")
        fake.rename("A", "Spam")
        await anyio.sleep(61)
        await rig.replays_exactly("INBOX", "A", "Trash/A", "Spam")
        assert await rig.in_mirror("Spam") == {}


@virtual_time
async def test_names_that_no_command_could_spell_are_passed_over() -> None:
    fake = FakeImap()
    filled(fake, "INBOX", "A")
    rig = everything(fake)

    def lists(session: Any, tag: str) -> bool:
        for spelled in (b"INBOX", b"A", b"{3}\r\na\0b", b"{9000}\r\n" + b"x" * 9000, b'""'):
            session.send(b'* LIST () "/" ' + spelled + b"\r\n")
        session.complete(tag, "OK all")
        return False

    fake.at("LIST", lists, times=None)
    async with rig.running():
        await rig.becomes_equal("INBOX", "A")
        await fake.until(lambda: fake.idling == 1)
        fake.deliver(mail(1), mailbox="A")
        await rig.becomes_equal("INBOX", "A", within=70)
        assert [row.name for row in await rig.store.mailboxes("alice")] == ["A", "INBOX"]


@virtual_time
async def test_the_mailbox_that_idles_is_renamed_and_idles_on() -> None:
    fake = FakeImap()
    filled(fake, "INBOX", "Work")
    rig = everything(fake, mailboxes=["Work*", "INBOX"])
    async with rig.running():
        await rig.becomes_equal("INBOX", "Work")
        await fake.until(lambda: fake.idling == 1)
        before = await ids(rig, "Work")
        fake.rename("Work", "Work2")
        fake.deliver(mail(1), mailbox="Work2")
        await anyio.sleep(61)
        await rig.becomes_equal("Work2", within=5)
        assert await ids(rig, "Work2") > before
        await fake.until(lambda: fake.idling == 1)
        fake.deliver(mail(2), mailbox="Work2")
        await rig.becomes_equal("Work2", within=1)
        await rig.replays_exactly("INBOX", "Work", "Work2")


@virtual_time
async def test_of_many_mailboxes_only_the_few_that_are_mirrored_are_asked_for_their_numbers() -> None:
    fake = FakeImap()
    for number in range(300):
        fake.create(f"box{number}")
    filled(fake, "Mine")
    fake.mailbox("Mine").attributes = (r"\Sent",)
    rig = everything(fake, mailboxes=["INBOX", r"\Sent"])
    async with rig.running():
        await rig.becomes_equal("Mine")
        await fake.until(lambda: fake.idling == 1)
        before = fake.sent
        fake.deliver(mail(1), mailbox="Mine")
        await rig.becomes_equal("Mine", within=70)
        assert "STATUS" not in "".join(one.arguments for one in fake.commands if one.name == "LIST")
        assert fake.sent - before < 300 * 40


@virtual_time
async def test_news_in_the_mailbox_that_idles_does_not_put_the_others_off_for_ever() -> None:
    fake = FakeImap()
    filled(fake, "INBOX", "A")
    rig = everything(fake, poll_interval="20s")
    async with rig.running():
        await rig.becomes_equal("INBOX", "A")
        await fake.until(lambda: fake.idling == 1)
        fake.deliver(mail(1), mailbox="A")
        for number in range(100, 700):
            fake.deliver(mail(number))
            await anyio.sleep(0.1)
        await rig.becomes_equal("A", within=1)
