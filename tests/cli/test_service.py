"""A service as its owner meets it: started, asked, told, reloaded and ended, on a real Dovecot."""

import json
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from contextlib import suppress
from email.message import EmailMessage
from email.policy import SMTP
from pathlib import Path
from typing import Any

import pytest

from tests.cli.conftest import TOKEN, Configure, Serve, state_of
from tests.live.service import Service, service, wait_until
from tests.live.test_store_faults import small_disk
from tests.peers.dovecot import Dovecot, plain_message

WRONG = 'password = "not-the-one"'


def is_in(running: Service, account: str, *states: str) -> None:
    wait_until(lambda: state_of(running, account) in states, within=30, what=f"{account} is {' or '.join(states)}")


def logged(running: Service, event: str) -> list[dict[str, object]]:
    lines = [json.loads(line) for line in running.log_text.splitlines() if line.startswith("{")]
    return [line for line in lines if line["event"] == event]


def logins(server: Dovecot, user: str) -> int:
    return server.log().count(f"Login: user=<{user}>")


def logouts(server: Dovecot, user: str) -> int:
    return server.log().count(f"imap({user})") and sum(
        f"imap({user})" in line and "Logged out" in line for line in server.log().splitlines()
    )


# Asking


def test_status_and_health_show_every_account_while_it_runs_and_what_was_last_stored_afterwards(
    dovecot: Dovecot, configured: Configure, serve: Serve, user: str
) -> None:
    good, bad = f"{user}-good", f"{user}-bad"
    for number in range(3):
        dovecot.deliver(good, plain_message(f"mail {number}"))
    running = serve(configured(good, bad, **{bad.replace("-", "_"): WRONG}))
    is_in(running, good, "watching")
    is_in(running, bad, "backing_off")

    by_name = {line["account"]: line for line in running.records("status")}
    assert (by_name[good]["messages"], by_name[good]["mailboxes"], by_name[good]["health_score"]) == (3, 1, 100)
    assert (by_name[bad]["class"], by_name[bad]["health"], by_name[bad]["running"]) == (
        "authentication",
        "critical",
        True,
    )
    reasons = {one["account"]: one["reasons"] for one in running.records("health")}
    assert reasons[good] == [] and "AUTHENTICATIONFAILED" in reasons[bad][0]
    assert good in running.idlepush("status").stdout.decode() and bad in running.idlepush("health").stdout.decode()

    assert running.end() == 0
    stored = {line["account"]: line for line in running.records("status")}
    for name in (good, bad):
        assert stored[name] == {**by_name[name], "running": False} | {
            key: stored[name][key] for key in ("last_poll", "last_commit", "since", "reason", "throttled_until")
        }
    assert {one["account"]: one["reasons"] for one in running.records("health")}[good] == []
    assert "No service answers" in running.idlepush("status").stdout.decode()


def test_the_interface_is_logged_and_answers_with_the_token_alone(
    dovecot: Dovecot, configured: Configure, serve: Serve, user: str
) -> None:
    running = serve(configured(user).replace("unix:http.sock", "127.0.0.1:0"))
    wait_until(lambda: bool(logged(running, "http.listening")), within=20, what="it listens")
    url = str(logged(running, "http.listening")[0]["url"])
    port = int(url.rstrip("/").rpartition(":")[2])

    def status(*headers: str, path: str = "/v1/accounts") -> int:
        with socket.create_connection(("127.0.0.1", port)) as stream:
            lines = [f"GET {path} HTTP/1.1", "Host: localhost", "Connection: close", *headers]
            stream.sendall("\r\n".join([*lines, "", ""]).encode())
            return int(stream.makefile("rb").readline().split()[1])

    assert status() == 401
    assert status(f"Authorization: Bearer {TOKEN}") == 200
    wait_until(lambda: status(path="/readyz") == 200, within=10, what="ready")
    assert TOKEN not in running.log_text


