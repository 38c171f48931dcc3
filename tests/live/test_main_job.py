"""The main job on a real Dovecot: what an independent reader sees there is what the mirror holds."""

import random
import signal
import sys
import threading
from pathlib import Path

import pytest

from tests.live.service import Service, on_server, replayed, service, wait_until
from tests.live.workload import change, deliver, looping
from tests.peers.dovecot import PASSWORD, Dovecot
from tests.peers.mails import mails

SOON = 2.0
"""Seconds from the last change until mirror and server are equal: the aim, printed; the test waits ten times that."""


def configuration(server: Dovecot, *users: str, more: str = "") -> str:
    accounts = "".join(f'\n[accounts."{user}"]\nusername = "{user}"\n' for user in users)
    return f"""
[store]
url = "sqlite:///mirror.db"
[http]
listen = ""
[defaults]
host = "localhost"
port = {server.tls_port}
tls_ca = "{server.ca_pem}"
password = "{PASSWORD}"
{more}
{accounts}"""


def differing(running: Service, server: Dovecot, user: str, *, bodies: bool = True) -> list[int]:
    """Return the UIDs in which mirror and server differ."""
    with server.imap(user) as reader:
        there = on_server(reader, bodies=bodies)
    here = running.mirrored(user)
    if not bodies:
        here = {uid: (flags, size, there.get(uid, ("", 0, ""))[2]) for uid, (flags, size, _) in here.items()}
    return sorted(uid for uid in here.keys() | there.keys() if here.get(uid) != there.get(uid))


@pytest.mark.timeout(300)
def test_three_users_and_five_thousand_messages_are_mirrored_and_kept_equal(
    dovecot: Dovecot, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    users = [f"main-{number}-{random.randrange(10**9)}" for number in range(3)]
    counts = (3000, 1500, 500)
    for user, count in zip(users, counts, strict=True):
        dovecot.append_maildir(user, mails(count, seed=count, is_heavy=count == 500))
    with service(tmp_path, configuration(dovecot, *users)) as running:
        for user in users:
            wait_until(
                lambda user=user: not differing(running, dovecot, user), within=100, what=f"first mirror of {user}"
            )
        # Every byte, through the command a user has for it.
        with dovecot.imap(users[2]) as reader:
            reader.select("INBOX", readonly=True)
            for uid in random.Random(1).sample(sorted(on_server(reader)), 25):
                raw = running.idlepush("raw", users[2], "INBOX", str(uid)).stdout
                assert raw == reader.uid("FETCH", str(uid), "(BODY.PEEK[])")[1][0][1]

        user = users[0]
        delivery = threading.Thread(
            target=deliver, args=(dovecot, user, 500), kwargs={"seed": 5, "per_second": 50}, name="delivery"
        )
        delivery.start()
        change(dovecot, user, flags=200, expunges=100, seed=6)
        delivery.join()
        took = wait_until(lambda: not differing(running, dovecot, user), within=10 * SOON, what="equal again")
        with capsys.disabled():
            print(
                f"\nequal {took:.1f} s after the last change, one comparison included (aim: {SOON} s)", file=sys.stderr
            )

        events = running.records("events")
        replayed(events)
        news = [event for event in events if event["type"] == "message.new" and event["account"] == user]
        assert len({event["uid"] for event in news}) == len(news)
        assert sum(not event["initial"] for event in news) == 500
        assert running.idlepush("verify", "--deep").returncode == 0
        assert running.end() == 0


def _storm(server: Dovecot, user: str, folder: Path, *, kills: int, seed: int) -> None:
    """Kill -9 at random moments while mail is delivered, flagged and expunged; then compare everything."""
    dice = random.Random(seed)
    server.append_maildir(user, mails(300, seed=seed, is_heavy=True))
    pause = threading.Event()
    with service(folder, configuration(server, user)) as running:
        with looping(server, user, seed=seed):
            for _ in range(kills):
                pause.wait(dice.choice([0.4, 0.8, 1.0, 1.5, 2.5]) + dice.random())
                running.end(signal.SIGKILL)
                running.start()
        wait_until(lambda: not differing(running, server, user), within=60, what="equal after the last kill")
        replayed(running.records("events"))
        assert running.idlepush("verify", "--deep").returncode == 0
        assert running.end() == 0


@pytest.mark.timeout(300)
def test_killed_at_random_moments_nothing_is_lost_and_no_event_is_doubled(
    dovecot: Dovecot, user: str, tmp_path: Path
) -> None:
    _storm(dovecot, user, tmp_path, kills=20, seed=20)
