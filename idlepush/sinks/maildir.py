"""Maildir: a live Maildir++ beside the mirror, which mutt, notmuch and Dovecot read.

    event ──▶ which message ──▶ its row, as it is now ──▶ its file, made to agree: written, renamed or removed
    begin ──▶ every row against every file: what a crash, a full disk or a stranger left behind is put right

An event is a hint here: what is done is decided by the row (`design.md`, rule 1), so that an event seen twice, or
late, does no harm, and the end is the same wherever this is cut. A mirror goes one way: what a mail reader does to a
file is undone when the message changes next on its server, and when the service starts; files that are not called as
ours are, and folders we did not make, are left alone.

A message is a file from when it is whole; one that is mirrored by its headers alone, or truncated, is none.
One without a flag arrives in `new`; a reader moves it to `cur`, as does the first flag, and there it stays.
"""

import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Final, TypeVar

import anyio
import anyio.to_thread

from idlepush.errors import SinkFailed
from idlepush.imap.types import MailboxName
from idlepush.sinks.maildir_files import Found, Tree
from idlepush.sinks.maildir_names import folder_apart, folder_of
from idlepush.sinks.maildir_writing import BATCH, Task, Writing, agrees, file_of, goal_of
from idlepush.store.base import MessageRow, Reader
from idlepush.sync.events import Event, EventType

Result = TypeVar("Result")

AT_ONCE: Final = 100_000
"""Files of a folder that are compared at once; more are compared in several goes, so that memory stays bounded."""
FEW: Final = 32
"""So many messages are looked for where they are likely to be; for more the folder is read."""

_OF_MESSAGES: Final = frozenset(
    {
        EventType.MESSAGE_NEW,
        EventType.MESSAGE_BODY,
        EventType.MESSAGE_FLAGS,
        EventType.MESSAGE_MOVED,
        EventType.MESSAGE_EXPUNGED,
    }
)
_OF_MAILBOXES: Final = frozenset({EventType.MAILBOX_NEW, EventType.MAILBOX_GONE, EventType.MAILBOX_RENAMED})
# Before these there was no file.
_FIRST: Final = frozenset({EventType.MESSAGE_NEW, EventType.MESSAGE_BODY})


@dataclass(slots=True)
class _Hints:
    """Where a message's file may be, by the mailboxes that its events named."""

    mailboxes: set[str] = field(default_factory=set)
    is_expected: bool = False
    """An event says that there was one."""