def test_a_token_that_is_rotated_on_disk_is_taken_up(
    dovecot: Dovecot, configured: Configure, serve: Serve, user: str, tmp_path: Path
) -> None:
    file = tmp_path / "api-token"
    file.write_text("first\n")
    running = serve(configured(user).replace(f'token = "{TOKEN}"', 'token = { file = "api-token" }'))
    is_in(running, user, "watching")
    file.write_text("second\n")
    wait_until(
        lambda: not running.idlepush("status", check=False).returncode, within=10, what="the new token is the one"
    )


def test_mail_is_found_a_moment_after_it_was_mirrored(
    dovecot: Dovecot, configured: Configure, serve: Serve, user: str
) -> None:
    running = serve(configured(user))
    is_in(running, user, "watching")
    for number in range(3):
        dovecot.deliver(user, plain_message(f"Rechnung {number} für 東京"))

    def found(query: str) -> list[str]:
        return [line["subject"] for line in running.records("messages", user, "--search", query)]

    wait_until(lambda: len(found("rechnung 京")) == 3, within=10, what="all of it is found")
    assert found("subject:rechn 1 -subject:2") == ["Rechnung 1 für 東京"]
    assert b"Rechnung 2" in running.idlepush("messages", user, "--search", '"rechnung 2"').stdout


def test_an_attachment_is_found_where_headers_alone_are_mirrored(
    dovecot: Dovecot, configured: Configure, serve: Serve, user: str
) -> None:
    letter = EmailMessage()
    letter["Subject"], letter["To"] = "the plan", user
    letter.set_content("see below")
    letter.add_attachment(b"%PDF" * 100, maintype="application", subtype="pdf", filename='Plan "März" 東京.pdf')
    dovecot.deliver(user, plain_message("there before"))
    running = serve(configured(user, **{user.replace("-", "_"): 'bodies = "headers"'}))
    is_in(running, user, "watching")
    dovecot.deliver(user, letter.as_bytes(policy=SMTP))

    def found() -> list[dict[str, Any]]:
        return running.records("messages", user, "--search", "has:attachment filename:marz")

    wait_until(lambda: len(found()) == 1, within=10, what="it is found")
    [line] = found()
    assert (line["subject"], line["sha256"]) == ("the plan", None)
    assert [(one["name"], one["type"]) for one in line["attachments"]] == [('Plan "März" 東京.pdf', "application/pdf")]
    assert line["attachments"][0]["size"] == pytest.approx(400, abs=10)


# Orders


def test_a_paused_account_logs_out_and_stays_paused_through_a_restart_until_it_is_resumed(
    dovecot: Dovecot, configured: Configure, serve: Serve, user: str
) -> None:
    running = serve(configured(user))
    is_in(running, user, "watching")
    assert running.idlepush("account", "pause", user).stdout.decode() == f"{user}: paused\n"
    wait_until(lambda: logouts(dovecot, user) == 1, within=10, what="it logged out")
    assert running.records("status")[0]["reason"] == "paused by an operator"
    assert running.records("health")[0]["health"] == "healthy"

    assert running.end() == 0
    running.start()
    is_in(running, user, "paused")
    dovecot.deliver(user, plain_message("while it was paused"))
    assert logins(dovecot, user) == 1

    running.idlepush("account", "resume", user)
    is_in(running, user, "watching")
    assert len(running.records("messages", user)) == 1
    states = [event["state"] for event in running.records("events") if event["type"] == "account.state"]
    assert states == ["starting", "watching", "paused", "starting", "watching"]


def test_wake_and_sigusr1_look_at_once(dovecot: Dovecot, configured: Configure, serve: Serve, user: str) -> None:
    running = serve(configured(user))
    is_in(running, user, "watching")

    def woken() -> int:
        return sum(line.get("source") == "operator" for line in logged(running, "mailbox.looked"))

    assert running.process is not None
    running.end()
    running.start("-v")
    is_in(running, user, "watching")
    before = woken()
    running.idlepush("account", "wake", user)
    wait_until(lambda: woken() > before, within=10, what="woken by the command")
    before = woken()
    running.process.send_signal(signal.SIGUSR1)
    wait_until(lambda: woken() > before, within=10, what="woken by the signal")


