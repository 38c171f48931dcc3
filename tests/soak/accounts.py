"""Two hundred accounts, ten of them in every kind of trouble: `python -m tests.soak.accounts --minutes 10`.

Prints how fast the healthy ones are without and with the troubled ones, what the memory does meanwhile, and how many
logins a second there are when the server is restarted.
"""

import argparse
import json
import re
import signal
import statistics
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from tests.live.fakes import listening
from tests.live.service import Service, wait_until
from tests.peers.dovecot import PASSWORD, Dovecot
from tests.peers.fake import FakeImap, answer, bye, cut, mute, say

BUCKET = 20


def in_trouble() -> list[FakeImap]:
    """Make ten servers, each broken in its own way."""

    def faulty(point: str, fault: Any, **knobs: Any) -> FakeImap:
        fake = FakeImap(**knobs)
        for number in range(20):
            fake.deliver(b"Subject: %d\r\n\r\nbody\r\n" % number)
        fake.at(point, fault, times=None)
        return fake

    return [
        faulty("none", mute, password="another"),
        faulty("none", mute, idle="mute"),
        faulty("none", mute, done="mute"),
        faulty("none", mute, idle_cut_after=2.0),
        faulty("none", mute, seconds_per_byte=0.2),
        faulty("connect", cut("stall")),
        faulty("EXAMINE", bye("going down")),
        faulty("UID FETCH", say(b"* 1 FETCH (((\r\n")),
        faulty("EXAMINE", answer("NO [LIMIT] too much")),
        faulty("in FETCH", cut("reset")),
    ]


def configuration(server: Dovecot, users: Sequence[str], fakes: Sequence[int]) -> str:
    healthy = "".join(f'\n[accounts.{user}]\nusername = "{user}"\n' for user in users)
    troubled = "".join(
        f'\n[accounts.trouble{number}]\nusername = "t"\nhost = "127.0.0.1"\nport = {port}\ntls = "none"\n'
        for number, port in enumerate(fakes)
    )
    return f"""
[store]
url = "sqlite:///mirror.db"
[http]
listen = ""
[limits]
logins_per_second = {BUCKET}
login_burst = {BUCKET}
[defaults]
host = "localhost"
port = {server.tls_port}
tls_ca = "{server.ca_pem}"
password = "{PASSWORD}"
{healthy}{troubled}"""


def pushes(running: Service, server: Dovecot, users: Sequence[str], rounds: int) -> list[float]:
    """Deliver to everyone in turn; return the seconds from EXISTS to commit."""
    pause = threading.Event()
    before = len(running.log_text)
    with server.lmtp() as lmtp:
        for number in range(rounds):
            for user in users:
                lmtp.deliver(user, b"Subject: push %d\r\n\r\nbody\r\n" % number)
                pause.wait(0.03)
    pause.wait(3)
    looked = (json.loads(line) for line in running.log_text[before:].splitlines() if '"mailbox.looked"' in line)
    return [one["wake_to_commit"] for one in looked if "wake_to_commit" in one and not one["account"].startswith("tr")]


def resident(running: Service) -> float:
    """Return the process's resident memory in MiB."""
    assert running.process is not None
    status = Path(f"/proc/{running.process.pid}/status").read_text()
    found = re.search(r"VmRSS:\s+(\d+)", status)
    assert found is not None
    return int(found[1]) / 1024


def shown(seconds: Sequence[float]) -> str:
    """Spell p50 and p99 in milliseconds."""
    cut_at = statistics.quantiles(seconds, n=100)
    return f"p50 {cut_at[49] * 1000:.1f} ms, p99 {cut_at[98] * 1000:.1f} ms ({len(seconds)} pushes)"


def main() -> None:
    """Run it and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--accounts", type=int, default=190)
    parser.add_argument("--minutes", type=float, default=10)
    asked = parser.parse_args()
    users = [f"user{number}" for number in range(asked.accounts)]
    pause = threading.Event()
    with ExitStack() as open_, tempfile.TemporaryDirectory() as folder:
        server = open_.enter_context(Dovecot())
        running = Service(Path(folder))
        running.write(configuration(server, users, []))
        begun = time.monotonic()
        running.start()
        open_.callback(lambda: running.process and running.end())
        wait_until(lambda: running.log_text.count('"watching"') >= len(users), within=120, what="all watch")
        print(f"{len(users)} accounts watched after {time.monotonic() - begun:.1f} s, RSS {resident(running):.0f} MiB")
        print("without trouble:", shown(pushes(running, server, users, 2)), flush=True)

        fakes = [open_.enter_context(listening(fake)) for fake in in_trouble()]
        running.write(configuration(server, users, fakes))
        assert running.process is not None
        running.process.send_signal(signal.SIGHUP)
        pause.wait(5)
        memory, ends = [resident(running)], time.monotonic() + 60 * asked.minutes
        print("ten in trouble: ", shown(pushes(running, server, users, 2)), flush=True)
        while time.monotonic() < ends:
            pause.wait(15)
            pushes(running, server, users[:20], 1)
            memory.append(resident(running))
        print(f"RSS over {asked.minutes:g} minutes: {memory[0]:.0f} → {memory[-1]:.0f} MiB (most {max(memory):.0f})")
        print("at the end:     ", shown(pushes(running, server, users, 2)), flush=True)

        lines = len(running.log_text)
        server.restart()
        back = wait_until(
            lambda: running.log_text[lines:].count('"session.opened"') >= len(users), within=180, what="all are back"
        )
        opened = [json.loads(line) for line in running.log_text[lines:].splitlines() if '"session.opened"' in line]
        a_second = Counter(one["time"][:19] for one in opened if not one["account"].startswith("tr"))
        print(
            f"server restarted: all back after {back:.1f} s, at most {max(a_second.values())} logins a second "
            f"(bucket: {BUCKET} a second, {BUCKET} at once)"
        )
        assert running.end() == 0


if __name__ == "__main__":
    main()
