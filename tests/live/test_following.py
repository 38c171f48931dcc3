"""Mailboxes made, renamed and deleted on real servers while the service runs."""

from collections.abc import Iterator
from contextlib import contextmanager
from imaplib import IMAP4
from pathlib import Path
from typing import Any

import pytest

from tests.live.service import Service, replayed, service, wait_until
from tests.live.storm import configuration
from tests.live.test_pymap import configuration as pymap_configuration
from tests.peers.dovecot import Dovecot
from tests.peers.pymap_server import PymapServer

SOON = 20.0


def fill(client: IMAP4, name: str, count: int) -> None:
    assert client.create(f'"{name}"')[0] == "OK"
    for number in range(count):
        raw = f"Subject: {number} of {name}\r\nMessage-ID: <{number}.{name}@x.example>\r\n\r\nx\r\n"
        assert client.append(f'"{name}"', "", "", raw.encode())[0] == "OK"


def ids(running: Service, account: str, mailbox: str) -> dict[int, str]:
    return {row["uid"]: row["id"] for row in running.records("messages", account, "--mailbox", mailbox)}


def mailbox_events(running: Service, account: str) -> list[tuple[str, str, Any]]:
    return [
        (event["type"], event["mailbox"], event.get("mailbox_before"))
        for event in running.records("events")
        if event["account"] == account and event["type"].startswith("mailbox.")
    ]


def live_through(running: Service, client: IMAP4, account: str, delimiter: str) -> None:
    """Do to mailboxes what people do, and see the mirror follow."""

    def holds(mailbox: str, count: int) -> None:
        wait_until(lambda: len(ids(running, account, mailbox)) == count, within=SOON, what=f"{count} in {mailbox}")

    fill(client, "Work", 3)
    fill(client, f"Work{delimiter}2024", 2)
    holds("Work", 3)
    holds(f"Work{delimiter}2024", 2)
    before = ids(running, account, "Work"), ids(running, account, f"Work{delimiter}2024")
    assert client.rename("Work", "Job")[0] == "OK"
    holds("Job", 3)
    holds(f"Job{delimiter}2024", 2)
    assert (ids(running, account, "Job"), ids(running, account, f"Job{delimiter}2024")) == before
    assert client.append("Job", "", "", b"Subject: more\r\n\r\nx\r\n")[0] == "OK"
    holds("Job", 4)
    fill(client, "Spare", 2)
    holds("Spare", 2)
    spare = ids(running, account, "Spare")
    # Swapped between two looks, or seen in between: either way everything ends where it belongs.
    for one, other in (("Job", "tmp"), ("Spare", "Job"), ("tmp", "Spare")):
        assert client.rename(one, other)[0] == "OK"
    holds("Job", 2)
    holds("Spare", 4)
    assert ids(running, account, "Job") == spare
    assert before[0].items() <= ids(running, account, "Spare").items()
    assert client.delete("Job")[0] == "OK"
    holds("Job", 0)
    fill(client, "Back", 1)
    holds("Back", 1)
    replayed(running.records("events"))
    assert running.idlepush("verify", account, "--deep").returncode == 0
    news = [event for event in running.records("events") if event["type"] == "message.new"]
    assert not any(event["initial"] for event in news if event["account"] == account)


@contextmanager
def watching(folder: Path, toml: str, account: str) -> Iterator[Service]:
    with service(folder, toml) as running:
        wait_until(lambda: running.idlepush("events", check=False).returncode == 0, within=60, what="a store")
        wait_until(lambda: bool(mailbox_events(running, account)), within=60, what="INBOX")
        yield running


@pytest.mark.timeout(300)
@pytest.mark.parametrize("capabilities", [None, "IMAP4rev1 IDLE LITERAL+ ID"], ids=["all it can", "the least"])
def test_mailboxes_are_followed_on_dovecot(
    own_dovecot: Any, user: str, tmp_path: Path, capabilities: str | None
) -> None:
    server: Dovecot = own_dovecot(capabilities=capabilities)
    toml = configuration(server, user, more='mailboxes = ["*"]\npoll_interval = "2s"')
    with watching(tmp_path, toml, user) as running, server.imap(user) as client:
        live_through(running, client, user, ".")


@pytest.mark.timeout(300)
def test_mailboxes_are_followed_on_pymap(tmp_path: Path) -> None:
    with PymapServer(["ann", "bob", "cid"]) as server:
        toml = pymap_configuration(server).replace('mailboxes = ["INBOX", "Work"]', 'mailboxes = ["*"]')
        with watching(tmp_path, toml, "ann") as running, server.imap("ann") as client:
            live_through(running, client, "ann", "/")
