"""Decide the next step that brings a mirror up to its server (`sync.md`, Plan). Pure, and level-triggered.

The one who synchronizes asks for a step, carries it out, commits, and asks again, until there is none. Nothing here
knows what woke anybody: the stored checkpoint is compared with what the server says now, and hints only name what
else is worth asking. The order is the order of urgency:

    numbers that the next EXPUNGE would shift → a generation that ended → new mail → flags and expunges
    → whatever is still missing, newest first

An up-to-date mirror has no next step: no command is sent and nothing is written.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from itertools import takewhile
from typing import Final

from idlepush.imap.types import ModSeq, Uid, UidValidity
from idlepush.imap.uidset import UidSet
from idlepush.sync.checkpoint import Checkpoint, Hole, Quarantine
from idlepush.sync.events import FoundBy
from idlepush.sync.view import Heard

FEW: Final = 20
"""So many new messages are fetched at once, bodies and all; more are listed first, and become a hole of known size."""


@dataclass(frozen=True, slots=True)
class Standing:
    """How the mirror of a mailbox stands: what a plan needs of it."""

    checkpoint: Checkpoint
    alive: int
    parts: UidSet = UidSet()
    quarantine: tuple[tuple[Uid, Quarantine], ...] = ()
    older_alive: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What the server says now, and what has been learned of it in this session."""

    uidvalidity: UidValidity
    uidnext: Uid | None
    exists: int
    modseq: ModSeq | None = None
    """HIGHESTMODSEQ as EXAMINE said; None where there is none, or none that is trusted."""
    heard: Heard = Heard()
    fresh: bool = False
    """EXAMINE has just been answered: UIDNEXT is of now."""
    flags_due: bool = False
    """It is time to compare all flags, where no mod-sequence tells of them."""
    newest_flags_due: bool = False
    """It is time to compare the newest flags, likewise."""
    counted: tuple[int, int] | None = None
    """(EXISTS, mirrored) that a comparison of all UIDs has already left different: the server miscounts."""
    audit_due: bool = False
    """It is time to compare everything, once nothing else is left to do."""
    leaves_backlog: bool = False
    """Somebody else fetches what is missing below `high`."""
    damaged: UidSet = UidSet()
    """What the mirror holds otherwise than the server, as somebody found who compared it."""
    saves_octets: bool = False
    """What the first mirror left missing, and long bodies, wait for another day."""
    now: datetime | None = None
    """For what is due by the clock; None: nothing is."""


@dataclass(frozen=True, slots=True)
class Begin:
    """Start a generation: the mailbox is new to the mirror, or its UIDs mean something else now."""


@dataclass(frozen=True, slots=True)
class ResolveNumbers:
    """Ask for the UIDs and flags behind sequence numbers, before anything else is sent that could shift them."""

    numbers: frozenset[int]


@dataclass(frozen=True, slots=True)
class Rewind:
    """UIDNEXT went back though UIDVALIDITY did not: find out whether the messages are still the same."""

    uidnext: Uid


@dataclass(frozen=True, slots=True)
class FetchNew:
    """Fetch what stands from `first` on, with bodies."""

    first: Uid


@dataclass(frozen=True, slots=True)
class ListNew:
    """List what stands from `first` on, without bodies; it becomes a hole."""

    first: Uid


@dataclass(frozen=True, slots=True)
class CompareFlags:
    """Compare the flags of these UIDs; None: of all that are mirrored."""

    uids: UidSet | None
    newest: bool = False
    """With `uids` None: of the newest window only."""


@dataclass(frozen=True, slots=True)
class CompareUids:
    """Ask which UIDs below `high` are there: mirrored ones that are not are gone, others are missing here."""

    uids: UidSet | None = None
    """Only whether these are still there; None: all."""


@dataclass(frozen=True, slots=True)
class CompareSince:
    """Ask what changed since the stored mod-sequence; then it is that of this look."""

    modseq: ModSeq


@dataclass(frozen=True, slots=True)
class CompareAll:
    """The stored mod-sequence says nothing: compare all flags and UIDs; then it is that of this look, if any."""


@dataclass(frozen=True, slots=True)
class FillHoles:
    """Fetch a window of the newest holes; `holes` are those whose messages were found alike, newest first."""

    holes: tuple[Hole, ...]


@dataclass(frozen=True, slots=True)
class ContinueBody:
    """Fetch the next slice of a long body."""

    uid: Uid


@dataclass(frozen=True, slots=True)
class Retry:
    """Try again what was put in quarantine."""

    uids: UidSet


@dataclass(frozen=True, slots=True)
class ForgetOlder:
    """Nothing is missing any more: what is left of older generations is gone."""


@dataclass(frozen=True, slots=True)
class Refetch:
    """Fetch these anew, though they are mirrored."""

    uids: UidSet


@dataclass(frozen=True, slots=True)
class Audit:
    """The mirror is equal as far as anybody has told: compare everything all the same."""


Step = (
    Begin
    | ResolveNumbers
    | Rewind
    | FetchNew
    | ListNew
    | CompareFlags
    | CompareUids
    | CompareSince
    | CompareAll
    | FillHoles
    | ContinueBody
    | Retry
    | ForgetOlder
    | Refetch
    | Audit
)
BULK: Final = (FillHoles, ContinueBody, Retry)
"""Steps that may wait while something more urgent is looked at."""


