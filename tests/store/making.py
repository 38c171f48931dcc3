"""Change sets and messages for the stores' tests: short to write, whole where it does not matter."""

import hashlib
from collections.abc import AsyncIterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from idlepush.imap.types import Flags, MailboxName, ModSeq, Uid, UidValidity
from idlepush.store.base import MessageRow, Mirror, Reader, Store
from idlepush.sync.changes import Begin, BodySlice, ChangeSet, NewMessage
from idlepush.sync.checkpoint import Hole
from idlepush.sync.events import Event, EventType, FoundBy
from idlepush.sync.message import Address, Headers

INBOX = MailboxName(b"INBOX")
START = datetime(2024, 5, 1, 12, 0, tzinfo=UTC)


class Clock:
    """A moment that moves when it is told to."""

    def __init__(self) -> None:
        self.now = START

    def __call__(self) -> datetime:
        return self.now

    def pass_by(self, **span: float) -> datetime:
        self.now += timedelta(**span)
        return self.now


def flags(*spelled: str) -> Flags:
    return frozenset(spelled)


def hole(first: int, last: int, found_by: FoundBy = FoundBy.BACKFILL) -> Hole:
    return Hole(Uid(first), Uid(last), found_by)


def message(uid: int, body: bytes | None = b"", **given: Any) -> NewMessage:
    """A message whose body and fingerprint tell its UID unless given."""
    body = b"Subject: %d\r\n\r\nhello %d\r\n" % (uid, uid) if body == b"" else body
    fields: dict[str, Any] = {
        "flags": flags(),
        "internal_date": START - timedelta(days=1) + timedelta(minutes=uid % 1000),
        "size": 100 + uid % 1000 if body is None else len(body),
        "headers": Headers(
            message_id=f"<{uid}@example.org>",
            subject=f"Grüße {uid}",
            sender=(Address("Zoë", "zoe@example.org"), Address(None, "a@example.org")),
            to=(Address("Bob", None),),
            date=START - timedelta(days=2),
        ),
        "fingerprint": hashlib.sha256(b"%d" % uid).digest(),
        "found_by": FoundBy.PUSH,
        "initial": False,
        **given,
    }
    return NewMessage(uid=Uid(uid), body=body, **fields)


def part(uid: int, origin: int, data: bytes, *, final: bool = False) -> BodySlice:
    return BodySlice(uid=Uid(uid), origin=origin, data=data, final=final)


def changes(generation: int | None, account: str = "alice", mailbox: MailboxName = INBOX, **given: Any) -> ChangeSet:
    return ChangeSet(account=account, mailbox=mailbox, generation=generation, **given)


def beginning(uidvalidity: int = 7, high: int = 1, *holes: Hole, modseq: int | None = None) -> Begin:
    return Begin(
        uidvalidity=UidValidity(uidvalidity),
        high=Uid(high),
        holes=holes,
        modseq=None if modseq is None else ModSeq(modseq),
    )


async def begin(
    store: Store, account: str = "alice", mailbox: MailboxName = INBOX, uidvalidity: int = 7, *holes: Hole
) -> int:
    """Begin a generation, the first or the next one; return its id."""
    before = await store.mirror(account, mailbox)
    high = max((one.last + 1 for one in holes), default=1)
    await store.commit(
        changes(before.generation if before else None, account, mailbox, begin=beginning(uidvalidity, high, *holes))
    )
    return (await mirror(store, account, mailbox)).generation


async def mirror(store: Reader, account: str = "alice", mailbox: MailboxName = INBOX) -> Mirror:
    found = await store.mirror(account, mailbox)
    assert found is not None
    return found


async def row(store: Reader, uid: int, account: str = "alice", mailbox: MailboxName = INBOX) -> MessageRow:
    found = await store.find(account, mailbox, uid)
    assert found is not None
    return found


async def rows(store: Reader, account: str | None = None, **given: Any) -> list[MessageRow]:
    return [one async for one in store.messages(account, **given)]


async def raw(store: Reader, id: str) -> bytes:
    return b"".join([piece async for piece in store.raw(id)])


async def all_events(store: Reader) -> list[Event]:
    found: list[Event] = []
    while page := await store.events(found[-1].position if found else 0, limit=97):
        found += page
    return found


async def told(store: Reader, after: int = 0) -> list[EventType]:
    return [event.type for event in await store.events(after)]


async def first_of(pieces: AsyncIterator[bytes]) -> bytes:
    return await anext(pieces)


def replayed(events: list[Event]) -> Mapping[str, tuple[str, str, int, int, tuple[str, ...], bool]]:
    """The live rows that the log alone tells of: by id, where each is, its flags, and whether it is whole."""
    live: dict[str, tuple[str, str, int, int, tuple[str, ...], bool]] = {}
    for event in events:
        match event.type, event.id:
            case EventType.MESSAGE_NEW | EventType.MESSAGE_MOVED, str(id):
                assert event.mailbox is not None and event.uidvalidity is not None and event.uid is not None
                whole = bool(event.details["complete"]) if "complete" in event.details else live[id][5]
                live[id] = event.account, event.mailbox, event.uidvalidity, event.uid, _flags_of(event), whole
            case EventType.MESSAGE_FLAGS, str(id):
                live[id] = (*live[id][:4], _flags_of(event), live[id][5])
            case EventType.MESSAGE_BODY, str(id):
                live[id] = (*live[id][:5], bool(event.details["complete"]))
            case EventType.MESSAGE_EXPUNGED, str(id):
                del live[id]
            case EventType.MAILBOX_GONE, _:
                live = {name: one for name, one in live.items() if one[:2] != (event.account, event.mailbox)}
            case EventType.MAILBOX_RENAMED, _:
                moved = (event.account, event.details["mailbox_before"])
                assert event.mailbox is not None
                assert all(one[:2] != (event.account, event.mailbox) for one in live.values()), "the name is taken"
                live = {
                    name: (one[0], event.mailbox, *one[2:]) if one[:2] == moved else one for name, one in live.items()
                }
            case _:
                pass
    return live


def shown_alike(row: MessageRow) -> tuple[str, str, int, int, tuple[str, ...], bool]:
    """What of a row the log tells too."""
    return row.account, row.mailbox, row.uidvalidity, row.uid, row.flags, row.complete


def _flags_of(event: Event) -> tuple[str, ...]:
    spelled = event.details["flags"]
    assert isinstance(spelled, list)
    return tuple(str(flag) for flag in spelled)
