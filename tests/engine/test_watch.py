"""One account's loop, end to end on a server of our own, in virtual time."""

from typing import Any

import anyio
import pytest

from idlepush.engine.observations import IdleDistrusted, IdleWasSilent, Looked, Mirrored
from idlepush.sync.events import EventType, FoundBy
from tests.engine.rig import Rig, mail
from tests.peers.fake import QRESYNC, FakeImap, Mailbox, answer, bye, cut
from tests.peers.virtual import virtual_time


@virtual_time
async def test_what_is_there_is_mirrored_and_is_initial() -> None:
    fake = FakeImap()
    for number in range(1200):
        fake.deliver(mail(number), flags=["\\Seen"] if number % 2 else [])
    rig = Rig(fake)
    async with rig.running():
        await rig.becomes_equal()
        await rig.replays_exactly()
    news = [event for event in await rig.events() if event.type is EventType.MESSAGE_NEW]
    assert len(news) == 1200
    assert all(event.details["initial"] and event.details["found_by"] == "backfill" for event in news)
    assert fake.changes_by_clients == []


@virtual_time
async def test_a_push_is_mirrored_at_once_and_is_not_initial() -> None:
    fake = FakeImap()
    rig = Rig(fake)
    async with rig.running():
        await fake.until(lambda: fake.idling == 1)
        fake.deliver(mail(1))
        await rig.becomes_equal(within=1)
        (event,) = [event for event in await rig.events() if event.type is EventType.MESSAGE_NEW]
        assert event.details["found_by"] == "push"
        assert event.details["initial"] is False


@virtual_time
async def test_the_newest_mail_of_a_backlog_comes_first() -> None:
    fake = FakeImap()
    for number in range(1300):
        fake.deliver(mail(number))
    rig = Rig(fake)
    async with rig.running():
        await rig.becomes_equal()
    uids = [event.uid or 0 for event in await rig.events() if event.type is EventType.MESSAGE_NEW]
    assert uids == sorted(uids, reverse=True)


@virtual_time
async def test_mail_that_comes_while_a_backlog_loads_does_not_wait_for_it() -> None:
    fake = FakeImap()
    for number in range(3000):
        fake.deliver(mail(number))
    rig = Rig(fake)
    async with rig.running():
        await fake.until(lambda: len([c for c in fake.commands if c.name == "UID FETCH"]) > 3)
        uid = fake.deliver(mail(9999))
        await rig.becomes_equal()
    order = [event.uid for event in await rig.events() if event.type is EventType.MESSAGE_NEW]
    assert order.index(uid) < 2000


@virtual_time
async def test_flags_and_expunges_told_by_sequence_number_are_mirrored_by_uid() -> None:
    fake = FakeImap()
    for number in range(60):
        fake.deliver(mail(number))
    rig = Rig(fake)
    async with rig.running():
        await fake.until(lambda: fake.idling == 1)
        for uid in range(1, 61, 3):
            fake.set_flags(uid, ["\\Flagged", "Work"])
        for uid in range(2, 61, 5):
            fake.expunge(uid)
        for uid in range(1, 31, 3):
            if uid % 5 != 2:
                fake.set_flags(uid, ["\\Seen"])
        await rig.becomes_equal(within=2)
        await rig.replays_exactly()


@virtual_time
async def test_a_second_look_right_after_the_first_sends_nothing_but_examine_and_writes_nothing() -> None:
    fake = FakeImap()
    for number in range(30):
        fake.deliver(mail(number))
    rig = Rig(fake)
    async with rig.running():
        await fake.until(lambda: fake.idling == 1)
        before, position = len(fake.commands), await rig.store.position()
        rig.watch.wake.set()
        await fake.until(lambda: len(fake.commands) > before + 1 and fake.idling == 1)
        assert [command.name for command in fake.commands[before:]] == ["DONE", "EXAMINE", "IDLE"]
        assert await rig.store.position() == position


@virtual_time
async def test_half_an_hour_of_silence_is_renewals_and_nothing_else() -> None:
    fake = FakeImap(keepalive=120)
    fake.deliver(mail(1))
    rig = Rig(fake, idle_renew="4m", flags_interval="1h", poll_interval="1h")
    async with rig.running():
        await fake.until(lambda: fake.idling == 1)
        before = len(fake.commands)
        await anyio.sleep(1800)
        names = [command.name for command in fake.commands[before:]]
        assert names == ["DONE", "EXAMINE", "IDLE"] * 7
        assert fake.sessions_ever == 1


