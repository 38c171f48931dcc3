"""Random histories of a mirror and its Maildir, with and without a mail reader that does what it likes to the files."""

import os
import random
from pathlib import Path

import pytest

from idlepush.imap.types import MailboxName, Uid
from idlepush.imap.uidset import UidSet
from idlepush.sinks.maildir import Maildir
from idlepush.store.memory import MemoryStore
from tests.sinks.holding import differences
from tests.store.making import INBOX, Clock, begin, changes, flags, message, rows

SEEDS = int(os.environ.get("IDLEPUSH_SEEDS", "8"))
MAILBOXES = tuple(MailboxName(name) for name in (b"INBOX", b"Work", b"Work/2026", b"v1.2"))
FLAGS = ("\\Seen", "\\Flagged", "\\Answered", "\\Deleted", "\\Draft", "work")


class History:
    """What happens to an account, drawn from a seed."""

    def __init__(self, seed: int, root: Path) -> None:
        self.dice = random.Random(seed)
        self.root = root
        self.store = MemoryStore(clock=Clock())
        self.uids = iter(range(1, 10_000))
        self.foreign: set[str] = set()

    def some(self, uids: UidSet) -> UidSet:
        return UidSet.from_uids(uid for uid in uids if self.dice.random() < 0.3)

    async def on_the_server(self) -> None:
        """One thing happens there, and is mirrored."""
        mailbox = self.dice.choice(MAILBOXES)
        mirrored = await self.store.mirror("alice", mailbox)
        if mirrored is None:
            await begin(self.store, mailbox=mailbox)
            return
        generation, there = mirrored.generation, await self.store.uids(mirrored.generation)
        match self.dice.randrange(10):
            case 0 | 1 | 2:
                new = tuple(
                    message(uid, flags=self.drawn_flags(), body=self.drawn_body(uid))
                    for uid in (next(self.uids) for _ in range(self.dice.randrange(1, 60)))
                )
                await self.store.commit(changes(generation, mailbox=mailbox, new=new))
            case 3 | 4 | 5:
                changed = {Uid(uid): self.drawn_flags() for uid in self.some(there)}
                await self.store.commit(changes(generation, mailbox=mailbox, flags=changed))
            case 6 | 7:
                await self.store.commit(changes(generation, mailbox=mailbox, expunged=self.some(there)))
            case 8 if mailbox != INBOX:
                await self.store.mailbox_renamed("alice", mailbox, self.dice.choice(MAILBOXES[1:]))
            case 9 if mailbox != INBOX:
                await self.store.mailbox_gone("alice", mailbox)
            case _:
                kept = [row.uid for row in await rows(self.store, "alice", mailbox=mailbox)]
                second = await begin(self.store, mailbox=mailbox, uidvalidity=self.dice.randrange(1000, 10**9))
                again = tuple(message(uid, flags=self.drawn_flags()) for uid in kept if self.dice.random() < 0.8)
                await self.store.commit(changes(second, mailbox=mailbox, new=again, forget_older=True))

    def drawn_flags(self) -> frozenset[str]:
        return flags(*self.dice.sample(FLAGS, self.dice.choice((0, 0, 1, 2))))

    def drawn_body(self, uid: int) -> bytes | None:
        return None if self.dice.random() < 0.1 else b"Subject: %d\r\n\r\nhello %d\r\n" % (uid, uid)

    def in_a_mail_reader(self) -> None:
        """Somebody reads mail, and now and then files something of their own."""
        for path in [*self.root.glob("**/new/*"), *self.root.glob("**/cur/*")]:
            chance = self.dice.random()
            if path.name in self.foreign or chance > 0.2:
                continue
            if chance < 0.02:
                path.unlink()
            elif chance < 0.04:
                name = f"{len(self.foreign)}.of.somebody.else:2,S"
                path.with_name(name).write_bytes(b"mine")
                self.foreign.add(name)
            else:
                letters = "".join(sorted(self.dice.sample("DFPRSTab", self.dice.randrange(4))))
                path.rename(path.parents[1] / "cur" / f"{path.name.partition(':')[0]}:2,{letters}")


@pytest.mark.parametrize("is_read", [False, True], ids=["nobody reads", "somebody reads"])
@pytest.mark.parametrize("seed", range(SEEDS))
async def test_after_a_random_history_the_maildir_is_the_mirrors_equal(
    seed: int, is_read: bool, tmp_path: Path
) -> None:
    history = History(seed, tmp_path / "mail")
    sink = Maildir(history.root, "alice", history.store)
    sink.learn("/")
    cursor = await sink.begin(await sink.first())
    for _ in range(40):
        await history.on_the_server()
        if is_read:
            history.in_a_mail_reader()
        match history.dice.randrange(6):
            case 0:
                continue  # it is told of several things at once
            case 1:
                sink = Maildir(history.root, "alice", history.store)
                cursor = await sink.begin(cursor)
            case _:
                events = await history.store.events(max(0, cursor - history.dice.choice((0, 0, 3))))
                await sink.take(events)
                cursor = await history.store.position()
        if not is_read:
            assert await differences(history.store, history.root) == []
    sink = Maildir(history.root, "alice", history.store)
    await sink.begin(cursor)
    assert await differences(history.store, history.root) == []
    kept = [path for path in history.root.rglob("*.of.somebody.else*") if path.read_bytes() == b"mine"]
    assert sorted(path.name for path in kept) == sorted(history.foreign)
