r"""Choose which of a server's mailboxes are mirrored, by the patterns of the configuration (`contract.md`, mailboxes).

`*` stands for any characters, `%` for any but the delimiter, `"\\Sent"` for the mailbox with that special use
(RFC 6154), `"!"` in front excludes; the last pattern that matches a mailbox decides.

A name's octets are the mailbox's identity. They are modified UTF-7, for UTF8=ACCEPT (RFC 6855) is never enabled: it
would give the same mailbox another spelling, and so another identity, as soon as a server begins or ceases to offer it.
"""

import re
from collections.abc import Iterable, Sequence
from typing import Final

from idlepush.imap.responses import ListEntry
from idlepush.imap.types import MailboxName
from idlepush.sync.pattern import matches

INBOX: Final = MailboxName(b"INBOX")
UNSELECTABLE: Final = frozenset({"\\noselect", "\\nonexistent"})


def is_plain(pattern: str) -> bool:
    """Tell whether *pattern* is one mailbox's name on any server, so that nothing needs to be listed."""
    return not pattern.startswith(("\\", "!")) and not re.search(r"[*%/]", pattern)


def chosen(patterns: Sequence[str], listed: Iterable[ListEntry]) -> tuple[MailboxName, ...]:
    """Return the mailboxes to mirror, in the order of the patterns that chose them; of one pattern's, INBOX first.

    A plain name that is not listed, or cannot be selected, is chosen all the same: it may come to be.
    """
    ranked: dict[MailboxName, int] = {}
    entries = [entry for entry in listed if not entry.attributes & UNSELECTABLE]
    delimiters = {entry.delimiter for entry in entries if entry.delimiter}
    for entry in entries:
        rank = _rank(patterns, entry)
        if rank is not None:
            ranked[entry.name] = rank
    delimiter = delimiters.pop() if len(delimiters) == 1 else None
    for pattern in patterns:
        if not pattern.startswith(("\\", "!")) and not re.search(r"[*%]", pattern):
            named = MailboxName.from_text(pattern.replace("/", delimiter) if delimiter else pattern)
            rank = _rank(patterns, ListEntry(frozenset(), delimiter, named))
            if rank is not None:
                ranked.setdefault(named, rank)
    return tuple(sorted(ranked, key=lambda name: (ranked[name], name != INBOX, name.text, name.raw)))


def _rank(patterns: Sequence[str], entry: ListEntry) -> int | None:
    found = None
    for rank, pattern in enumerate(patterns):
        if _matches(pattern.removeprefix("!"), entry):
            found = None if pattern.startswith("!") else rank
    return found


def _matches(pattern: str, entry: ListEntry) -> bool:
    if pattern.startswith("\\"):
        return pattern.casefold() in entry.attributes
    name = entry.name.text
    if pattern.upper() == "INBOX":
        return name == "INBOX"
    return matches(pattern, name, entry.delimiter)