@virtual_time
async def test_two_mails_one_of_which_is_expunged_again_leave_the_same_exists_and_are_noticed() -> None:
    fake = FakeImap()
    for number in range(3):
        fake.deliver(mail(number))
    rig = Rig(fake)
    async with rig.running():
        await fake.until(lambda: fake.idling == 1)
        fake.expunge(2)
        fake.deliver(mail(9))
        await rig.becomes_equal(within=2)


@virtual_time
async def test_other_mailboxes_are_polled_and_mirrored() -> None:
    fake = FakeImap()
    fake.create("Archive")
    fake.deliver(mail(1), mailbox="Archive")
    rig = Rig(fake, mailboxes=["INBOX", "Archive"], poll_interval="1m")
    async with rig.running():
        await rig.becomes_equal("INBOX", "Archive")
        await fake.until(lambda: fake.idling == 1)
        fake.deliver(mail(2), mailbox="Archive")
        fake.set_flags(1, ["\\Seen"], mailbox="Archive")
        fake.deliver(mail(3))
        await rig.becomes_equal("INBOX", within=1)
        await rig.becomes_equal("Archive", within=70)
        await rig.replays_exactly("INBOX", "Archive")


@pytest.mark.parametrize(
    ("fault", "polls_within"),
    [
        pytest.param({"capabilities": "IMAP4rev1 LITERAL+ ID AUTH=PLAIN"}, 65, id="the server has no IDLE"),
        pytest.param({"idle": "NO"}, 65, id="IDLE is refused with NO"),
        pytest.param({"idle": "BAD"}, 65, id="IDLE is refused with BAD"),
        pytest.param({"idle": "mute"}, 120, id="IDLE is never confirmed"),
        pytest.param({"done": "mute"}, 120, id="DONE is never answered"),
        pytest.param({"pushes": "never"}, 250, id="IDLE is silent"),
        pytest.param({"pushes": "never", "keepalive": 20.0}, 250, id="IDLE says nothing but keepalives"),
        pytest.param({"pushes": "on DONE"}, 250, id="pushes come on DONE only"),
        pytest.param({"idle_ends_after": 2.0}, 65, id="IDLE ends by itself every 2 s"),
        pytest.param({"idle_cut_after": 2.0}, 10, id="the connection is cut every 2 s of IDLE"),
        pytest.param({"pushes_before_confirming": True}, 5, id="EXISTS comes before the +"),
        pytest.param({"push_uids": True}, 5, id="pushes carry UIDs"),
        pytest.param({"lower_case": True}, 5, id="the server writes in lower case"),
        pytest.param({"reverses_completions": True}, 5, id="completions come in any order"),
        pytest.param({"fetch_order": "down"}, 5, id="FETCH answers from the top"),
        pytest.param({"fetch_twice": True}, 5, id="FETCH answers twice"),
        pytest.param(
            {"fetch_noise": b"* 1 FETCH (UID 77 FLAGS (\\Seen))\r\n* 3 EXISTS\r\n"}, 10, id="alien answers in FETCH"
        ),
        pytest.param({"body_spelling": "quoted"}, 5, id="bodies are quoted strings"),
        pytest.param({"body_spelling": "literal8"}, 5, id="bodies are literal8"),
        pytest.param({"silent_expunges": True}, 5, id="expunges are told at NOOP only"),
    ],
)
def test_new_mail_is_found_in_time_when(fault: dict[str, object], polls_within: float) -> None:
    @virtual_time
    async def run() -> None:
        fake = FakeImap(**fault)  # type: ignore[arg-type]
        for number in range(3):
            fake.deliver(mail(number))
        rig = Rig(fake, poll_interval="1m", idle_renew="4m")
        async with rig.running():
            await rig.becomes_equal(within=60)
            for number in range(10, 14):
                await anyio.sleep(7)
                fake.deliver(mail(number))
                await rig.becomes_equal(within=polls_within)
            await rig.replays_exactly()
        assert fake.sessions_most == 1
        assert fake.changes_by_clients == []
        ends = anyio.current_time()
        talkative = 6 if "idle_cut_after" in fault or "fetch_noise" in fault else 1
        assert len(fake.commands) <= 40 + 12 * talkative * (1 + ends / 60)

    run()


