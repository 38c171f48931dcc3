"""NOTIFY beside IDLE, as it should be and as it is, in virtual time."""

from typing import Any

import anyio
import pytest

from idlepush.engine.observations import FeatureDistrusted, Looked, Waiting, WakeSource
from idlepush.sync.events import EventType
from tests.engine.rig import Rig, mail
from tests.peers.fake import CONDSTORE, NOTIFY, FakeImap, cut
from tests.peers.virtual import virtual_time

SELDOM = {"poll_interval": "1h", "flags_interval": "1h", "idle_renew": "29m", "proof_interval": "30m"}
BOXES = [f"box{number:02}" for number in range(20)]


def made(names: list[str] | None = None, **behaviour: Any) -> FakeImap:
    fake = FakeImap(capabilities=behaviour.pop("capabilities", NOTIFY), **behaviour)
    for name in BOXES if names is None else names:
        fake.create(name)
    return fake


def everything(fake: FakeImap, **settings: Any) -> Rig:
    return Rig(fake, **{"mailboxes": ["*"], "poll_interval": "10m", **settings})


async def settled(fake: FakeImap) -> None:
    await fake.until(lambda: fake.idling == 1, within=30)


def sent(fake: FakeImap, name: str) -> int:
    return sum(command.name == name for command in fake.commands)


@virtual_time
async def test_a_message_to_each_of_twenty_mailboxes_is_told_of_at_once_on_one_connection() -> None:
    fake = made()
    rig = everything(fake)
    async with rig.running():
        await settled(fake)
        for number, name in enumerate(BOXES):
            fake.deliver(mail(number), mailbox=name)
        await rig.becomes_equal(*BOXES, within=1)
        await rig.replays_exactly(*BOXES)
        news = [event for event in await rig.events() if event.type is EventType.MESSAGE_NEW]
        assert {event.details["found_by"] for event in news} == {"push"}
        assert {seen.source for seen in rig.observed(Looked) if seen.new} == {WakeSource.NOTIFY}
        assert rig.observed(Waiting)[-1].notified
    assert fake.sessions_most == 1


@pytest.mark.parametrize("capabilities", [NOTIFY, CONDSTORE + " NOTIFY"])
def test_flags_and_expunges_elsewhere_are_told_of(capabilities: str) -> None:
    @virtual_time
    async def run() -> None:
        fake = made(capabilities=capabilities)
        for number in range(4):
            fake.deliver(mail(number), mailbox="box03")
        rig = everything(fake)
        async with rig.running():
            await rig.becomes_equal("box03")
            await settled(fake)
            fake.set_flags(2, ["\\Seen", "work"], mailbox="box03")
            await rig.becomes_equal("box03", within=1)
            await settled(fake)
            fake.expunge(3, mailbox="box03")
            await rig.becomes_equal("box03", within=1)
            await rig.replays_exactly("box03")

    run()


@virtual_time
async def test_mailboxes_that_are_made_renamed_and_deleted_are_told_of() -> None:
    fake = made(["A", "B", "C"])
    fake.deliver(mail(1), mailbox="A")
    rig = everything(fake)
    async with rig.running():
        await rig.becomes_equal("A")
        await settled(fake)
        fake.create("D")
        fake.deliver(mail(2), mailbox="D")
        await rig.becomes_equal("D", within=2)
        await settled(fake)
        fake.rename("A", "E")
        await rig.becomes_equal("E", within=2)
        await settled(fake)
        fake.delete("E")
        await anyio.sleep(2)
        kinds = [event.type.value for event in await rig.events() if event.mailbox == "E"]
        assert kinds == ["mailbox.renamed", "mailbox.gone"]
        fake.deliver(mail(3), mailbox="D")
        await rig.becomes_equal("D", within=2)


@virtual_time
async def test_half_an_hour_of_silence_is_a_renewal_a_minute_and_polls() -> None:
    fake = made(["A", "B", "C"])
    rig = everything(fake, idle_renew="10m", poll_interval="10m", flags_interval="1h")
    async with rig.running():
        await settled(fake)
        before = len(fake.commands)
        await anyio.sleep(590)
        assert [one.name for one in fake.commands[before:]] == ["DONE", "NOTIFY", "NOTIFY", "IDLE"] * 9
        await anyio.sleep(1200)
        assert sent(fake, "NOTIFY") <= 2 * 32
        assert sent(fake, "EXAMINE") <= 4 + 2 * 3
        assert fake.sessions_ever == 1


@virtual_time
async def test_what_came_while_it_was_set_anew_is_found_within_a_minute() -> None:
    fake = made()
    rig = everything(fake)
    async with rig.running():
        await settled(fake)
        fake.notify = "mute"  # as Dovecot 2.3 is then, for half a second
        fake.deliver(mail(1), mailbox="box07")
        fake.notify = "yes"
        await rig.becomes_equal("box07", within=61)
        assert not rig.observed(FeatureDistrusted)
        await settled(fake)
        fake.deliver(mail(2), mailbox="box08")
        await rig.becomes_equal("box08", within=1)


@virtual_time
async def test_it_goes_on_telling_after_renewals_where_a_set_on_top_of_another_leaves_it_mute() -> None:
    fake = made(notify="once")
    rig = everything(fake)
    async with rig.running():
        for number, name in enumerate(BOXES):
            await anyio.sleep(60)
            await settled(fake)
            fake.deliver(mail(number), mailbox=name)
            await rig.becomes_equal(name, within=1)
        assert not rig.observed(FeatureDistrusted)


