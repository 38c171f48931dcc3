"""Hold a mirror against its server, mailbox by mailbox, without touching either.

The server is read first, then the store. A service may be running beside: what it was just about to mirror would look
like a difference, so what differs is looked at again until it has stood for a while.
"""

import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import anyio

from idlepush.engine.login import choose_mailboxes, log_in
from idlepush.engine.session import LONG_SLICE, SLICE, Session
from idlepush.engine.settings import AccountSettings
from idlepush.errors import MailboxUnavailable, StoreError
from idlepush.imap.responses import Fetch
from idlepush.imap.types import MAX_UID, MailboxName, Uid, same_flags
from idlepush.imap.uidset import UidSet
from idlepush.store.base import MessageRow, Reader
from idlepush.sync.events import Json

_LOOKS: Final = 4
_PAUSE: Final = 1.5
_WINDOW: Final = 500
_PATIENCE: Final = 60.0
"""Seconds that a repair may take beyond the look it begins with."""

Repair = Callable[[Session, MailboxName, UidSet], Awaitable[None]]
"""Have a mailbox's mirror repaired, and these of its messages fetched anew; it may still be on its way on return."""


@dataclass(slots=True)
class Differences:
    """What differs in one mailbox, as UIDs: on the server and not here, here and not there, and with other content."""

    account: str
    mailbox: str
    missing: set[int] = field(default_factory=set)
    extra: set[int] = field(default_factory=set)
    flags: set[int] = field(default_factory=set)
    sizes: set[int] = field(default_factory=set)
    bodies: set[int] = field(default_factory=set)
    repaired: set[int] = field(default_factory=set)

    def __bool__(self) -> bool:
        return bool(self.uids)

    @property
    def uids(self) -> set[int]:
        """Every UID that differs in anything."""
        return self.missing | self.extra | self.flags | self.sizes | self.bodies

    @property
    def damaged(self) -> UidSet:
        """What is mirrored otherwise than it is, and has to be fetched once more."""
        return UidSet.from_uids(self.sizes | self.bodies)

    @property
    def left(self) -> set[int]:
        """What differs still."""
        return self.uids - self.repaired

    def still(self, later: "Differences") -> "Differences":
        """Return what differs in both looks."""
        return Differences(
            self.account,
            self.mailbox,
            self.missing & later.missing,
            self.extra & later.extra,
            self.flags & later.flags,
            self.sizes & later.sizes,
            self.bodies & later.bodies,
        )

    def record(self) -> dict[str, Json]:
        """The line that `verify --json` prints."""
        return {
            "account": self.account,
            "mailbox": self.mailbox,
            "missing": [*sorted(self.missing)],
            "extra": [*sorted(self.extra)],
            "flags": [*sorted(self.flags)],
            "sizes": [*sorted(self.sizes)],
            "bodies": [*sorted(self.bodies)],
            "repaired": [*sorted(self.repaired)],
        }


async def verify(session: Session, reader: Reader, account: str, mailbox: MailboxName, *, deep: bool) -> Differences:
    """Compare one mailbox; with *deep* every body's bytes, too.

    Raises:
        MailboxUnavailable: the server lists it and does not let it be examined.
        Trouble: the connection is gone.
    """
    found = await _compare_or_gone(session, reader, account, mailbox, deep=deep)
    for _ in range(_LOOKS - 1):
        if not found:
            break
        await anyio.sleep(_PAUSE)
        found = found.still(await _compare_or_gone(session, reader, account, mailbox, deep=deep, among=found))
    return found


async def _compare(
    session: Session, reader: Reader, account: str, mailbox: MailboxName, *, deep: bool, among: Differences | None
) -> Differences:
    await session.examine(mailbox)
    there = await session.search(UidSet.range(1, MAX_UID))
    listed: dict[Uid, Fetch] = {}
    for window in there.chunks(_WINDOW):
        listed.update(await session.fetch(window, session.listing_items, octets=len(window) * 200))
    rows: dict[int, MessageRow] = {row.uid: row async for row in reader.messages(account, mailbox)}
    uids: set[int] = set(there)
    found = Differences(account, mailbox.text, uids - rows.keys(), rows.keys() - uids)
    for uid, said in listed.items():
        row = rows.get(uid)
        if row is None:
            continue
        if said.flags is not None and not same_flags(said.flags, frozenset(row.flags)):
            found.flags.add(uid)
        if said.size is not None and said.size != row.size:
            found.sizes.add(uid)
    if deep:
        found.bodies |= await _other_bodies(
            session,
            reader,
            [row for uid, row in rows.items() if uid in there and (among is None or uid in among.bodies)],
        )
    return found


