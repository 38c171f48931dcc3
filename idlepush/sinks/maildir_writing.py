"""What one message of a Maildir asks for, and how a message gets there: from the store into `tmp`, and into sight.

Small messages are written many in one go to the disk's thread, in lanes side by side; a large one a slice at a time,
so that it is never in memory. All of a batch are hardened before the first of them is shown.
"""

from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Sequence
from contextlib import aclosing, suppress
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Final, TypeVar

import anyio
import anyio.to_thread

from idlepush.errors import IdlepushError, SinkFailed
from idlepush.sinks.maildir_files import Found, Pour, Staged, Tree, harden_files
from idlepush.sinks.maildir_names import MessageFile, letters_of, new_file
from idlepush.store.base import MessageRow, Reader

Result = TypeVar("Result")

BATCH: Final = 256
"""Messages that are written before the first of them is hardened, and hardened before the first is shown."""
SLICE: Final = 1024 * 1024
LANES: Final = 4
"""Messages that are written, and fsyncs that are waited for, at once: a disk does several times as many that way."""


@dataclass(slots=True)
class Task:
    """A message whose file is to agree with its row. `folder` is where it belongs, None: nowhere."""

    id: str
    row: MessageRow | None
    folder: str | None
    is_expected: bool = False
    places: set[str] = field(default_factory=set)
    """The folders where its file may be."""
    found: list[Found] = field(default_factory=list)


class Writing:
    """Writes messages from the store into a tree of folders."""

    def __init__(self, tree: Tree, store: Reader) -> None:
        self._tree = tree
        self._store = store

    async def write(self, tasks: Sequence[Task]) -> None:
        """Write the tasks' messages to where they belong.

        Raises:
            SinkFailed: the disk refuses.
            StoreError: the store does.
        """
        for first in range(0, len(tasks), BATCH):
            batch = tasks[first : first + BATCH]
            staged: list[Staged] = []
            await _side_by_side([partial(self._stage, batch[lane::LANES], staged) for lane in range(LANES)])
            paths = [one.tmp for one in staged]
            await _side_by_side([partial(self.disk, harden_files, paths[lane::LANES]) for lane in range(LANES)])
            await self.disk(self._tree.publish, staged)

    async def _stage(self, tasks: Sequence[Task], staged: list[Staged]) -> None:
        """Write messages into `tmp`, but for those that are not whole any more: what happened to them is an event."""
        small: list[tuple[Task, list[bytes]]] = []
        octets = 0
        for task in tasks:
            with suppress(KeyError):
                async with aclosing(self._slices(task.id)) as slices:
                    pieces, is_all = await anext(slices)
                if is_all:
                    small.append((task, pieces))
                    octets += sum(map(len, pieces))
                else:
                    staged.append(await self._stage_large(task))
            if octets >= SLICE:
                staged += await self.disk(self._stage_small, small)
                small, octets = [], 0
        staged += await self.disk(self._stage_small, small)

    def _stage_small(self, small: Sequence[tuple[Task, list[bytes]]]) -> list[Staged]:
        """Write messages that are in memory."""
        staged = []
        for task, pieces in small:
            pour = self._pour(task)
            if not pour.add(pieces, last=True):
                pour = self._pour(task, as_it_is=True)
                pour.add(pieces, last=True)
            staged.append(self._staged(task, pour))
        return staged

    async def _stage_large(self, task: Task) -> Staged:
        """Write a message that is never in memory as a whole.

        Raises:
            KeyError: it is not whole any more.
        """
        for as_it_is in (False, True):
            pour = self._pour(task, as_it_is=as_it_is)
            try:
                async for pieces, last in self._slices(task.id):
                    if not await self.disk(partial(pour.add, pieces, last=last)):
                        break
                else:
                    return self._staged(task, pour)
            except KeyError:
                await self.disk(pour.abandon)
                raise
            finally:
                pour.close()
        raise AssertionError("what is written as it is needs no second try")

    def _pour(self, task: Task, *, as_it_is: bool = False) -> Pour:
        assert task.row is not None
        assert task.folder is not None
        file = file_of(task.row)
        return Pour(self._tree.tmp(task.folder, file), file.seconds, as_it_is=as_it_is)

    def _staged(self, task: Task, pour: Pour) -> Staged:
        assert task.row is not None
        assert task.folder is not None
        file = replace(file_of(task.row), sizes=f",W={pour.octets}")
        return Staged(pour.tmp, Found(task.folder, "cur" if file.info else "new", file))

    async def _slices(self, id: str) -> AsyncGenerator[tuple[list[bytes], bool], None]:
        """Yield the raw message some pieces at a time, and whether they are the last; most come all at once."""
        pieces: list[bytes] = []
        octets = 0
        async for piece in self._store.raw(id):
            if octets >= SLICE:
                yield pieces, False
                pieces, octets = [], 0
            pieces.append(piece)
            octets += len(piece)
        yield pieces, True

    async def disk(self, do: Callable[..., Result], *given: Any, **named: Any) -> Result:
        """Do something with the disk, in a thread.

        Raises:
            SinkFailed: the disk refuses; the sentence says why.
        """
        try:
            return await anyio.to_thread.run_sync(partial(do, *given, **named))
        except OSError as error:
            reason = (error.strerror or "the system refuses").lower()
            raise SinkFailed(f"the Maildir {self._tree.root} cannot be written: {reason}") from error


async def _side_by_side(jobs: Iterable[Callable[[], Awaitable[object]]]) -> None:
    """Do them all at once; raise what the first raised that failed."""
    failed: list[IdlepushError] = []

    async def lane(job: Callable[[], Awaitable[object]]) -> None:
        try:
            await job()
        except IdlepushError as error:  # leaves as itself, not as a group of one
            failed.append(error)

    async with anyio.create_task_group() as tasks:
        for job in jobs:
            tasks.start_soon(lane, job)
    if failed:
        raise failed[0]


def seconds_of(row: MessageRow) -> int:
    moment = row.internal_date or row.date
    return 0 if moment is None else int(moment.timestamp())


def file_of(row: MessageRow) -> MessageFile:
    """Return the file of a message that has none yet."""
    return new_file(row.id, seconds_of(row), row.size, letters_of(row.flags))


def goal_of(task: Task, found: Found) -> Found:
    """Return where the file belongs and what it is called there, as its row is now."""
    assert task.row is not None
    assert task.folder is not None
    wanted = file_of(task.row)
    file, place = replace(found.file, seconds=wanted.seconds), found.place
    if wanted.letters or place == "cur":
        file, place = file.with_letters(wanted.letters), "cur"
    return Found(task.folder, place, file)


def agrees(task: Task) -> bool:
    """Whether there is nothing to do."""
    if task.folder is None or not task.found:
        return task.folder is None and not task.found
    return len(task.found) == 1 and goal_of(task, task.found[0]) == task.found[0]
