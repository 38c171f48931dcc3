"""The main job on a real Dovecot: what an independent reader sees there is what the mirror holds."""

import random
import sys
import threading
from functools import partial
from pathlib import Path

import pytest

from tests.live.service import on_server, replayed, service, wait_until
from tests.live.storm import configuration, differing, is_same, storm
from tests.live.workload import change, deliver, standing
from tests.peers.dovecot import Dovecot
from tests.peers.mails import mails

SOON = 2.0
"""Seconds from the last change until mirror and server are equal: the aim, printed; the test waits ten times that."""


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
            wait_until(partial(is_same, running, dovecot, user), within=100, what=f"first mirror of {user}")
        # Every byte, through the command a user has for it.
        with dovecot.imap(users[2]) as reader:
            reader.select("INBOX", readonly=True)
            for uid in random.Random(1).sample(sorted(on_server(reader)), 25):
                raw = running.idlepush("raw", users[2], "INBOX", str(uid)).stdout
                assert raw == reader.uid("FETCH", str(uid), "(BODY.PEEK[])")[1][0][1]

        user = users[0]
        # Of these only: what was delivered a moment ago may be expunged before anybody but the server saw it.
        before = standing(dovecot, user)
        delivery = threading.Thread(
            target=deliver, args=(dovecot, user, 500), kwargs={"seed": 5, "per_second": 50}, name="delivery"
        )
        delivery.start()
        change(dovecot, user, before, flags=200, expunges=100, seed=6)
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


@pytest.mark.timeout(300)
def test_killed_at_random_moments_nothing_is_lost_and_no_event_is_doubled(
    dovecot: Dovecot, user: str, tmp_path: Path
) -> None:
    storm(dovecot, user, tmp_path, kills=20, seed=20)
