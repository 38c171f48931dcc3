"""Logs: a line for what a person may want to know, in which nothing from outside can do harm."""

import io
import json
import logging
import sys
from collections.abc import Callable, Iterator
from dataclasses import fields, replace
from typing import Any, get_args

import pytest
import structlog

from idlepush.engine.credentials import PlainSecret, Secret
from idlepush.engine.observations import (
    Backfilling,
    BugFound,
    Connected,
    Looked,
    Observation,
    ServerAlert,
    State,
    StateChanged,
    WakeSource,
    trace_of,
)
from idlepush.errors import FailureClass
from idlepush.telemetry import logs
from tests.telemetry.observed import ONE_OF_EACH

CANARY = "hunter2-canary"
HOSTILE = '\x1b[2J\x1b]0;owned\x07\r\n{"event":"forged"}\0\x9b31m\u202egnp.exe\u2028' + "y" * 9000


class Terminal(io.StringIO):
    """A stream that a person looks at."""

    def isatty(self) -> bool:
        return True


Lines = Callable[[], list[dict[str, Any]]]


@pytest.fixture(autouse=True)
def unconfigured() -> Iterator[None]:
    yield
    structlog.reset_defaults()


@pytest.fixture
def stream() -> io.StringIO:
    return io.StringIO()


@pytest.fixture
def lines(stream: io.StringIO) -> Lines:
    logs.configure(logging.DEBUG, stream)
    return lambda: [json.loads(line) for line in stream.getvalue().splitlines()]


@pytest.mark.parametrize("seen", ONE_OF_EACH.values(), ids=lambda seen: type(seen).__name__)
def test_an_observation_is_one_line_of_json_that_names_it(seen: Observation, lines: Lines) -> None:
    logs.Logs()(seen)
    [line] = lines()
    assert line["event"] == seen.event
    assert line["account"] == "alice"
    assert line["time"].endswith("Z")
    assert line["level"] in {"debug", "info", "warning", "error"}


def test_no_observation_is_without_a_test() -> None:
    assert set(ONE_OF_EACH) == set(get_args(Observation))


def test_what_needs_a_person_is_a_warning_and_what_works_is_not(lines: Lines) -> None:
    log = logs.Logs()
    looked = Looked(account="alice", mailbox="INBOX", source=WakeSource.POLL, seconds=0.1)
    for seen in (
        StateChanged(account="alice", state=State.PARKED, failure_class=FailureClass.AUTHENTICATION, reason="wrong"),
        StateChanged(account="alice", state=State.WATCHING),
        looked,
        replace(looked, new=1),
        BugFound(account="alice", trace="…"),
        Connected(account="alice", endpoint="h:993", seconds=0.1),
    ):
        log(seen)
    assert [line["level"] for line in lines()] == ["warning", "info", "debug", "info", "error", "info"]


def test_the_class_of_a_failure_has_the_name_it_has_everywhere(lines: Lines) -> None:
    logs.Logs()(StateChanged(account="alice", state=State.PARKED, failure_class=FailureClass.TLS, reason="expired"))
    [line] = lines()
    assert (line["state"], line["class"], line["reason"]) == ("parked", "tls", "expired")
    assert "failure_class" not in line


def test_what_is_absent_or_nothing_takes_no_space(lines: Lines) -> None:
    log = logs.Logs()
    log(Looked(account="alice", mailbox="INBOX", source=WakeSource.POLL, seconds=0.25))
    assert set(lines()[0]) == {
        *("event", "level", "time", "account", "mailbox", "source", "seconds", "finished", "remaining"),
    }


@pytest.mark.parametrize("level", [logging.DEBUG, logging.INFO, logging.WARNING])
def test_what_is_below_the_level_is_not_written(level: int, stream: io.StringIO) -> None:
    logs.configure(level, stream)
    log = logs.Logs()
    for seen in ONE_OF_EACH.values():
        log(seen)
    found = [json.loads(line)["level"] for line in stream.getvalue().splitlines()]
    assert all(getattr(logging, name.upper()) >= level for name in found)
    assert found


@pytest.mark.parametrize("make", [io.StringIO, Terminal], ids=["a pipe", "a terminal"])
def test_words_from_outside_are_printable_bounded_and_in_one_line(make: Callable[[], io.StringIO]) -> None:
    stream = make()
    logs.configure(logging.DEBUG, stream)
    log = logs.Logs()
    log(ServerAlert(account="alice", text="harmless"))
    of_ours = {letter for letter in stream.getvalue() if not letter.isprintable()}
    log(ServerAlert(account="alice", text=HOSTILE))
    for seen in ONE_OF_EACH.values():
        texts: dict[str, Any] = {one.name: HOSTILE for one in fields(seen) if type(getattr(seen, one.name)) is str}
        log(replace(seen, **texts))
    structlog.get_logger().info("anything", texts=[HOSTILE, (HOSTILE,)], error=ValueError(HOSTILE), path=None)
    written = stream.getvalue()
    assert {letter for letter in written if not letter.isprintable()} <= of_ours
    assert of_ours <= {"\n", "\x1b"}, "nothing but line ends, and the colours of a terminal"
    assert "\x1b[2J" not in written
    assert "\x1b]" not in written
    assert len(written.splitlines()) == len(ONE_OF_EACH) + 3
    assert max(map(len, written.splitlines())) < 20_000


