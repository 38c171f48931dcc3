"""A Dovecot account under a workload, its configuration, and a service killed again and again beside it."""

import random
import signal
import threading
from pathlib import Path

from tests.live.service import Service, on_server, replayed, service, wait_until
from tests.live.workload import looping
from tests.peers.dovecot import PASSWORD, Dovecot
from tests.peers.mails import mails


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


def is_same(running: Service, server: Dovecot, user: str) -> bool:
    """Tell whether mirror and server are equal."""
    return not differing(running, server, user)


def storm(server: Dovecot, user: str, folder: Path, *, kills: int, seed: int) -> None:
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
