"""Alerts reach people through Apprise: exactly those expected, and whatever the service does, nothing else suffers."""

import asyncio
import io
import json
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import anyio
import pytest
import structlog

from idlepush.engine.credentials import FileSecret, PlainSecret, Secret, SecretSource
from idlepush.engine.observations import (
    BugFound,
    Connected,
    ConnectFailed,
    Observation,
    Restarting,
    State,
    StateChanged,
)
from idlepush.errors import FailureClass, StoreFull
from idlepush.store.base import AlertRow
from idlepush.store.memory import MemoryStore
from idlepush.sync.events import EventType
from idlepush.telemetry import logs
from idlepush.telemetry.alerts import Alerts
from idlepush.telemetry.health import Health
from idlepush.telemetry.sending import Apprise
from idlepush.telemetry.settings import AlertSettings
from tests.peers.virtual import VirtualLoop, virtual_time
from tests.telemetry.endpoint import Endpoint, hanging

# Of a plug-in of Apprise's; it is imported with the others when the first service is looked up.
pytestmark = pytest.mark.filterwarnings("ignore:'imghdr' is deprecated:DeprecationWarning")

EPOCH = datetime(2026, 11, 21, 20, 0, tzinfo=UTC)


@pytest.fixture
def endpoint() -> Iterator[Endpoint]:
    with Endpoint().running() as running:
        yield running


def plain(url: str) -> SecretSource:
    return PlainSecret(text=Secret(url))


def virtual_now() -> datetime:
    return EPOCH + timedelta(seconds=anyio.current_time())


class FillingStore(MemoryStore):
    """A store whose disk is full for a while."""

    is_full = False

    async def add_alerts(self, rows: Sequence[AlertRow]) -> None:
        if self.is_full:
            raise StoreFull("no space is left")
        await super().add_alerts(rows)


class HoldingTheClock(Apprise):
    """Apprise's threads do real work, which virtual time has to wait for."""

    async def send(self, title: str, body: str, *, resolved: bool) -> bool:
        loop = asyncio.get_running_loop()
        with loop.busy() if isinstance(loop, VirtualLoop) else nullcontext():
            return await super().send(title, body, resolved=resolved)