@virtual_time
async def test_a_silent_idle_is_noticed_and_no_longer_trusted() -> None:
    fake = FakeImap(pushes="never")
    rig = Rig(fake, idle_renew="1m", poll_interval="30s")
    async with rig.running():
        await fake.until(lambda: fake.idling == 1)
        for number in range(3):
            fake.deliver(mail(number))
            await rig.becomes_equal(within=70)
            await anyio.sleep(61)
        assert len(rig.observed(IdleWasSilent)) == 2
        assert rig.observed(IdleDistrusted)
        await rig.comes_to("polling")
        fake.pushes = "at once"
        await anyio.sleep(3700)
        await rig.comes_to("watching")


@virtual_time
async def test_a_half_open_connection_in_idle_is_noticed_within_6_minutes_and_renewals_come_sooner() -> None:
    fake = FakeImap()
    rig = Rig(fake)
    async with rig.running():
        for number in range(2):
            await fake.until(lambda: fake.idling == 1, within=30)
            for session in fake.sessions:
                session.end("stall")
            fake.deliver(mail(number))
            await rig.becomes_equal(within=360 / (number + 1))
        await fake.until(lambda: fake.idling == 1, within=30)
        await rig.comes_to("watching")
        before = len([command for command in fake.commands if command.name == "IDLE"])
        await anyio.sleep(600)
        assert len([command for command in fake.commands if command.name == "IDLE"]) - before >= 9
        await rig.replays_exactly()


@virtual_time
async def test_mail_that_came_while_the_connection_was_down_is_found_on_reconnect() -> None:
    fake = FakeImap()
    fake.deliver(mail(0))
    rig = Rig(fake)
    async with rig.running():
        await fake.until(lambda: fake.idling == 1)
        fake.end_all("reset")
        for number in range(1, 40):
            fake.deliver(mail(number))
        await rig.becomes_equal(within=4)
        await rig.replays_exactly()
    kinds = {event.details["found_by"] for event in await rig.events() if event.type is EventType.MESSAGE_NEW}
    assert kinds == {"backfill", "reconnect"}
    assert sum(seen.count for seen in rig.observed(Mirrored) if seen.found_by is FoundBy.RECONNECT) == 39


@pytest.mark.parametrize("how", ["close", "reset"])
@pytest.mark.parametrize(
    "point", ["connect", "LOGIN", "AUTHENTICATE", "EXAMINE", "UID FETCH", "in FETCH", "in IDLE", "NOOP"]
)
def test_a_connection_lost_at_any_point_comes_back(point: str, how: str) -> None:
    @virtual_time
    async def run() -> None:
        fake = FakeImap()
        for number in range(5):
            fake.deliver(mail(number))
        fake.at(point, cut(how), times=2)  # type: ignore[arg-type]
        fake.at(point, bye("going down"), times=1)
        rig = Rig(fake)
        async with rig.running():
            await rig.becomes_equal(within=30)
            await fake.until(lambda: fake.idling == 1)
            fake.deliver(mail(9))
            await rig.becomes_equal(within=10)
            await rig.replays_exactly()
        assert fake.sessions_most == 1

    run()


@virtual_time
async def test_a_server_that_drops_every_session_sees_no_more_than_twelve_logins_a_minute() -> None:
    fake = FakeImap(idle_cut_after=0.1)
    rig = Rig(fake, dice=0.1)
    async with rig.running():
        await anyio.sleep(600)
        assert 60 <= len(fake.logins) <= 10 + 12 * 10


@virtual_time
async def test_of_several_hosts_the_one_that_answered_is_asked_first_the_next_time() -> None:
    asked: list[str] = []

    class Choosy(Rig):
        async def dial(self, protocol: Any, endpoint: Any) -> Any:
            asked.append(endpoint.host)
            if endpoint.host == "127.0.0.1":
                raise ConnectionRefusedError
            return await super().dial(protocol, endpoint)

    fake = FakeImap()
    rig = Choosy(fake, host=None, hosts=["127.0.0.1:1143", "127.0.0.2:1143"])
    async with rig.running():
        await fake.until(lambda: fake.idling == 1)
        fake.end_all()
        await anyio.sleep(5)
        await fake.until(lambda: fake.idling == 1)
    assert asked == ["127.0.0.1", "127.0.0.2", "127.0.0.2"]


