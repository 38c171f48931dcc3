"""Trouble: its class, its state, its pauses, and that it stays with the account it belongs to."""

import tempfile
from pathlib import Path
from typing import Any

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from idlepush.engine.observations import BugFound, ConnectFailed, Restarting, ServerAlert, StateChanged
from idlepush.engine.supervise import Backoff
from idlepush.errors import FailureClass
from tests.engine.rig import Rig, mail
from tests.peers.fake import PASSWORD, FakeImap, Session, answer, bye, cut, mute, say
from tests.peers.virtual import virtual_time


@given(st.integers(1, 10**6), st.floats(0, 1))
def test_a_pause_is_never_longer_than_its_bound_however_many_failures(failures: int, dice: float) -> None:
    assert 0 <= Backoff(first=2, most=300).delay(failures, dice) <= 300


def test_the_bound_doubles_with_each_failure() -> None:
    assert [Backoff(first=2, most=300).delay(failures, 1.0) for failures in (1, 2, 3, 9, 2000)] == [2, 4, 8, 300, 300]


def slow_loris(session: Session, _tag: str) -> bool:
    session.server.seconds_per_byte = 0.2
    return True


TROUBLES: list[Any] = [
    pytest.param("connect", bye("[UNAVAILABLE] later"), "network", id="BYE in place of a greeting"),
    pytest.param("connect", cut("close"), "network", id="closed in place of a greeting"),
    pytest.param("connect", cut("stall"), "timeout", id="no greeting"),
    pytest.param("connect", say(b"220 smtp.example ESMTP\r\n"), "protocol", id="another protocol"),
    pytest.param("AUTHENTICATE", answer("NO [UNAVAILABLE] Temporary failure"), "network", id="login unavailable"),
    pytest.param("AUTHENTICATE", answer("NO [INUSE] locked"), "capacity", id="login in use"),
    pytest.param("AUTHENTICATE", answer("NO Too many connections"), "capacity", id="too many connections"),
    pytest.param("AUTHENTICATE", answer("NO [THROTTLED] slow down"), "rate_limit", id="login throttled"),
    pytest.param("AUTHENTICATE", cut("stall"), "timeout", id="half-open at login"),
    pytest.param("EXAMINE", answer("NO [SERVERBUG] oops"), "network", id="EXAMINE breaks the server"),
    pytest.param("EXAMINE", answer("NO [NOPERM] not yours"), "permission", id="EXAMINE not allowed"),
    pytest.param("EXAMINE", answer("NO [LIMIT] enough"), "capacity", id="EXAMINE limited"),
    pytest.param("EXAMINE", answer("NO User is authenticated but not connected."), "capacity", id="Exchange is full"),
    pytest.param("EXAMINE", bye("bye"), "network", id="BYE after login"),
    pytest.param("EXAMINE", mute, "timeout", id="EXAMINE is never answered"),
    pytest.param("EXAMINE", say(b"* 1 FETCH (((\r\n"), "protocol", id="a broken line"),
    pytest.param("UID FETCH", bye("bye"), "network", id="BYE in FETCH"),
    pytest.param("UID FETCH", cut("stall"), "timeout", id="half-open in FETCH"),
    pytest.param("UID FETCH", slow_loris, "timeout", id="slow-loris"),
]


@pytest.mark.parametrize(("point", "fault", "failure_class"), TROUBLES)
def test_trouble_has_its_class_backs_off_and_ends_by_itself(point: str, fault: Any, failure_class: str) -> None:
    @virtual_time
    async def run() -> None:
        fake = FakeImap()
        for number in range(30):
            fake.deliver(mail(number, size=3000))
        fake.at(point, fault, times=None)
        rig = Rig(fake, dice=1.0)
        async with rig.running():
            with anyio.fail_after(900):
                while not rig.observed(Restarting):
                    await anyio.sleep(1)
            first = rig.observed(Restarting)[0]
            assert first.failure_class == failure_class
            state = "throttled" if failure_class == "rate_limit" else "backing_off"
            assert await rig.comes_to(state)
            await anyio.sleep(600)
            logins = len(fake.logins)
            assert fake.sessions_ever <= 60, "it hammers"
            assert len(fake.sessions) <= 1
            fake.seconds_per_byte = 0
            fake._faults.clear()
            await rig.becomes_equal(within=3700)
            await rig.comes_to("watching")
            assert len(fake.sessions) == 1
            assert len(fake.logins) <= logins + 3
            await rig.replays_exactly()

    run()