class Maildir:
    """The Maildir of one account: a `Sink`."""

    name: Final = "maildir"

    def __init__(self, path: Path, account: str, store: Reader) -> None:
        self.account = account
        self._tree = Tree(path)
        self._writing = Writing(self._tree, store)
        self._disk = self._writing.disk
        self._store = store
        self._delimiter: str | None = None
        self._delimiter_known = anyio.Event()
        self._named_by: tuple[str | None] | None = None
        """The delimiter that the folders are named by, once they are."""
        self._folders: dict[MailboxName, str] = {}
        self._live: dict[str, list[MailboxName]] = {}
        """The mailboxes there are, by their name in Unicode: what rows and events tell. Of two that are not decodable
        it may be the same."""

    def learn(self, delimiter: str | None) -> None:
        """Take note of what the server separates the levels of a mailbox's name by, None where it has no levels.

        Nothing is written before this is known; it is kept in the Maildir, for the next start.
        """
        self._delimiter = delimiter
        self._delimiter_known.set()

    # What a sink does

    async def first(self) -> int:
        """See `Sink.first`. Files of ours that are there already are of another store: its ids are not ours."""
        # Waiting for the server means that it is there to give again what is taken away here.
        await self._delimiter_known.wait()
        await self._disk(self._tree.open, self.account)
        await self._disk(self._tree.wipe)
        return 0

    async def begin(self, cursor: int) -> int:  # noqa: ARG002 - it compares, whatever was delivered before
        """See `Sink.begin`. Every row is held against every file."""
        marker = await self._disk(self._tree.open, self.account)
        if "delimiter" in marker and not self._delimiter_known.is_set():
            self.learn(marker["delimiter"])
        await self._delimiter_known.wait()

        position = await self._store.position()
        await self._arrange()
        # What is in folders of mailboxes that are no more goes first where it belongs: it need not be written again.
        for raw, folder in (await self._disk(self._tree.folders)).items():
            if MailboxName(raw) not in self._folders:
                await self._clear(folder)
        for mailbox in self._mailboxes:
            await self._compare(mailbox)
        await self._disk(self._tree.harden)
        return position

    async def take(self, events: Sequence[Event]) -> None:
        """See `Sink.take`. The files of the events' messages are made to agree with their rows."""
        if self._named_by != (self._delimiter,):
            await self._arrange()
        pending: dict[str, _Hints] = {}
        for event in events:
            if event.type in _OF_MESSAGES and event.id is not None:
                hints = pending.setdefault(event.id, _Hints())
                hints.mailboxes |= {str(event.mailbox), str(event.details.get("mailbox_before", event.mailbox))}
                hints.is_expected |= event.type not in _FIRST
            elif event.type in _OF_MAILBOXES:
                await self._settle(pending)
                pending = {}
                await self._follow_mailbox(event)
        await self._settle(pending)
        await self._disk(self._tree.harden)

    # Mailboxes

    @property
    def _mailboxes(self) -> list[MailboxName]:
        return [mailbox for alike in self._live.values() for mailbox in alike]

    async def _list(self) -> None:
        self._live = {}
        for row in await self._store.mailboxes(self.account):
            if row.uidvalidity is not None:
                self._live.setdefault(row.name, []).append(MailboxName(row.raw))

    async def _arrange(self) -> None:
        """Name every mailbox's folder by the delimiter, and write that down."""
        await self._list()
        self._folders.clear()
        present = await self._disk(self._tree.folders)
        for mailbox in self._mailboxes:
            before = present.get(mailbox.raw)
            if before is not None and before not in self._names_for(mailbox):
                await self._disk(self._tree.rename, before, self._names_for(mailbox)[0], mailbox.raw)
            await self._folder(mailbox)
        await self._disk(self._tree.mark, {"account": self.account, "delimiter": self._delimiter})
        self._named_by = (self._delimiter,)

    def _names_for(self, mailbox: MailboxName) -> tuple[str, str]:
        return folder_of(mailbox, self._delimiter), folder_apart(mailbox, self._delimiter)

    async def _folder(self, mailbox: MailboxName) -> str:
        """Return the mailbox's folder, which is there from here on."""
        folder = self._folders.get(mailbox)
        if folder is not None:
            return folder
        for name in self._names_for(mailbox):
            if await self._disk(self._tree.claim, name, mailbox.raw):
                self._folders[mailbox] = name
                return name
        raise SinkFailed(f"{self._tree.root}: the folder of {mailbox} is another mailbox's")

    async def _follow_mailbox(self, event: Event) -> None:
        await self._list()
        after, before = str(event.mailbox), str(event.details.get("mailbox_before", event.mailbox))
        if event.type is EventType.MAILBOX_RENAMED:
            goal = self._live.get(after, [MailboxName.from_text(after)])[0]
            for mailbox in self._known(before):
                await self._rename(mailbox, goal)
        for mailbox in {*self._known(after), *self._live.get(after, ())}:
            if mailbox in self._live.get(after, ()):
                await self._compare(mailbox)
            elif mailbox.text not in self._live:
                await self._clear(self._folders.pop(mailbox))

    def _known(self, text: str) -> list[MailboxName]:
        return [mailbox for mailbox in self._folders if mailbox.text == text]

    async def _rename(self, mailbox: MailboxName, goal: MailboxName) -> None:
        before, name = self._folders.pop(mailbox), self._names_for(goal)[0]
        if before and goal not in self._folders and await self._disk(self._tree.rename, before, name, goal.raw):
            self._folders[goal] = name
        else:
            await self._clear(before)

    # Comparing

    async def _compare(self, mailbox: MailboxName) -> None:
        """Make a folder's files agree with the mailbox's rows."""
        folder = await self._folder(mailbox)
        shares = 1 + await self._disk(self._tree.count, folder) // AT_ONCE
        for share in range(shares):
            found = await self._disk(self._tree.census, folder, partial(_is_of, share, shares))
            tasks: list[Task] = []
            async for row in self._store.messages(self.account, mailbox):
                if not _is_of(share, shares, row.id):
                    continue
                task = Task(row.id, row, folder if row.sha256 else None, found=found.pop(row.id, []))
                if not agrees(task):
                    tasks.append(task)
                if len(tasks) >= BATCH:
                    await self._apply(tasks)
                    tasks = []
            await self._apply(tasks)
            await self._resettle(found)

    async def _clear(self, folder: str) -> None:
        """Leave none of our messages in a folder whose mailbox is not there any more, nor the folder."""
        shares = 1 + await self._disk(self._tree.count, folder) // AT_ONCE
        for share in range(shares):
            await self._resettle(await self._disk(self._tree.census, folder, partial(_is_of, share, shares)))
        await self._disk(self._tree.drop, folder)

    async def _resettle(self, found: Mapping[str, list[Found]]) -> None:
        """Bring files to where their messages are now; those of no message at all are removed."""
        strays = list(found.items())
        for first in range(0, len(strays), BATCH):
            tasks = [await self._task(which, there) for which, there in strays[first : first + BATCH]]
            await self._disk(self._look_ahead, tasks)
            await self._apply([task for task in tasks if not agrees(task)])

    def _look_ahead(self, tasks: Iterable[Task]) -> None:
        """Find the files that are where they belong already: they stay, and the strays go."""
        for task in tasks:
            if task.row is not None and task.folder not in {None, *(found.folder for found in task.found)}:
                there = self._tree.guess(str(task.folder), file_of(task.row))
                task.found = [*([] if there is None else [there]), *task.found]

    # Following

    async def _settle(self, pending: Mapping[str, _Hints]) -> None:
        """Make these messages' files agree with their rows, as they are now."""
        ids = list(pending)
        for first in range(0, len(ids), BATCH):
            tasks = [await self._task(which, []) for which in ids[first : first + BATCH]]
            folders: dict[str, set[str]] = {}
            for mailbox, folder in self._folders.items():
                folders.setdefault(mailbox.text, set()).add(folder)
            for task in tasks:
                hints = pending[task.id]
                task.is_expected = hints.is_expected
                task.places = set[str]().union(*(folders.get(text, ()) for text in hints.mailboxes))
                if task.folder is not None:
                    task.places.add(task.folder)
                if task.row is not None and task.row.mailbox not in hints.mailboxes:
                    # Its mailbox has another name by now, of which later events tell: it may be in any folder.
                    task.places.update(self._folders.values())
            await self._disk(self._locate, tasks)
            await self._apply([task for task in tasks if not agrees(task)])

    async def _task(self, id: str, found: list[Found]) -> Task:
        row = await self._store.message(id)
        folder = None
        if row is not None and row.expunged is None and row.sha256 is not None and row.account == self.account:
            mailbox = await self._mailbox_of(row)
            folder = None if mailbox is None else await self._folder(mailbox)
        return Task(id, row, folder, found=found)

    async def _mailbox_of(self, row: MessageRow) -> MailboxName | None:
        if row.mailbox not in self._live:
            await self._list()
        alike = self._live.get(row.mailbox, [])
        if len(alike) > 1:
            for mailbox in alike:
                found = await self._store.find(self.account, mailbox, row.uid)
                if found is not None and found.id == row.id:
                    return mailbox
        return alike[0] if alike else None

    def _locate(self, tasks: Sequence[Task]) -> None:
        """Find the tasks' files: a few by guessing, many and those that are not where they should be by reading."""
        if len(tasks) <= FEW:
            for task in tasks:
                if task.row is not None and task.row.sha256 is not None:
                    guesses = [self._tree.guess(folder, file_of(task.row)) for folder in sorted(task.places)]
                    task.found = [guess for guess in guesses if guess is not None]
        if len(tasks) > FEW or any(_should_be_there(task) and not task.found for task in tasks):
            self._read(tasks)

    def _read(self, tasks: Sequence[Task]) -> None:
        """Find the tasks' files by reading the folders where they may be."""
        wanted = {task.id: task for task in tasks}
        for task in tasks:
            task.found = []
        for folder in sorted(set[str]().union(*(task.places for task in tasks))):
            for found in self._tree.files(folder):
                if found.file.id in wanted:
                    wanted[found.file.id].found.append(found)

    # Doing

    async def _apply(self, tasks: Sequence[Task]) -> None:
        """Write, rename and remove what the tasks ask for."""
        if not tasks:
            return
        lost = await self._disk(self._shift, tasks)
        if lost:
            # A mail reader renamed them just now.
            for task in lost:
                task.places |= {found.folder for found in task.found}
            await self._disk(self._read, lost)
            await self._disk(self._shift, lost)
        await self._writing.write([task for task in tasks if task.folder is not None and not task.found])
        await self._disk(self._tree.harden)

    def _shift(self, tasks: Iterable[Task]) -> list[Task]:
        """Rename and remove; return the tasks whose files were not where they were found."""
        lost: list[Task] = []
        for task in tasks:
            keep = None if task.folder is None or not task.found else task.found[0]
            for found in task.found:
                if found is not keep:
                    self._tree.remove(found)
            if keep is not None and (goal := goal_of(task, keep)) != keep and not self._tree.move(keep, goal):
                lost.append(task)
        return lost


def _is_of(share: int, shares: int, id: str) -> bool:
    return zlib.crc32(id.encode()) % shares == share


def _should_be_there(task: Task) -> bool:
    """Whether the file cannot be missing, so that it is worth to read a folder for it."""
    return task.is_expected and (task.row is None or task.row.sha256 is not None)