@virtual_time
async def test_a_mailbox_that_is_deleted_is_gone_and_comes_back_as_news() -> None:
    fake = FakeImap()
    fake.create("Work")
    fake.deliver(mail(1), mailbox="Work")
    rig = Rig(fake, mailboxes=["INBOX", "Work"], poll_interval="20s")
    async with rig.running():
        await rig.becomes_equal("Work")
        fake.delete("Work")
        await anyio.sleep(30)
        assert await rig.in_mirror("Work") == {}
        fake.create("Work", uidvalidity=7)
        fake.deliver(mail(2), mailbox="Work")
        await rig.becomes_equal("Work", within=30)
        await rig.replays_exactly("INBOX", "Work")
    last = [event for event in await rig.events() if event.type is EventType.MESSAGE_NEW][-1]
    assert last.details["initial"] is False
    assert [event.type.value for event in await rig.events() if event.type.value.startswith("mailbox")] == [
        "mailbox.new",
        "mailbox.new",
        "mailbox.gone",
        "mailbox.new",
    ]


@pytest.mark.parametrize(
    "refusal", ["NO [SERVERBUG] oops", "NO [INUSE] locked", "NO [UNAVAILABLE] later", "NO [NONEXISTENT] no INBOX"]
)
def test_a_mailbox_that_is_refused_for_a_while_is_not_taken_for_gone(refusal: str) -> None:
    @virtual_time
    async def run() -> None:
        fake = FakeImap()
        fake.deliver(mail(1))
        rig = Rig(fake)
        async with rig.running():
            await rig.becomes_equal()
            fake.end_all()
            fake.at("EXAMINE", answer(refusal), times=3)
            fake.at("LIST", answer("OK nothing here"), times=None)
            await anyio.sleep(120)
            assert await rig.in_mirror() == rig.on_server()
            await rig.becomes_equal(within=900)
        assert not [event for event in await rig.events() if event.type is EventType.MAILBOX_GONE]

    run()


@pytest.mark.parametrize("to", [1, 4_000_000_000], ids=["goes down", "goes up"])
def test_a_uidvalidity_that_changes_is_one_reset_and_no_flood(to: int) -> None:
    @virtual_time
    async def run() -> None:
        fake = FakeImap()
        for number in range(50):
            fake.deliver(mail(number))
        rig = Rig(fake)
        async with rig.running():
            await rig.becomes_equal()
            await fake.until(lambda: fake.idling == 1)
            fake.expunge(7)
            fake.bump_uidvalidity(to=to)
            fake.deliver(mail(99), internaldate="21-Nov-2026 20:00:01 +0000")
            await rig.becomes_equal(within=10)
            await rig.replays_exactly()
        log = await rig.events()
        assert sum(event.type is EventType.MAILBOX_RESET for event in log) == 1
        assert sum(event.type is EventType.MESSAGE_MOVED for event in log) == 49
        news = [event for event in log if event.type is EventType.MESSAGE_NEW][50:]
        assert [event.details["initial"] for event in news] == [False]

    run()


@virtual_time
async def test_a_uidvalidity_that_flaps_is_left_alone_for_a_while_and_told_of() -> None:
    fake = FakeImap()
    for number in range(20):
        fake.deliver(mail(number))
    rig = Rig(fake)
    async with rig.running():
        await rig.becomes_equal()
        for number in range(8):
            await anyio.sleep(60)
            fake.bump_uidvalidity(to=5 + number % 2)
        seen = await rig.comes_to("backing_off")
        assert seen.reason is not None
        assert "UIDVALIDITY" in seen.reason
        assert sum(event.type is EventType.MAILBOX_RESET for event in await rig.events()) == 3
        await rig.becomes_equal(within=4000)
        await rig.replays_exactly()
    news = [event for event in await rig.events() if event.type is EventType.MESSAGE_NEW]
    assert len(news) == 20


@virtual_time
async def test_a_uidnext_that_goes_back_with_the_same_messages_is_no_reset() -> None:
    class Broken(FakeImap):
        def uidnext(self, mailbox: Mailbox, _where: object) -> int | None:
            return (mailbox.messages[-1].uid if mailbox.messages else 0) + 1

    fake = Broken()
    for number in range(10):
        fake.deliver(mail(number))
    rig = Rig(fake)
    async with rig.running():
        await fake.until(lambda: fake.idling == 1)
        for uid in (10, 9):
            fake.end_all()
            fake.expunge(uid)
            await anyio.sleep(10)
            await rig.becomes_equal()
        fake.end_all()
        fake.mailbox().uidnext = 9
        fake.deliver(mail(77))
        await rig.becomes_equal()
        await rig.replays_exactly()
    assert not [event for event in await rig.events() if event.type is EventType.MAILBOX_RESET]