def plan(mirror: Standing | None, seen: Seen) -> Step | None:
    """Return the next step that brings *mirror* closer to the server; None: it is equal."""
    if mirror is None or mirror.checkpoint.uidvalidity != seen.uidvalidity:
        return Begin()
    checkpoint, heard = mirror.checkpoint, seen.heard
    if heard.numbers:
        return ResolveNumbers(heard.numbers)
    if seen.fresh and seen.uidnext is not None and seen.uidnext < checkpoint.high:
        # RFC 9051 section 2.3.1.1 forbids it; servers that lost their index do it all the same.
        return Rewind(seen.uidnext)
    if heard.exists or shows_news(checkpoint, seen):
        return FetchNew(checkpoint.high) if _are_few(mirror, seen) else ListNew(checkpoint.high)
    mirrored = UidSet.range(1, checkpoint.high - 1) - checkpoint.in_holes
    if changed := heard.uids & mirrored:
        return CompareFlags(changed)
    if vanished := heard.vanished & mirrored:
        return CompareUids(vanished)
    if step := _changed_since(checkpoint, seen):
        return step
    if heard.expunged or _miscounted(mirror, seen):
        return CompareUids()
    if seen.modseq is None and (heard.any_flags or seen.flags_due):
        return CompareFlags(None)
    if seen.modseq is None and seen.newest_flags_due:
        return CompareFlags(None, newest=True)
    return _missing(mirror, seen)


def _changed_since(checkpoint: Checkpoint, seen: Seen) -> Step | None:
    """With mod-sequences, all that changed is asked for by one number, unless that number says nothing."""
    stored, now = checkpoint.modseq, seen.modseq
    if stored != now and (stored is None or now is None or now < stored):
        return CompareAll()  # a mod-sequence that is too high is answered with silence (seen)
    if now is not None and stored is not None and (stored < now or seen.heard.any_flags):
        return CompareSince(stored)
    return None


def shows_news(checkpoint: Checkpoint, seen: Seen) -> bool:
    """Tell whether EXAMINE itself shows that there may be new mail."""
    return seen.fresh and (seen.uidnext is None or seen.uidnext > checkpoint.high)


def _are_few(mirror: Standing, seen: Seen) -> bool:
    """Tell whether what is new may be fetched without a listing: few messages, and no older ones waiting."""
    if mirror.checkpoint.holes and not (seen.leaves_backlog or seen.saves_octets):
        return False
    if seen.fresh:
        return seen.uidnext is not None and seen.uidnext - mirror.checkpoint.high <= FEW
    return seen.heard.rose <= FEW


def _miscounted(mirror: Standing, seen: Seen) -> bool:
    mirrored = mirror.alive + len(mirror.quarantine)
    return not mirror.checkpoint.holes and seen.exists != mirrored and seen.counted != (seen.exists, mirrored)


def _missing(mirror: Standing, seen: Seen) -> Step | None:
    if seen.leaves_backlog and (mirror.checkpoint.holes or mirror.parts):
        return None
    if seen.saves_octets and waits(mirror.checkpoint.holes, mirror.parts):
        return None
    if holes := mirror.checkpoint.holes:
        return FillHoles(tuple(takewhile(lambda hole: hole.found_by is holes[0].found_by, holes)))
    if mirror.parts:
        return ContinueBody(Uid(mirror.parts.last))
    if mirror.older_alive:
        return ForgetOlder()
    if seen.now is not None:
        due = [uid for uid, quarantine in mirror.quarantine if quarantine.next_try <= seen.now]
        if due:
            return Retry(UidSet.from_uids(due))
    if seen.damaged:
        return Refetch(seen.damaged)
    return Audit() if seen.audit_due else None


def waits(holes: Sequence[Hole], parts: UidSet) -> bool:
    """Tell whether what is missing is old mail and long bodies alone, which may wait."""
    return holes[0].found_by is FoundBy.BACKFILL if holes else bool(parts)


def after(step: Step, seen: Seen) -> Seen:
    """Return what is still to be looked into once *step* was carried out."""
    match step:
        case ResolveNumbers():
            return replace(seen, heard=replace(seen.heard, numbers=frozenset()))
        case FetchNew() | ListNew():
            return replace(seen, fresh=False, heard=replace(seen.heard, exists=False, rose=0))
        case Rewind():
            return replace(seen, fresh=False)
        case CompareFlags(uids=None, newest=newest):
            heard = seen.heard if newest else replace(seen.heard, any_flags=False)
            return replace(seen, heard=heard, newest_flags_due=False, flags_due=seen.flags_due and newest)
        case CompareFlags():
            return replace(seen, heard=replace(seen.heard, uids=UidSet()))
        case Refetch() | Audit():
            return replace(seen, damaged=UidSet(), audit_due=seen.audit_due and isinstance(step, Refetch))
        case CompareUids(uids=None) | CompareAll():
            heard = replace(seen.heard, expunged=False, vanished=UidSet())
            if isinstance(step, CompareAll):
                return replace(seen, heard=replace(heard, any_flags=False), flags_due=False, newest_flags_due=False)
            return replace(seen, heard=heard)
        case CompareUids():
            return replace(seen, heard=replace(seen.heard, vanished=UidSet()))
        case CompareSince():
            return replace(seen, heard=replace(seen.heard, any_flags=False))
        case Begin():
            # All of it is one hole now, to be fetched as it is; only what came after the EXAMINE is not in it.
            news = Heard(exists=seen.heard.exists, rose=seen.heard.rose)
            return replace(
                seen,
                fresh=False,
                heard=news,
                flags_due=False,
                newest_flags_due=False,
                audit_due=False,
                damaged=UidSet(),
            )
        case _:
            return seen