# Reloading


def test_sighup_drops_no_unchanged_account_ends_a_removed_one_and_begins_a_new_one(
    dovecot: Dovecot, configured: Configure, serve: Serve, user: str
) -> None:
    stays, goes, comes, changes = (f"{user}-{what}" for what in ("stays", "goes", "comes", "changes"))
    running = serve(configured(stays, goes, changes))
    for name in (stays, goes, changes):
        is_in(running, name, "watching")

    running.write(configured(stays, comes, changes, **{changes.replace("-", "_"): 'poll_interval = "7m"'}))
    assert running.process is not None
    running.process.send_signal(signal.SIGHUP)
    is_in(running, comes, "watching")
    is_in(running, changes, "watching")
    assert {line["account"] for line in running.records("status")} == {stays, comes, changes}
    wait_until(
        lambda: logouts(dovecot, goes) == 1 and logins(dovecot, changes) == 2, within=10, what="the others ended"
    )
    assert (logins(dovecot, stays), logouts(dovecot, stays)) == (1, 0)
    assert running.end() == 0
    assert (logins(dovecot, stays), logouts(dovecot, stays)) == (1, 1)


def test_a_broken_configuration_changes_nothing_and_is_one_line_in_the_log(
    dovecot: Dovecot, configured: Configure, serve: Serve, user: str, tmp_path: Path
) -> None:
    running = serve(configured(user))
    is_in(running, user, "watching")
    good = running.config.read_text()
    running.write(good.replace("username", "usrname"))
    assert running.process is not None
    running.process.send_signal(signal.SIGHUP)
    wait_until(lambda: len(logged(running, "config.rejected")) == 1, within=10, what="rejected")
    assert "did you mean 'username'?" in str(logged(running, "config.rejected")[0]["reason"])

    running.write(good)
    (tmp_path / "accounts.d").mkdir()
    (tmp_path / "accounts.d" / "broken.toml").write_text("[accounts.broken")
    running.process.send_signal(signal.SIGHUP)
    wait_until(lambda: len(logged(running, "config.rejected")) == 2, within=10, what="rejected again")
    assert state_of(running, user) == "watching"
    assert logins(dovecot, user) == 1


def test_an_account_is_added_to_and_removed_from_a_running_service_its_data_with_it(
    dovecot: Dovecot, configured: Configure, serve: Serve, user: str, tmp_path: Path
) -> None:
    first, second = f"{user}-first", f"{user}-second"
    dovecot.deliver(second, plain_message("kept"))
    running = serve(configured(first))
    is_in(running, first, "watching")
    (tmp_path / "secret").write_text("pass-of-everyone\n")
    running.idlepush(
        "account",
        "add",
        second,
        "--host",
        "localhost",
        "--username",
        second,
        "--password-file",
        str(tmp_path / "secret"),
    )
    is_in(running, second, "watching")
    assert len(running.records("messages", second)) == 1

    running.idlepush("account", "remove", second)
    assert {line["account"] for line in running.records("status")} == {first}
    assert len(running.records("messages", second)) == 1, "what was mirrored stays"
    running.idlepush("account", "remove", second, "--purge")
    assert running.idlepush("messages", second, check=False).returncode == 1
    assert (logins(dovecot, first), logouts(dovecot, first)) == (1, 0)


def test_without_a_service_purge_takes_the_store_itself(
    dovecot: Dovecot, configured: Configure, serve: Serve, user: str, tmp_path: Path
) -> None:
    dovecot.deliver(user, plain_message("to be purged"))
    running = serve(configured(user))
    is_in(running, user, "watching")
    assert running.end() == 0
    text = running.config.read_text()
    tables, account = text.split(f"[accounts.{user}]")
    (tmp_path / "accounts.d").mkdir()
    file = tmp_path / "accounts.d" / f"{user}.toml"
    file.write_text(f"[accounts.{user}]{account}")
    running.write(tables)
    running.idlepush("account", "remove", user, "--purge")
    assert not file.exists()
    assert running.idlepush("messages", user, check=False).returncode == 1


