"""The Dovecot that tests start is a real one, is theirs alone, and leaves nothing behind."""

import asyncio
import imaplib
import socket
import time
from collections.abc import Callable
from typing import Any

import pytest

from tests.peers.dovecot import Dovecot, LmtpError
from tests.peers.mails import MAILS, NOT_OVER_LMTP

Starter = Callable[..., Dovecot]


def bodies(reader: imaplib.IMAP4, mailbox: str = "INBOX") -> list[bytes]:
    """Read every message as the server has it, in the order of UIDs."""
    status, answered = reader.select(f'"{mailbox}"', readonly=True)
    assert status == "OK", answered
    if answered == [b"0"]:
        return []
    parts: list[Any] = reader.uid("FETCH", "1:*", "(BODY.PEEK[])")[1]
    return [part[1] for part in parts if isinstance(part, tuple)]


def test_what_is_delivered_is_read_at_once(dovecot: Dovecot, user: str) -> None:
    dovecot.deliver(user, "hello")
    dovecot.deliver(user, b"Subject: dots\n\n.\n..\nend", mailbox="Side way")
    with dovecot.imap(user) as reader:
        assert b"Subject: hello\r\n" in bodies(reader)[0]
        assert bodies(reader, "Side way")[0].endswith(b"Subject: dots\r\n\r\n.\r\n..\r\nend\r\n")


def test_every_kind_of_message_can_be_delivered(dovecot: Dovecot, user: str) -> None:
    kinds = [name for name in MAILS if name not in NOT_OVER_LMTP]
    for name in kinds:
        dovecot.deliver(user, MAILS[name])
    with dovecot.imap(user) as reader:
        for name, body in zip(kinds, bodies(reader), strict=True):
            assert MAILS[name].rstrip(b"\r\n") in body, name


def test_files_put_into_a_maildir_are_served_byte_for_byte_and_in_order(dovecot: Dovecot, user: str) -> None:
    kinds = [name for name in MAILS if name != "bare_line_ends" and b"\0" not in MAILS[name] and MAILS[name]]
    assert dovecot.append_maildir(user, (MAILS[name] for name in kinds)) == len(kinds)
    assert dovecot.append_maildir(user, [b"Subject: %d\n\n" % number for number in range(500)], "Many") == 500
    with dovecot.imap(user) as reader:
        assert bodies(reader) == [MAILS[name] for name in kinds]
        assert bodies(reader, "Many") == [b"Subject: %d\r\n\r\n" % number for number in range(500)]


def test_a_wrong_password_fails_at_once_however_often(dovecot: Dovecot, user: str) -> None:
    started = time.monotonic()
    for _ in range(5):
        with pytest.raises(imaplib.IMAP4.error, match="AUTHENTICATIONFAILED"):
            dovecot.imap(user, "wrong")
    assert time.monotonic() - started < 2  # the delay of a Dovecot as it comes makes it 2.5


def test_tls_is_spoken_on_both_ports_by_a_certificate_of_its_ca(dovecot: Dovecot, user: str) -> None:
    context = dovecot.ssl_context()
    with imaplib.IMAP4_SSL(dovecot.host, dovecot.tls_port, ssl_context=context) as reader:
        assert reader.noop()[0] == "OK"
    with imaplib.IMAP4(dovecot.host, dovecot.port) as reader:
        reader.starttls(context)
        assert reader.noop()[0] == "OK"


async def test_an_idling_client_is_pushed_what_is_delivered(dovecot: Dovecot, user: str) -> None:
    """It pushes by inotify: far sooner than its thirty seconds of looking by itself."""

    def wait_for_push() -> bytes:
        with dovecot.imap(user) as reader:
            reader.select("INBOX", readonly=True)
            reader.send(b"x IDLE\r\n")
            assert reader.readline().startswith(b"+")
            dovecot.deliver(user, "news")
            pushed = reader.readline()
            reader.send(b"DONE\r\n")
            while not reader.readline().startswith(b"x OK"):
                pass
            return pushed

    assert await asyncio.wait_for(asyncio.to_thread(wait_for_push), 10) == b"* 1 EXISTS\r\n"


def test_doveadm_and_the_log_tell_of_it(dovecot: Dovecot, user: str) -> None:
    dovecot.deliver(user, "hello")
    assert "Subject: hello" in dovecot.doveadm("fetch", "-u", user, "text", "all")
    assert f"lmtp({user})" in dovecot.log()
    with pytest.raises(RuntimeError, match="doveadm no-such-command ended with"):
        dovecot.doveadm("no-such-command")


def test_a_refused_delivery_is_an_error(dovecot: Dovecot) -> None:
    with dovecot.lmtp() as lmtp, pytest.raises(LmtpError, match="50"):
        lmtp.deliver("nobody>\r\nNONSENSE <", b"")


@pytest.mark.parametrize("how", ["restart", "kill"])
def test_mail_and_ports_outlive_the_server(own_dovecot: Starter, how: str) -> None:
    server = own_dovecot()
    before = (server.port, server.tls_port, server.lmtp_port)
    server.deliver("alice", "kept")
    reader = server.imap("alice")
    if how == "restart":
        server.restart()
    else:
        server.kill()
        assert not server.is_running
        server.start()
    with pytest.raises((imaplib.IMAP4.abort, OSError)):
        reader.noop()
    reader.shutdown()
    assert (server.port, server.tls_port, server.lmtp_port) == before
    server.deliver("alice", "new")
    with server.imap("alice") as reader:
        assert len(bodies(reader)) == 2


def test_its_configuration_can_be_bent(own_dovecot: Starter) -> None:
    server = own_dovecot(
        capabilities="IMAP4rev1", extra="login_greeting = Moin.\nnamespace inbox {\n  separator = /\n}"
    )
    server.deliver("alice", "deep", mailbox="one/two")
    with server.imap("alice") as reader:
        assert b"Moin." in reader.welcome
        assert set(reader.capability()[1]) == {b"IMAP4rev1"}
        assert any(b'"/" one/two' in line for line in reader.list()[1] if isinstance(line, bytes))


def test_too_many_connections_are_refused_where_that_is_asked(own_dovecot: Starter) -> None:
    server = own_dovecot(max_userip_connections=1)
    with server.imap("alice"), pytest.raises(imaplib.IMAP4.error, match="Maximum number of connections"):
        server.imap("alice")


def test_nothing_is_left_of_it(own_dovecot: Starter) -> None:
    server = own_dovecot()
    server.deliver("alice", "gone")
    server.close()
    assert not server.directory.exists()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((server.host, server.port))


def test_a_configuration_that_is_wrong_says_why(own_dovecot: Starter) -> None:
    with pytest.raises(RuntimeError, match="Unknown setting: no_such_setting"):
        own_dovecot(extra="no_such_setting = yes")
