"""How far a mirror has come: the checkpoint of one mailbox and generation (`sync.md`, What is stored).

Every UID below `high` is mirrored, known gone, quarantined, in parts, or in a hole. A hole is a range of UIDs
not yet looked at; it is shrunk only by the commit that accounts for what it held. So the first mirror (one hole
from 1 to UIDNEXT-1) and what arrived in an outage are fetched by the same code, newest first.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from idlepush.imap.types import ModSeq, Uid, UidValidity
from idlepush.imap.uidset import UidSet
from idlepush.sync.events import FoundBy


@dataclass(frozen=True, slots=True)
class Hole:
    """UIDs from `first` to `last`, both included, not yet mirrored; `found_by` is what its messages will say."""

    first: Uid
    last: Uid
    found_by: FoundBy

    @property
    def uids(self) -> UidSet:
        """The range as a set."""
        return UidSet.range(self.first, self.last)


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """What the mirror of one mailbox has reached; holes are disjoint, newest first, all below `high`."""

    uidvalidity: UidValidity
    high: Uid
    holes: tuple[Hole, ...] = ()
    modseq: ModSeq | None = None

    @property
    def in_holes(self) -> UidSet:
        """Every UID that stands in a hole."""
        return UidSet.from_ranges((hole.first, hole.last) for hole in self.holes)


@dataclass(frozen=True, slots=True)
class Quarantine:
    """A UID that could not be had."""

    reason: str
    tries: int
    next_try: datetime


def holes_of(uids: UidSet, found_by: FoundBy) -> tuple[Hole, ...]:
    """Turn a set into holes, newest first."""
    return tuple(Hole(Uid(first), Uid(last), found_by) for first, last in reversed(uids.ranges))


def holes_up_to(holes: Iterable[Hole], uid: Uid) -> tuple[Hole, ...]:
    """Return what of *holes* is below *uid*."""
    return tuple(Hole(hole.first, min(hole.last, Uid(uid - 1)), hole.found_by) for hole in holes if hole.first < uid)


def fill(holes: Iterable[Hole], accounted: UidSet) -> tuple[Hole, ...]:
    """Return what is left of *holes* once *accounted* is taken out, newest first."""
    return tuple(left for hole in holes for left in holes_of(hole.uids - accounted, hole.found_by))
