"""What one commit alters: the change set, and what it does to the checkpoint.

A change set says what is so, not how to write it: a store applies it in one transaction, makes an event for each
part of it that the mirror did not show already, and moves the checkpoint by `advance`. Applied twice, the second
time does nothing and tells nothing.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime

from idlepush.imap.types import Flags, MailboxName, ModSeq, Uid, UidValidity
from idlepush.imap.uidset import UidSet
from idlepush.sync.checkpoint import Checkpoint, Hole, Quarantine, fill
from idlepush.sync.content import Attachment
from idlepush.sync.events import FoundBy
from idlepush.sync.identity import NO_IDENTITY, Identity
from idlepush.sync.message import Headers


@dataclass(frozen=True, slots=True, kw_only=True)
class NewMessage:
    """A message the mirror does not hold yet.

    `body` is the raw message: all of it where `complete`; its beginning where the rest is still to come (the UID
    is then in the mirror's parts); None where only headers are mirrored (`truncated`, or `bodies = "headers"`),
    which counts as complete. `fingerprint` is the same for the same message in another generation.
    """

    uid: Uid
    flags: Flags
    internal_date: datetime | None
    size: int
    headers: Headers
    fingerprint: bytes
    body: bytes | None
    found_by: FoundBy
    initial: bool
    complete: bool = True
    truncated: bool = False
    modseq: ModSeq | None = None
    identity: Identity = NO_IDENTITY
    attachments: tuple[Attachment, ...] = ()
    """Told by BODYSTRUCTURE, where only headers are mirrored; of a body they are read later."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownAgain:
    """A message that may be one of an older generation's, told by its identity or its fingerprint, without its body.

    If exactly one such row is left there (with an identity: if there is any), it goes on under this UID.
    """

    uid: Uid
    flags: Flags
    internal_date: datetime | None
    size: int
    modseq: ModSeq | None
    identity: Identity
    fingerprint: bytes | None
    """None where only the identity may tell."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BodySlice:
    """More of a long message's body; `origin` is the offset of its first octet, `final` says that it is the last."""

    uid: Uid
    origin: int
    data: bytes
    final: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Begin:
    """A new generation: the mailbox is seen for the first time, or its UIDs no longer mean what they meant."""

    uidvalidity: UidValidity
    high: Uid
    holes: tuple[Hole, ...]
    modseq: ModSeq | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ChangeSet:
    """What one look or one window found out about one mailbox.

    `generation` is the one these changes were made for (None only together with `begin` of a mailbox never seen);
    a store refuses any other with StaleGeneration. `accounted` are UIDs that leave their holes; `holes` are new
    ones; `high`, where given, is the new mark (never lowered unless `rewind`). `released` UIDs leave quarantine.
    Those of `known_again` that are known leave their holes, the others stay.
    `leaving` are UIDs, by generation, that are gone from other mailboxes and not expunged there yet: what turns out
    to be one of them was moved.
    `forget_older` expunges what is left of older generations. `urgent` commits go before bulk ones.

    `replaced` are messages that are mirrored already, and wrongly: header, size and body become these, `id`, flags and
    `found_by` stay, and a `message.body` tells of it. One that is not complete begins its body anew, each time.

    `modseq` is the new mod-sequence up to which flags and expunges are in; `forget_modseq` says that there is none any
    more; `modseq_at_most` lowers it: flags that were read by a session which had seen no more than that.
    `modseqs` are those of the messages in `flags`, where the server tells them.
    """

    account: str
    mailbox: MailboxName
    generation: int | None
    begin: Begin | None = None
    new: tuple[NewMessage, ...] = ()
    known_again: tuple[KnownAgain, ...] = ()
    replaced: tuple[NewMessage, ...] = ()
    slices: tuple[BodySlice, ...] = ()
    flags: Mapping[Uid, Flags] = field(default_factory=dict)
    modseqs: Mapping[Uid, ModSeq] = field(default_factory=dict)
    expunged: UidSet = UidSet()
    leaving: Mapping[int, UidSet] = field(default_factory=dict)
    quarantined: Mapping[Uid, Quarantine] = field(default_factory=dict)
    released: UidSet = UidSet()
    accounted: UidSet = UidSet()
    holes: tuple[Hole, ...] = ()
    high: Uid | None = None
    rewind: bool = False
    modseq: ModSeq | None = None
    modseq_at_most: ModSeq | None = None
    forget_modseq: bool = False
    forget_older: bool = False
    looked_at: datetime | None = None
    audited_at: datetime | None = None
    urgent: bool = False

    @property
    def octets(self) -> int:
        """The bytes of bodies in it: what a writer bounds its commits by."""
        return sum(len(message.body or b"") for message in (*self.new, *self.replaced)) + sum(
            len(part.data) for part in self.slices
        )


def advance(checkpoint: Checkpoint, change: ChangeSet, known: UidSet = UidSet()) -> Checkpoint:
    """Return the checkpoint that holds once *change* is committed and *known* were known again."""
    holes = fill(checkpoint.holes, change.accounted | known)
    if change.holes:
        # A UID stands in one hole only; the older hole keeps it, and with it what its message will say.
        known = UidSet.from_ranges((hole.first, hole.last) for hole in holes)
        holes = tuple(sorted((*holes, *fill(change.holes, known)), key=lambda hole: -hole.last))
    high = checkpoint.high if change.high is None else change.high
    if not change.rewind:
        high = max(high, checkpoint.high)
    return replace(checkpoint, high=high, holes=holes, modseq=_modseq(checkpoint, change))


def _modseq(checkpoint: Checkpoint, change: ChangeSet) -> ModSeq | None:
    if change.forget_modseq:
        return None
    modseq = checkpoint.modseq if change.modseq is None else change.modseq
    if modseq is None or change.modseq_at_most is None:
        return modseq
    return min(modseq, change.modseq_at_most)