@virtual_time
async def test_a_session_that_was_of_use_is_followed_by_another_within_2_seconds() -> None:
    fake = FakeImap()
    rig = Rig(fake, dice=1.0)
    async with rig.running():
        for number in range(20):
            await fake.until(lambda: fake.idling == 1, within=5)
            fake.deliver(mail(number))
            await rig.becomes_equal()
            fake.end_all()
            await anyio.sleep(0.1)
    assert all(seen.delay <= 2 for seen in rig.observed(Restarting))


@pytest.mark.parametrize(
    "refusal",
    ["NO [AUTHENTICATIONFAILED] no", "NO Login failed.", "NO [EXPIRED] old", "NO [CONTACTADMIN] call"],
)
def test_wrong_credentials_are_tried_three_times_and_then_no_more(refusal: str) -> None:
    @virtual_time
    async def run() -> None:
        fake = FakeImap(login_refusal=refusal, password="another")
        rig = Rig(fake, dice=1.0)
        async with rig.running():
            await rig.comes_to("parked", within=600)
            assert len(fake.logins) == 3
            await anyio.sleep(2 * 86_400)
            assert len(fake.logins) == 3
            assert {seen.failure_class for seen in rig.observed(ConnectFailed)} == {FailureClass.AUTHENTICATION}
            assert not fake.sessions

    run()


@virtual_time
async def test_a_changed_secret_ends_the_parking_within_5_seconds() -> None:
    with tempfile.TemporaryDirectory() as folder:
        secret = Path(folder) / "secret"
        secret.write_text("wrong")
        fake = FakeImap()
        rig = Rig(fake, password={"file": str(secret)})
        async with rig.running():
            await rig.comes_to("parked", within=600)
            secret.write_text(PASSWORD)
            await rig.comes_to("watching", within=6)


@virtual_time
async def test_an_unreadable_secret_parks_without_a_single_login() -> None:
    fake = FakeImap()
    rig = Rig(fake, password={"env": "NOT_THERE"})
    async with rig.running():
        parked = await rig.comes_to("parked", within=5)
        assert parked.failure_class is FailureClass.AUTHENTICATION
        assert parked.reason is not None
        assert "NOT_THERE" in parked.reason
    assert not fake.sessions_ever


@virtual_time
async def test_a_bug_is_recorded_with_its_traceback_and_backed_off() -> None:
    class Buggy(Rig):
        async def dial(self, protocol: Any, endpoint: Any) -> Any:
            self.dials += 1
            if self.dials < 4:
                raise ZeroDivisionError(self.settings.username)
            return await super().dial(protocol, endpoint)

    fake = FakeImap()
    rig = Buggy(fake)
    async with rig.running():
        await rig.comes_to("watching")
    bugs = rig.observed(BugFound)
    assert len(bugs) >= 2
    assert "ZeroDivisionError" in bugs[0].trace
    assert "in dial" in bugs[0].trace
    assert "alice" not in bugs[0].trace


@virtual_time
async def test_a_server_that_asks_for_time_is_given_it() -> None:
    fake = FakeImap()
    fake.at("AUTHENTICATE", answer("NO Request is throttled. Suggested Backoff Time: 299961 milliseconds"))
    rig = Rig(fake, dice=0.0)
    async with rig.running():
        await rig.comes_to("throttled")
        await rig.comes_to("watching", within=310)
    assert fake.logins[-1][0] >= 299


@virtual_time
async def test_an_alert_of_the_server_is_passed_on_once_and_clean() -> None:
    fake = FakeImap()
    fake.at("EXAMINE", say("* OK [ALERT] pay \x1b[31mnow\x07 \u202eplease\r\n".encode() + b""))
    rig = Rig(fake)
    async with rig.running():
        await rig.comes_to("watching")
        await anyio.sleep(900)
    (alert,) = rig.observed(ServerAlert)
    assert alert.text.isprintable()
    assert "pay" in alert.text


@virtual_time
async def test_states_are_told_once_each_time_they_change() -> None:
    fake = FakeImap()
    rig = Rig(fake)
    async with rig.running():
        await rig.comes_to("watching")
        fake.end_all()
        await anyio.sleep(20)
    told = [(seen.state, seen.failure_class) for seen in rig.observed(StateChanged)]
    assert [state.value for state, _ in told] == ["starting", "watching", "backing_off", "watching"]
    assert told[2][1] is FailureClass.NETWORK


@virtual_time
async def test_a_stopped_account_says_logout_and_comes_to_its_end() -> None:
    fake = FakeImap()
    fake.deliver(mail(1))
    rig = Rig(fake)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(rig.supervisor.run)
        await fake.until(lambda: fake.idling == 1)
        rig.supervisor.stop()
    assert fake.commands[-1].name == "LOGOUT"
    assert not fake.sessions
