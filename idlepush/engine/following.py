"""Follow the mailboxes of an account: which are mirrored, which came, went, or are called something else now.

The list is read again at each poll, at each connection, when an operator wants it and when NOTIFY tells that names
changed; the store is brought in line with it before anything is looked at:

    listed, chosen, not mirrored     mirrored from the next look on; its mail is news if the list was read without it
    mirrored, called otherwise       `mailbox.renamed` (`sync/renames`), a guess only once the messages prove it
    mirrored, not there              `mailbox.gone`, once STATUS of it is refused as well. INBOX is always there
                                     (RFC 9051 section 5.1); a list that is empty, or could not be read, says nothing;
                                     and that all the others went at once is believed the second time
    listed, cannot be selected       `unselectable`: asked for again after 6 hours, or when something is said of it

A mailbox whose mail cannot be seen for the moment keeps its rows. `Following` outlives the account's sessions.
"""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

import anyio

from idlepush.engine.listing import Reading, ask_statuses, read_mailboxes
from idlepush.engine.look import Memory
from idlepush.engine.observations import MailboxesDoubted, MailboxGone, MailboxRenamed, MailboxTrouble, Observe
from idlepush.engine.renaming import is_proven
from idlepush.engine.session import Session
from idlepush.engine.settings import AccountSettings
from idlepush.errors import FailureClass, MailboxUnavailable, Refused, RemoteProtocolError
from idlepush.imap.types import MailboxName
from idlepush.store.base import Mirror, Store
from idlepush.sync.mailboxes import INBOX, UNSELECTABLE, is_plain
from idlepush.sync.renames import Known, Rename, find_renames, in_order
from idlepush.sync.status import MailboxStatus

REFUSALS: Final = 3
"""A mailbox refused so often in a row is left alone for a while."""
PARKED_FOR: Final = 6 * 3600.0
"""Seconds."""
_SAYS_NO: Final = (FailureClass.PERMISSION, FailureClass.OTHER)
"""The classes of a NO that is about the mailbox, and not about a server in trouble."""


@dataclass(frozen=True, slots=True)
class _Parked:
    """A mailbox that is left alone until then, or until its numbers are others."""

    until: float
    status: MailboxStatus | None