# Ending and failing


def test_sigterm_and_ctrl_c_end_it_within_ten_seconds_with_a_logout(
    dovecot: Dovecot, configured: Configure, serve: Serve, user: str
) -> None:
    running = serve(configured(user))
    for number, how in enumerate((signal.SIGTERM, signal.SIGINT), start=1):
        is_in(running, user, "watching")
        begun = time.monotonic()
        assert running.end(how) == 0
        assert time.monotonic() - begun < 10
        assert logouts(dovecot, user) == number
        assert logged(running, "service.stopped")
        running.start()
    started = len(logged(running, "service.started"))
    running.end()
    running.start()
    wait_until(lambda: len(logged(running, "service.started")) > started, within=20, what="it begins")
    assert running.end() == 0, "also while it starts"


def test_no_accounts_trouble_ends_it(dovecot: Dovecot, configured: Configure, serve: Serve, user: str) -> None:
    names = {
        f"{user}-{number}": extra
        for number, extra in enumerate(
            (WRONG, "port = 1", 'tls_fingerprint = "sha256:' + 32 * "ab" + '"', 'password = { file = "nowhere" }')
        )
    }
    running = serve(configured(user, *names, **{name.replace("-", "_"): extra for name, extra in names.items()}))
    is_in(running, user, "watching")
    for name in names:
        is_in(running, name, "backing_off", "parked")
    classes = {line["account"]: line["class"] for line in running.records("status")}
    assert [classes[name] for name in names] == ["authentication", "network", "tls", "authentication"]
    assert running.end() == 0


def run_once(running: Service) -> subprocess.CompletedProcess[str]:
    """Start it, and wait for the end that it is to come to by itself."""
    return subprocess.run(
        [sys.executable, "-m", "idlepush", "run", "-c", str(running.config)],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def test_a_port_in_use_exits_with_1_and_a_readable_sentence(
    dovecot: Dovecot, configured: Configure, tmp_path: Path, user: str
) -> None:
    made = Service(tmp_path)
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        made.write(configured(user).replace("unix:http.sock", f"127.0.0.1:{port}"))
        done = run_once(made)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith(f"cannot listen on 127.0.0.1:{port}: it is in use")


def test_a_second_service_on_the_same_store_exits_with_1_and_names_the_first(
    dovecot: Dovecot, configured: Configure, serve: Serve, user: str
) -> None:
    running = serve(configured(user))
    is_in(running, user, "watching")
    done = run_once(running)
    assert done.returncode == 1
    assert running.process is not None
    assert f"pid {running.process.pid}" in done.stderr.splitlines()[-1]
    assert state_of(running, user) == "watching"


def test_a_token_that_cannot_be_read_keeps_the_door_shut(
    dovecot: Dovecot, configured: Configure, tmp_path: Path, user: str
) -> None:
    made = Service(tmp_path)
    made.write(configured(user).replace(f'"{TOKEN}"', '{ file = "nowhere" }'))
    done = run_once(made)
    assert done.returncode == 1
    assert "the secret could not be read" in done.stderr.splitlines()[-1]


def test_a_store_that_is_none_exits_with_1_and_is_left_as_it_is(
    dovecot: Dovecot, configured: Configure, tmp_path: Path, user: str
) -> None:
    made = Service(tmp_path)
    made.write(configured(user))
    (tmp_path / "mirror.db").write_bytes(b"not a database" * 4096)
    done = run_once(made)
    assert done.returncode == 1
    assert "mirror.db" in done.stderr.splitlines()[-1]
    assert (tmp_path / "mirror.db").read_bytes() == b"not a database" * 4096


def test_killed_at_any_time_it_starts_again_and_says_what_it_knows(
    dovecot: Dovecot, configured: Configure, serve: Serve, user: str, tmp_path: Path
) -> None:
    dovecot.deliver(user, plain_message("before"))
    running = serve(configured(user))
    is_in(running, user, "watching")
    assert running.end(signal.SIGKILL) == -signal.SIGKILL
    assert running.records("status")[0]["running"] is False
    running.start()
    is_in(running, user, "watching")
    with sqlite3.connect(f"file:{tmp_path / 'mirror.db'}?mode=ro", uri=True) as db:
        assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)


