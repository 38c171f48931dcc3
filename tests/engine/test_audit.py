"""The audit finds what nobody told of and counts it; what `found_by` says of a message is so."""

from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import Any

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from idlepush.engine.audit import is_due
from idlepush.engine.observations import Audited, Feature, FeatureDistrusted, Looked
from idlepush.imap.types import MailboxName, Uid, UidValidity
from idlepush.imap.uidset import UidSet
from idlepush.store.base import Mirror
from idlepush.sync.checkpoint import Checkpoint
from idlepush.sync.events import EventType
from tests.engine.rig import Rig, mail
from tests.peers.fake import CAPABILITIES, CONDSTORE, QRESYNC, Command, FakeImap
from tests.peers.virtual import virtual_time
from tests.store import making

HOUR = 3600.0


def swap_in_silence(fake: FakeImap, *, gone: int, back: int, mailbox: str = "INBOX") -> None:
    """One message goes and another one comes back below UIDNEXT: EXISTS and UIDNEXT stay as they were."""
    messages = fake.mailbox(mailbox).messages
    (taken,) = [message for message in messages if message.uid == gone]
    messages.remove(taken)
    taken.uid = back
    messages.append(taken)
    messages.sort(key=lambda message: message.uid)


async def mirrored(fake: FakeImap, count: int = 6, mailbox: str = "INBOX") -> None:
    for number in range(count):
        fake.deliver(mail(number), mailbox=mailbox)
    fake.expunge(2, mailbox)


@virtual_time
async def test_an_audit_finds_what_neither_push_nor_poll_told_and_counts_it() -> None:
    fake = FakeImap()
    await mirrored(fake)
    rig = Rig(fake, audit_interval="6h")
    async with rig.running():
        await rig.becomes_equal()
        fake.end_all()
        swap_in_silence(fake, gone=5, back=2)
        await anyio.sleep(HOUR / 2)
        assert {2, 5} & set(await rig.in_mirror()) == {5}, "a look noticed it, and the audit has nothing to show"
        await rig.becomes_equal(within=7 * HOUR)
        await rig.replays_exactly()
        assert [(seen.missing, seen.extra) for seen in rig.observed(Audited) if seen.missing] == [(1, 1)]
        found = {event.uid: event.details["found_by"] for event in await rig.events() if event.type == "message.new"}
        assert found[2] == "audit"
        assert sum(seen.expunged for seen in rig.observed(Looked)) == 0
    assert fake.changes_by_clients == []


@virtual_time
async def test_an_audit_that_finds_nothing_writes_no_event_and_comes_once_in_its_interval() -> None:
    fake = FakeImap()
    await mirrored(fake)
    rig = Rig(fake, audit_interval="6h", flags_interval="1w", poll_interval="1h")
    async with rig.running():
        await rig.becomes_equal()
        position = await rig.store.position()
        await anyio.sleep(48 * HOUR)
        assert await rig.store.position() == position
        audits = rig.observed(Audited)
        assert len(audits) == 8
        assert not any(seen.missing or seen.extra or seen.flags for seen in audits)
    searches = sum(command.name == "UID SEARCH" for command in fake.commands)
    assert searches <= len(audits) + 2


@virtual_time
async def test_a_mailbox_that_is_only_polled_is_audited_though_its_status_never_changes() -> None:
    fake = FakeImap()
    fake.create("Archive")
    await mirrored(fake, mailbox="Archive")
    rig = Rig(fake, mailboxes=["INBOX", "Archive"], audit_interval="6h", flags_interval="1w")
    async with rig.running():
        await rig.becomes_equal("INBOX", "Archive")
        swap_in_silence(fake, gone=5, back=2, mailbox="Archive")
        await rig.becomes_equal("INBOX", "Archive", within=7 * HOUR)
        assert [seen.mailbox for seen in rig.observed(Audited) if seen.missing] == ["Archive"]


