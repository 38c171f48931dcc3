"""Judge what a FETCH brought: a message that can be stored, or the reason why it cannot (`sync.md`, Check).

Nothing is stored as whole that was not: NIL, an empty body, a body that is not as long as the server says, are not
the message; an empty mail is believed when it is empty twice. Five servers answer in five ways for a message that was
expunged just now (`faults.md`, b9); whether it is still there is for the presence check to say, not for this.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from idlepush.imap.responses import BodySection, Fetch
from idlepush.imap.types import Uid
from idlepush.sync.changes import KnownAgain, NewMessage
from idlepush.sync.content import attachments_in
from idlepush.sync.events import FoundBy
from idlepush.sync.identity import identity_of
from idlepush.sync.message import fingerprint, header_of, headers_of

_EMPTY: Final = (0, 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class BodyRules:
    """What of a message is mirrored; `longest` 0 means no bound, `slice` is what one FETCH asks for at most."""

    headers_only: bool
    longest: int
    slice: int

    def wants_header_only(self, size: int | None) -> bool:
        """Tell whether a message of this size is mirrored by its header."""
        return self.headers_only or (size is not None and 0 < self.longest < size)


@dataclass(frozen=True, slots=True)
class Unusable:
    """It is not the message; `doubt` is what to compare the next answer with, where the sizes disagree."""

    reason: str
    doubt: tuple[int, int] | None = None


def judge(
    said: Fetch | None, rules: BodyRules, *, found_by: FoundBy, initial: bool, doubt: tuple[int, int] | None = None
) -> NewMessage | Unusable:
    """Return the message that *said* shows, or why it shows none.

    *doubt* is what an earlier answer for this UID left: octets that disagree with RFC822.SIZE twice alike are the
    message after all (Exchange counts its sizes wrong).
    """
    if said is None or said.uid is None:
        return Unusable("the server leaves it out")
    if said.flags is None or said.size is None:
        return Unusable("the server does not tell its flags and size")
    section = _section(said)
    if section is None or section.data is None or (said.size > 0 and not section.data):
        return Unusable("the server gives no text for it")
    data = section.data
    if not data and doubt != _EMPTY:
        # What was expunged just now may look like this; a mail that really is empty still does when asked again.
        return Unusable("the server says that it is empty", _EMPTY)
    whole = section.section == "" and (section.origin is None or len(data) < rules.slice)
    if whole and len(data) != said.size and doubt != (said.size, len(data)):
        return Unusable(f"it has {len(data)} octets where {said.size} were announced", (said.size, len(data)))
    header = header_of(data)
    header_only = rules.wants_header_only(said.size) or section.section != ""
    return NewMessage(
        uid=Uid(said.uid),
        flags=said.flags,
        internal_date=said.internal_date,
        size=said.size,
        headers=headers_of(header),
        fingerprint=fingerprint(header, said.size, said.internal_date),
        body=None if header_only else data,
        found_by=found_by,
        initial=initial,
        complete=whole or header_only,
        truncated=header_only and not rules.headers_only,
        modseq=said.modseq,
        attachments=attachments_in(said.structure) if header_only and said.structure else (),
        identity=identity_of(said),
    )


def told_apart(answers: Iterable[Fetch]) -> tuple[KnownAgain, ...]:
    """Return what an older generation may know again of *answers*, a window of a reset: a listing, or headers.

    Only what has a name, or a header with a Message-ID that no other message of the window has as well.
    """
    found = [one for said in answers if (one := _known_again(said)) is not None]
    counts = Counter(one.fingerprint for one in found)
    return tuple(one for one in found if one.identity.email_id is not None or counts[one.fingerprint] == 1)


def _known_again(said: Fetch) -> KnownAgain | None:
    if said.uid is None or said.flags is None or said.size is None:
        return None
    identity, section = identity_of(said), _section(said)
    key = None
    if section is not None and section.data and headers_of(section.data).message_id is not None:
        key = fingerprint(header_of(section.data), said.size, said.internal_date)
    if identity.email_id is None and key is None:
        return None
    return KnownAgain(
        uid=said.uid,
        flags=said.flags,
        internal_date=said.internal_date,
        size=said.size,
        modseq=said.modseq,
        identity=identity,
        fingerprint=key,
    )


def _section(said: Fetch) -> BodySection | None:
    usable = [part for part in said.bodies if part.section in ("", "HEADER") and part.origin in (None, 0)]
    return usable[-1] if usable else None
