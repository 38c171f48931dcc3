"""One random history over the plain store and the SQL one: no reader can tell which is which."""

import asyncio
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from idlepush.errors import StaleGeneration
from idlepush.imap.types import MailboxName, ModSeq, Uid
from idlepush.imap.uidset import UidSet
from idlepush.store.base import AccountRow, Committed, Store, Sweep
from idlepush.store.memory import MemoryStore
from idlepush.store.sqlite import open_store
from idlepush.sync.changes import ChangeSet, NewMessage
from idlepush.sync.checkpoint import Hole, Quarantine
from idlepush.sync.content import Attachment
from idlepush.sync.events import DETAILS, FoundBy
from idlepush.sync.query import read_query
from tests.store.making import (
    INBOX,
    START,
    Clock,
    all_events,
    beginning,
    changes,
    message,
    part,
    raw,
    replayed,
    rows,
    shown_alike,
)

MAILBOXES = (("alice", INBOX), ("alice", MailboxName(b"A&-B")), ("alice", MailboxName(b"C")), ("bob", INBOX))
MAIL = "Subject: Bericht\r\nCc: Carol <c@example.org>\r\n\r\nGrüße aus 東京".encode()
ATTACHED = (Attachment("Plan.pdf", "application/pdf", 7), Attachment(None, "image/png", 1, "<a@b>", inline=True))
BODIES = (b"a", b"a" * 300_000, b"ab" * 5, b"\x00", MAIL)
QUERIES = tuple(
    read_query(typed)
    for typed in (
        "",
        "is:unread",
        "in:INBOX -is:draft",
        "after:2024-05-01",
        "before:2024-05-01 grusse",
        "grus",
        '"grusse aus"',
        "東京",
        "-bericht",
        "subject:grusse -to:carol",
        "zoe bob",
        "has:attachment",
        "filename:plan",
        "-has:attachment from:example.org",
        "!",
    )
)

# Few of everything, so that what happens happens to the same UIDs, fingerprints and bodies.
uids = st.integers(1, 7).map(Uid)
uid_sets = st.lists(uids, max_size=3).map(UidSet.from_uids)
some_flags = st.frozensets(st.sampled_from(["\\Seen", "\\Draft", "work", "Work"]), max_size=2)
mailboxes = st.sampled_from(MAILBOXES)
names = st.sampled_from([name for account, name in MAILBOXES if account == "alice"])


