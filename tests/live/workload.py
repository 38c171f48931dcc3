"""What people and other clients do to a mailbox: deliveries over LMTP, flag changes and expunges over IMAP."""

import random
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from tests.peers.dovecot import Dovecot
from tests.peers.mails import mails

_FLAGS = ("\\Seen", "\\Flagged", "\\Answered", "$Work", "Later")


def deliver(server: Dovecot, user: str, count: int, *, seed: int, per_second: float) -> None:
    """Deliver *count* mails at an even pace."""
    pause = threading.Event()
    begun = time.monotonic()
    with server.lmtp() as lmtp:
        for number, raw in enumerate(mails(count, seed=seed, is_heavy=False)):
            lmtp.deliver(user, raw)
            pause.wait(max(0.0, begun + (number + 1) / per_second - time.monotonic()))


def standing(server: Dovecot, user: str) -> list[str]:
    """Return the UIDs that are in INBOX now."""
    with server.imap(user) as client:
        client.select("INBOX", readonly=True)
        return [uid.decode() for uid in client.uid("SEARCH", "ALL")[1][0].split()]


def change(server: Dovecot, user: str, uids: list[str], *, flags: int, expunges: int, seed: int) -> None:
    """Change flags of, and expunge, messages among *uids*, by another client and in random order."""
    dice = random.Random(seed)
    uids = uids.copy()
    with server.imap(user) as client:
        client.select("INBOX")
        acts = ["flag"] * flags + ["expunge"] * expunges
        dice.shuffle(acts)
        for act in acts:
            if not uids:
                continue
            uid = dice.choice(uids)
            if act == "flag":
                sign = dice.choice(["+FLAGS", "-FLAGS"])
                client.uid("STORE", uid, sign, f"({dice.choice(_FLAGS)})")
            else:
                uids.remove(uid)
                client.uid("STORE", uid, "+FLAGS", "(\\Deleted)")
                client.expunge()


@contextmanager
def looping(server: Dovecot, user: str, *, seed: int, per_second: float = 50) -> Iterator[threading.Event]:
    """Keep a mailbox busy in the background until the block ends."""
    stop = threading.Event()

    def busy() -> None:
        round_ = seed
        while not stop.is_set():
            round_ += 1
            deliver(server, user, 20, seed=round_, per_second=per_second)
            change(server, user, standing(server, user), flags=8, expunges=6, seed=round_)

    thread = threading.Thread(target=busy, name=f"workload of {user}")
    thread.start()
    try:
        yield stop
    finally:
        stop.set()
        thread.join(60)
        assert not thread.is_alive()
