"""`idlepush run` as a user runs it: a process of its own, a configuration in a file, read by the command line."""

import hashlib
import imaplib
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

Row = tuple[frozenset[str], int, str]


@dataclass
class Service:
    """A folder with a configuration, and the process that serves it now and then."""

    folder: Path
    process: subprocess.Popen[bytes] | None = None
    starts: int = 0
    environment: dict[str, str] = field(default_factory=dict)

    @property
    def config(self) -> Path:
        return self.folder / "idlepush.toml"

    @property
    def log_text(self) -> str:
        """Everything the service has written to stderr so far."""
        return "".join(path.read_text(errors="replace") for path in sorted(self.folder.glob("run-*.log")))

    def write(self, toml: str) -> None:
        """Write the configuration, for nobody else to read."""
        self.config.write_text(toml)
        self.config.chmod(0o600)

    def start(self, *options: str) -> None:
        """Start the service."""
        self.starts += 1
        with (self.folder / f"run-{self.starts:04}.log").open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "idlepush", "run", "-c", str(self.config), *options],
                stdout=subprocess.DEVNULL,
                stderr=log,
                stdin=subprocess.DEVNULL,
                env={**os.environ, **self.environment},
            )

    def end(self, how: signal.Signals = signal.SIGTERM) -> int:
        """Send the signal and return the exit status."""
        assert self.process is not None
        self.process.send_signal(how)
        status = self.process.wait(timeout=30)
        self.process = None
        return status

    def idlepush(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[bytes]:
        """Run a command."""
        done = subprocess.run(
            [sys.executable, "-m", "idlepush", *arguments, "-c", str(self.config)],
            capture_output=True,
            check=False,
            timeout=120,
            env={**os.environ, **self.environment},
        )
        if check:
            assert done.returncode == 0, done.stderr.decode(errors="replace")
        return done

    def records(self, *arguments: str) -> list[dict[str, Any]]:
        """Run a command with --json and return its records."""
        return [json.loads(line) for line in self.idlepush(*arguments, "--json").stdout.splitlines()]

    def mirrored(self, account: str, mailbox: str = "INBOX") -> dict[int, Row]:
        """Return what the mirror holds of a mailbox: flags, size and hash by UID."""
        try:
            rows = self.records("messages", account, "--mailbox", mailbox)
        except AssertionError:
            return {}  # the store is not there yet
        found = {row["uid"]: (frozenset(row["flags"]), row["size"], row["sha256"]) for row in rows}
        assert len(found) == len(rows), "a UID stands twice in the mirror"
        return found


@contextmanager
def service(folder: Path, toml: str) -> Iterator[Service]:
    """Run the service until the block ends."""
    made = Service(folder)
    made.write(toml)
    made.start()
    try:
        yield made
    finally:
        if made.process is not None:
            made.end()


def on_server(reader: imaplib.IMAP4, mailbox: str = "INBOX", *, bodies: bool = True) -> dict[int, Row]:
    """Read a mailbox the way an independent client does."""
    status, _ = reader.select(mailbox, readonly=True)
    assert status == "OK"
    items = "(UID FLAGS RFC822.SIZE BODY.PEEK[])" if bodies else "(UID FLAGS RFC822.SIZE)"
    status, data = reader.uid("FETCH", "1:*", items)
    assert status == "OK"
    found: dict[int, Row] = {}
    for item in data:
        if item is None:
            continue
        head, body = item if isinstance(item, tuple) else (item, b"")
        uid, flags, size = (
            re.search(pattern, head) for pattern in (rb"UID (\d+)", rb"FLAGS \(([^)]*)\)", rb"SIZE (\d+)")
        )
        if uid is None or flags is None or size is None:
            continue
        kept = frozenset(flag for flag in flags[1].decode().split() if flag != "\\Recent")
        found[int(uid[1])] = (kept, int(size[1]), hashlib.sha256(body).hexdigest())
    return found


def wait_until(claim: Callable[[], bool], *, within: float, what: str) -> float:
    """Wait until *claim* holds and return how long it took.

    There is a real server and a real process to wait for, so time is real; the pause is between questions.
    """
    begun = time.monotonic()
    pause = threading.Event()
    while not claim():
        assert time.monotonic() - begun < within, f"{what}: not within {within} s"
        pause.wait(0.1)
    return time.monotonic() - begun


Placed = tuple[str, str, frozenset[str]]


def replayed(events: Iterable[Mapping[str, Any]]) -> dict[str, Placed]:
    """Fold the log into (account, mailbox, flags) by message id; positions are 1, 2, 3, … and nothing is new twice."""
    live: dict[str, Placed] = {}
    for position, event in enumerate(events, start=1):
        assert event["position"] == position
        match event["type"]:
            case "message.new":
                assert event["id"] not in live, f"new twice: {event}"
                live[event["id"]] = (event["account"], event["mailbox"], frozenset(event["flags"]))
            case "message.flags" | "message.moved":
                live[event["id"]] = (event["account"], event["mailbox"], frozenset(event["flags"]))
            case "message.expunged":
                del live[event["id"]]
            case "mailbox.gone":
                place = (event["account"], event["mailbox"])
                live = {key: at for key, at in live.items() if at[:2] != place}
            case "mailbox.renamed":
                place, before = (event["account"], event["mailbox"]), (event["account"], event["mailbox_before"])
                assert all(at[:2] != place for at in live.values()), f"the name is taken: {event}"
                live = {key: (*place, at[2]) if at[:2] == before else at for key, at in live.items()}
    return live