def test_a_traceback_keeps_its_lines_and_shows_no_value(lines: Lines) -> None:
    def explode(password: str) -> None:
        raise KeyError(password)

    try:
        explode(CANARY)
    except KeyError as error:
        logs.Logs()(BugFound(account="alice", trace=trace_of(error)))
    [line] = lines()
    assert line["trace"][-1] == "KeyError"
    assert any("in explode" in each for each in line["trace"])
    assert CANARY not in json.dumps(line)


def test_a_secret_shows_itself_in_no_line(lines: Lines, stream: io.StringIO) -> None:
    secret = Secret(CANARY)
    log = structlog.get_logger()
    log.info(
        "told", secret=secret, several=[secret, (secret,)], source=PlainSecret(text=secret), f=f"{secret} {secret!r}"
    )
    assert CANARY not in stream.getvalue()
    assert lines()[0]["secret"] == "***"


def test_aioimaplib_which_logs_passwords_is_silenced(lines: Lines, capfd: pytest.CaptureFixture[str]) -> None:
    logging.getLogger("aioimaplib.aioimaplib").error("LOGIN alice %s", CANARY)
    assert lines() == []
    assert capfd.readouterr().err == ""


def test_a_long_backlog_is_told_of_ten_times(stream: io.StringIO) -> None:
    logs.configure(logging.INFO, stream)
    log = logs.Logs()
    for remaining in range(10_000, -1, -100):
        log(Backfilling(account="alice", mailbox="INBOX", remaining=remaining, total=10_000))
    assert 10 <= len(stream.getvalue().splitlines()) <= 12


def test_what_is_told_again_and_again_is_a_line_once(stream: io.StringIO) -> None:
    logs.configure(logging.INFO, stream)
    log = logs.Logs()
    state = StateChanged(account="alice", state=State.BACKING_OFF, failure_class=FailureClass.NETWORK, reason="refused")
    for _ in range(10):
        log(state)
        log(ServerAlert(account="alice", text="The server closes at noon"))
    log(replace(state, account="bob"))
    log(replace(state, reason="no route"))
    log(StateChanged(account="alice", state=State.WATCHING))
    log(state)
    found = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert [(line["event"], line["account"], line.get("reason")) for line in found] == [
        ("account.state", "alice", "refused"),
        ("server.alert", "alice", None),
        ("account.state", "bob", "refused"),
        ("account.state", "alice", "no route"),
        ("account.state", "alice", None),
        ("account.state", "alice", "refused"),
    ]


@pytest.mark.parametrize("letter", ["x", "é", "\U0001f4a9"])
def test_a_servers_alert_is_at_most_a_kilobyte(letter: str, lines: Lines) -> None:
    logs.Logs()(ServerAlert(account="alice", text=letter * 5000))
    [line] = lines()
    assert 990 <= len(line["text"].encode()) <= 1000
    assert set(line["text"]) == {letter}


def test_a_terminal_of_old_shows_what_it_can() -> None:
    stream = io.TextIOWrapper(io.BytesIO(), encoding="latin-1", write_through=True)
    logs.configure(logging.DEBUG, stream)
    structlog.configure(processors=[lambda _, __, event: event["event"]])
    structlog.get_logger().info("Zoë \u4f60")
    stream.seek(0)
    assert stream.read() == "Zo\\xeb \\u4f60\n"


class Broken(io.StringIO):
    """A stream that nobody reads, or that has no space."""

    def write(self, _: str) -> int:
        raise BrokenPipeError


def test_a_line_that_cannot_be_written_ends_nothing() -> None:
    logs.configure(logging.DEBUG, Broken())
    logs.Logs()(ServerAlert(account="alice", text="x"))
    closed = io.StringIO()
    closed.close()
    logs.configure(logging.DEBUG, Terminal())
    structlog.configure(logger_factory=lambda *_: logs._Lines(closed))
    structlog.get_logger().error("lost")


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="/dev/full")
def test_a_full_disk_under_the_log_ends_nothing() -> None:
    with io.TextIOWrapper(io.FileIO("/dev/full", "w"), write_through=True) as full:
        logs.configure(logging.DEBUG, full)
        logs.Logs()(ServerAlert(account="alice", text="x"))
        with pytest.raises(OSError, match="No space left"):
            full.write("x")
