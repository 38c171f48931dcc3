r"""Choose which of a server's mailboxes are mirrored, by the patterns of the configuration (`contract.md`, mailboxes).

`*` stands for any characters, `%` for any but the delimiter, `"\\Sent"` for the mailbox with that special use
(RFC 6154), `"!"` in front excludes; the last pattern that matches a mailbox decides.
"""

import re
from collections.abc import Iterable, Sequence
from functools import cache

from idlepush.imap.responses import ListEntry
from idlepush.imap.types import MailboxName

UNSELECTABLE = frozenset({"\\noselect", "\\nonexistent"})


def is_plain(pattern: str) -> bool:
    """Tell whether *pattern* is one mailbox's name on any server, so that nothing needs to be listed."""
    return not pattern.startswith(("\\", "!")) and not re.search(r"[*%/]", pattern)


def chosen(patterns: Sequence[str], listed: Iterable[ListEntry]) -> tuple[MailboxName, ...]:
    """Return the mailboxes to mirror, in the order of the patterns that chose them, then by name.

    A plain name that is not listed is chosen all the same: it may come to be.
    """
    ranked: dict[MailboxName, int] = {}
    entries = [entry for entry in listed if not entry.attributes & UNSELECTABLE]
    delimiters = {entry.delimiter for entry in entries if entry.delimiter}
    for entry in entries:
        rank = _rank(patterns, entry)
        if rank is not None:
            ranked[entry.name] = rank
    for rank, pattern in enumerate(patterns):
        if not pattern.startswith(("\\", "!")) and not re.search(r"[*%]", pattern):
            text = pattern.replace("/", delimiters.copy().pop()) if len(delimiters) == 1 else pattern
            ranked.setdefault(MailboxName.from_text(text), rank)
    return tuple(sorted(ranked, key=lambda name: (ranked[name], name.text)))


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
    return _expression(pattern, entry.delimiter).fullmatch(name) is not None


@cache
def _expression(pattern: str, delimiter: str | None) -> re.Pattern[str]:
    level = f"[^{re.escape(delimiter)}]*" if delimiter else ".*"
    wild = {"*": ".*", "%": level, "/": re.escape(delimiter or "/")}
    return re.compile("".join(wild.get(one, re.escape(one)) for one in pattern), re.DOTALL)
