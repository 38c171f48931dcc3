"""`MemoryStore`: the store without a disk, for tests and virtual time. It has no thread and never waits."""

from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from datetime import date, datetime
from typing import Final

import anyio
import anyio.lowlevel

from idlepush.errors import StaleGeneration
from idlepush.imap.types import Flags, MailboxName, Uid
from idlepush.imap.uidset import UidSet
from idlepush.store.base import AccountRow, AlertRow, Committed, MailboxRow, MessageRow, Mirror, Sweep, Twins
from idlepush.store.memory_tables import Commit, Mailbox, Row, Tables
from idlepush.store.spelling import number_of, span, utc
from idlepush.sync.changes import ChangeSet, NewMessage
from idlepush.sync.events import Event
from idlepush.sync.query import Query

SLICE: Final = 256 * 1024


class MemoryStore:
    """A `Store` that lives as long as its object and keeps every promise but durability.

    `clock` says when an event happens.
    """

    def __init__(self, *, clock: Callable[[], datetime]) -> None:
        self._clock = clock
        self._tables = Tables()
        self._moved_on = anyio.Event()

    # ---- the writing half

    async def commit(self, change: ChangeSet) -> Committed:
        """Apply *change*; see `Store.commit`."""
        await anyio.lowlevel.checkpoint()
        mailbox = self._tables.mailboxes.get((change.account, change.mailbox))
        current = mailbox.current if mailbox else None
        if change.generation != (current.id if current else None) or (current is None and change.begin is None):
            raise StaleGeneration(f"{change.account}: {change.mailbox} is not in generation {change.generation}")

        if mailbox is None:
            mailbox = self._add(change.account, change.mailbox)
        committed = self._begin().apply(mailbox, change)
        self._announce()
        return committed

    async def mailbox_gone(self, account: str, mailbox: MailboxName, *, state: str = "gone") -> None:
        """See `Store.mailbox_gone`."""
        await anyio.lowlevel.checkpoint()
        known = self._tables.mailboxes.get((account, mailbox))
        if known is None and state != "gone":
            known = self._add(account, mailbox)
        if known is not None:
            self._begin().gone(known, state)
            self._announce()

    async def mailbox_renamed(self, account: str, before: MailboxName, after: MailboxName) -> None:
        """See `Store.mailbox_renamed`."""
        await anyio.lowlevel.checkpoint()
        known = self._tables.mailboxes.get((account, before))
        if known is not None and known.current is not None and before != after:
            self._begin().renamed(known, after)
            self._announce()

    async def note_mailbox(
        self, account: str, mailbox: MailboxName, *, state: str | None = None, object_id: str | None = None
    ) -> None:
        """See `Store.note_mailbox`."""
        await anyio.lowlevel.checkpoint()
        known = self._tables.mailboxes.get((account, mailbox))
        if known is None:
            if state is None:
                return
            known = self._add(account, mailbox)
        known.state = state or known.state
        known.object_id = object_id or known.object_id

    async def move_cursor(self, position: int, sink: str, account: str) -> None:
        """See `Store.move_cursor`."""
        await anyio.lowlevel.checkpoint()
        self._tables.cursors[sink, account] = position

    async def count_traffic(self, account: str, day: date, octets: int) -> None:
        """See `Store.count_traffic`."""
        await anyio.lowlevel.checkpoint()
        self._tables.traffic[account] = day, octets

    async def set_account(self, row: AccountRow) -> None:
        """See `Store.set_account`."""
        await anyio.lowlevel.checkpoint()
        self._begin().account(row)
        self._announce()

    async def add_alerts(self, rows: Sequence[AlertRow]) -> None:
        """See `Store.add_alerts`."""
        await anyio.lowlevel.checkpoint()
        change = self._begin()
        for row in rows:
            change.alert(row)
        self._announce()

    async def forget_alert(self, account: str) -> None:
        """See `Store.forget_alert`."""
        await anyio.lowlevel.checkpoint()
        self._tables.alerts.pop(account, None)

    async def index(self, *, rest: float = 0.0) -> None:  # noqa: ARG002 - nothing to do, and no pause after it
        """See `Store.index`."""
        await anyio.lowlevel.checkpoint()

    async def sweep(self, sweep: Sweep) -> None:
        """See `Store.sweep`."""
        await anyio.lowlevel.checkpoint()
        rows = self._tables.rows
        if sweep.bodies_before is not None:
            kept = {row.sha256 for row in rows.values() if row.expunged is None or row.expunged >= sweep.bodies_before}
            for row in rows.values():
                if row.sha256 not in kept:
                    row.body = None
        if sweep.rows_before is not None:
            for row in [*rows.values()]:
                if row.expunged is not None and row.expunged < sweep.rows_before:
                    del rows[row.number]
        self._tables.forget_orphans()

    async def purge(self, account: str) -> None:
        """See `Store.purge`."""
        await anyio.lowlevel.checkpoint()
        self._tables.accounts.pop(account, None)
        self._tables.alerts.pop(account, None)
        self._tables.traffic.pop(account, None)
        for cursor in [cursor for cursor in self._tables.cursors if cursor[1] == account]:
            del self._tables.cursors[cursor]
        for key in [key for key in self._tables.mailboxes if key[0] == account]:
            for generation in self._tables.mailboxes.pop(key).generations:
                del self._tables.generations[generation.id]
        for row in [row for row in self._tables.rows.values() if row.mailbox.account == account]:
            del self._tables.rows[row.number]
        self._tables.forget_orphans()

    # ---- the reading half

    async def messages(
        self,
        account: str | None = None,
        mailbox: MailboxName | None = None,
        *,
        limit: int | None = None,
        newest: bool = False,
        expunged: bool = False,
        after: str | None = None,
        query: Query | None = None,
    ) -> AsyncIterator[MessageRow]:
        """See `Reader.messages`."""
        await anyio.lowlevel.checkpoint()
        rows = [
            row
            for row in self._tables.rows.values()
            if account in (None, row.mailbox.account)
            and mailbox in (None, row.mailbox.name)
            and (expunged and query is None) == (row.expunged is not None)
            and (query is None or row.answers(query))
        ]
        newest = newest or query is not None
        if after is not None:
            last = self._row(after)
            if last is None:
                raise KeyError(after)
            rows = [row for row in rows if (row.by_age > last.by_age if newest else row.by_place > last.by_place)]
        rows.sort(key=lambda row: row.by_age if newest else row.by_place)
        for shown in [row.shown() for row in rows[:limit]]:
            yield shown

    async def message(self, id: str) -> MessageRow | None:
        """See `Reader.message`."""
        await anyio.lowlevel.checkpoint()
        row = self._row(id)
        return None if row is None else row.shown()

    async def references(self, id: str) -> tuple[str, ...]:
        """See `Reader.references`."""
        await anyio.lowlevel.checkpoint()
        row = self._row(id)
        return () if row is None or row.content is None else row.content.references

    async def raw(self, id: str) -> AsyncIterator[bytes]:
        """See `Reader.raw`."""
        await anyio.lowlevel.checkpoint()
        row = self._row(id)
        if row is None or row.body is None:
            raise KeyError(id)
        body = row.body
        for at in range(0, len(body), SLICE):
            yield body[at : at + SLICE]

    async def find(self, account: str, mailbox: MailboxName, uid: int) -> MessageRow | None:
        """See `Reader.find`."""
        await anyio.lowlevel.checkpoint()
        known = self._tables.mailboxes.get((account, mailbox))
        row = known.current.live.get(uid) if known and known.current else None
        return None if row is None else row.shown()

    async def events(self, after: int = 0, *, limit: int = 1000) -> Sequence[Event]:
        """See `Reader.events`."""
        await anyio.lowlevel.checkpoint()
        # Positions are 1, 2, 3, … without a hole: an event's place in the list is its position less one.
        first = max(after, 0)
        return self._tables.events[first : first + limit]

    async def position(self) -> int:
        """See `Reader.position`."""
        await anyio.lowlevel.checkpoint()
        return len(self._tables.events)

    async def wait_beyond(self, position: int) -> None:
        """See `Reader.wait_beyond`."""
        await anyio.lowlevel.checkpoint()
        while len(self._tables.events) <= position:
            await self._moved_on.wait()

    async def traffic(self, account: str) -> tuple[date, int] | None:
        """See `Reader.traffic`."""
        await anyio.lowlevel.checkpoint()
        return self._tables.traffic.get(account)

    async def cursor(self, sink: str, account: str) -> int | None:
        """See `Reader.cursor`."""
        await anyio.lowlevel.checkpoint()
        return self._tables.cursors.get((sink, account))

    async def accounts(self) -> Sequence[AccountRow]:
        """See `Reader.accounts`."""
        await anyio.lowlevel.checkpoint()
        return [row for _, row in sorted(self._tables.accounts.items())]

    async def alerts(self) -> Sequence[AlertRow]:
        """See `Reader.alerts`."""
        await anyio.lowlevel.checkpoint()
        return [row for _, row in sorted(self._tables.alerts.items())]

    async def mailboxes(self, account: str | None = None) -> Sequence[MailboxRow]:
        """See `Reader.mailboxes`."""
        await anyio.lowlevel.checkpoint()
        known = [one for one in self._tables.mailboxes.values() if account in (None, one.account)]
        return [_shown(one) for one in sorted(known, key=lambda one: (one.account, one.name.text, one.name.raw))]

    async def mirror(self, account: str, mailbox: MailboxName) -> Mirror | None:
        """See `Reader.mirror`."""
        await anyio.lowlevel.checkpoint()
        known = self._tables.mailboxes.get((account, mailbox))
        if known is None or known.current is None:
            return None
        current = known.current
        return Mirror(
            generation=current.id,
            checkpoint=current.checkpoint,
            alive=len(current.live),
            parts={row.uid: len(row.part or b"") for row in current.by_uid() if not row.complete},
            quarantine=dict(sorted(current.quarantine.items())),
            older_alive=sum(len(generation.live) for generation in known.older),
            looked_at=known.looked_at,
            audited_at=known.audited_at,
        )

    async def uids(self, generation: int) -> UidSet:
        """See `Reader.uids`."""
        await anyio.lowlevel.checkpoint()
        return UidSet.from_uids(row.uid for row in self._live(generation))

    async def flags(self, generation: int, first: int, last: int) -> Mapping[Uid, Flags]:
        """See `Reader.flags`."""
        await anyio.lowlevel.checkpoint()
        return {row.uid: row.flags for row in self._live(generation) if first <= row.uid <= last}

    async def twins(self, account: str, mailbox: MailboxName, messages: Sequence[NewMessage]) -> Sequence[Twins]:
        """See `Reader.twins`."""
        await anyio.lowlevel.checkpoint()
        return self._tables.twins(account, mailbox, messages)

    async def sizes(self, generation: int, first: int, last: int) -> Mapping[Uid, tuple[int, datetime | None]]:
        """See `Reader.sizes`."""
        await anyio.lowlevel.checkpoint()
        return {row.uid: (row.size, row.internal_date) for row in self._live(generation) if first <= row.uid <= last}

    # ---- within

    def _row(self, id: str) -> Row | None:
        number = number_of(id)
        return None if number is None else self._tables.rows.get(number)

    def _live(self, generation: int) -> Iterable[Row]:
        known = self._tables.generations.get(generation)
        return () if known is None else known.by_uid()

    def _add(self, account: str, mailbox: MailboxName) -> Mailbox:
        return self._tables.mailboxes.setdefault((account, mailbox), Mailbox(account, mailbox))

    def _begin(self) -> Commit:
        return Commit(self._tables, utc(self._clock()))

    def _announce(self) -> None:
        self._moved_on.set()
        # Re-armed at once: who waits from here on waits for the next commit.
        self._moved_on = anyio.Event()


def _shown(mailbox: Mailbox) -> MailboxRow:
    current = mailbox.current
    return MailboxRow(
        account=mailbox.account,
        name=mailbox.name.text,
        raw=mailbox.name.raw,
        state=mailbox.state,
        uidvalidity=current.checkpoint.uidvalidity if current else None,
        messages=sum(len(generation.live) for generation in mailbox.generations),
        remaining=span(current.checkpoint.holes) if current else 0,
        looked_at=mailbox.looked_at,
        audited_at=mailbox.audited_at,
        object_id=mailbox.object_id,
    )
