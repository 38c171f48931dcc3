"""The disk beneath a Maildir++. Everything here blocks: it is called in a thread.

A message is written to `tmp`, hardened (fsync), and only then renamed into `new` or `cur`, so that nobody ever sees
half of one; before what was done is reported, the folders that it was done in are hardened as well. Killed at any
instruction, what is left is a file in `tmp`, which `open` takes away, or work that was not reported and is done again.

Each folder holds a marker with its mailbox's name as the server spells it. A folder without one is somebody else's:
its files are never touched. In a folder of ours neither are those that are not called as ours are.
"""

import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from typing import Any, Final

from idlepush.errors import SinkFailed
from idlepush.sinks.line_ends import LineEnds
from idlepush.sinks.maildir_names import MessageFile, likely_names

ROOT_MARKER: Final = "idlepush-maildir"
MARKER: Final = "idlepush-mailbox"
PLACES: Final = ("new", "cur", "tmp")
PROBE_OCTETS: Final = 65536
"""What must be free before it is worth to compare and to begin again."""

# What Dovecot keeps of a folder's messages, and makes anew; a folder that goes takes it along.
_DERIVED: Final = ("dovecot.index", "dovecot-uidlist", "dovecot-keywords")


@dataclass(frozen=True, slots=True)
class Found:
    """A message's file, and where it is."""

    folder: str
    place: str
    file: MessageFile


@dataclass(frozen=True, slots=True)
class Staged:
    """A message that is whole in `tmp`, and what it will be."""

    tmp: Path
    goal: Found


class Tree:
    """The folders of one account beneath *root*."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._changed: set[Path] = set()
        """Directories whose entries changed and are not hardened."""

    # The Maildir as a whole

    def open(self, account: str) -> Mapping[str, Any]:
        """Make the Maildir ready, or make it; take away what a killed process left. Return what its marker says.

        Raises:
            SinkFailed: what is there is not ours to write in.
            OSError: the disk refuses.
        """
        marker = self._marker(account)
        _make(self.root, parents=True)
        for place in PLACES:
            _make(self.root / place)
        self._probe()
        for folder in ["", *self.folders().values()]:
            for name in _names(self.root / folder / "tmp"):
                if MessageFile.read(name) is not None or name.startswith("idlepush-"):
                    (self.root / folder / "tmp" / name).unlink(missing_ok=True)
        return marker

    def _marker(self, account: str) -> Mapping[str, Any]:
        try:
            entries = {entry.name for entry in self.root.iterdir()}
        except FileNotFoundError:
            return {}
        except NotADirectoryError:
            raise SinkFailed(f"{self.root} is not a folder: name another one for this account's Maildir") from None
        if ROOT_MARKER not in entries:
            # Some of a Maildir's own and nothing else is one that a killed process had begun.
            if not entries.issubset(PLACES) and not entries.issuperset(PLACES):
                raise SinkFailed(f"{self.root} is neither empty nor a Maildir: name another folder for this account")
            return {}
        try:
            marker = json.loads((self.root / ROOT_MARKER).read_bytes())
            owner = marker["account"]
        except (ValueError, KeyError, TypeError):
            raise SinkFailed(f"{self.root / ROOT_MARKER} cannot be read: remove it to have it written anew") from None
        if owner != account:
            raise SinkFailed(f"{self.root} is the Maildir of another account: name another folder for this one")
        return dict(marker)

    def mark(self, marker: Mapping[str, Any]) -> None:
        """Write down what the Maildir is."""
        self._write_small(self.root / ROOT_MARKER, json.dumps(marker).encode())

    def _probe(self) -> None:
        probe = self.root / "tmp" / "idlepush-probe"
        try:
            probe.write_bytes(bytes(PROBE_OCTETS))
        finally:
            probe.unlink(missing_ok=True)

    # Folders

    def folders(self) -> dict[bytes, str]:
        """Return the folders that carry a marker, by their mailbox's name as the server spells it."""
        found: dict[bytes, str] = {}
        for name in _names(self.root):
            if name.startswith("."):
                with suppress(OSError):
                    found[(self.root / name / MARKER).read_bytes()] = name
        return found

    def claim(self, folder: str, raw: bytes) -> bool:
        """Make the folder ready for a mailbox; False where it is another mailbox's."""
        at = self.root / folder
        _make(at)
        if folder:
            try:
                return (at / MARKER).read_bytes() == raw and self._complete(at)
            except FileNotFoundError:
                pass
        self._complete(at)
        if folder:
            # Maildir++ asks for this file, for MTAs; empty.
            (at / "maildirfolder").touch(0o600)
            self._write_small(at / MARKER, raw)
            self._changed.add(self.root)
        return True

    def _complete(self, at: Path) -> bool:
        for place in PLACES:
            _make(at / place)
        return True

    def rename(self, folder: str, goal: str, raw: bytes) -> bool:
        """Give a folder another name, and its mailbox; False where it is not there or the name is taken."""
        if not (self.root / folder).is_dir() or (self.root / goal).exists():
            return False
        (self.root / folder).rename(self.root / goal)
        self._write_small(self.root / goal / MARKER, raw)
        self._changed.add(self.root)
        return True

    def drop(self, folder: str) -> None:
        """Remove a folder of ours, unless there is anything in it that is somebody else's."""
        at = self.root / folder
        if not folder or not (at / MARKER).exists() or any(True for place in PLACES for _ in _names(at / place)):
            return
        kept = [name for name in _names(at) if name not in (*PLACES, MARKER, "maildirfolder")]
        if not all(name.startswith(_DERIVED) for name in kept):
            return
        # The marker last: a folder that is half removed is still known as ours.
        with suppress(OSError):  # somebody put something there just now
            for place in PLACES:
                (at / place).rmdir()
            for name in (*kept, "maildirfolder", MARKER):
                (at / name).unlink(missing_ok=True)
            at.rmdir()
        self._changed.add(self.root)

    # Messages

    def files(self, folder: str) -> Iterator[Found]:
        """Yield the folder's files that are called as ours are."""
        for place in ("new", "cur"):
            for name in _names(self.root / folder / place):
                file = MessageFile.read(name)
                if file is not None:
                    yield Found(folder, place, file)

    def count(self, folder: str) -> int:
        """Count the files of a folder, somebody else's too."""
        return sum(1 for place in ("new", "cur") for _ in _names(self.root / folder / place))

    def census(self, folder: str, is_wanted: Callable[[str], bool]) -> dict[str, list[Found]]:
        """Return the folder's files by id, those whose id is wanted."""
        by_id: dict[str, list[Found]] = {}
        for found in self.files(folder):
            if is_wanted(found.file.id):
                by_id.setdefault(found.file.id, []).append(found)
        return by_id

    def wipe(self) -> None:
        """Remove every message of ours."""
        for folder in ["", *self.folders().values()]:
            for found in [*self.files(folder)]:
                self.remove(found)
        self.harden()

    def guess(self, folder: str, file: MessageFile) -> Found | None:
        """Look for a message's file where it is likely to be, without reading the folder."""
        for place, name in likely_names(file):
            if os.path.lexists(self.root / folder / place / name):
                found = MessageFile.read(name)
                return None if found is None else Found(folder, place, found)
        return None

    def move(self, found: Found, goal: Found) -> bool:
        """Rename a message's file; False where it is gone: somebody renamed or removed it just now."""
        source, target = self.path(found), self.path(goal)
        try:
            source.rename(target)
        except FileNotFoundError:
            if source.exists() or not target.parent.is_dir():
                raise
            return False
        if goal.file.seconds != found.file.seconds:
            os.utime(target, (goal.file.seconds, goal.file.seconds))
        self._changed |= {source.parent, target.parent}
        return True

    def remove(self, found: Found) -> None:
        """Remove a message's file."""
        path = self.path(found)
        path.unlink(missing_ok=True)
        self._changed.add(path.parent)

    def tmp(self, folder: str, file: MessageFile) -> Path:
        """Where the message is written before it is whole."""
        return self.root / folder / "tmp" / f"{file.seconds}.{file.id}.idlepush"

    def path(self, found: Found) -> Path:
        """Where the file is."""
        return self.root / found.folder / found.place / found.file.name

    def publish(self, staged: Iterable[Staged]) -> None:
        """Show messages that are whole and hardened."""
        for one in staged:
            goal = self.path(one.goal)
            one.tmp.rename(goal)
            self._changed.add(goal.parent)

    def harden(self) -> None:
        """Return once all that was renamed and removed outlives a power cut."""
        changed, self._changed = self._changed, set()
        for directory in sorted(changed):
            with suppress(FileNotFoundError):  # it went, and its parent is among them
                harden_file(directory)

    # Inside

    def _write_small(self, path: Path, content: bytes) -> None:
        unfinished = self.root / "tmp" / f"idlepush-{path.name}"
        with unfinished.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        unfinished.rename(path)
        self._changed.add(path.parent)