async def _other_bodies(session: Session, reader: Reader, rows: Sequence[MessageRow]) -> set[int]:
    """Return the UIDs whose bytes are not those of the mirror; what is mirrored by its headers alone has none."""
    other = {row.uid for row in rows if not row.complete}
    whole: Mapping[int, str] = {row.uid: row.sha256 for row in rows if row.sha256 is not None}
    for row in rows:
        if row.sha256 is not None and await _stored(reader, row.id) != row.sha256:
            other.add(row.uid)
    short = UidSet.from_uids(row.uid for row in rows if row.uid in whole and row.size < SLICE)
    for window in short.chunks(_WINDOW // 10):
        answers = await session.fetch(window, session.whole_items, octets=len(window) * SLICE)
        for uid, said in answers.items():
            if hashlib.sha256(said.bodies[-1].data or b"" if said.bodies else b"").hexdigest() != whole[uid]:
                other.add(uid)
        other |= set(window) - set(answers)
    for long in whole.keys() - set(short):
        digest = hashlib.sha256()
        async for part in _slices(session, Uid(long)):
            digest.update(part)
        if digest.hexdigest() != whole[long]:
            other.add(long)
    return other


async def _stored(reader: Reader, id: str) -> str | None:
    """Return the hash of what is really there of a body; None where it cannot be read."""
    digest = hashlib.sha256()
    try:
        async for part in reader.raw(id):
            digest.update(part)
    except (KeyError, StoreError):
        return None
    return digest.hexdigest()


async def _slices(session: Session, uid: Uid) -> AsyncIterator[bytes]:
    origin = 0
    while True:
        answers = await session.fetch(UidSet.of(uid), f"(UID BODY.PEEK[]<{origin}.{LONG_SLICE}>)", octets=LONG_SLICE)
        said = answers.get(uid)
        data = (said.bodies[-1].data or b"") if said and said.bodies else b""
        yield data
        origin += len(data)
        if len(data) < LONG_SLICE:
            return


async def _repaired(
    session: Session, reader: Reader, found: Differences, mailbox: MailboxName, *, deep: bool
) -> set[int]:
    """Return what no longer differs; a service may need some time for it."""
    ends = anyio.current_time() + _PATIENCE
    left = found
    while True:
        left = left.still(await _compare_or_gone(session, reader, found.account, mailbox, deep=deep, among=left))
        if not left or anyio.current_time() >= ends:
            return found.uids - left.uids
        await anyio.sleep(_PAUSE)


async def _compare_or_gone(
    session: Session,
    reader: Reader,
    account: str,
    mailbox: MailboxName,
    *,
    deep: bool,
    among: Differences | None = None,
) -> Differences:
    """Compare, of the bodies only those that differed *among* others; what is not on the server may not be here."""
    try:
        return await _compare(session, reader, account, mailbox, deep=deep, among=among)
    except MailboxUnavailable:
        if await session.lists(mailbox):
            raise
        rows = {row.uid async for row in reader.messages(account, mailbox)}
        return Differences(account, mailbox.text, extra=rows)


async def verify_account(
    settings: AccountSettings,
    environment: Mapping[str, str],
    reader: Reader,
    *,
    deep: bool,
    repair: Repair | None = None,
) -> AsyncIterator[Differences]:
    """Log in and yield what differs, mailbox by mailbox, and what of it *repair* has made equal.

    Raises:
        StoreError: it cannot be read, or a repair could not be written.
        Trouble: nobody can log in, or the connection was lost.
    """
    session = await log_in(settings, environment)
    try:
        for name in await choose_mailboxes(session, settings.mailboxes):
            found = await verify(session, reader, settings.name, name, deep=deep)
            if found and repair is not None:
                await repair(session, name, found.damaged)
                found.repaired = await _repaired(session, reader, found, name, deep=deep)
            yield found
    finally:
        await session.logout()