@virtual_time
async def test_a_service_that_starts_again_neither_repeats_nor_forgets_an_audit() -> None:
    fake = FakeImap()
    await mirrored(fake)
    first = Rig(fake, audit_interval="6h")
    async with first.running():
        await first.becomes_equal()
        await anyio.sleep(6 * HOUR)
    audits = len(first.observed(Audited))
    assert audits in (1, 2)
    again = Rig(fake, store=first.store, audit_interval="6h")
    async with again.running():
        await fake.until(lambda: fake.idling == 1)
        assert not again.observed(Audited)
    await anyio.sleep(13 * HOUR)
    later = Rig(fake, store=first.store, audit_interval="6h")
    async with later.running():
        await fake.until(lambda: fake.idling == 1)
        assert len(later.observed(Audited)) == 1


def standing(audited_at: datetime | None) -> Mirror:
    return Mirror(generation=1, checkpoint=Checkpoint(UidValidity(1), Uid(1)), alive=0, audited_at=audited_at)


moments = st.datetimes(datetime(2020, 1, 1), datetime(2040, 1, 1), timezones=st.just(UTC))


@given(moments, st.floats(1, 30 * 86_400), st.text(max_size=20))
def test_an_audit_is_due_once_in_every_interval(last: datetime, interval: float, name: str) -> None:
    def due(after: float) -> bool:
        return is_due(standing(last), name=name, interval=interval, now=last + timedelta(seconds=after))

    assert not due(0)
    assert due(interval * 1.0001 + 0.001)
    steps = [due(interval * step / 20) for step in range(20)]
    assert steps == sorted(steps)


def test_audits_of_many_accounts_are_spread_over_the_interval() -> None:
    last = datetime(2026, 11, 22, tzinfo=UTC)
    hours: Counter[int] = Counter()
    for number in range(2400):
        for hour in range(24):
            now = last + timedelta(hours=hour + 1)
            if is_due(standing(last), name=f"account{number}/INBOX", interval=86_400, now=now):
                hours[hour] += 1
                break
    assert sum(hours.values()) == 2400
    assert max(hours.values()) < 200


# What `found_by` says


async def found(rig: Rig) -> list[Any]:
    return [event.details["found_by"] for event in await rig.events() if event.type is EventType.MESSAGE_NEW]


@pytest.mark.parametrize(
    ("behaviour", "says"),
    [
        pytest.param({}, "push", id="pushed"),
        pytest.param({"pushes": "on DONE"}, "poll", id="told no sooner than the poll asks"),
        pytest.param({"pushes": "never"}, "poll", id="a silent IDLE, found by the next EXAMINE"),
        pytest.param({"idle": "NO"}, "poll", id="polled"),
        pytest.param({"capabilities": "IMAP4rev1"}, "poll", id="a server without IDLE"),
    ],
)
@virtual_time
async def test_found_by_is_what_really_brought_it(behaviour: Any, says: str) -> None:
    fake = FakeImap(**behaviour)
    rig = Rig(fake)
    async with rig.running():
        await anyio.sleep(10)
        fake.deliver(mail(1))
        await rig.becomes_equal(within=1000)
        assert await found(rig) == [says]


@virtual_time
async def test_what_came_while_the_connection_was_away_says_reconnect() -> None:
    fake = FakeImap()
    rig = Rig(fake)
    async with rig.running():
        await fake.until(lambda: fake.idling == 1)
        fake.end_all()
        fake.deliver(mail(1))
        await rig.becomes_equal(within=1000)
        assert await found(rig) == ["reconnect"]


@virtual_time
async def test_what_the_server_tells_while_the_first_look_is_still_at_work_says_push() -> None:
    fake = FakeImap()
    for number in range(900):
        fake.deliver(mail(number))
    rig = Rig(fake)
    async with rig.running():
        await fake.until(lambda: any(command.name == "UID FETCH" for command in fake.commands))
        fake.deliver(mail(1000))
        await rig.becomes_equal(within=100)
        assert Counter(await found(rig)) == {"backfill": 900, "push": 1}


@virtual_time
async def test_what_a_poll_of_another_mailbox_shows_says_poll() -> None:
    fake = FakeImap()
    fake.create("Archive")
    rig = Rig(fake, mailboxes=["INBOX", "Archive"])
    async with rig.running():
        await fake.until(lambda: fake.idling == 1)
        fake.deliver(mail(1), mailbox="Archive")
        await rig.becomes_equal("INBOX", "Archive", within=1000)
        assert await found(rig) == ["poll"]