class Following:
    """The mailboxes of one account."""

    def __init__(self, settings: AccountSettings, store: Store, observe: Observe) -> None:
        self.names: Sequence[MailboxName] = ()
        """Those that are mirrored; the first is the one to idle in."""
        self._account = settings.name
        self._patterns = settings.mailboxes
        self._flags_interval = settings.flags_interval
        self._store = store
        self._observe = observe
        self._memories: dict[MailboxName, Memory] = {}
        self._statuses: dict[MailboxName, MailboxStatus] = {}
        self._there: frozenset[MailboxName] | None = None
        """What could be selected when the list was read last; None: it never was."""
        self._born: set[MailboxName] = set()
        self._parked: dict[MailboxName, _Parked] = {}
        self._refusals: Counter[MailboxName] = Counter()
        self._object_ids: dict[MailboxName, str | None] = {}
        self._doubted: Collection[MailboxName] = ()
        """All that seemed to be gone at once when the list was read last."""

    # What is asked of it

    @property
    def is_alone(self) -> bool:
        """One mailbox is configured by its name: there is nothing to follow."""
        return len(self._patterns) == 1 and is_plain(self._patterns[0])

    @property
    def first(self) -> MailboxName:
        """The one that idles."""
        return self.names[0]

    def give_way(self) -> bool:
        """Let the next one idle, until the list is read again; False where there is no other."""
        self.names = (*self.names[1:], *self.names[:1])
        return len(self.names) > 1

    def memory(self, name: MailboxName) -> Memory:
        """Return what is known of *name* between looks."""
        return self._memories.setdefault(name, Memory())

    def is_born(self, name: MailboxName) -> bool:
        """Tell whether *name* came to be while the account was watched, and was not looked at since."""
        return name in self._born

    def is_parked(self, name: MailboxName) -> bool:
        """Tell whether *name* is left alone for now."""
        parked = self._parked.get(name)
        if parked is None:
            return False
        return anyio.current_time() < parked.until and self._statuses.get(name) == parked.status

    def answers(self, name: MailboxName) -> bool:
        """Tell whether the server says how *name* stands; where it refuses to, that was told of."""
        return name in self._statuses

    async def mirror(self, name: MailboxName) -> Mirror | None:
        """Return how *name* stands in the mirror."""
        return self.memory(name).mirror or await self._store.mirror(self._account, name)

    async def has_changed(self, name: MailboxName, now: datetime) -> bool:
        """Tell whether *name* is to be looked at, by the numbers last said of it or by what is to be tried again."""
        mirror, status = await self.mirror(name), self._statuses.get(name, MailboxStatus())
        if mirror is None or differs(mirror, status):
            return True
        if any(one.next_try <= now for one in mirror.quarantine.values()):
            return True
        if mirror.checkpoint.modseq is not None and status.modseq is not None:
            return False  # flags, too, are as they were
        flags_at = self.memory(name).flags_at
        return flags_at is None or anyio.current_time() >= flags_at + self._flags_interval

    async def has_news(self, name: MailboxName) -> bool:
        """Tell whether *name*, by those numbers, got messages that nobody has looked at."""
        mirror, status = await self.mirror(name), self._statuses.get(name)
        return mirror is None or status is None or status.uidnext not in (None, mirror.checkpoint.high)

    async def has_fallen(self, name: MailboxName) -> bool:
        """Tell whether *name*, by those numbers, lost messages."""
        mirror, status = await self.mirror(name), self._statuses.get(name)
        if mirror is None or status is None or status.messages is None:
            return False
        return status.messages < mirror.alive + len(mirror.quarantine)

    async def told(self, name: MailboxName, said: MailboxStatus, *, unasked: bool = False) -> bool:
        """Take in what was said of *name* beside the list; True if that is news, or could be."""
        before = self._statuses.get(name, MailboxStatus())
        status = self._statuses[name] = before.updated(said)
        mirror = await self.mirror(name)
        # Unasked there was a reason to say it; where there are no mod-sequences, flags change without a number.
        could_be = unasked and said.modseq is None
        return could_be or status != before or mirror is None or differs(mirror, status)

    # Reading the list

    async def read(self, session: Session) -> None:
        """Read the list and bring the store in line with it.

        Raises:
            MailboxUnavailable: no mailbox is chosen.
            Trouble: the connection is gone.
        """
        if self.is_alone:
            self.names = (MailboxName.from_text(self._patterns[0]),)
            return
        known = await self._known()
        there = len(self._there or ())
        try:
            reading = await read_mailboxes(session, self._patterns, few=2 * len(self.names) < there)
        except Refused as refused:
            self._keep_to(known, MailboxUnavailable(str(refused), failure_class=refused.failure_class))
            return
        if not reading.there and known:
            self._keep_to(known, MailboxUnavailable("the server lists no mailbox"))
            return
        self._statuses = dict(reading.statuses)
        await self._rename(session, reading, known)
        known = await self._known()
        for name in await self._vanished(session, reading, known):
            await self._let_go(name, "unselectable" if name in reading.unselectable else "gone")
        self._take_in(reading, known)
        for name, why in reading.refused.items():
            if name not in self._doubted and not self.is_parked(name):
                await self.lost(session, name, why)

    def _keep_to(self, known: Mapping[MailboxName, Known], why: MailboxUnavailable) -> None:
        """The list cannot be had: go on with what is mirrored."""
        self._observe(MailboxesDoubted(account=self._account, reason=str(why)))
        self.names = self.names or tuple(sorted(known, key=lambda name: (name != INBOX, name)))
        if not self.names:
            raise why

    async def _known(self) -> dict[MailboxName, Known]:
        """Return all that is mirrored of this account."""
        known: dict[MailboxName, Known] = {}
        for row in await self._store.mailboxes(self._account):
            name = MailboxName(row.raw)
            self._object_ids[name] = row.object_id
            mirror = await self.mirror(name) if row.uidvalidity is not None else None
            if mirror is not None:
                known[name] = _known(mirror, row.object_id)
        return known

    async def _rename(self, session: Session, reading: Reading, known: Mapping[MailboxName, Known]) -> None:
        statuses = {name: status for name, status in self._statuses.items() if name in reading.there}
        # A mailbox of which nothing is known now, or that is not to be mirrored any more, has not gone anywhere.
        candidates = {
            name: one
            for name, one in known.items()
            if (name in reading.chosen and name in statuses) or (reading.is_whole and name not in reading.there)
        }
        found = [
            rename
            for rename in find_renames(candidates, statuses)
            if rename.after in reading.chosen and (rename.proven or await self._is_proven(session, rename))
        ]
        for before, after in in_order(found, {*known, *reading.there}):
            await self._store.mailbox_renamed(self._account, before, after)
            self._memories[after] = self._memories.pop(before, Memory())
            self._memories[after].mirror = None  # what was leaving it is found gone again
            self._object_ids[after] = self._object_ids.pop(before, None)
            self._parked.pop(before, None)
            self._observe(MailboxRenamed(account=self._account, mailbox=after.text, before=before.text))

    async def _is_proven(self, session: Session, rename: Rename) -> bool:
        mirror = await self.mirror(rename.before)
        return mirror is not None and await is_proven(session, self._store, mirror, rename.after)

    async def _vanished(
        self, session: Session, reading: Reading, known: Mapping[MailboxName, Known]
    ) -> Collection[MailboxName]:
        """Return those of *known* that are really not there any more."""
        missing = [name for name in known if name not in reading.there and name != INBOX]
        if reading.is_whole:
            statuses, refused = await ask_statuses(session, missing)
            self._statuses.update(statuses)  # hidden from the list, and there all the same
        else:
            refused = {name: why for name, why in reading.refused.items() if not await session.lists(name)}
        vanished = {name for name in missing if name in refused and refused[name].failure_class in _SAYS_NO}
        if len(vanished) > 1 and vanished == known.keys() - {INBOX} and vanished != self._doubted:
            self._observe(MailboxesDoubted(account=self._account, reason="all mailboxes but INBOX seem to be gone"))
            self._doubted = vanished
            return ()
        self._doubted = ()
        return vanished

    async def _let_go(self, name: MailboxName, state: str) -> None:
        await self._store.mailbox_gone(self._account, name, state=state)
        self._memories.pop(name, None)
        self._object_ids.pop(name, None)
        self._parked.pop(name, None)
        self._born.add(name)
        self._observe(MailboxGone(account=self._account, mailbox=name.text, state=state))

    def _take_in(self, reading: Reading, known: Mapping[MailboxName, Known]) -> None:
        """Settle which mailboxes are looked at from here on.

        Raises:
            RemoteProtocolError: the list leaves out what it named before, and what is there: the new ones it may leave
                out as well. Another session may be told better (Dovecot 2.3, seen); the same again is believed.
        """
        hidden = [name for name in known if name not in reading.there and name in self._statuses]
        self.names = (*reading.chosen, *(name for name in hidden if name not in reading.chosen))
        if not self.names:
            raise MailboxUnavailable("no mailbox of this account matches its `mailboxes`")
        if self._there is not None:
            self._born |= {name for name in self.names if name not in self._there and name not in known}
        dropped = sorted(name.text for name in hidden if self._there is not None and name in self._there)
        self._there = reading.there
        if dropped:
            raise RemoteProtocolError(f"the list of mailboxes leaves out {', '.join(dropped[:3])}, though it is there")

    # What comes of looking

    async def looked_at(self, name: MailboxName) -> None:
        """A look at *name* went well."""
        self._born.discard(name)
        self._refusals.pop(name, None)
        if self._parked.pop(name, None) is not None:
            await self._store.note_mailbox(self._account, name, state="ok")
        status = self._statuses.get(name)
        if status and status.object_id and self._object_ids.get(name) != status.object_id:
            await self._store.note_mailbox(self._account, name, object_id=status.object_id)
            self._object_ids[name] = status.object_id

    async def lost(self, session: Session, name: MailboxName, why: MailboxUnavailable) -> None:
        """*name* cannot be looked at: it is gone, left alone after a few refusals, or tried again the next time."""
        self._observe(MailboxTrouble(account=self._account, mailbox=name.text, reason=str(why)))
        if name == INBOX or why.failure_class not in _SAYS_NO:
            return
        listed = await session.listed(name)
        if all(entry.attributes & UNSELECTABLE for entry in listed):
            if await self._store.mirror(self._account, name) is not None:
                await self._let_go(name, "unselectable" if listed else "gone")
            self._born.add(name)
            return
        self._refusals[name] += 1
        if self._refusals[name] >= REFUSALS:
            self._refusals.pop(name)
            self._parked[name] = _Parked(anyio.current_time() + PARKED_FOR, self._statuses.get(name))
            await self._store.note_mailbox(self._account, name, state="unselectable")


def _known(mirror: Mirror, object_id: str | None) -> Known:
    checkpoint = mirror.checkpoint
    return Known(
        uidvalidity=checkpoint.uidvalidity,
        high=checkpoint.high,
        messages=None if checkpoint.holes else mirror.alive + len(mirror.quarantine),
        object_id=object_id,
    )


def differs(mirror: Mirror, status: MailboxStatus) -> bool:
    """Tell whether STATUS shows anything that is not mirrored; what a server does not tell counts as changed."""
    checkpoint = mirror.checkpoint
    return (
        status.uidvalidity != checkpoint.uidvalidity
        or status.uidnext != checkpoint.high
        or status.messages != mirror.alive + len(mirror.quarantine)
        or (checkpoint.modseq is not None and status.modseq not in (None, checkpoint.modseq))
        or bool(checkpoint.holes)
        or bool(mirror.parts)
        or bool(mirror.older_alive)
    )
