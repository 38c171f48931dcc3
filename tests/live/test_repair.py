"""`verify --repair`: whatever is done to the database behind the service's back, the mirror is the server's again."""

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from tests.live.service import Service, service, wait_until
from tests.live.storm import configuration, is_same
from tests.peers.dovecot import Dovecot
from tests.peers.mails import mails, make

WRECK = """
UPDATE body_chunk SET data = zeroblob(20)
    WHERE id / 1048576 = (SELECT body FROM message WHERE uid = 3 AND expunged IS NULL);
UPDATE message SET size = size + 1 WHERE uid = 5;
UPDATE message SET flags = '["\\\\Flagged","Wrong"]' WHERE uid = 7;
UPDATE message SET uid = 4000000 WHERE uid = 9;
UPDATE message SET sha256 = zeroblob(32) WHERE uid = 41;
"""


def wreck(store: Path) -> None:
    """Damage a body, a size, flags; turn a message into one that is not there; and a long body's hash."""
    with closing(sqlite3.connect(store)) as db:
        db.executescript(WRECK)


def repaired(running: Service, user: str) -> None:
    found = running.idlepush("verify", "--deep", "--json", check=False)
    assert found.returncode == 1
    done = running.records("verify", "--deep", "--repair")
    assert [
        (line["missing"], line["extra"], line["flags"], line["sizes"], 3 in line["bodies"], 41 in line["bodies"])
        for line in done
    ] == [([9], [4000000], [7], [5], True, True)]
    assert done[0]["repaired"] == [3, 5, 7, 9, 41, 4000000]
    assert running.idlepush("verify", "--deep", "--repair").returncode == 0
    assert running.records("verify", "--deep") == [
        {key: user if key == "account" else "INBOX" if key == "mailbox" else [] for key in done[0]}
    ]


@pytest.mark.timeout(200)
@pytest.mark.parametrize("who", ["the service", "the command"])
def test_a_wrecked_mirror_is_repaired_and_nothing_is_forgotten(
    dovecot: Dovecot, user: str, tmp_path: Path, who: str
) -> None:
    dovecot.append_maildir(user, [*mails(40, seed=3), make("huge"), make("large")])
    toml = configuration(dovecot, user).replace('listen = ""', 'listen = "unix:http.sock"')
    with service(tmp_path, toml) as running:
        wait_until(lambda: is_same(running, dovecot, user), within=60, what="first mirror")
        before = {row["uid"]: row["id"] for row in running.records("messages", user)}
        running.end()
        wreck(tmp_path / "mirror.db")
        if who == "the service":
            running.start()
            wait_until((tmp_path / "http.sock").exists, within=30, what="it listens")
        repaired(running, user)
        after = {row["uid"]: row["id"] for row in running.records("messages", user)}
        assert after.pop(9) != before.pop(9)
        assert after == before
        found_by = {row["uid"]: row["found_by"] for row in running.records("messages", user)}
        assert found_by[9] == "audit"
        events = running.records("events")
        assert [event["position"] for event in events] == list(range(1, len(events) + 1))