@virtual_time
async def test_what_is_missing_below_the_mark_though_the_count_is_wrong_says_audit() -> None:
    fake = FakeImap()
    await mirrored(fake)
    rig = Rig(fake)
    async with rig.running():
        await rig.becomes_equal()
        before = len(await found(rig))
        fake.end_all()
        back = fake.mailbox().messages[0]
        fake.mailbox().messages.insert(1, type(back)(**{**vars_of(back), "uid": 2}))
        await rig.becomes_equal(within=1000)
        assert (await found(rig))[before:] == ["audit"]


def vars_of(message: Any) -> dict[str, Any]:
    return {name: getattr(message, name) for name in message.__dataclass_fields__}


@virtual_time
async def test_what_is_damaged_is_fetched_anew_and_keeps_its_id() -> None:
    fake = FakeImap()
    await mirrored(fake)
    rig = Rig(fake)
    async with rig.running():
        await rig.becomes_equal()
        before = {row.uid: row.id async for row in rig.store.messages("alice")}
        mailbox = MailboxName(b"INBOX")
        mirror = await rig.store.mirror("alice", mailbox)
        assert mirror is not None
        wrong = [making.message(uid, b"wrong", flags=frozenset()) for uid in (3, 5)]
        await rig.store.commit(making.changes(mirror.generation, replaced=tuple(wrong)))
        assert await rig.in_mirror() != rig.on_server()
        rig.watch.repair(mailbox, UidSet.of(3))
        rig.watch.repair(mailbox, UidSet.of(5, 99))
        await rig.becomes_equal(within=30)
        assert {row.uid: row.id async for row in rig.store.messages("alice")} == before
        await rig.replays_exactly()
        await anyio.sleep(HOUR)
        assert len(rig.observed(Audited)) == 1
    assert fake.changes_by_clients == []


@pytest.mark.parametrize("capabilities", [QRESYNC, CONDSTORE], ids=["qresync", "condstore"])
@virtual_time
async def test_flags_that_mod_sequences_never_told_of_are_found_and_the_server_is_no_longer_believed(
    capabilities: str,
) -> None:
    fake = FakeImap(capabilities=capabilities)
    await mirrored(fake)
    rig = Rig(fake, audit_interval="6h")
    async with rig.running():
        await rig.becomes_equal()
        fake.end_all()
        fake.mailbox().message(5).flags = frozenset({"\\Flagged"})
        await anyio.sleep(HOUR / 2)
        assert await rig.in_mirror() != rig.on_server(), "a look noticed it, and the audit has nothing to show"
        await rig.becomes_equal(within=7 * HOUR)
        assert [seen.flags for seen in rig.observed(Audited) if seen.flags] == [1]
        assert sum(seen.flags for seen in rig.observed(Looked)) == 0
        await anyio.sleep(HOUR)
        assert [seen.feature for seen in rig.observed(FeatureDistrusted)] == [Feature.CONDSTORE]
        await rig.replays_exactly()


@pytest.mark.parametrize("capabilities", [QRESYNC, CONDSTORE, CAPABILITIES], ids=["qresync", "condstore", "uid"])
@virtual_time
async def test_changes_that_are_told_while_an_audit_is_at_work_do_not_count_as_missed(capabilities: str) -> None:
    fake = FakeImap(capabilities=capabilities)
    await mirrored(fake, 30)
    rig = Rig(fake, audit_interval="6h")
    async with rig.running():
        await rig.becomes_equal()
        audited = 0

        def on_command(_session: object, command: Command) -> None:
            nonlocal audited
            if command.name in {"UID SEARCH", "UID FETCH"} and audited < 3:
                audited += 1
                fake.deliver(mail(1000 + audited))
                fake.expunge(fake.mailbox().messages[0].uid)
                fake.set_flags(fake.mailbox().messages[3].uid, ["\\Flagged"])

        fake.on_command = on_command
        await anyio.sleep(13 * HOUR)
        fake.on_command = None
        assert audited == 3
        await rig.becomes_equal(within=1000)
        assert [seen for seen in rig.observed(Audited) if seen.missing or seen.extra] == []
        await rig.replays_exactly()
