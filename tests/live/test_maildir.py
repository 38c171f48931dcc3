"""A Maildir beside the mirror, which a real Dovecot serves as the mail of another user: all that the source has.

The same, killed at each fsync and each rename on the way.
"""

import hashlib
import imaplib
import mailbox
import os
import re
import shutil
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from idlepush.imap.types import encode_mutf7
from tests.live.service import Service, service, wait_until
from tests.live.storm import configuration
from tests.live.workload import change, deliver, standing
from tests.peers.dovecot import Dovecot
from tests.peers.mails import mails

Served = dict[str, Counter[tuple[str, str, str]]]

NAMES = ("Entwürfe", "Archive.2024", "Archive.2024.Q1", "台北 & more", "back\\slash")


def with_maildir(server: Dovecot, user: str, path: Path) -> str:
    keys = f'username = "{user}"\nmailboxes = ["*"]\nmaildir = "{path}"\npoll_interval = "2s"\n'
    return configuration(server, user).replace(f'username = "{user}"\n', keys)


def served(reader: imaplib.IMAP4) -> Served:
    """Return what every mailbox holds: how often which flags, date and octets; UIDs may be any."""
    found: Served = {}
    for line in reader.list()[1]:
        assert isinstance(line, bytes)
        attributes, name = re.match(rb'\((.*?)\) "." (.*)', line).groups()  # type: ignore[union-attr]
        if b"\\Noselect" in attributes or b"\\NonExistent" in attributes:
            continue
        if reader.select(name.decode(), readonly=True)[0] != "OK":
            return {"not handed over yet": Counter()}
        held: Counter[tuple[str, str, str]] = Counter()
        data = reader.uid("FETCH", "1:*", "(FLAGS INTERNALDATE BODY.PEEK[])")[1]
        for item in data:
            if isinstance(item, tuple):
                head = item[0].decode()
                flags = sorted(set(re.search(r"FLAGS \((.*?)\)", head)[1].split()))  # type: ignore[index]
                of_maildir = " ".join(flag for flag in flags if flag.startswith("\\") and flag != "\\Recent")
                date = re.search(r'INTERNALDATE "(.*?)"', head)[1]  # type: ignore[index]
                held[of_maildir, date, hashlib.sha256(item[1]).hexdigest()] += 1
        found[name.strip(b'"').decode().replace("\\\\", "\\")] = held
    return found


def spelled(name: str) -> str:
    return '"' + encode_mutf7(name).decode().replace("\\", "\\\\").replace('"', '\\"') + '"'


def of_source(server: Dovecot, user: str) -> Served:
    with server.imap(user) as reader:
        return {name: held for name, held in served(reader).items() if held or name == "INBOX"}


def of_copy(server: Dovecot, user: str) -> Served:
    server.hand_over(user)
    with server.imap(user) as reader:
        found = {name: held for name, held in served(reader).items() if held or name == "INBOX"}
    # What Dovecot's own Maildir++ cannot be called is escaped, as its listescape does it.
    return {re.sub(r"\\([0-9a-f]{2})", lambda m: chr(int(m[1], 16)), name): held for name, held in found.items()}


def is_equal(server: Dovecot, user: str, copy: str) -> bool:
    return of_source(server, user) == of_copy(server, copy)


def fill(server: Dovecot, user: str) -> None:
    server.append_maildir(user, mails(60, seed=7))
    with server.imap(user) as client:
        for number, name in enumerate(NAMES):
            assert client.create(spelled(name))[0] == "OK"
            flags = ("", "(\\Seen)", "(\\Flagged \\Draft)", "(\\Answered work)")[number % 4]
            raw = f"Subject: {number}\r\n\r\nx\r\n".encode()
            assert client.append(spelled(name), flags, '" 2-Jan-2006 03:04:05 +0000"', raw)[0] == "OK"


@pytest.mark.timeout(180)
def test_what_dovecot_serves_from_the_maildir_is_what_the_source_has(
    dovecot: Dovecot, user: str, tmp_path: Path
) -> None:
    copy = f"{user}-copy"
    fill(dovecot, user)
    with service(tmp_path, with_maildir(dovecot, user, dovecot.maildir_of(copy))) as running:
        wait_until(lambda: is_equal(dovecot, user, copy), within=60, what="equal after the first mirror")

        deliver(dovecot, user, 30, seed=3, per_second=100)
        change(dovecot, user, standing(dovecot, user), flags=30, expunges=20, seed=4)
        wait_until(lambda: is_equal(dovecot, user, copy), within=60, what="equal after flags and expunges")

        with dovecot.imap(user) as client:
            assert client.create("Later")[0] == "OK"
            assert client.append("Later", "", "", b"Subject: later\r\n\r\n")[0] == "OK"
        # Which mailboxes there are is chosen anew by the next session.
        running.end()
        running.start()
        wait_until(lambda: is_equal(dovecot, user, copy), within=60, what="equal after a mailbox came")

        subjects = [one["Subject"] for one in mailbox.Maildir(str(dovecot.maildir_of(copy)), create=False)]
        assert len(subjects) == len(standing(dovecot, user))
        assert "sink.trouble" not in running.log_text
        [health] = running.records("health")
        assert health["reasons"] == []


STRACE = shutil.which("strace")


def start_killed_at(running: Service, calls: str, number: int) -> int:
    """Run the service under strace, which kills it at the *number*-th of *calls*; return its status, 0 if it lived."""
    assert STRACE is not None, "strace is missing"
    tracing = [STRACE, "-f", "-qq", "-o", "/dev/null", "-e", f"trace={calls}"]
    inject = f"inject={calls}:signal=KILL:when={number}"
    command = [sys.executable, "-m", "idlepush", "run", "-c", str(running.config), "-q"]
    process = subprocess.Popen([*tracing, "-e", inject, *command], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        return process.wait(timeout=5)
    except subprocess.TimeoutExpired:
        for child in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split():
            os.kill(int(child), signal.SIGTERM)
        process.wait(timeout=20)
        return 0


@pytest.mark.skipif(STRACE is None and os.environ.get("CI") != "true", reason="needs strace: apt-get install strace")
@pytest.mark.timeout(400)
@pytest.mark.parametrize("calls", ["fsync,fdatasync", "rename,renameat,renameat2", "unlink,unlinkat,mkdir,mkdirat"])
def test_killed_on_the_way_it_comes_to_the_same_end(dovecot: Dovecot, user: str, tmp_path: Path, calls: str) -> None:
    copy = f"{user}-copy"
    dovecot.append_maildir(user, mails(40, seed=1))
    running = Service(tmp_path)
    running.write(with_maildir(dovecot, user, dovecot.maildir_of(copy)))
    killed = 0
    for number in (1, 2, 3, 5, 8, 12, 17, 23, 30, 38, 47, 57):
        deliver(dovecot, user, 2, seed=100 + number, per_second=1000)
        change(dovecot, user, standing(dovecot, user), flags=3, expunges=1, seed=number)
        killed += start_killed_at(running, calls, number) != 0
        for path in dovecot.maildir_of(copy).rglob("cur/*.idlepush*"):
            assert path.stat().st_size, "nobody sees half a message"
    assert killed >= 5
    running.start()
    try:
        wait_until(lambda: is_equal(dovecot, user, copy), within=60, what="equal after all kills")
        assert not [*dovecot.maildir_of(copy).rglob("tmp/*")]
        names = [path.name.split(".")[1] for path in dovecot.maildir_of(copy).rglob("*/*.idlepush*")]
        assert len(names) == len(set(names))
    finally:
        running.end()
