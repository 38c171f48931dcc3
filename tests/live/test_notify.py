"""Many mailboxes of one account on one connection: told of by NOTIFY, or found by the poll behind it."""

import sys
import time
from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import partial
from pathlib import Path

import pytest

from tests.live.service import Service, replayed, service, wait_until
from tests.live.storm import configuration
from tests.peers.dovecot import Dovecot, plain_message

TOLD_WITHIN = 2.0
"""Seconds from a message to its commit where NOTIFY tells of it: the aim, printed; the test waits ten times that."""


def made(server: Dovecot, user: str, count: int) -> Sequence[str]:
    names = [f"box{number:03}" for number in range(count)]
    with server.imap(user) as client:
        for name in names:
            assert client.create(name)[0] == "OK"
    return names


def append_to_each(server: Dovecot, user: str, names: Sequence[str], subject: str) -> Mapping[str, float]:
    """Append a message to each and return when it was there."""
    times = {}
    with server.imap(user) as client:
        for name in names:
            status, _ = client.append(name, "", "", f"Subject: {subject} in {name}\r\n\r\nx\r\n".encode())
            assert status == "OK"
            times[name] = time.time()
    return times


def committed(running: Service, after: int) -> Mapping[str, float]:
    """Return when the messages told of behind that position were committed, by mailbox."""
    events = running.records("events", "--after", str(after))
    return {
        event["mailbox"]: datetime.fromisoformat(event["time"]).timestamp()
        for event in events
        if event["type"] == "message.new"
    }


def took_to_each(running: Service, server: Dovecot, user: str, names: Sequence[str], *, within: float) -> list[float]:
    """Append to each of *names*, wait until all is mirrored, and return how long it took, in order."""
    position = running.records("events")[-1]["position"]
    appended = append_to_each(server, user, names, f"after {position}")
    wait_until(lambda: committed(running, position).keys() >= set(names), within=within, what="a message in each")
    there = committed(running, position)
    return sorted(there[name] - appended[name] for name in names)


def is_watching(running: Service, user: str, count: int) -> bool:
    records = running.records("status")
    return any(one["account"] == user and one["mailboxes"] == count and one["state"] == "watching" for one in records)


def holds(running: Service, user: str, name: str, count: int) -> bool:
    return len(running.mirrored(user, name)) == count


@pytest.mark.timeout(240)
def test_twenty_mailboxes_are_told_of_by_notify_on_one_connection(
    dovecot: Dovecot, user: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = made(dovecot, user, 20)
    toml = configuration(dovecot, user, more='mailboxes = ["*"]\npoll_interval = "1h"')
    with service(tmp_path, toml) as running:
        assert [one["watch"] for one in running.records("check")] == ["notify"]
        wait_until(lambda: is_watching(running, user, 21), within=60, what="all of them watched")
        for _ in range(3):
            took = took_to_each(running, dovecot, user, names, within=10 * TOLD_WITHIN)
            with capsys.disabled():
                print(
                    f"\n20 mailboxes by NOTIFY: first {took[0]:.2f} s, last {took[-1]:.2f} s after its message "
                    f"(aim: {TOLD_WITHIN} s)",
                    file=sys.stderr,
                )
            assert took[-1] < 10 * TOLD_WITHIN
        with dovecot.imap(user) as client:
            client.select("box000")
            for name in names[1:11]:
                client.append("box000", "", "", plain_message(f"on its way to {name}"))
                client.uid("MOVE", client.uid("SEARCH", "ALL")[1][0].split()[-1].decode(), name)
                wait_until(partial(holds, running, user, name, 4), within=10 * TOLD_WITHIN, what=f"a move to {name}")
        assert "feature.distrusted" not in running.log_text
        assert len(dovecot.doveadm("who", "-1", user).splitlines()) <= 2, "a header, and one connection"
        events = running.records("events")
        replayed(events)
        found_by = [event["found_by"] for event in events if event["type"] == "message.new"]
        assert found_by == ["push"] * len(found_by)


@pytest.mark.timeout(240)
def test_of_two_hundred_mailboxes_none_is_missed_and_each_is_found_within_a_poll(
    dovecot: Dovecot, user: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    poll = 5
    names = made(dovecot, user, 200)
    toml = configuration(dovecot, user, more=f'mailboxes = ["*"]\npoll_interval = "{poll}s"')
    with service(tmp_path, toml) as running:
        wait_until(lambda: is_watching(running, user, 201), within=90, what="all of them watched")
        for _ in range(2):
            took = took_to_each(running, dovecot, user, names, within=10 * poll)
            with capsys.disabled():
                print(
                    f"\n200 mailboxes: median {took[100]:.2f} s, last {took[-1]:.2f} s after its message "
                    f"(aim: the poll interval, {poll} s)",
                    file=sys.stderr,
                )
            assert took[-1] < 10 * poll
        replayed(running.records("events"))
        assert running.idlepush("verify").returncode == 0