@virtual_time
async def test_other_mails_under_the_same_uidvalidity_are_a_reset() -> None:
    fake = FakeImap()
    for number in range(10):
        fake.deliver(mail(number))
    rig = Rig(fake)
    async with rig.running():
        await fake.until(lambda: fake.idling == 1)
        uidvalidity = fake.mailbox().uidvalidity
        fake.mailbox().messages.clear()
        fake.mailbox().uidnext = 1
        for number in range(100, 104):
            fake.deliver(mail(number, size=number))
        fake.bump_uidvalidity(to=uidvalidity)
        await rig.becomes_equal(within=20)
        await rig.replays_exactly()
    assert [event for event in await rig.events() if event.type is EventType.MAILBOX_RESET]


class NoUidnext(FakeImap):
    def uidnext(self, mailbox: Mailbox, where: object) -> int | None:
        return None


class UidnextInStatusOnly(FakeImap):
    def uidnext(self, mailbox: Mailbox, where: object) -> int | None:
        return mailbox.uidnext if where == "STATUS" else None


@pytest.mark.parametrize("kind", [NoUidnext, UidnextInStatusOnly], ids=["nowhere", "in STATUS only"])
def test_uidnext_may_be_missing(kind: type[FakeImap]) -> None:
    @virtual_time
    async def run() -> None:
        fake = kind()
        for number in range(30):
            fake.deliver(mail(number))
        rig = Rig(fake, poll_interval="1m", idle_renew="1m")
        async with rig.running():
            await rig.becomes_equal()
            fake.end_all()
            fake.deliver(mail(50))
            await rig.becomes_equal()
            fake.deliver(mail(51))
            await rig.becomes_equal()
            await rig.replays_exactly()

    run()


@virtual_time
async def test_uids_near_the_end_of_their_range_with_gaps_of_millions_cost_no_enumeration() -> None:
    fake = FakeImap()
    for number, uid in enumerate((5, 1_000_000, 2_500_000_000, 4_294_967_290)):
        fake.deliver(mail(number), uid=uid)
    rig = Rig(fake)
    async with rig.running():
        await rig.becomes_equal()
        await fake.until(lambda: fake.idling == 1)
        fake.deliver(mail(9), uid=4_294_967_294)
        await rig.becomes_equal()
        await rig.replays_exactly()
    assert len(fake.commands) < 30


@pytest.mark.parametrize("kind", ["nil", "empty", "omitted", "stand-in", "kept"])
def test_a_message_expunged_during_its_fetch_is_never_stored_as_something_else(kind: str) -> None:
    @virtual_time
    async def run() -> None:
        fake = FakeImap(expunged_body=kind, silent_expunges=True)  # type: ignore[arg-type]
        for number in range(20):
            fake.deliver(mail(number))

        def expunge(_session: object, command: object) -> None:
            if (
                getattr(command, "name", "") == "UID FETCH"
                and "BODY" in str(command)
                and 3 in [message.uid for message in fake.mailbox().messages]
            ):
                fake.expunge(3)

        fake.on_command = expunge
        rig = Rig(fake)
        async with rig.running():
            await rig.becomes_equal(within=20)
            await rig.replays_exactly()
        assert 3 not in [event.uid for event in await rig.events() if event.type is EventType.MESSAGE_NEW]

    run()


@pytest.mark.parametrize("how", ["NO", "BAD", "cut"])
def test_a_poisoned_message_is_set_aside_and_holds_nothing_back(how: str) -> None:
    @virtual_time
    async def run() -> None:
        fake = FakeImap(poison={17: how})  # type: ignore[dict-item]
        for number in range(40):
            fake.deliver(mail(number))
        rig = Rig(fake)
        async with rig.running():
            wanted = {uid: row for uid, row in rig.on_server().items() if uid != 17}
            with anyio.fail_after(900):
                while await rig.in_mirror() != wanted:
                    await anyio.sleep(1)
            await fake.until(lambda: fake.idling == 1, within=900)
            fake.deliver(mail(99))
            wanted = {uid: row for uid, row in rig.on_server().items() if uid != 17}
            with anyio.fail_after(10):
                while await rig.in_mirror() != wanted:
                    await anyio.sleep(0.1)
            fake.poison.clear()
            await rig.becomes_equal(within=2 * 86_400)
            await rig.replays_exactly()

    run()


@virtual_time
async def test_uids_that_fetch_leaves_out_are_asked_for_again_and_set_aside() -> None:
    fake = FakeImap(omitted_uids={5})
    for number in range(10):
        fake.deliver(mail(number))
    rig = Rig(fake)
    async with rig.running():
        await anyio.sleep(5)
        assert rig.on_server().keys() - (await rig.in_mirror()).keys() == {5}
        fake.omitted_uids.clear()
        await rig.becomes_equal(within=2 * 86_400)