@dataclass
class Site:
    """Accounts, their health, and the alerts about them."""

    sources: Sequence[SecretSource]
    store: MemoryStore
    limit: float = 20.0
    settings: AlertSettings = field(default_factory=AlertSettings)
    counted: list[tuple[float, str, str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.begin_anew()

    def begin_anew(self) -> None:
        """Start the service again: all but the store is new."""
        self.health = Health(virtual_now)
        self.sender = HoldingTheClock(self.sources, {}, limit=self.limit)
        self.alerts = Alerts(
            self.settings,
            health=self.health,
            store=self.store,
            host_of=lambda account: account.partition("@")[2],
            now=virtual_now,
            sender=self.sender,
            count=lambda kind, outcome: self.counted.append((anyio.current_time(), kind, outcome)),
        )

    def sees(self, account: str, state: State, failure_class: FailureClass | None = None, reason: str = "") -> None:
        if failure_class is not None:
            self.health(ConnectFailed(account=account, failure_class=failure_class, reason=reason))
        self.health(StateChanged(account=account, state=state, failure_class=failure_class, reason=reason or None))

    def fails(self, account: str) -> None:
        self.sees(account, State.BACKING_OFF, FailureClass.NETWORK, "the connection was refused")

    def parks(self, account: str) -> None:
        self.sees(account, State.PARKED, FailureClass.AUTHENTICATION, "the server does not take the credentials")

    def works(self, account: str) -> None:
        self.sees(account, State.WATCHING)

    async def told(self) -> list[tuple[str, str]]:
        return [
            (event.account, str(event.details["kind"]))
            for event in await self.store.events(limit=100_000)
            if event.type is EventType.ACCOUNT_ALERT
        ]


def site(*urls: str, store: MemoryStore | None = None, limit: float = 20.0) -> Site:
    return Site([plain(url) for url in urls], store or MemoryStore(clock=virtual_now), limit)


@pytest.fixture
def log() -> Iterator[io.StringIO]:
    stream = io.StringIO()
    logs.configure(10, stream)
    yield stream
    structlog.reset_defaults()


async def until(second: float) -> None:
    await anyio.sleep_until(second)


def test_in_an_hour_exactly_the_alerts_expected_are_received(endpoint: Endpoint) -> None:
    """The scripted hour: a host goes down, an account is locked out, blips, a flap, a pause, a restart."""
    many = [f"a{number:03}@big.example" for number in range(200)]
    alice, bob, carol, dave = "alice@one.example", "bob@two.example", "carol@three.example", "dave@four.example"
    everybody = [*many, alice, bob, carol, dave]
    counted: list[tuple[float, str, str]] = []

    async def script(here: Site) -> None:
        for account in everybody:
            here.health.expect(account, looks_every=3600)
            here.sees(account, State.STARTING)
            here.works(account)
        await until(60)  # a blip
        here.sees(alice, State.BACKING_OFF, None)
        await until(62)
        here.works(alice)
        await until(300)  # a host with 200 accounts goes down, and they find out one after the other
        for account in many:
            here.fails(account)
            await anyio.sleep(0.2)
        await until(900)  # it is up again, and they are back as their backoffs end
        for account in many:
            here.works(account)
            await anyio.sleep(1)
        await until(1200)  # wrong credentials
        here.parks(bob)
        await until(1500)  # a trouble shorter than grace
        here.fails(carol)
        await until(1590)
        here.works(carol)
        await until(1700)  # dave is in trouble, and somebody pauses him
        here.fails(dave)
        await until(1900)
        here.sees(dave, State.PAUSED)
        await until(2000)  # the host again, within the cooldown: told when that ends
        for account in many[:5]:
            here.fails(account)
        await until(2300)
        for account in many[:5]:
            here.works(account)
        await until(2700)

    async def after_the_restart(here: Site) -> None:
        for account in everybody:
            here.health.expect(account, looks_every=3600)
            here.sees(account, State.STARTING)
        here.parks(bob)
        for account in [*many, alice, carol]:
            here.works(account)
        here.sees(dave, State.PAUSED)
        await until(3300)  # bob's password was corrected
        here.sees(bob, State.STARTING)
        here.health(Connected(account=bob, endpoint="two.example:993", seconds=0.1))
        await until(3310)
        here.works(bob)
        await until(3600)

    @virtual_time
    async def hour() -> None:
        here = site(endpoint.url)
        for part in (script, after_the_restart):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(here.alerts.run)
                await part(here)
                tasks.cancel_scope.cancel()
            counted.extend(here.counted)
            here.counted.clear()
            here.begin_anew()
        told = await here.told()
        assert told.count((bob, "trouble")) == 1
        assert [kind for account, kind in told if account == many[0]] == ["trouble", "resolved"] * 2
        assert [kind for account, kind in told if account == many[9]] == ["trouble", "resolved"]
        assert [kind for account, kind in told if account == dave] == ["trouble"]
        assert not [account for account, _ in told if account in (alice, carol)]
        assert await here.store.alerts() == []

    hour()
    assert [(one["type"], one["title"]) for one in endpoint.received] == [
        ("failure", "idlepush: 200 accounts of big.example are in trouble: network"),
        ("success", "idlepush: 200 accounts of big.example are back after up to 13 min"),
        ("failure", "idlepush: bob@two.example (two.example) is in trouble: authentication"),
        ("failure", "idlepush: dave@four.example (four.example) is in trouble: network"),
        ("failure", "idlepush: 5 accounts of big.example are in trouble: network"),
        ("success", "idlepush: 5 accounts of big.example are back after up to 5 min"),
        ("success", "idlepush: bob@two.example (two.example) is back after 35 min"),
    ]
    assert [at for at, _, _ in counted] == pytest.approx([420, 1130, 1320, 1820, 2220, 2330, 3340], abs=6)
    assert {outcome for _, _, outcome in counted} == {"sent"}
    first = endpoint.received[0]["message"].splitlines()
    assert first[0] == "a000@big.example: in trouble for 2 min; backing off: the connection was refused"
    assert (len(first), first[-1]) == (11, "and 190 more")


@virtual_time
async def test_a_bug_is_told_though_the_account_is_well_again_at_once(endpoint: Endpoint) -> None:
    here = site(endpoint.url)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(here.alerts.run)
        here.works("alice@one.example")
        seen: list[Observation] = [
            BugFound(account="alice@one.example", trace="…"),
            Restarting(account="alice@one.example", failure_class=FailureClass.OTHER, reason="a bug", delay=1),
        ]
        for one in seen:
            here.health(one)
        here.works("alice@one.example")
        await anyio.sleep(200)
        assert endpoint.titles == ["idlepush: alice@one.example (one.example) is in trouble"]
        assert "a bug ended a session" in endpoint.received[0]["message"]
        tasks.cancel_scope.cancel()


@virtual_time
async def test_who_is_in_trouble_since_a_restart_is_told_of(endpoint: Endpoint) -> None:
    """A start that nobody has seen succeed is not taken for a recovery."""
    here = site(endpoint.url)
    for _ in range(2):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(here.alerts.run)
            here.health.expect("alice@one.example", looks_every=300)
            here.sees("alice@one.example", State.STARTING)
            await anyio.sleep(60)
            here.fails("alice@one.example")
            await anyio.sleep(200)
            tasks.cancel_scope.cancel()
        here.begin_anew()
    assert endpoint.titles == ["idlepush: alice@one.example (one.example) is in trouble: network"]


@virtual_time
async def test_what_was_told_of_an_account_that_was_removed_is_forgotten() -> None:
    here = site()
    row = AlertRow(account="gone@one.example", resolved=False, since=EPOCH, told=EPOCH)
    await here.store.add_alerts([row])
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(here.alerts.run)
        await anyio.sleep(5)
        tasks.cancel_scope.cancel()
    assert await here.store.alerts() == []
    assert await here.told() == [("gone@one.example", "trouble")]


@virtual_time
async def test_without_a_service_the_log_of_events_is_told_all_the_same() -> None:
    here = site()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(here.alerts.run)
        here.parks("alice@one.example")
        await anyio.sleep(130)
        here.works("alice@one.example")
        await anyio.sleep(40)
        tasks.cancel_scope.cancel()
    assert await here.told() == [("alice@one.example", "trouble"), ("alice@one.example", "resolved")]
    [trouble, _] = await here.store.events()
    assert trouble.details == {
        "kind": "trouble",
        "class": "authentication",
        "reason": "parked: the server does not take the credentials",
    }
    assert here.counted == []


@virtual_time
async def test_what_a_full_disk_keeps_from_being_stored_is_stored_later(log: io.StringIO) -> None:
    store = FillingStore(clock=virtual_now)
    here = site(store=store)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(here.alerts.run)
        store.is_full = True
        here.parks("alice@one.example")
        await anyio.sleep(600)
        assert await here.told() == []
        store.is_full = False
        await anyio.sleep(2)
        assert await here.told() == [("alice@one.example", "trouble")]
        tasks.cancel_scope.cancel()
    assert log.getvalue().count("store.trouble") == 1


@virtual_time
async def test_a_service_that_refuses_is_asked_again_and_told_in_the_end(endpoint: Endpoint, log: io.StringIO) -> None:
    endpoint.status = 500
    here = site(endpoint.url)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(here.alerts.run)
        here.parks("alice@one.example")
        await anyio.sleep(400)
        assert {outcome for _, _, outcome in here.counted} == {"failed"}
        assert 2 <= len(here.counted) <= 4
        assert await here.told() == []
        endpoint.status = 200
        await anyio.sleep(400)
        assert len(endpoint.received) == 1
        assert await here.told() == [("alice@one.example", "trouble")]
        tasks.cancel_scope.cancel()
    assert "secret-path" not in log.getvalue()
    failed = [json.loads(line) for line in log.getvalue().splitlines() if "alert.failed" in line]
    assert failed[0]["reason"] == "the service did not take it"
    assert failed[0]["service"] == 1


@virtual_time
async def test_one_service_that_takes_it_is_enough(endpoint: Endpoint) -> None:
    here = site("json://127.0.0.1:1/", endpoint.url)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(here.alerts.run)
        here.parks("alice@one.example")
        await anyio.sleep(600)
        assert len(endpoint.received) == 1
        assert [outcome for _, _, outcome in here.counted] == ["sent"]
        tasks.cancel_scope.cancel()


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        (plain("nonsense://secret-path"), "Apprise knows no service of this URL"),
        (plain("json://127.0.0.1:1/secret-path"), "the service did not take it"),
        (FileSecret(file=Path("/nowhere/alert-url")), "the secret could not be read: "),
    ],
    ids=["unknown", "unreachable", "unreadable"],
)
async def test_what_is_wrong_with_a_service_is_logged_without_its_url(
    source: SecretSource, reason: str, log: io.StringIO
) -> None:
    assert await Apprise([source], {}).send("title", "body", resolved=False) is False
    [line] = [json.loads(line) for line in log.getvalue().splitlines()]
    assert line["event"] == "alert.failed"
    assert line["reason"].startswith(reason)
    assert "secret-path" not in log.getvalue()


