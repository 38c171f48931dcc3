"""Recognise mailboxes that are called something else now.

RENAME keeps a mailbox's messages with their UIDs and its UIDVALIDITY (RFC 9051 section 6.3.6; so did every server
tried). Between two readings of the list anything may have been renamed, deleted and made again, so what is there now
is held against what was mirrored:

    MAILBOXID (RFC 8474)   stays with a mailbox and belongs to no other: it is taken at its word
    UIDVALIDITY            a guess: a name that is gone, or has another UIDVALIDITY now, and a name that is new, or has,
                           with the same UIDVALIDITY, UIDNEXT not below what was mirrored and a count that fits; and
                           none but these two could be meant. Servers that take the second for a UIDVALIDITY give the
                           same one to mailboxes made together, so the guess has to be proven by the messages

INBOX is renamed by MAILBOXID alone: RENAME INBOX moves its messages to a new mailbox and leaves it where it is.
"""

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from idlepush.imap.types import MailboxName, Uid, UidValidity
from idlepush.sync.mailboxes import INBOX
from idlepush.sync.status import MailboxStatus

_MOST_ALIKE: Final = 100
"""More mailboxes with the same UIDVALIDITY than this: it tells nothing there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """A mirrored mailbox, as far as it can be told by."""

    uidvalidity: UidValidity
    high: Uid
    messages: int | None
    """How many there were below `high`; None while some are still to be mirrored."""
    object_id: str | None = None


@dataclass(frozen=True, slots=True)
class Rename:
    """A mailbox that seems to be called *after* now; a guess until it is proven."""

    before: MailboxName
    after: MailboxName
    proven: bool


def find_renames(known: Mapping[MailboxName, Known], there: Mapping[MailboxName, MailboxStatus]) -> Sequence[Rename]:
    """Return which of the *known* mailboxes are now called as one of those *there*; a name is on each side once."""
    certain = _by_object_id(known, there)
    settled, taken = {rename.before for rename in certain}, {rename.after for rename in certain}
    speaks = any(status.object_id for status in there.values())
    # One whose MAILBOXID is nowhere now is gone.
    sources = [name for name in known.keys() - settled if not (speaks and known[name].object_id)]
    targets: defaultdict[UidValidity | None, list[MailboxName]] = defaultdict(list)
    for name in there.keys() - taken - {INBOX}:
        if name in settled or name not in known or known[name].uidvalidity != there[name].uidvalidity:
            targets[there[name].uidvalidity].append(name)
    pairs = [
        (before, after)
        for before in sources
        if _is_elsewhere(before, known[before], there)
        for after in targets[known[before].uidvalidity][:_MOST_ALIKE]
        if _fits(known[before], there[after])
    ]
    as_before, as_after = Counter(before for before, _ in pairs), Counter(after for _, after in pairs)
    guesses = [Rename(*pair, proven=False) for pair in pairs if as_before[pair[0]] == as_after[pair[1]] == 1]
    return [*certain, *sorted(guesses, key=lambda guess: guess.before)]


def _by_object_id(known: Mapping[MailboxName, Known], there: Mapping[MailboxName, MailboxStatus]) -> list[Rename]:
    # An id that is told of two mailboxes, or known of two, says nothing.
    told = Counter(status.object_id for status in there.values())
    had = Counter(one.object_id for one in known.values())
    places = {status.object_id: name for name, status in there.items() if told[status.object_id] == 1}
    return [
        Rename(name, places[one.object_id], proven=True)
        for name, one in sorted(known.items())
        if one.object_id is not None and had[one.object_id] == 1 and places.get(one.object_id, name) != name
    ]


def _is_elsewhere(name: MailboxName, one: Known, there: Mapping[MailboxName, MailboxStatus]) -> bool:
    status = there.get(name)
    is_another = status is None or (status.uidvalidity is not None and status.uidvalidity != one.uidvalidity)
    return is_another and name != INBOX


def _fits(one: Known, status: MailboxStatus) -> bool:
    if status.uidnext is None or status.uidnext < one.high:
        return False
    return (
        one.messages is None or status.messages is None or status.messages <= one.messages + status.uidnext - one.high
    )


def in_order(renames: Iterable[Rename], taken: Collection[MailboxName]) -> Sequence[tuple[MailboxName, MailboxName]]:
    """Return the steps, (before, after), that do all *renames* one after the other.

    No step takes the name of a mailbox that is itself still to be renamed: where names are swapped, one of them goes
    over a name that is not among those *taken*.
    """
    left = {rename.before: rename.after for rename in renames}
    used = {*taken, *left, *left.values()}
    steps: list[tuple[MailboxName, MailboxName]] = []
    while left:
        before = next((before for before, after in left.items() if after not in left), None)
        if before is not None:
            steps.append((before, left.pop(before)))
            continue
        before = next(iter(left))
        aside = MailboxName(before.raw + b"~")
        while aside in used:
            aside = MailboxName(aside.raw + b"~")
        used.add(aside)
        steps.append((before, aside))
        left[aside] = left.pop(before)
    return steps
