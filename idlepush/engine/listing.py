"""Read which mailboxes there are and how they stand, in as few round trips as the server allows.

LIST with RETURN (SPECIAL-USE STATUS (…)) tells all of it at once (LIST-EXTENDED, RFC 5258; LIST-STATUS, RFC 5819).
Without LIST-STATUS, and where few of many mailboxes are mirrored, STATUS follows for each, many in one write: an
answer names its mailbox.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from idlepush.engine.connection import Ask
from idlepush.engine.session import Session
from idlepush.errors import MailboxUnavailable, Refused
from idlepush.imap import commands
from idlepush.imap.responses import ListEntry, Status, StatusReply, Untagged
from idlepush.imap.types import MailboxName
from idlepush.sync.mailboxes import UNSELECTABLE, chosen, is_plain
from idlepush.sync.status import MailboxStatus

LONGEST_NAME: Final = 2000
"""Octets of a name: with a longer one a command might be longer than every server takes."""
AT_ONCE: Final = 50
"""STATUS commands in one write: some servers open each mailbox for it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """The mailboxes of an account as they were a moment ago."""

    chosen: Sequence[MailboxName]
    """Those to mirror; the first is the one to idle in."""
    there: frozenset[MailboxName]
    """All that can be selected, as far as anybody asked."""
    unselectable: frozenset[MailboxName] = frozenset()
    """Listed, but not to be selected."""
    statuses: Mapping[MailboxName, MailboxStatus]
    refused: Mapping[MailboxName, MailboxUnavailable]
    """Chosen ones whose STATUS was refused."""
    is_whole: bool = True
    """The list was read; otherwise only the mailboxes named in the configuration were asked for."""


async def read_mailboxes(session: Session, patterns: Sequence[str], *, few: bool = False) -> Reading:
    """Ask what there is; with *few* only a small part of it is chosen.

    Raises:
        Refused: the server does not list its mailboxes.
    """
    if all(map(is_plain, patterns)):
        names = tuple(dict.fromkeys(map(MailboxName.from_text, patterns)))
        statuses, refused = await ask_statuses(session, names)
        return Reading(chosen=names, there=frozenset(statuses), statuses=statuses, refused=refused, is_whole=False)
    few = few or not any(re.search(r"[*%]", pattern) for pattern in patterns if not pattern.startswith("!"))
    entries, statuses = await list_mailboxes(session, with_status=not few and _offers(session, "LIST-STATUS"))
    names = chosen(patterns, entries.values())
    more, refused = await ask_statuses(session, [name for name in names if name not in statuses])
    unselectable = frozenset(name for name, entry in entries.items() if entry.attributes & UNSELECTABLE)
    return Reading(
        chosen=names,
        there=frozenset(entries) - unselectable,
        unselectable=unselectable,
        statuses={**statuses, **more},
        refused=refused,
    )


async def list_mailboxes(
    session: Session, *, with_status: bool = False
) -> tuple[Mapping[MailboxName, ListEntry], Mapping[MailboxName, MailboxStatus]]:
    """List all mailboxes; *with_status* also their numbers.

    Raises:
        Refused: the server does not list them.
    """
    entries: dict[MailboxName, ListEntry] = {}
    statuses: dict[MailboxName, MailboxStatus] = {}

    def claim(said: Untagged) -> bool:
        match said:
            case ListEntry(name=name):
                # RFC 9051 has no names but these: of another one nothing could be asked.
                if b"\0" not in name.raw and 0 < len(name.raw) <= LONGEST_NAME:
                    entries[name] = said
            case StatusReply(name) if with_status:
                statuses[name] = statuses.get(name, MailboxStatus()).updated(MailboxStatus.of(said))
            case _:
                return False
        return True

    special_use = _offers(session, "SPECIAL-USE") and _offers(session, "LIST-EXTENDED")
    items = _items(session) if with_status else ()
    if special_use or items:
        try:
            await session.run(Ask(commands.list_("", "*", status_items=items, special_use=special_use), claim))
        except Refused:
            # Offered, and refused (seen with STATUS of mailboxes that cannot be opened): what is left is asked alone.
            entries.clear()
        else:
            return entries, statuses
    await session.run(Ask(commands.list_("", "*"), claim))
    return entries, statuses


async def ask_statuses(
    session: Session, names: Iterable[MailboxName]
) -> tuple[Mapping[MailboxName, MailboxStatus], Mapping[MailboxName, MailboxUnavailable]]:
    """Ask for the numbers of *names*; return them, and of whom they were refused."""
    statuses: dict[MailboxName, MailboxStatus] = {}
    refused: dict[MailboxName, MailboxUnavailable] = {}

    def claim_for(name: MailboxName) -> Callable[[Untagged], bool]:
        def claim(said: Untagged) -> bool:
            if not (isinstance(said, StatusReply) and said.mailbox == name):
                return False
            statuses[name] = statuses.get(name, MailboxStatus()).updated(MailboxStatus.of(said))
            return True

        return claim

    items = _items(session)
    literals = commands.Literals.offered(session.capabilities)
    asked = [
        (name, Ask(commands.status(name, items, literals=literals), claim_for(name), tolerant=True)) for name in names
    ]
    for window in _windows(asked):
        try:
            completions = await session.run(*(ask for _, ask in window))
        except Refused as bad:
            # One of them was answered with BAD; which, only asking one by one tells.
            if len(window) == 1:
                refused[window[0][0]] = MailboxUnavailable(f"{window[0][0]}: {bad}", failure_class=bad.failure_class)
                continue
            for name, _ in window:
                found, not_found = await ask_statuses(session, [name])
                statuses.update(found)
                refused.update(not_found)
            continue
        for (name, _), done in zip(window, completions, strict=True):
            if done.status is not Status.OK:
                refused[name] = session.unavailable(name, done)
            else:
                statuses.setdefault(name, MailboxStatus())
    return {name: status for name, status in statuses.items() if name not in refused}, refused


def _windows(asked: Iterable[tuple[MailboxName, Ask]]) -> Iterator[Sequence[tuple[MailboxName, Ask]]]:
    """Cut into writes; a command with a literal goes alone, for the server has to be waited for in the midst of it."""
    window: list[tuple[MailboxName, Ask]] = []
    for name, ask in asked:
        if len(ask.command.parts) > 1:
            yield [(name, ask)]
            continue
        window.append((name, ask))
        if len(window) == AT_ONCE:
            yield window
            window = []
    if window:
        yield window


def _items(session: Session) -> Sequence[str]:
    modseq = ["HIGHESTMODSEQ"] if session.uses_condstore else []
    object_id = ["MAILBOXID"] if "OBJECTID" in session.capabilities else []
    return ("MESSAGES", "UIDNEXT", "UIDVALIDITY", *modseq, *object_id)


def _offers(session: Session, extension: str) -> bool:
    """Tell whether the server has *extension*; IMAP4rev2 holds all of those asked for here."""
    return extension in session.capabilities or "IMAP4REV2" in session.capabilities
