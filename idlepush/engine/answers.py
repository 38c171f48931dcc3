"""Collectors of answers: what the untagged responses of one command add up to.

Each has a `claim` for `Ask`, which takes a response and says whether it is wholly this command's answer; what it does
not claim is a hint.
"""

from dataclasses import replace

from idlepush.errors import RemoteProtocolError
from idlepush.imap.responses import (
    Code,
    Completion,
    Condition,
    Exists,
    Expunge,
    Fetch,
    MailboxFlags,
    Recent,
    Search,
    Status,
    Untagged,
    Vanished,
)
from idlepush.imap.types import MAX_UID, Flags, MailboxName, ModSeq, Uid, UidValidity
from idlepush.imap.uidset import UidSet
from idlepush.sync.view import Changed, Heard, View, merged


class Selection:
    """Collects what EXAMINE answers; a number said twice counts as it was said last.

    What comes before `[CLOSED]` belongs to the former selection (RFC 7162 section 3.2.11): its hints are kept apart.
    So are they where CLOSED never comes, and what changed is then asked for once more.
    """

    def __init__(self, since: ModSeq | None, *, is_first: bool) -> None:
        self.former = Heard()
        self._is_open = is_first
        self._changed = ChangedSince(UidSet.range(1, MAX_UID), since) if since is not None else None
        self._exists = 0
        self._uidnext: Uid | None = None
        self._uidvalidity: UidValidity | None = None
        self._modseq: ModSeq | None = None

    def claim(self, said: Untagged) -> bool:
        match said:
            case Condition(code=Code("CLOSED")):
                self._is_open = True
            case Fetch() | Expunge() | Vanished() if not self._is_open:
                self._hear(said)
            case Fetch() | Vanished() if self._changed is not None:
                return self._changed.claim(said)
            case Exists(count):
                self._exists = count
            case Condition(code=Code("UIDNEXT", int() as value)):
                self._uidnext = _uid(value)
            case Condition(code=Code("UIDVALIDITY", int() as value)):
                self._uidvalidity = _uidvalidity(value)
            case Condition(code=Code("HIGHESTMODSEQ", int() as value)):
                self._modseq = _modseq(value)
            case Condition(code=Code("ALERT" | "CAPABILITY")):
                return False
            case Condition() | Recent() | MailboxFlags():
                pass
            case _:
                return False
        return True

    def _hear(self, said: Fetch | Expunge | Vanished) -> None:
        match said:
            case Fetch(uid=uid) if uid is not None:
                hint = Heard(uids=UidSet.of(uid))
            case Fetch():
                hint = Heard(any_flags=True)
            case Vanished(uids):
                hint = Heard(vanished=uids)
            case Expunge():
                hint = Heard(expunged=True)
        self.former = merged(self.former, hint)

    def view(self, mailbox: MailboxName, done: Completion, uidnext: Uid | None) -> View:
        if done.code is not None:
            self.claim(Condition(Status.OK, done.code, ""))
        if self._uidvalidity is None:
            raise RemoteProtocolError(f"{mailbox}: EXAMINE shows no UIDVALIDITY, so its UIDs mean nothing")
        is_whole = self._is_open and not done.is_cut
        changed = self._changed.changed if self._changed is not None and is_whole else None
        return View(mailbox, self._uidvalidity, self._uidnext or uidnext, self._exists, self._modseq, changed)


class ChangedSince:
    """Collects flags that changed since a mod-sequence, and UIDs that are gone since."""

    def __init__(self, wanted: UidSet, since: ModSeq) -> None:
        self._wanted = wanted
        self._since = since
        self._flags: dict[Uid, Flags] = {}
        self._modseqs: dict[Uid, ModSeq] = {}
        self._vanished = UidSet()

    @property
    def changed(self) -> Changed:
        """All of it."""
        return Changed(self._since, self._flags, self._modseqs, self._vanished)

    @property
    def answered(self) -> UidSet:
        """UIDs whose flags came."""
        return UidSet.from_uids(self._flags)

    def claim(self, said: Untagged) -> bool:
        match said:
            case Vanished(uids, earlier=True):
                self._vanished = self._vanished | (uids & self._wanted)
            case Fetch(uid=uid, flags=flags) if uid is not None and uid in self._wanted and flags is not None:
                self._flags[uid] = flags
                if said.modseq is not None:
                    self._modseqs[uid] = said.modseq
            case _:
                return False
        return True


class FetchAnswers:
    """Collects FETCH responses for the UIDs asked for; the latest word on each item wins."""

    def __init__(self, wanted: UidSet, *, asks_flags: bool) -> None:
        self.merged: dict[Uid, Fetch] = {}
        self._wanted = wanted
        self._asks_flags = asks_flags

    @property
    def answered(self) -> UidSet:
        """UIDs that were told of."""
        return UidSet.from_uids(self.merged)

    def claim(self, said: Untagged) -> bool:
        if not isinstance(said, Fetch) or said.uid is None or said.uid not in self._wanted:
            return False
        before = self.merged.get(said.uid)
        self.merged[said.uid] = said if before is None else _joined(before, said)
        # Flags that were not asked for changed just now: an answer and a hint.
        return self._asks_flags or said.flags is None


class Found:
    """Collects what SEARCH finds."""

    def __init__(self) -> None:
        self.answered = UidSet()

    def claim(self, said: Untagged) -> bool:
        if isinstance(said, Search):
            self.answered = self.answered | said.found
        return isinstance(said, Search)


def _joined(before: Fetch, said: Fetch) -> Fetch:
    return replace(
        said,
        flags=before.flags if said.flags is None else said.flags,
        internal_date=said.internal_date or before.internal_date,
        size=before.size if said.size is None else said.size,
        modseq=said.modseq or before.modseq,
        email_id=said.email_id or before.email_id,
        thread_id=said.thread_id or before.thread_id,
        structure=said.structure or before.structure,
        bodies=said.bodies or before.bodies,
        others={**before.others, **said.others},
    )


def _uid(value: int | str | None) -> Uid | None:
    return Uid(value) if isinstance(value, int) and 1 <= value < 2**32 else None


def _modseq(value: int | str | None) -> ModSeq | None:
    return ModSeq(value) if isinstance(value, int) and 1 <= value < 2**63 else None


def _uidvalidity(value: int | str | None) -> UidValidity | None:
    return UidValidity(value) if isinstance(value, int) and 1 <= value < 2**32 else None
