"""What tells a message whatever its mailbox, UID and UIDVALIDITY: the server's own name for it, and what goes with it.

In the order in which they are trusted: EMAILID and THREADID (OBJECTID, RFC 8474), Gmail's X-GM-MSGID and X-GM-THRID,
Dovecot's X-GUID. Each is spelled with what it is, so that one server's never passes for another's. The same name means
the same octets; where there is none, only the fingerprint of the header can tell.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from idlepush.imap.responses import Fetch
from idlepush.imap.types import MailboxName, printable

_LONGEST: Final = 255
_MOST_LABELS: Final = 1000


@dataclass(frozen=True, slots=True)
class Identity:
    """None where the server has no such thing; labels are Gmail's, sorted."""

    email_id: str | None = None
    thread_id: str | None = None
    labels: tuple[str, ...] | None = None


NO_IDENTITY: Final = Identity()


def identity_items(capabilities: frozenset[str], server: str) -> str:
    """Return what to ask FETCH for beside the rest, each with a blank before it; *server* is its name by ID."""
    items = []
    if "OBJECTID" in capabilities:
        items += ["EMAILID", "THREADID"]
    elif "X-GM-EXT-1" in capabilities:
        items += ["X-GM-MSGID", "X-GM-THRID", "X-GM-LABELS"]
    elif server.casefold() == "dovecot":
        items += ["X-GUID"]
    if "SAVEDATE" in capabilities:
        items += ["SAVEDATE"]
    return "".join(f" {item}" for item in items)


def identity_of(said: Fetch) -> Identity:
    """Read the identity that *said* tells."""
    others = said.others
    if said.email_id is None and said.thread_id is None and not others:
        return NO_IDENTITY
    email_id = said.email_id or _named("X-GM-MSGID", others) or _named("X-GUID", others)
    return Identity(email_id, said.thread_id or _named("X-GM-THRID", others), _labels(others.get("X-GM-LABELS")))


def _named(item: str, others: Mapping[str, object]) -> str | None:
    value = others.get(item)
    if isinstance(value, bytes):
        value = printable(value.decode("ascii", "replace"), _LONGEST)
    return f"{item.lower()}:{value}" if isinstance(value, int | str) and value != "" else None


def _labels(value: object) -> tuple[str, ...] | None:
    if not isinstance(value, tuple):
        return None
    octets = [one if isinstance(one, bytes) else str(one).encode() for one in value[:_MOST_LABELS]]
    return tuple(sorted({printable(MailboxName(one).text, _LONGEST) for one in octets}))
