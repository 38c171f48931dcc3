"""Other clients move messages on a real Dovecot; a UIDVALIDITY changes there: ids and bodies stay."""

import imaplib
import json
import random
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tests.live.service import Service, replayed, service, wait_until
from tests.live.storm import configuration
from tests.peers.dovecot import Dovecot
from tests.peers.mails import mails

AIM = 2.0
"""Seconds until a move is seen; the test waits ten times that."""
FOLLOWING = 'mailboxes = ["INBOX", "*"]\npoll_interval = "5s"'


def rows(running: Service, user: str) -> list[dict[str, Any]]:
    """Return what is mirrored; at first there is no store."""
    done = running.idlepush("messages", user, "--json", check=False)
    return [json.loads(line) for line in done.stdout.splitlines()]


def ids(running: Service, user: str) -> set[tuple[str, str]]:
    """Return each message's id with its hash."""
    return {(row["id"], row["sha256"]) for row in rows(running, user)}


def uids(client: imaplib.IMAP4, mailbox: str) -> list[str]:
    client.select(mailbox)
    return [uid.decode() for uid in client.uid("SEARCH", "ALL")[1][0].split()]


def move(client: imaplib.IMAP4, which: list[str], to: str) -> None:
    assert client.uid("MOVE", ",".join(which), to)[0] == "OK"


@pytest.mark.timeout(240)
def test_messages_moved_by_another_client_keep_their_ids(dovecot: Dovecot, tmp_path: Path) -> None:
    user = f"mover-{random.randrange(10**9)}"
    dovecot.append_maildir(user, mails(120, seed=3, is_heavy=False))
    with dovecot.imap(user) as client:
        client.create("Archive")
        with service(tmp_path, configuration(dovecot, user, more=FOLLOWING)) as running:
            wait_until(lambda: len(ids(running, user)) == 120, within=60, what="the first mirror")
            before = ids(running, user)

            for source, target, count in (("INBOX", "Archive", 3), ("Archive", "INBOX", 2), ("INBOX", "Archive", 60)):
                move(client, uids(client, source)[:count], target)
                places = Counter({source: len(uids(client, source)), target: len(uids(client, target))})

                def is_seen(places: Counter[str] = places) -> bool:
                    return Counter(row["mailbox"] for row in rows(running, user)) == places

                wait_until(is_seen, within=10 * AIM, what=f"{count} moved from {source} to {target}")
            assert ids(running, user) == before
            events = running.records("events")
            replayed(events)
            assert [event["type"] for event in events].count("message.moved") == 65
            assert "message.expunged" not in {event["type"] for event in events}
            assert running.idlepush("verify", "--deep").returncode == 0


@pytest.mark.timeout(240)
def test_after_a_change_of_uidvalidity_messages_keep_their_ids(dovecot: Dovecot, tmp_path: Path) -> None:
    user = f"reset-{random.randrange(10**9)}"
    dovecot.append_maildir(user, mails(200, seed=4, is_heavy=True))
    with service(tmp_path, configuration(dovecot, user, more=FOLLOWING)) as running:
        wait_until(lambda: len(ids(running, user)) == 200, within=60, what="the first mirror")
        before = ids(running, user)
        dovecot.doveadm("mailbox", "update", "-u", user, "--uid-validity", "4000000000", "INBOX")

        def is_reset() -> bool:
            return {row["uidvalidity"] for row in rows(running, user)} == {4000000000}

        wait_until(is_reset, within=10 * AIM + 60, what="the new generation")
        assert ids(running, user) == before
        events = running.records("events")
        replayed(events)
        types = [event["type"] for event in events]
        assert (types.count("mailbox.reset"), types.count("message.moved")) == (1, 200)
        assert types.count("message.new") == 200
