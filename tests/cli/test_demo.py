"""The demo, as somebody sees it who has nothing but the package."""

import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from pathlib import Path

import pytest

from idlepush.sync.events import EventType


def demo(folder: Path, *arguments: str) -> subprocess.Popen[str]:
    """Start it, with a folder of its own for what is temporary."""
    return subprocess.Popen(
        [sys.executable, "-m", "idlepush", "demo", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "TMPDIR": str(folder)},
    )


def children(of: int) -> list[int]:
    """The processes that a process started."""
    return [int(pid) for pid in Path(f"/proc/{of}/task/{of}/children").read_text().split()]


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def assert_nothing_is_left(folder: Path, pids: list[int]) -> None:
    assert list(folder.iterdir()) == []
    assert not any(map(is_running, pids))


def test_it_mirrors_two_accounts_prints_a_line_for_every_event_and_leaves_nothing(tmp_path: Path) -> None:
    with demo(tmp_path, "--for", "8s") as running:
        assert running.stdout is not None
        first = running.stdout.readline()
        url = re.match(r"http://127\.0\.0\.1:\d+/", first)
        assert url is not None, first
        pids = children(running.pid)
        assert pids
        with urllib.request.urlopen(f"{url[0]}metrics", timeout=10) as answer:
            metrics = answer.read().decode()
        assert 'idlepush_account_up{account="alice"}' in metrics
        lines, errors = running.communicate(timeout=60)
    assert running.returncode == 0, errors
    assert errors == ""
    kinds = [word for line in lines.splitlines() for word in line.split() if word in set(EventType)]
    assert kinds.count("message.new") >= 6 and kinds.count("mailbox.new") == 2
    assert "alice" in lines and "bob" in lines and "found by push" in lines
    assert "\x1b" not in lines
    assert_nothing_is_left(tmp_path, pids)


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("when", ["at once", "as it runs"])
def test_ctrl_c_ends_it_with_0_and_leaves_nothing(tmp_path: Path, how: signal.Signals, when: str) -> None:
    with demo(tmp_path) as running:
        assert running.stdout is not None
        if when == "as it runs":
            while "watching" not in running.stdout.readline():
                pass
        else:
            _wait_for_its_folder(tmp_path)
        pids = children(running.pid)
        running.send_signal(how)
        _, errors = running.communicate(timeout=30)
    assert (running.returncode, errors) == (0, "")
    assert_nothing_is_left(tmp_path, pids)


def _wait_for_its_folder(folder: Path) -> None:
    deadline, pause = time.monotonic() + 30, threading.Event()
    while not list(folder.iterdir()):
        assert time.monotonic() < deadline
        pause.wait(0.01)


def test_who_has_seen_enough_ends_it(tmp_path: Path) -> None:
    with demo(tmp_path) as running:
        assert running.stdout is not None
        running.stdout.readline()
        pids = children(running.pid)
        running.stdout.close()
        assert running.wait(timeout=60) == 0
        assert running.stderr is not None
        assert running.stderr.read() == ""
    assert_nothing_is_left(tmp_path, pids)


def test_without_pymap_it_says_what_to_install(tmp_path: Path) -> None:
    hidden = tmp_path / "sitecustomize.py"
    hidden.write_text(
        "import importlib.util as u\nfind = u.find_spec\n"
        "u.find_spec = lambda name, package=None: None if name == 'pymap' else find(name, package)\n"
    )
    done = subprocess.run(
        [sys.executable, "-m", "idlepush", "demo", "--for", "5s"],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"},
        timeout=60,
    )
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == "the demo needs a mail server of its own: pip install 'idlepush[demo]'"


def test_its_folder_is_where_temporary_things_go(tmp_path: Path) -> None:
    with demo(tmp_path, "--for", "1s") as running:
        _wait_for_its_folder(tmp_path)
        (folder,) = tmp_path.iterdir()
        assert folder.name.startswith("idlepush-demo-")
        assert folder.stat().st_mode & 0o777 == 0o700
        running.communicate(timeout=60)
    assert tempfile.gettempdir() != str(tmp_path)
