"""`UidSet`: a set of UIDs (or of sequence numbers) as ranges, the way IMAP itself spells it (RFC 9051 `sequence-set`).

UIDs are sparse: a mailbox of ten messages may number them up to 4294967295, so nothing here enumerates a range
unless it is iterated. Every operation costs as many steps as there are ranges, and membership fewer.
"""

import re
from array import array
from bisect import bisect_left
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final, Self

from idlepush.errors import RemoteProtocolError
from idlepush.imap.types import MAX_UID, Uid, excerpt

Range = tuple[int, int]

LONGEST_RANGE: Final = len("4294967295:4294967295")

# Bounded digits: int() is never given more than ten of them, whatever the server sends. Ten thousand parts at a time:
# as octets objects they are ten times their spelling.
_SOME_PARTS: Final = re.compile(
    rb"[1-9][0-9]{0,9}(?::[1-9][0-9]{0,9})?(?:,[1-9][0-9]{0,9}(?::[1-9][0-9]{0,9})?){0,9999}+(?=,|\Z)"
)


@dataclass(frozen=True, slots=True, repr=False)
class UidSet:
    """Sorted, disjoint, non-adjacent ranges within 1..4294967295, both ends included.

    The constructor believes its argument; `from_ranges` makes ranges of any kind fit.
    """

    ranges: tuple[Range, ...] = ()

    @classmethod
    def of(cls, *uids: int) -> Self:
        """Return the set of exactly these."""
        return cls.from_uids(uids)

    @classmethod
    def from_uids(cls, uids: Iterable[int]) -> Self:
        """Return the set of *uids*, in any order, repeated or not.

        Raises:
            ValueError: one leaves 1..4294967295.
        """
        # Written out, not by way of from_ranges: a SEARCH answers a million of them, one by one.
        ordered = sorted(uids)
        if not ordered:
            return cls()
        ranges: list[Range] = []
        first = last = ordered[0]
        for uid in ordered:
            if uid > last + 1:
                ranges.append((first, last))
                first = uid
            last = uid
        ranges.append((first, last))
        return cls(_checked(tuple(ranges)))

    @classmethod
    def from_ranges(cls, ranges: Iterable[Range]) -> Self:
        """Return the union of *ranges*, in any order; they may overlap.

        Raises:
            ValueError: a range goes backwards or leaves 1..4294967295.
        """
        return cls(_checked(tuple(_joined(sorted(ranges)))))

    @classmethod
    def range(cls, first: int, last: int) -> Self:
        """Return all from *first* to *last*; nothing where *first* is above *last*."""
        return cls.from_ranges(((first, last),)) if first <= last else cls()

    @classmethod
    def parse(cls, spelled: bytes | str) -> Self:
        """Read the wire's `1:3,7`; `4:2` means 2:4 (RFC 9051 `seq-range`), `*` has no meaning in an answer.

        Raises:
            RemoteProtocolError: it is no such thing, or leaves 1..4294967295.
        """
        octets = spelled.encode("ascii", "replace") if isinstance(spelled, str) else spelled
        singles = array("Q")
        ranges: list[Range] = []
        at = -1
        while at < len(octets):
            run = _SOME_PARTS.match(octets, at + 1)
            if run is None:
                raise RemoteProtocolError(
                    f"the server sent {excerpt(octets[max(at, 0) :])} where a set of UIDs belongs"
                )
            parts = run[0].split(b",")
            if b":" in run[0]:
                ranges += [_range_of(part) for part in parts if b":" in part]
                parts = [part for part in parts if b":" not in part]
            singles.extend(map(int, parts))
            at = run.end()
        try:
            both = cls.from_uids(singles) | cls.from_ranges(ranges)
        except ValueError:
            raise RemoteProtocolError("the server sent a UID above 4294967295") from None
        return cls(both.ranges)

    @property
    def first(self) -> Uid:
        """The smallest; ValueError where there is none."""
        if not self.ranges:
            raise ValueError("an empty set has no first UID")
        return Uid(self.ranges[0][0])

    @property
    def last(self) -> Uid:
        """The largest; ValueError where there is none."""
        if not self.ranges:
            raise ValueError("an empty set has no last UID")
        return Uid(self.ranges[-1][1])

    def __or__(self, other: "UidSet") -> "UidSet":
        if not self.ranges or not other.ranges:
            return self if self.ranges else other
        # Two sorted runs: sorting them is one merge.
        return UidSet(tuple(_joined(sorted(self.ranges + other.ranges))))

    def __and__(self, other: "UidSet") -> "UidSet":
        common: list[Range] = []
        mine, theirs = self.ranges, other.ranges
        here = there = 0
        while here < len(mine) and there < len(theirs):
            first = max(mine[here][0], theirs[there][0])
            last = min(mine[here][1], theirs[there][1])
            if first <= last:
                common.append((first, last))
            if mine[here][1] < theirs[there][1]:
                here += 1
            else:
                there += 1
        return UidSet(tuple(common))

    def __sub__(self, other: "UidSet") -> "UidSet":
        if not self.ranges or not other.ranges:
            return self
        left: list[Range] = []
        theirs = other.ranges
        there = 0
        for begin, last in self.ranges:
            first = begin
            while there < len(theirs) and theirs[there][1] < first:
                there += 1
            # A range of theirs may reach into the next of mine: it is stepped over only once it is behind.
            look = there
            while look < len(theirs) and theirs[look][0] <= last:
                if first < theirs[look][0]:
                    left.append((first, theirs[look][0] - 1))
                first = theirs[look][1] + 1
                there = look
                look += 1
            if first <= last:
                left.append((first, last))
        return UidSet(tuple(left))

    def __contains__(self, uid: object) -> bool:
        if not isinstance(uid, int):
            return False
        at = bisect_left(self.ranges, uid, key=_last)
        return at < len(self.ranges) and self.ranges[at][0] <= uid

    def __len__(self) -> int:
        return sum(last - first + 1 for first, last in self.ranges)

    def __bool__(self) -> bool:
        return bool(self.ranges)

    def __iter__(self) -> Iterator[Uid]:
        """Yield every UID, ascending. The only place where ranges are counted through."""
        for first, last in self.ranges:
            for uid in range(first, last + 1):
                yield Uid(uid)

    def __str__(self) -> str:
        """The wire's spelling: `1:3,7`."""
        return ",".join(map(_spell, self.ranges))

    def __repr__(self) -> str:
        shown = ",".join(map(_spell, self.ranges[:8]))
        more = f",… {len(self.ranges) - 8} more" if len(self.ranges) > 8 else ""
        return f"UidSet({shown}{more})"

    def below(self, uid: int) -> "UidSet":
        """Return those smaller than *uid*."""
        at = bisect_left(self.ranges, uid, key=_last)
        kept = self.ranges[:at]
        if at < len(self.ranges) and self.ranges[at][0] < uid:
            kept = (*kept, (self.ranges[at][0], uid - 1))
        return UidSet(kept)

    def above(self, uid: int) -> "UidSet":
        """Return those larger than *uid*."""
        at = bisect_left(self.ranges, uid + 1, key=_last)
        kept = self.ranges[at:]
        if kept and kept[0][0] <= uid:
            kept = ((uid + 1, kept[0][1]), *kept[1:])
        return UidSet(kept)

    def newest(self, count: int) -> "UidSet":
        """Return the *count* largest, or all where there are fewer."""
        return next(self.chunks(count, newest_first=True), UidSet()) if count > 0 else UidSet()

    def chunks(self, count: int, *, newest_first: bool = False) -> Iterator["UidSet"]:
        """Cut into sets of *count* UIDs each, the last one of what is left.

        Raises:
            ValueError: *count* is not positive.
        """
        if count < 1:
            raise ValueError(f"a chunk of {count} UIDs is none")
        return self._newest_chunks(count) if newest_first else self._oldest_chunks(count)

    def _oldest_chunks(self, count: int) -> Iterator["UidSet"]:
        chunk: list[Range] = []
        room = count
        for begin, last in self.ranges:
            first = begin
            while first <= last:
                end = min(last, first + room - 1)
                chunk.append((first, end))
                room -= end - first + 1
                first = end + 1
                if not room:
                    yield UidSet(tuple(chunk))
                    chunk, room = [], count
        if chunk:
            yield UidSet(tuple(chunk))

    def _newest_chunks(self, count: int) -> Iterator["UidSet"]:
        chunk: list[Range] = []
        room = count
        for first, end in reversed(self.ranges):
            last = end
            while first <= last:
                begin = max(first, last - room + 1)
                chunk.append((begin, last))
                room -= last - begin + 1
                last = begin - 1
                if not room:
                    yield UidSet(tuple(reversed(chunk)))
                    chunk, room = [], count
        if chunk:
            yield UidSet(tuple(reversed(chunk)))

    def spelled(self, max_octets: int = 7000) -> Iterator[str]:
        """Yield spellings of at most *max_octets* each that together are the set, ascending.

        Commands stay below 8 kB (`design.md`); a set that is longer is sent in pieces.

        Raises:
            ValueError: a single range may not fit into *max_octets*.
        """
        if max_octets < LONGEST_RANGE:
            raise ValueError(f"a range may need {LONGEST_RANGE} octets, {max_octets} are too few")
        return self._spelled(max_octets)

    def _spelled(self, max_octets: int) -> Iterator[str]:
        parts: list[str] = []
        octets = -1  # the first part has no comma before it
        for part in map(_spell, self.ranges):
            if octets + 1 + len(part) > max_octets:
                yield ",".join(parts)
                parts, octets = [], -1
            parts.append(part)
            octets += 1 + len(part)
        if parts:
            yield ",".join(parts)


def _range_of(part: bytes) -> Range:
    start, _, end = part.partition(b":")
    first, last = int(start), int(end)
    return (first, last) if first <= last else (last, first)


def _last(one: Range) -> int:
    return one[1]


def _spell(one: Range) -> str:
    return f"{one[0]}:{one[1]}" if one[0] != one[1] else f"{one[0]}"


def _checked(ranges: tuple[Range, ...]) -> tuple[Range, ...]:
    if ranges and not 1 <= ranges[0][0] <= ranges[-1][1] <= MAX_UID:
        raise ValueError(f"UIDs from {ranges[0][0]} to {ranges[-1][1]} are not within 1..{MAX_UID}")
    return ranges


def _joined(ranges: Iterable[Range]) -> Iterator[Range]:
    """Join what overlaps or touches in *ranges*, which are sorted."""
    opened: Range | None = None
    for first, last in ranges:
        if first > last:
            raise ValueError(f"the range {first}:{last} goes backwards")
        if opened is None:
            opened = first, last
        elif first <= opened[1] + 1:
            opened = opened[0], max(opened[1], last)
        else:
            yield opened
            opened = first, last
    if opened is not None:
        yield opened
