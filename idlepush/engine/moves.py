"""Recognize a message that moves from one mailbox to another: one `message.moved`, with its id and body kept.

IMAP tells a move as an arrival here and an expunge there, in any order, by two looks. So where an account has several
mailboxes, what is gone from one is not expunged at once but *leaving*: the others are looked at in the same round,
and what arrives there and is leaving here was moved. What is still leaving at the end of the round is expunged. And
what arrives with a twin in another mailbox is committed only once that mailbox was asked whether the twin is still
there: a copy leaves it, a move does not.

Nothing is lost if the session ends between: what was leaving still stands in the mirror, its mod-sequence was not
raised, and the next look finds it gone again.
"""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from idlepush.engine.session import Session
from idlepush.errors import MailboxUnavailable, StaleGeneration
from idlepush.imap.types import MailboxName, ModSeq
from idlepush.imap.uidset import UidSet
from idlepush.store.base import Store
from idlepush.sync.changes import ChangeSet, NewMessage


@dataclass(slots=True)
class _Departures:
    """What is leaving one mailbox, and the mod-sequence that stands once it is expunged."""

    mailbox: MailboxName
    uids: UidSet = UidSet()
    modseq: ModSeq | None = None


@dataclass(slots=True)
class Moves:
    """What is leaving the mailboxes of one account, by generation."""

    _departures: dict[int, _Departures] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self._departures)

    @property
    def mailboxes(self) -> Sequence[MailboxName]:
        """Where something is leaving."""
        return [one.mailbox for one in self._departures.values()]

    @property
    def leaving(self) -> Mapping[int, UidSet]:
        """The UIDs, by generation."""
        return {generation: one.uids for generation, one in self._departures.items()}

    def leaving_from(self, generation: int) -> UidSet:
        """Return what is leaving this one."""
        found = self._departures.get(generation)
        return found.uids if found else UidSet()

    def leave(self, mailbox: MailboxName, generation: int, uids: UidSet) -> None:
        """Remember that *uids* are gone from there."""
        if not uids:
            return
        found = self._departures.setdefault(generation, _Departures(mailbox))
        found.uids = found.uids | uids

    def raise_modseq(self, generation: int, modseq: ModSeq) -> None:
        """Let the mod-sequence of a mailbox that something is leaving rise with the expunges, and not before."""
        self._departures[generation].modseq = modseq

    def modseq_of(self, generation: int) -> ModSeq | None:
        """Return the mod-sequence that will stand there; None where none was raised."""
        found = self._departures.get(generation)
        return found.modseq if found else None

    async def expect(
        self, session: Session, store: Store, account: str, here: MailboxName, arrived: Sequence[NewMessage]
    ) -> bool:
        """Ask whether the twins of what *arrived* are still where they were; True if *here* was examined anew.

        Raises:
            MailboxUnavailable: *here* cannot be examined any more.
        """
        asked = False
        for twins in await store.twins(account, here, arrived):
            uids = twins.uids - self.leaving_from(twins.generation)
            if not uids:
                continue
            asked = True
            try:
                view = await session.examine(twins.mailbox)
            except MailboxUnavailable:
                continue
            if view.uidvalidity == twins.uidvalidity:
                self.leave(twins.mailbox, twins.generation, uids - await session.search(uids))
        if asked:
            await session.examine(here)
        return asked

    async def settle(self, store: Store, account: str) -> Sequence[tuple[MailboxName, int]]:
        """Expunge what has turned up nowhere; return from which mailboxes, and how many."""
        settled = []
        while self._departures:
            generation, one = next(iter(self._departures.items()))
            change = ChangeSet(
                account=account,
                mailbox=one.mailbox,
                generation=generation,
                expunged=one.uids,
                modseq=one.modseq,
                urgent=True,
            )
            expunged = 0
            with suppress(StaleGeneration):  # the mailbox itself is gone, or its UIDs mean something else now
                expunged = (await store.commit(change)).expunged
            settled.append((one.mailbox, expunged))
            del self._departures[generation]
        return settled
