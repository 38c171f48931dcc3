"""Ask until the answer is whole: a server may have a limit of messages that one command is carried out for.

RFC 9738: over its limit (Yahoo: 1,000) a server completes FETCH and SEARCH with `OK [MESSAGELIMIT 1000 …]`, having
answered for so many messages in a row, or refuses with `NO [MESSAGELIMIT 1000]`. What it left out is not gone: the
rest is asked for, on both sides of what was answered, until nothing is left out any more. Where nothing was answered
at all, half is asked for at a time.
"""

from collections.abc import Callable, Iterator
from typing import Protocol

from idlepush.engine.connection import Ask, Connection
from idlepush.errors import Refused
from idlepush.imap.commands import Command, noop
from idlepush.imap.responses import Untagged
from idlepush.imap.types import Uid
from idlepush.imap.uidset import UidSet


class Collector(Protocol):
    """Who takes the answers in."""

    @property
    def answered(self) -> UidSet:
        """The UIDs that were answered for."""
        ...

    def claim(self, said: Untagged) -> bool:
        """Take *said* if it is an answer; see `Ask`."""
        ...


async def ask_whole(
    connection: Connection,
    uids: UidSet,
    spell: Callable[[str], Command],
    collector: Collector,
    *,
    octets: int = 0,
    settle: bool = False,
    one_by_one: bool = False,
    uidnext: Uid | None = None,
) -> None:
    """Ask for all of *uids* by commands that *spell* makes of a set; with *settle* a NOOP leaves behind each write.

    *one_by_one*: no command leaves before the one before is completed. *uidnext* is where messages are known to end.

    Raises:
        Refused: NO or BAD; one for an expunged message among them is none.
    """
    pending = [uids]
    while pending:
        asked = list(pending.pop().spelled())
        for together in [[part] for part in asked] if one_by_one else [asked]:
            cut = await _ask(connection, together, spell, collector, octets=octets, settle=settle)
            for part in cut:
                pending += _left(part, collector.answered & part, uidnext)


async def _ask(
    connection: Connection,
    parts: list[str],
    spell: Callable[[str], Command],
    collector: Collector,
    *,
    octets: int,
    settle: bool,
) -> list[UidSet]:
    """Ask for *parts* in one write; return those that were not answered to the end."""
    asks = [Ask(spell(part), collector.claim, octets=octets, by_parts=True) for part in parts]
    try:
        completions = await connection.run(*asks, *([Ask(noop())] if settle else []))
    except Refused as refused:
        # Some messages were expunged meanwhile: what is missing is for the presence check to explain.
        if refused.code != "EXPUNGEISSUED":
            raise
        return []
    return [UidSet.parse(part) for part, done in zip(parts, completions, strict=False) if done.is_cut]


def _left(asked: UidSet, answered: UidSet, uidnext: Uid | None) -> Iterator[UidSet]:
    """Yield what is to be asked for again of *asked*: what does not stand between the answers, or halves of it."""
    if answered:
        rest = asked.below(answered.first) | asked.above(answered.last)
        if rest:
            yield rest
        return
    first, last = asked.first, asked.last
    if first == last:
        return  # a limit of less than one message: it is not there, as far as can be known
    known = uidnext is not None and first < uidnext <= last
    middle = uidnext if known and uidnext is not None else first + (last - first + 1) // 2
    yield asked.below(middle)
    yield asked.above(middle - 1)
