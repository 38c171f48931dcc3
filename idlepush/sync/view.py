"""What the server has said of the selected mailbox: its numbers, and the hints that came unasked.

A hint never changes the mirror; it only says where to look. EXISTS is news whatever its number is (one expunge and
one arrival give the same count). EXPUNGE n and FETCH n speak in sequence numbers, which every later EXPUNGE shifts:
the numbers kept here are shifted along, so that they mean the same messages when they are asked about. VANISHED names
UIDs, and leaves no number what it was.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Final

from idlepush.imap.responses import Exists, Expunge, Fetch, Untagged, Vanished
from idlepush.imap.types import Flags, MailboxName, ModSeq, Uid, UidValidity
from idlepush.imap.uidset import UidSet

# More sequence numbers than this heard before they could be asked about are not worth keeping one by one.
_MOST_NUMBERS: Final = 500


@dataclass(frozen=True, slots=True)
class Heard:
    """Hints: what was said unasked, or beside what was asked, and has not been looked into yet."""

    exists: bool = False
    rose: int = 0
    """By how many messages EXISTS has risen."""
    expunged: bool = False
    """Messages are gone that can no longer be named."""
    vanished: UidSet = UidSet()
    """UIDs that are said to be gone."""
    numbers: frozenset[int] = frozenset()
    """Sequence numbers of FETCH heard without UID."""
    uids: UidSet = UidSet()
    """UIDs of FETCH heard with UID; of many that lie apart, those between them, too."""
    any_flags: bool = False
    """Flags changed, of messages that can no longer be named."""

    def __bool__(self) -> bool:
        return self != _SILENCE

    @property
    def is_of_the_mirrored(self) -> bool:
        """Something was heard of messages that may be mirrored already; new ones are none of it."""
        return bool(replace(self, exists=False, rose=0))


_SILENCE: Final = Heard()


@dataclass(frozen=True, slots=True)
class Changed:
    """All that changed since a mod-sequence (RFC 7162): an answer, to QRESYNC or to CHANGEDSINCE, and no hint."""

    since: ModSeq
    flags: Mapping[Uid, Flags] = field(default_factory=dict)
    modseqs: Mapping[Uid, ModSeq] = field(default_factory=dict)
    vanished: UidSet = UidSet()


@dataclass(slots=True)
class View:
    """The selected mailbox, as of all that was said so far."""

    mailbox: MailboxName
    uidvalidity: UidValidity
    uidnext: Uid | None
    """As EXAMINE said; it is not raised by what is heard later."""
    exists: int
    highestmodseq: ModSeq | None = None
    """As EXAMINE said; None where the server has none, or is not trusted with it."""
    changed: Changed | None = None
    """What EXAMINE with QRESYNC told beside it."""
    heard: Heard = _SILENCE

    def hear(self, said: Untagged) -> bool:
        """Take *said* in; True if it is a hint."""
        match said:
            case Exists(count):
                rose = self.heard.rose + max(0, count - self.exists)
                self.exists = count
                self.heard = replace(self.heard, exists=True, rose=rose)
            case Expunge(number):
                self.exists = max(0, self.exists - 1)
                self.heard = replace(self.heard, expunged=True, numbers=_shifted(self.heard.numbers, number))
            case Vanished(uids, earlier):
                if not earlier:
                    self.exists = max(0, self.exists - len(uids))
                heard, lost = self.heard, self._numbers_are_lost()
                self.heard = replace(heard, vanished=heard.vanished | uids, numbers=frozenset(), any_flags=lost)
            case Fetch(uid=None):
                numbers = self.heard.numbers | {said.number}
                if len(numbers) > _MOST_NUMBERS:
                    self.heard = replace(self.heard, numbers=frozenset(), any_flags=True)
                else:
                    self.heard = replace(self.heard, numbers=numbers)
            case Fetch(uid=uid) if uid is not None:
                self.heard = replace(self.heard, uids=_bounded(self.heard.uids | UidSet.of(uid)))
            case _:
                return False
        return True

    def take(self) -> Heard:
        """Return the hints and forget them: the caller looks into them now."""
        heard, self.heard = self.heard, _SILENCE
        return heard

    def reselected(self, fresh: "View") -> None:
        """Go on as *fresh*, a new EXAMINE of the same mailbox; what was heard before it is still to be looked into."""
        lost = self._numbers_are_lost()
        self.uidvalidity, self.uidnext, self.exists = fresh.uidvalidity, fresh.uidnext, fresh.exists
        self.highestmodseq, self.changed = fresh.highestmodseq, fresh.changed
        self.heard = replace(self.heard, numbers=frozenset(), any_flags=lost)

    def _numbers_are_lost(self) -> bool:
        return self.heard.any_flags or bool(self.heard.numbers)


def merged(one: Heard, other: Heard) -> Heard:
    """Return both; *other* was heard later, and its expunges came behind *one*'s numbers."""
    if not other:
        return one
    shifted = (other.expunged or bool(other.vanished)) and bool(one.numbers)
    return Heard(
        exists=one.exists or other.exists,
        rose=one.rose + other.rose,
        expunged=one.expunged or other.expunged,
        vanished=one.vanished | other.vanished,
        numbers=other.numbers if shifted else one.numbers | other.numbers,
        uids=_bounded(one.uids | other.uids),
        any_flags=one.any_flags or other.any_flags or shifted,
    )


def _bounded(uids: UidSet) -> UidSet:
    """Return *uids*, and those between them where they lie apart in too many places.

    Each UID heard costs as many steps as there are ranges; to ask about a few more messages is cheaper.
    """
    return UidSet.range(uids.first, uids.last) if len(uids.ranges) > _MOST_NUMBERS else uids


def _shifted(numbers: frozenset[int], expunged: int) -> frozenset[int]:
    return frozenset(number - (number > expunged) for number in numbers if number != expunged)
