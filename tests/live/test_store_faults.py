"""What the disk does to a service: killed at every commit point, full, owned by another, damaged."""

import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from tests.live.service import Service, replayed, service, wait_until
from tests.live.storm import configuration, differing
from tests.peers.dovecot import Dovecot
from tests.peers.mails import mails

STRACE = shutil.which("strace")
needs_strace = pytest.mark.skipif(
    STRACE is None and os.environ.get("CI") != "true", reason="needs strace: apt-get install strace"
)


def start_killed_at(running: Service, sync: int) -> int:
    """Run the service under strace, which kills it at its *sync*-th fsync; return how it ended, 0 if it did not."""
    assert STRACE is not None, "strace is missing"
    tracing = [STRACE, "-f", "-qq", "-o", "/dev/null", "-e", "trace=fsync,fdatasync"]
    inject = f"inject=fsync,fdatasync:signal=KILL:when={sync}"
    command = [sys.executable, "-m", "idlepush", "run", "-c", str(running.config), "-q"]
    process = subprocess.Popen([*tracing, "-e", inject, *command], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        return process.wait(timeout=4)
    except subprocess.TimeoutExpired:
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        for child in children:
            os.kill(int(child), signal.SIGTERM)
        process.wait(timeout=20)
        return 0


@needs_strace
@pytest.mark.timeout(300)
def test_killed_at_every_commit_point_it_goes_on_where_it_was(dovecot: Dovecot, user: str, tmp_path: Path) -> None:
    dovecot.append_maildir(user, mails(40, seed=1, is_heavy=True))
    running = Service(tmp_path)
    running.write(configuration(dovecot, user))
    seed, survived = 100, 0
    for sync in range(1, 60):
        # Each round has something of its own to commit: new mail, and what the round before was killed over.
        seed += 1
        for raw in mails(2, seed=seed):
            dovecot.deliver(user, raw)
        if start_killed_at(running, sync % 17 + 1) == 0:
            survived += 1
            if survived == 3:
                break
        assert is_sound(tmp_path)
    running.start()
    try:
        wait_until(lambda: not differing(running, dovecot, user), within=60, what="equal after all kills")
        replayed(running.records("events"))
        assert running.idlepush("verify", "--deep").returncode == 0
    finally:
        running.end()


def is_sound(folder: Path) -> bool:
    """Check a copy of the store: the original is left for the service itself to recover."""
    with tempfile.TemporaryDirectory() as aside:
        for path in folder.glob("mirror.db*"):
            shutil.copy(path, aside)
        with closing(sqlite3.connect(Path(aside) / "mirror.db")) as database:
            return bool(database.execute("PRAGMA integrity_check").fetchone() == ("ok",))


@contextmanager
def small_disk(folder: Path, size: str) -> Iterator[Path]:
    """Mount a small file system."""
    at = folder / "disk"
    at.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size},mode=0700", "none", str(at)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        if os.environ.get("CI") == "true":
            pytest.fail("a small file system cannot be mounted here")
        pytest.skip("needs the right to mount a small file system")
    try:
        yield at
    finally:
        subprocess.run(["umount", str(at)], check=True)


@pytest.mark.timeout(240)
def test_a_full_disk_stops_fetching_and_is_gone_on_with_once_there_is_space(
    dovecot: Dovecot, user: str, tmp_path: Path
) -> None:
    dovecot.append_maildir(user, mails(30, seed=1))
    with small_disk(tmp_path, "6m") as disk:
        toml = configuration(dovecot, user).replace("sqlite:///mirror.db", f"sqlite:///{disk}/mirror.db")
        ballast = disk / "ballast"
        with service(tmp_path, toml) as running:
            wait_until(lambda: not differing(running, dovecot, user), within=30, what="first mirror")
            free = shutil.disk_usage(disk).free
            ballast.write_bytes(os.urandom(max(0, free - 100_000)))
            for raw in mails(60, seed=2, is_heavy=False):
                dovecot.deliver(user, raw + os.urandom(8000).hex().encode() + b"\r\n")
            wait_until(lambda: "store.trouble" in running.log_text, within=60, what="the log says that it is full")
            assert running.process is not None
            assert running.process.poll() is None
            running.records("events")
            ballast.unlink()
            wait_until(lambda: not differing(running, dovecot, user), within=60, what="equal once there is space")
            replayed(running.records("events"))
            assert running.idlepush("verify", "--deep").returncode == 0
            assert running.end() == 0


def test_a_disk_full_at_the_start_is_a_sentence_and_exit_status_1(dovecot: Dovecot, user: str, tmp_path: Path) -> None:
    with small_disk(tmp_path, "64k") as disk:
        (disk / "ballast").write_bytes(b"x" * 60_000)
        running = Service(tmp_path)
        running.write(configuration(dovecot, user).replace("sqlite:///mirror.db", f"sqlite:///{disk}/mirror.db"))
        running.start()
        assert running.process is not None
        assert running.process.wait(20) == 1
        assert "Traceback" not in running.log_text
        assert "full" in running.log_text.splitlines()[-1] or "space" in running.log_text.splitlines()[-1]


def test_a_second_service_on_the_same_store_refuses_to_start(dovecot: Dovecot, user: str, tmp_path: Path) -> None:
    with service(tmp_path, configuration(dovecot, user)) as running:
        wait_until(lambda: "watching" in running.log_text, within=20, what="the first one watches")
        second = Service(tmp_path)
        second.starts = 50
        second.start()
        assert second.process is not None
        assert second.process.wait(20) == 1
        last = (tmp_path / "run-0051.log").read_text().splitlines()[-1]
        assert running.process is not None
        assert str(running.process.pid) in last
        assert running.process.poll() is None


def test_a_damaged_store_is_a_sentence_exit_status_1_and_left_as_it_is(
    dovecot: Dovecot, user: str, tmp_path: Path
) -> None:
    dovecot.append_maildir(user, mails(50, seed=1))
    with service(tmp_path, configuration(dovecot, user)) as running:
        wait_until(lambda: not differing(running, dovecot, user), within=30, what="first mirror")
        running.end()
        database = tmp_path / "mirror.db"
        damaged = bytearray(database.read_bytes())
        damaged[0:64] = b"\xff" * 64
        database.write_bytes(damaged)
        running.start()
        assert running.process is not None
        assert running.process.wait(20) == 1
        running.process = None
        last = running.log_text.splitlines()[-1]
        assert "Traceback" not in running.log_text
        assert "mirror.db" in last
        assert database.read_bytes() == damaged
        assert running.idlepush("messages", user, check=False).returncode == 1