@virtual_time
async def test_a_size_that_lies_twice_alike_is_the_servers_opinion() -> None:
    fake = FakeImap(announced_sizes={2: 4})
    for number in range(3):
        fake.deliver(mail(number))
    rig = Rig(fake)
    async with rig.running():
        await anyio.sleep(5)
        here, there = await rig.in_mirror(), rig.on_server()
        assert {uid: row[2] for uid, row in here.items()} == {uid: row[2] for uid, row in there.items()}
        assert here[2][1] == 4


@pytest.mark.parametrize("size", [262_143 - 90, 262_144 - 97, 262_144, 600_000, 3_000_000])
def test_long_messages_come_in_slices_and_whole(size: int) -> None:
    @virtual_time
    async def run() -> None:
        fake = FakeImap()
        head = len(mail(1))
        fake.deliver(mail(1, size=size - head))
        rig = Rig(fake)
        async with rig.running():
            await rig.becomes_equal()
            await fake.until(lambda: fake.idling == 1)
            fake.deliver(mail(2, size=size - head))
            await rig.becomes_equal()
            await rig.replays_exactly()
        log = await rig.events()
        assert [event.details["complete"] for event in log if event.type is EventType.MESSAGE_NEW] == (
            [size < 262_144] * 2
        )

    run()


@virtual_time
async def test_headers_only_and_too_large_messages_are_mirrored_without_their_bodies() -> None:
    fake = FakeImap()
    fake.deliver(mail(1, size=100_000))
    fake.deliver(mail(2))
    rig = Rig(fake, max_message_bytes="50KiB")
    async with rig.running():
        await fake.until(lambda: fake.idling == 1)
        fake.deliver(mail(3, size=400_000))
        await anyio.sleep(2)
        rows = {row.uid: row async for row in rig.store.messages("alice")}
    assert [(row.truncated, row.complete, row.sha256 is None) for row in rows.values()] == [
        (True, True, True),
        (False, True, False),
        (True, True, True),
    ]
    assert rows[3].subject == "number 3"


@virtual_time
async def test_wake_to_commit_is_observed_for_a_push() -> None:
    fake = FakeImap()
    rig = Rig(fake)
    async with rig.running():
        await fake.until(lambda: fake.idling == 1)
        fake.deliver(mail(1))
        await rig.becomes_equal()
        await anyio.sleep(1)
        assert [seen for seen in rig.observed(Looked) if seen.wake_to_commit is not None]


@virtual_time
async def test_a_push_that_leaves_nothing_to_ask_leaves_idle_on() -> None:
    fake = FakeImap(capabilities=QRESYNC)
    fake.deliver(mail(1))
    rig = Rig(fake)
    async with rig.running():
        await rig.becomes_equal()
        await fake.until(lambda: fake.idling == 1)
        before = len(fake.commands)
        fake.sessions[0].say("* 1 FETCH (UID 777777 FLAGS (\\Seen))")
        await anyio.sleep(5)
        assert len(fake.commands) == before
        fake.deliver(mail(2))
        await rig.becomes_equal(within=1)
        assert fake.sessions_ever == 1


@virtual_time
async def test_a_message_set_aside_where_nobody_idles_is_tried_again_in_time() -> None:
    fake = FakeImap()
    fake.create("Work")
    fake.deliver(mail(1), mailbox="Work")
    fake.poison[1] = "NO"
    rig = Rig(fake, mailboxes=["INBOX", "Work"])
    async with rig.running():
        await fake.until(lambda: fake.idling == 1)
        assert await rig.in_mirror("Work") == {}
        fake.poison.clear()
        await rig.becomes_equal("Work", within=15 * 60)


@virtual_time
async def test_a_server_that_says_the_same_in_every_answer_is_not_asked_for_ever() -> None:
    fake = FakeImap(fetch_noise=b"* 1 FETCH (FLAGS (\\Flagged))\r\n")
    for number in range(3):
        fake.deliver(mail(number))
    rig = Rig(fake, flags_interval="1m", poll_interval="1m")
    async with rig.running():
        await rig.becomes_equal()
        await anyio.sleep(600)
        assert len(fake.commands) < 200
        fake.set_flags(2, ["\\Seen"])
        await rig.becomes_equal(within=120)