async def test_nothing_that_apprise_does_prints_the_url(capfd: pytest.CaptureFixture[str], log: io.StringIO) -> None:
    with Endpoint().running() as endpoint:
        endpoint.status = 500
        assert not await Apprise([plain(endpoint.url), plain("json://secret-path:x/")], {}).send(
            "t", "b", resolved=True
        )
    captured = capfd.readouterr()
    assert "secret-path" not in captured.out + captured.err + log.getvalue()


@contextmanager
def within(seconds: float) -> Iterator[None]:
    """Hold that the block takes no longer."""
    begun = time.monotonic()
    yield
    assert time.monotonic() - begun < seconds


async def test_a_service_that_hangs_delays_nobody_and_piles_nothing_up(log: io.StringIO) -> None:
    await Apprise([plain("json://127.0.0.1:1/")], {}, limit=60).send("warm", "up", resolved=False)  # imports Apprise
    log.truncate(log.seek(0))
    strangers = set(threading.enumerate())
    with hanging() as url, Endpoint().running() as endpoint:
        sender = Apprise([plain(url), plain(endpoint.url)], {}, limit=4)
        for number in range(3):
            with within(15):
                assert await sender.send(f"title {number}", "body", resolved=False), log.getvalue()
            ours = set(threading.enumerate()) - strangers
            assert sum(thread.name == "alert 1" for thread in ours) == 1
        assert endpoint.titles == ["title 0", "title 1", "title 2"]
    reasons = [json.loads(line)["reason"] for line in log.getvalue().splitlines() if "alert.failed" in line]
    assert reasons == ["no answer within 4 s", "the alert before still hangs", "the alert before still hangs"]


async def test_a_service_that_hangs_does_not_hold_up_the_end() -> None:
    strangers = set(threading.enumerate())
    with hanging() as url:
        here = site(url)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(here.alerts.run)
            tasks.start_soon(lambda: here.sender.send("title", "body", resolved=False))
            while not (ours := [one for one in set(threading.enumerate()) - strangers if one.name == "alert 1"]):
                await anyio.sleep(0.01)
            ends = time.monotonic() + 10
            tasks.cancel_scope.cancel()
        assert time.monotonic() < ends
        assert ours[0].is_alive()
        assert ours[0].daemon, "the interpreter would wait for it"


async def test_no_thread_to_be_had_is_a_failure_like_any_other(
    monkeypatch: pytest.MonkeyPatch, log: io.StringIO
) -> None:
    def refuse(_: Any) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    assert not await Apprise([plain("json://127.0.0.1:1/")], {}).send("title", "body", resolved=False)
    assert "no thread could be started" in log.getvalue()