@virtual_time
async def test_one_that_is_mute_is_backed_by_its_renewals_and_given_up_for_hours() -> None:
    fake = made(BOXES[:3], notify="mute")
    rig = everything(fake, **SELDOM)
    async with rig.running():
        await settled(fake)
        for number, name in enumerate([*BOXES[:3], *BOXES[:3]]):
            fake.deliver(mail(number), mailbox=name)
            await rig.becomes_equal(name, within=61 if number < 2 else 3605)
            await settled(fake)
        (distrusted,) = rig.observed(FeatureDistrusted)
        assert distrusted.feature == "notify"
        before = sent(fake, "NOTIFY")
        fake.notify = "yes"
        await anyio.sleep(3600)
        assert sent(fake, "NOTIFY") == before
        await anyio.sleep(6 * 3600)
        await settled(fake)
        fake.deliver(mail(77), mailbox="box02")
        await rig.becomes_equal("box02", within=1)


@virtual_time
async def test_an_overflow_costs_a_reading_and_three_of_them_an_hour_without_it() -> None:
    fake = made(notify="overflow")
    rig = everything(fake)
    async with rig.running():
        for number, name in enumerate(BOXES[:8]):
            await settled(fake)
            fake.deliver(mail(number), mailbox=name)
            await rig.becomes_equal(name, within=2 if number < 3 else 605)
        assert len(rig.observed(FeatureDistrusted)) == 1


@virtual_time
async def test_a_server_that_knows_fewer_events_is_asked_for_those() -> None:
    fake = made(notify="BADEVENT")
    rig = everything(fake)
    async with rig.running():
        await settled(fake)
        fake.deliver(mail(1), mailbox="box00")
        await rig.becomes_equal("box00", within=1)
        assert not rig.observed(FeatureDistrusted)


@virtual_time
async def test_a_server_that_refuses_it_is_polled_and_asked_again_a_day_later() -> None:
    fake = made(["box00", "box01"], notify="NO")
    rig = everything(fake, **SELDOM)
    async with rig.running():
        await settled(fake)
        fake.deliver(mail(1), mailbox="box00")
        await rig.becomes_equal("box00", within=3605)
        assert sent(fake, "NOTIFY") == 3, "with all events, and with the few"
        fake.notify = "yes"
        await anyio.sleep(86_400)
        await settled(fake)
        fake.deliver(mail(2), mailbox="box01")
        await rig.becomes_equal("box01", within=1)


@virtual_time
async def test_two_connections_lost_within_an_hour_are_a_day_without_it() -> None:
    fake = made()
    rig = everything(fake, poll_interval="5m")
    async with rig.running():
        for _ in range(2):
            await settled(fake)
            fake.end_all()
            await anyio.sleep(30)
        await settled(fake)
        assert rig.observed(FeatureDistrusted)
        before = sent(fake, "NOTIFY")
        fake.deliver(mail(1), mailbox="box00")
        await rig.becomes_equal("box00", within=305)
        assert sent(fake, "NOTIFY") == before


@pytest.mark.parametrize("count", [0, 50], ids=["one mailbox", "fifty-one mailboxes"])
def test_it_is_not_used_for_one_mailbox_nor_for_more_than_fifty(count: int) -> None:
    @virtual_time
    async def run() -> None:
        fake = made([f"box{number}" for number in range(count)])
        rig = everything(fake, poll_interval="5m")
        async with rig.running():
            await settled(fake)
            fake.deliver(mail(1), mailbox="box49" if count else "INBOX")
            await rig.becomes_equal("box49" if count else "INBOX", within=305)
        assert sent(fake, "NOTIFY") == 0

    run()


@virtual_time
async def test_pushes_and_news_elsewhere_at_the_same_time_are_both_looked_into() -> None:
    fake = made()
    rig = everything(fake)
    async with rig.running():
        await settled(fake)
        for number in range(30):
            fake.deliver(mail(number), mailbox=BOXES[number % 7])
            fake.deliver(mail(100 + number))
            await anyio.sleep(0.01 * (number % 5))
        await rig.becomes_equal("INBOX", *BOXES[:7], within=2)
        await rig.replays_exactly("INBOX", *BOXES[:7])
        assert not rig.observed(FeatureDistrusted)


@virtual_time
async def test_what_is_expunged_while_the_others_are_looked_at_is_expunged_here() -> None:
    fake = made(["A", "B"])
    for number in range(5):
        fake.deliver(mail(number))
    rig = everything(fake, poll_interval="1h")
    async with rig.running():
        await rig.becomes_equal()
        await settled(fake)

        def expunge(_session: Any, command: Any) -> None:
            if command.name == "EXAMINE" and command.arguments.startswith('"A"'):
                fake.on_command = None
                fake.expunge(2)

        fake.on_command = expunge
        fake.deliver(mail(9), mailbox="A")
        await rig.becomes_equal("INBOX", "A", within=2)
        await rig.replays_exactly("INBOX", "A")


@virtual_time
async def test_what_was_leaving_when_the_session_was_lost_is_found_gone_again() -> None:
    fake = made(["A", "B"], capabilities=NOTIFY)
    for number in range(5):
        fake.deliver(mail(number))
    rig = everything(fake, poll_interval="1h")
    async with rig.running():
        await rig.becomes_equal()
        await settled(fake)
        fake.at("LIST", cut("reset"), times=1)
        fake.expunge(2)  # INBOX is looked at, and then the others are to be asked whether it went there
        await rig.becomes_equal("INBOX", within=10)
        await rig.replays_exactly("INBOX", "A")
