"""The main job on pymap: no CONDSTORE, no QRESYNC, and a UIDVALIDITY that goes down when a mailbox is made again."""

import random
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from tests.live.service import Service, on_server, replayed, service, wait_until
from tests.peers.mails import mails as any_mails
from tests.peers.pymap_server import PASSWORD, PymapServer

USERS = ("ann", "bob", "cid")


def mails(count: int, *, seed: int) -> Iterator[bytes]:
    """Draw mails that pymap takes: it cancels the APPEND of an empty one."""
    return (raw or b"Subject: was empty\r\n\r\n" for raw in any_mails(count, seed=seed))


def configuration(server: PymapServer) -> str:
    accounts = "".join(f'\n[accounts.{user}]\nusername = "{user}"\nmailboxes = ["INBOX", "Work"]\n' for user in USERS)
    return f"""
[store]
url = "sqlite:///mirror.db"
[http]
listen = ""
[defaults]
host = "{server.host}"
port = {server.port}
tls = "none"
password = "{PASSWORD}"
poll_interval = "2s"
flags_interval = "2s"
{accounts}"""


def is_equal(running: Service, server: PymapServer, user: str, mailbox: str = "INBOX") -> bool:
    reader = server.imap(user)
    try:
        return running.mirrored(user, mailbox) == on_server(reader, mailbox)
    finally:
        reader.logout()


@pytest.mark.timeout(300)
def test_the_main_job_on_a_server_without_condstore(tmp_path: Path) -> None:
    with PymapServer(USERS) as server:
        for number, user in enumerate(USERS):
            for raw in mails(60, seed=number):
                server.deliver(user, raw)
        with service(tmp_path, configuration(server)) as running:
            for user in USERS:
                wait_until(partial(is_equal, running, server, user), within=60, what=f"mirror of {user}")

            def busy() -> None:
                for raw in mails(40, seed=99):
                    server.deliver("ann", raw)

            # Of these only: what was delivered a moment ago may be expunged before anybody but the server saw it.
            client = server.imap("ann")
            client.select("INBOX")
            dice = random.Random(4)
            uids = [uid.decode() for uid in client.uid("SEARCH", "ALL")[1][0].split()]
            delivery = threading.Thread(target=busy)
            delivery.start()
            for _ in range(40):
                client.uid("STORE", dice.choice(uids), dice.choice(["+FLAGS", "-FLAGS"]), "(\\Seen \\Flagged)")
            for uid in dice.sample(uids, 20):
                client.uid("STORE", uid, "+FLAGS", "(\\Deleted)")
            client.expunge()
            delivery.join()
            client.logout()
            wait_until(lambda: is_equal(running, server, "ann"), within=40, what="equal again")

            events = running.records("events")
            replayed(events)
            news = [event["uid"] for event in events if event["type"] == "message.new" and event["account"] == "ann"]
            assert len(news) == len(set(news)) == 100
            assert running.idlepush("verify", "--deep").returncode == 0


@pytest.mark.timeout(300)
def test_a_mailbox_that_is_made_again_with_a_lower_uidvalidity_is_told_apart(tmp_path: Path) -> None:
    with PymapServer(USERS) as server:
        client = server.imap("bob")
        client.create("Work")
        for raw in mails(10, seed=3):
            client.append("Work", "", "", raw)
        with service(tmp_path, configuration(server)) as running:
            wait_until(lambda: is_equal(running, server, "bob", "Work"), within=60, what="mirror of Work")
            seen = set()
            for seed in (7, 8, 9):
                client.delete("Work")
                client.create("Work")
                for raw in mails(5, seed=seed):
                    client.append("Work", "", "", raw)
                wait_until(lambda: is_equal(running, server, "bob", "Work"), within=60, what="the new Work")
                seen |= {event["uidvalidity"] for event in running.records("events") if event["mailbox"] == "Work"}
            assert len(seen) > 1
            kinds = [event["type"] for event in running.records("events") if event["mailbox"] == "Work"]
            assert "mailbox.reset" in kinds or "mailbox.gone" in kinds
            assert running.idlepush("verify", "--deep", "bob").returncode == 0
        client.logout()
