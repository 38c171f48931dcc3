"""A Maildir beside the mirror, which a real Dovecot serves as the mail of another user: all that the source has."""

import hashlib
import imaplib
import mailbox
import re
import shutil
import signal
import subprocess
from collections import Counter
from functools import partial
from pathlib import Path

import pytest

from idlepush.imap.types import encode_mutf7
from tests.live.service import Service, service, wait_until
from tests.live.storm import configuration
from tests.live.test_store_faults import small_disk
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
    try:
        return of_source(server, user) == of_copy(server, copy)
    except imaplib.IMAP4.abort:
        return False  # a file came between the handing over and the reading


def complaints(server: Dovecot, user: str) -> list[str]:
    """Return what the server found wrong with a user's mail, but for what was not handed over yet."""
    lines = [line for line in server.log().splitlines() if f"imap({user})" in line and "Error:" in line]
    return [line for line in lines if "Permission denied" not in line and "EACCES" not in line]


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
            assert client.delete(spelled(NAMES[0]))[0] == "OK"
            assert client.rename(spelled(NAMES[1]), "Elsewhere.2024")[0] == "OK"
            assert client.create("Later")[0] == "OK"
            assert client.append("Later", "", "", b"Subject: later\r\n\r\n")[0] == "OK"
            client.select("INBOX")
            assert client.uid("MOVE", "1:5", "Later")[0] == "OK"
        wait_until(lambda: is_equal(dovecot, user, copy), within=60, what="equal after mailboxes came and went")
        folders = {path.name for path in dovecot.maildir_of(copy).glob(".*")}
        assert {".Later", ".Elsewhere.2024", ".Elsewhere.2024.Q1"} <= folders
        assert not [name for name in folders if "Entw" in name or name.startswith(".Archive")]

        subjects = [one["Subject"] for one in mailbox.Maildir(str(dovecot.maildir_of(copy)), create=False)]
        assert len(subjects) == len(standing(dovecot, user))
        assert "sink.trouble" not in running.log_text
        assert complaints(dovecot, copy) == []
        [health] = running.records("health")
        assert health["reasons"] == []


@pytest.mark.timeout(180)
def test_a_full_disk_beneath_the_maildir_harms_nothing_else(dovecot: Dovecot, user: str, tmp_path: Path) -> None:
    with small_disk(tmp_path, "2m") as disk:
        ballast = disk / "ballast"
        with service(tmp_path, with_maildir(dovecot, user, disk / "mail")) as running:
            deliver(dovecot, user, 10, seed=1, per_second=100)
            wait_until(lambda: files_of(disk / "mail") == 10, within=60, what="the Maildir is made")
            ballast.write_bytes(bytes(shutil.disk_usage(disk).free))
            for raw in mails(20, seed=2, is_heavy=False):
                dovecot.deliver(user, raw + b"x" * 100_000)
            wait_until(lambda: len(running.mirrored(user)) == 30, within=60, what="the mirror goes on")
            wait_until(lambda: reasons(running) != [], within=60, what="health says it")
            [reason] = reasons(running)
            assert reason.startswith("nothing is delivered to its maildir: ")
            assert "no space left" in reason
            assert "sink.trouble" in running.log_text
            ballast.unlink()
            remount = ["mount", "-o", "remount,size=16m", str(disk)]
            assert subprocess.run(remount, check=False).returncode == 0
            wait_until(lambda: files_of(disk / "mail") == 30, within=90, what="the Maildir catches up")
            wait_until(lambda: reasons(running) == [], within=30, what="all is well")


@pytest.mark.timeout(180)
def test_a_reload_adds_moves_and_ends_a_maildir(dovecot: Dovecot, user: str, tmp_path: Path) -> None:
    plain = configuration(dovecot, user)
    with service(tmp_path, plain) as running:
        deliver(dovecot, user, 5, seed=1, per_second=100)
        wait_until(lambda: len(running.mirrored(user)) == 5, within=60, what="mirrored")
        for number, folder in enumerate(("one", "two")):
            running.write(with_maildir(dovecot, user, Path(folder)))
            reload(running)
            wait_until(partial(holds, tmp_path / folder, 5 + number), within=60, what=folder)
            dovecot.deliver(user, f"for {folder}")
            wait_until(partial(holds, tmp_path / folder, 6 + number), within=60, what="followed")
        assert files_of(tmp_path / "one") == 6, "it stays as it is"
        running.write(plain)
        reload(running)
        wait_until(lambda: "sink.stopped" in running.log_text, within=30, what="it ends")
        wait_until(lambda: running.log_text.count("config.reloaded") == 3, within=30, what="reloaded")
        dovecot.deliver(user, "for the mirror alone")
        wait_until(lambda: len(running.mirrored(user)) == 8, within=30, what="mirrored")
        assert files_of(tmp_path / "two") == 7
        assert running.end() == 0


def files_of(maildir: Path) -> int:
    return sum(1 for place in ("new", "cur") for _ in maildir.glob(f"{place}/*"))


def holds(maildir: Path, count: int) -> bool:
    return files_of(maildir) == count


def reload(running: Service) -> None:
    assert running.process is not None
    running.process.send_signal(signal.SIGHUP)


def reasons(running: Service) -> list[str]:
    [health] = running.records("health")
    return list(health["reasons"])