class Pour:
    """A message on its way into `tmp`, piece by piece.

    Lines end in LF there, as all that reads Maildir expects, where that can be undone; *as_it_is* leaves every octet.
    """

    def __init__(self, tmp: Path, seconds: int, *, as_it_is: bool = False) -> None:
        self.tmp = tmp
        self.octets = 0
        """As they came."""
        self._seconds = seconds
        self._ends = None if as_it_is else LineEnds()
        self._file: FileIO | None = None

    def add(self, pieces: Iterable[bytes], *, last: bool) -> bool:
        """Write more of it; with *last* it is whole. False where line ends cannot be undone: begin again as it is."""
        is_done = True
        try:
            is_undoable = self._add(pieces)
            if last and is_undoable:
                is_undoable = self._ends is None or self._ends.is_over
            is_done = last or not is_undoable
            return is_undoable
        finally:
            if is_done:
                self.close()

    def _add(self, pieces: Iterable[bytes]) -> bool:
        if self._file is None:
            descriptor = os.open(self.tmp, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
            self._file = os.fdopen(descriptor, "wb", buffering=0)
        for piece in pieces:
            self.octets += len(piece)
            written = piece if self._ends is None else self._ends.turn(piece)
            if written is None:
                return False
            _write_all(self._file, written)
        return True

    def close(self) -> None:
        """Close the file, dated; a second time does nothing."""
        if self._file is not None:
            file, self._file = self._file, None
            with file:
                os.utime(file.fileno(), (self._seconds, self._seconds))

    def abandon(self) -> None:
        """Leave nothing of it."""
        self.close()
        self.tmp.unlink(missing_ok=True)


def _write_all(file: FileIO, octets: bytes) -> None:
    rest = memoryview(octets)
    while rest:
        rest = rest[file.write(rest) :]


def harden_files(paths: Iterable[Path]) -> None:
    """Return once all of the files' octets outlive a power cut."""
    for path in paths:
        harden_file(path)


def harden_file(path: Path) -> None:
    """Return once a file's octets, or a directory's entries, outlive a power cut."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _make(at: Path, *, parents: bool = False) -> None:
    if parents:
        at.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with suppress(FileExistsError):
        at.mkdir(mode=0o700)
        # An empty folder that is lost with the power is made anew, but not the files that were put into it.
        harden_file(at.parent)


def _names(at: Path) -> Iterator[str]:
    """Yield the names in a directory, none where there is none; never all of them in memory."""
    with suppress(FileNotFoundError), os.scandir(at) as entries:
        for entry in entries:
            yield entry.name
