"""CONDSTORE and QRESYNC (RFC 7162) of `FakeImap`: what changed since a mod-sequence, and what is gone since."""

import re
from typing import TYPE_CHECKING

from tests.peers.model import BadSyntax, Mailbox, spell_numbers

if TYPE_CHECKING:
    from tests.peers.fake import FakeImap

_SINCE = re.compile(r" \(CHANGEDSINCE (\d+)( VANISHED)?\)$", re.IGNORECASE)
_QRESYNC = re.compile(r" \((?:QRESYNC \((\d+) (\d+)[^()]*\)|CONDSTORE)\)$", re.IGNORECASE)


def selection(arguments: str) -> tuple[str, bool, tuple[int, int] | None]:
    """Cut EXAMINE's parameters off: whether CONDSTORE is wanted, and (UIDVALIDITY, mod-sequence) of QRESYNC."""
    found = _QRESYNC.search(arguments)
    if found is None:
        return arguments, False, None
    since = None if found[1] is None else (int(found[1]), int(found[2]))
    if since is not None and 0 in since:
        raise BadSyntax("QRESYNC since nothing")
    return arguments[: found.start()], True, since


def modifiers(items: str) -> tuple[str, int | None, bool]:
    """Cut FETCH's modifiers off: CHANGEDSINCE, and whether VANISHED is wanted."""
    found = _SINCE.search(items)
    if found is None:
        return items, None, False
    if int(found[1]) == 0:
        raise BadSyntax("CHANGEDSINCE 0")
    return items[: found.start()], int(found[1]), found[2] is not None


def vanished(server: "FakeImap", mailbox: Mailbox, since: int, among: range) -> str:
    """Spell the VANISHED (EARLIER) response, empty where nothing is gone: true or, if it is told to, not."""
    gone = {uid for modseq, uid in mailbox.expunged if modseq > since and uid in among}
    if server.hides_vanished:
        gone.clear()
    told = gone | {uid for uid in server.vanished_besides if uid in among}
    return f"* VANISHED (EARLIER) {spell_numbers(told)}" if told else ""
