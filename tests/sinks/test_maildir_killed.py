"""A Maildir whose writer is killed at one system call after the other: the next start brings it to the same end."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from idlepush.store.sqlite import open_store
from tests.sinks.delivering_child import deliver, maildir
from tests.sinks.holding import differences
from tests.store.making import Clock

STRACE = shutil.which("strace")
ROOT = Path(__file__).parents[2]
DIED = 137


def run(folder: Path, round: int, calls: str, number: int) -> int:
    """Run a round under strace, which kills it at the *number*-th of *calls* in any of its threads."""
    assert STRACE is not None, "strace is missing"
    tracing = [STRACE, "-f", "-qq", "-o", "/dev/null", "-e", f"trace={calls}"]
    inject = f"inject={calls}:signal=KILL:when={number}"
    child = [sys.executable, "-m", "tests.sinks.delivering_child", str(folder), str(round)]
    return subprocess.run([*tracing, "-e", inject, *child], cwd=ROOT, timeout=60, check=False).returncode


@pytest.mark.skipif(STRACE is None and os.environ.get("CI") != "true", reason="needs strace: apt-get install strace")
@pytest.mark.timeout(300)
@pytest.mark.parametrize("calls", ["fsync,fdatasync", "rename,renameat,renameat2", "unlink,rmdir,mkdir", "utimensat"])
async def test_killed_at_any_step_it_comes_to_the_same_end(tmp_path: Path, calls: str) -> None:
    killed = 0
    for number in range(1, 13):
        status = run(tmp_path, number, calls, 5 * number % 12 + 1)  # each of the first twelve once, in no order
        assert status in (0, DIED, -9), "it died of something else"
        killed += status != 0
        for path in tmp_path.glob("mail/**/[cn]*/*.idlepush*"):
            assert path.stat().st_size, "nobody sees half a message"
        if number % 6 == 0:
            async with open_store(tmp_path / "mirror.db", clock=Clock()) as store:
                await deliver(store, maildir(tmp_path, store))
                assert await differences(store, tmp_path / "mail") == []
    assert killed >= 4, "hardly anything was tried"