def test_top_keeps_the_accounts_on_the_screen_until_q(
    dovecot: Dovecot, configured: Configure, serve: Serve, user: str
) -> None:
    running = serve(configured(user))
    is_in(running, user, "watching")
    ours, theirs = os.openpty()
    top = subprocess.Popen(
        [sys.executable, "-m", "idlepush", "top", "--every", "0.2", "-c", str(running.config)],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env={**os.environ, "COLUMNS": "40", "LINES": "8", "TERM": "xterm"},
    )
    os.close(theirs)
    shown = b""
    while b"watching" not in shown:
        shown += os.read(ours, 4096)
    assert b"1 accounts" in shown
    os.write(ours, b"q")
    while True:
        try:
            piece = os.read(ours, 4096)
        except OSError:
            break
        if not piece:
            break
    assert top.wait(timeout=20) == 0
    os.close(ours)


# The machine


def fill(disk: Path) -> Path:
    """Leave no space; deleting the file gives it back."""
    ballast = disk / "ballast"
    with suppress(OSError), ballast.open("wb", buffering=0) as stream:
        while True:
            stream.write(bytes(4096))
    return ballast


def test_on_a_full_disk_the_interface_answers_and_it_goes_on_by_itself_once_there_is_space(
    dovecot: Dovecot, configured: Configure, user: str, tmp_path: Path
) -> None:
    dovecot.deliver(user, plain_message("before"))
    with small_disk(tmp_path, "6m") as disk:
        toml = configured(user).replace("sqlite:///mirror.db", f"sqlite:///{disk}/mirror.db")
        with service(tmp_path, toml) as running:
            is_in(running, user, "watching")
            ballast = fill(disk)
            for number in range(40):
                dovecot.deliver(user, plain_message("later") + os.urandom(8000).hex().encode() + b"%d\r\n" % number)
            is_in(running, user, "backing_off")
            assert "the store" in running.records("status")[0]["reason"]
            assert "the store cannot be written" in running.records("health")[0]["reasons"][0]
            assert running.records("messages", user) and running.records("events")
            ballast.unlink()
            wait_until(lambda: len(running.records("messages", user)) == 41, within=60, what="all of it")
            is_in(running, user, "watching")
            assert running.end() == 0


def test_a_disk_that_is_full_when_an_old_store_is_opened_exits_with_1(
    dovecot: Dovecot, configured: Configure, user: str, tmp_path: Path
) -> None:
    with small_disk(tmp_path, "4m") as disk:
        toml = configured(user).replace("sqlite:///mirror.db", f"sqlite:///{disk}/mirror.db")
        with service(tmp_path, toml) as running:
            is_in(running, user, "watching")
            assert running.end() == 0
            fill(disk)
            done = run_once(running)
        assert done.returncode == 1
        assert "full" in done.stderr.splitlines()[-1]


def test_systemd_is_told_of_the_beginning_a_reload_and_the_end(
    dovecot: Dovecot, configured: Configure, tmp_path: Path, user: str
) -> None:
    made = Service(tmp_path)
    made.write(configured(user))
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.settimeout(30)

        def told(what: str) -> str:
            while True:
                said = manager.recv(4096).decode()
                if said.startswith(what):
                    return said

        made.environment = {"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "200000"}
        made.start()
        assert made.process is not None
        told("READY=1")
        told("WATCHDOG=1")
        made.process.send_signal(signal.SIGHUP)
        assert "MONOTONIC_USEC" in told("RELOADING=1")
        told("READY=1")
        made.process.send_signal(signal.SIGTERM)
        told("STOPPING=1")
        assert made.process.wait(timeout=20) == 0