@st.composite
def messages(draw: st.DrawFn) -> NewMessage:
    body = draw(st.none() | st.sampled_from(BODIES))
    whole = draw(st.booleans())
    return message(
        draw(uids),
        body if whole or body is None else body[: len(body) // 2],
        complete=whole,
        truncated=draw(st.booleans()) and body is None and whole,
        flags=draw(some_flags),
        fingerprint=draw(st.sampled_from([b"f", b"g"])),
        size=draw(st.sampled_from([1, 2])),
        internal_date=draw(st.sampled_from([None, START, START + timedelta(hours=1)])),
        found_by=draw(st.sampled_from(FoundBy)),
        initial=draw(st.booleans()),
        modseq=draw(st.none() | st.just(ModSeq(5))),
        attachments=ATTACHED if body is None and draw(st.booleans()) else (),
    )


@st.composite
def holes(draw: st.DrawFn) -> Hole:
    first = draw(uids)
    return Hole(first, Uid(first + draw(st.integers(0, 3))), draw(st.sampled_from(FoundBy)))


@dataclass(frozen=True)
class Change:
    """A change set for whatever generation is current when its turn comes, or for a stale one."""

    mailbox: tuple[str, MailboxName]
    begins: int | None
    is_stale: bool
    given: dict[str, Any]

    def made(self, current: int | None) -> ChangeSet:
        begin = None if self.begins is None else beginning(self.begins, 8, Hole(Uid(1), Uid(7), FoundBy.BACKFILL))
        return changes(99 if self.is_stale else current, *self.mailbox, begin=begin, **self.given)


@st.composite
def change_sets(draw: st.DrawFn) -> Change:
    slices = [
        part(draw(uids), origin, draw(st.sampled_from([b"", b"a", b"ab"])), final=draw(st.booleans()))
        for origin in draw(st.lists(st.sampled_from([0, 1, 5, 6, 150_000]), max_size=3))
    ]
    return Change(
        draw(mailboxes),
        draw(st.none() | st.integers(1, 2)),
        draw(st.integers(0, 9)) == 0,
        {
            "new": tuple(draw(st.lists(messages(), max_size=4))),
            "replaced": tuple(draw(st.lists(messages(), max_size=1))),
            "slices": tuple(slices),
            "flags": draw(st.dictionaries(uids, some_flags, max_size=2)),
            "expunged": draw(uid_sets),
            "quarantined": draw(
                st.dictionaries(uids, st.builds(Quarantine, st.text(max_size=3), uids, st.just(START)))
            ),
            "released": draw(uid_sets),
            "accounted": draw(uid_sets),
            "holes": tuple(draw(st.lists(holes(), max_size=2))),
            "high": draw(st.none() | uids),
            "rewind": draw(st.booleans()),
            "modseq": draw(st.none() | st.integers(1, 9).map(ModSeq)),
            "forget_older": draw(st.integers(0, 4)) == 0,
            "looked_at": draw(st.none() | st.just(START)),
            "audited_at": draw(st.none() | st.just(START)),
            "urgent": draw(st.booleans()),
        },
    )


@dataclass(frozen=True)
class Gone:
    mailbox: tuple[str, MailboxName]
    state: str


@dataclass(frozen=True)
class Renamed:
    before: MailboxName
    after: MailboxName


@dataclass(frozen=True)
class Noted:
    mailbox: tuple[str, MailboxName]
    state: str | None
    object_id: str | None


@dataclass(frozen=True)
class Index:
    """What searches go by is brought up to the rows in between, too."""


@dataclass(frozen=True)
class Purge:
    account: str


moments = st.none() | st.integers(0, 40).map(lambda minutes: START + timedelta(minutes=minutes))
steps = st.one_of(
    change_sets(),
    change_sets(),
    change_sets(),
    change_sets(),
    change_sets(),
    st.builds(Gone, mailboxes, st.sampled_from(["gone", "unselectable"])),
    st.builds(Renamed, names, names),
    st.builds(Noted, mailboxes, st.sampled_from([None, "ok", "unselectable"]), st.sampled_from([None, "F1", "F2"])),
    st.builds(
        AccountRow,
        name=st.sampled_from(["alice", "bob"]),
        state=st.sampled_from(["watching", "parked"]),
        since=st.just(START),
        reason=st.none() | st.text(max_size=3),
        details=st.dictionaries(st.text(max_size=2), st.none() | st.booleans(), max_size=1),
    ),
    st.builds(Sweep, bodies_before=moments, rows_before=moments),
    st.builds(Index),
    st.builds(Purge, st.sampled_from(["alice", "bob"])),
)
Step = Change | Gone | Renamed | Noted | AccountRow | Sweep | Index | Purge


async def take(store: Store, step: Step) -> Committed | str | None:
    """Do it; a change set twice, since the second time must tell nothing."""
    match step:
        case Change():
            current = await store.mirror(*step.mailbox)
            change = step.made(current.generation if current else None)
            try:
                committed = await store.commit(change)
            except StaleGeneration as error:
                return str(error)
            if step.begins is None and all(message.complete for message in change.replaced):
                before = await rows(store), await rows(store, expunged=True)
                again = await store.commit(change)
                assert again == Committed(position=committed.position)
                assert (await rows(store), await rows(store, expunged=True)) == before
            return committed
        case Gone():
            await store.mailbox_gone(*step.mailbox, state=step.state)
        case Renamed():
            await store.mailbox_renamed("alice", step.before, step.after)
        case Noted():
            await store.note_mailbox(*step.mailbox, state=step.state, object_id=step.object_id)
        case AccountRow():
            await store.set_account(step)
        case Sweep():
            await store.sweep(step)
        case Index():
            await store.index()
        case Purge():
            await store.purge(step.account)
    return None


async def seen(store: Store) -> dict[str, Any]:
    """All that can be asked of a store."""
    await store.index()
    live, gone = await rows(store), await rows(store, expunged=True)
    mirrors = {mailbox: await store.mirror(*mailbox) for mailbox in MAILBOXES}
    generations = [one.generation for one in mirrors.values() if one]
    return {
        "live": live,
        "gone": gone,
        "found": [await rows(store, account, query=query) for query in QUERIES for account in (None, "alice", "bob")],
        "newest": [await rows(store, "alice", newest=True), await rows(store, newest=True, expunged=True)],
        "raw": {one.id: await _raw_or_none(store, one.id) for one in [*live, *gone]},
        "events": await all_events(store),
        "accounts": await store.accounts(),
        "mailboxes": await store.mailboxes(),
        "mirrors": mirrors,
        "uids": [await store.uids(one) for one in generations],
        "flags": [await store.flags(one, 2, 6) for one in generations],
        "sizes": [await store.sizes(one, 2, 6) for one in generations],
    }


async def _raw_or_none(store: Store, id: str) -> bytes | None:
    try:
        return await raw(store, id)
    except KeyError:
        return None


async def live_through(steps: Sequence[Step], path: Path) -> None:
    clock = Clock()
    memory = MemoryStore(clock=clock)
    async with open_store(path, clock=clock) as sqlite:
        for step in steps:
            clock.pass_by(minutes=1)
            position = await memory.position()
            assert await take(memory, step) == await take(sqlite, step)
            # A purge takes rows away without an event: from there on the log tells of more than there is.
            assert await sqlite.position() >= position
        plain, real = await seen(memory), await seen(sqlite)

    for what, shown in plain.items():
        assert (what, real[what]) == (what, shown)
    assert [one.position for one in real["events"]] == list(range(1, len(real["events"]) + 1))
    assert all(frozenset(one.details) == DETAILS[one.type] for one in real["events"])
    if not any(isinstance(step, Purge) for step in steps):
        assert replayed(real["events"]) == {one.id: shown_alike(one) for one in real["live"]}


@settings(max_examples=80, deadline=None)
@given(st.lists(steps, max_size=25))
def test_both_stores_live_through_any_history_alike_and_the_log_replays_it(steps: list[Step]) -> None:
    with tempfile.TemporaryDirectory() as directory:
        asyncio.run(live_through(steps, Path(directory) / "mirror.db"))
