"""Pictures of an account: as an independent client sees it on the server, and as the mirror shows it."""

import hashlib
import imaplib
import re
from collections.abc import Collection, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from idlepush.imap.types import MailboxName, encode_mutf7
from idlepush.store.base import MessageRow
from idlepush.store.sqlite import open_reader
from idlepush.sync.events import Event

_LISTED = re.compile(rb'\(([^)]*)\) (?:NIL|"(?:[^"\\]|\\.)*") (.+)', re.DOTALL)
_HEAD = re.compile(rb'UID (\d+) FLAGS \(([^)]*)\) INTERNALDATE "([^"]*)" RFC822.SIZE (\d+)')
_UNSELECTABLE = {b"\\noselect", b"\\nonexistent"}


@dataclass(frozen=True, slots=True)
class Shown:
    """What a message looks like from outside; its bytes by their hash."""

    flags: frozenset[str]
    size: int
    internal_date: datetime | None
    sha256: str | None


@dataclass(frozen=True, slots=True)
class Shelf:
    """A mailbox: its UIDVALIDITY, and its messages by UID."""

    uidvalidity: int | None
    messages: Mapping[int, Shown]


Picture = Mapping[str, Shelf]
"""An account: its mailboxes by name."""


def wire(name: str) -> str:
    """Spell a mailbox's name as a quoted string of the wire."""
    return '"' + encode_mutf7(name).decode().replace("\\", "\\\\").replace('"', '\\"') + '"'


def names_on(client: imaplib.IMAP4) -> list[str]:
    """List the mailboxes that say they can be selected."""
    status, lines = client.list('""', "*")
    assert status == "OK"
    found = []
    for line in lines:
        if line is None:
            continue
        whole = b"%s%s" % (line[0].rpartition(b"{")[0], line[1]) if isinstance(line, tuple) else line
        match = _LISTED.fullmatch(whole)
        if match is None or _UNSELECTABLE & {each.lower() for each in match[1].split()}:
            continue
        raw = match[2]
        if raw.startswith(b'"'):
            raw = re.sub(rb"\\(.)", rb"\1", raw[1:-1])
        found.append(MailboxName(raw).text)
    return sorted(found)


def on_server(reader: imaplib.IMAP4) -> tuple[Picture, frozenset[str]]:
    """Look at every mailbox; return also the names of those that are listed, but cannot be selected.

    Dovecot 2.3 lists a mailbox that was deleted above its children as if it were there.
    """
    shelves, refused = {}, set()
    for name in names_on(reader):
        if reader.select(wire(name), readonly=True)[0] == "OK":
            (uidvalidity,) = reader.response("UIDVALIDITY")[1]
            assert uidvalidity is not None
            shelves[name] = Shelf(int(uidvalidity), dict(_messages(reader)))
        else:
            refused.add(name)
    # What stays selected could not be deleted in peace.
    reader.select("INBOX", readonly=True)
    return shelves, frozenset(refused)


def _messages(reader: imaplib.IMAP4) -> Iterator[tuple[int, Shown]]:
    status, lines = reader.uid("FETCH", "1:*", "(UID FLAGS INTERNALDATE RFC822.SIZE BODY.PEEK[])")
    assert status == "OK"
    for line in lines:
        if line is None or line == b")":
            continue
        head, body = line if isinstance(line, tuple) else (line, b"")
        match = _HEAD.search(head)
        if match is None:
            continue  # unsolicited: flags that another session changed
        flags = frozenset(flag.decode() for flag in match[2].split() if flag != b"\\Recent")
        moment = datetime.strptime(match[3].decode().strip(), "%d-%b-%Y %H:%M:%S %z").astimezone(UTC)
        yield int(match[1]), Shown(flags, int(match[4]), moment, hashlib.sha256(body).hexdigest())


@dataclass(frozen=True, slots=True)
class Mirrored:
    """An account as the store shows it: a picture, and where each message `id` stands."""

    picture: dict[str, Shelf] = field(default_factory=dict)
    places: dict[str, tuple[str, int, int]] = field(default_factory=dict)


async def in_mirror(path: Path) -> dict[str, Mirrored]:
    """Look at every account of a store, whoever owns it."""
    found: dict[str, Mirrored] = {}
    messages: dict[tuple[str, str], dict[int, Shown]] = {}
    async with open_reader(path) as reader:
        for mailbox in await reader.mailboxes():
            account = found.setdefault(mailbox.account, Mirrored())
            if mailbox.uidvalidity is not None:
                shelf = messages.setdefault((mailbox.account, mailbox.name), {})
                account.picture[mailbox.name] = Shelf(mailbox.uidvalidity, shelf)
        async for row in reader.messages():
            account = found.setdefault(row.account, Mirrored())
            shelf = messages.setdefault((row.account, row.mailbox), {})
            if row.mailbox not in account.picture:
                account.picture[row.mailbox] = Shelf(None, shelf)  # messages of a mailbox that is not there
            assert row.id not in account.places, f"{row.id} stands twice"
            account.places[row.id] = (row.mailbox, row.uidvalidity, row.uid)
            # A row of an older generation may have the UID of one of the current.
            number = row.uid if row.uidvalidity == account.picture[row.mailbox].uidvalidity else -row.uid
            while number in shelf:
                number -= 2**32
            shelf[number] = _shown(row)
    return found


def _shown(row: MessageRow) -> Shown:
    return Shown(frozenset(row.flags), row.size, row.internal_date, row.sha256 if row.complete else None)


async def log_of(path: Path, after: int) -> list[Event]:
    """Read the event log from *after* on."""
    found: list[Event] = []
    async with open_reader(path) as reader:
        while page := await reader.events(found[-1].position if found else after):
            found += page
    return found


def differences(mirror: Picture, server: Picture, refused: Collection[str] = ()) -> list[str]:
    """Say in which mailboxes and UIDs two pictures differ, a line for each; none where they are equal.

    Of what is listed but *refused*, nobody can say whether it is gone: the mirror may keep it.
    """
    lines = []
    for name in sorted((mirror.keys() - set(refused)) | server.keys()):
        here, there = mirror.get(name), server.get(name)
        if here is None or there is None:
            lines.append(f"{name}: only {'on the server' if here is None else 'in the mirror'}")
            continue
        if here.uidvalidity != there.uidvalidity:
            lines.append(f"{name}: UIDVALIDITY {here.uidvalidity} in the mirror, {there.uidvalidity} on the server")
        for uid in sorted(here.messages.keys() | there.messages.keys()):
            ours, theirs = here.messages.get(uid), there.messages.get(uid)
            if ours == theirs:
                continue
            if ours is None or theirs is None:
                lines.append(f"{name} {uid}: only {'on the server' if ours is None else 'in the mirror'}")
            else:
                lines += _unlike(f"{name} {uid}", ours, theirs)
    return lines


def _unlike(where: str, ours: Shown, theirs: Shown) -> Iterator[str]:
    for what in ("flags", "size", "internal_date", "sha256"):
        here, there = getattr(ours, what), getattr(theirs, what)
        if here != there:
            if what == "flags":
                here, there = sorted(here), sorted(there)
            yield f"{where}: {what} {here} in the mirror, {there} on the server"


def close(reader: imaplib.IMAP4) -> None:
    """Leave, whatever state the connection is in."""
    try:
        reader.logout()
    except (OSError, imaplib.IMAP4.error):
        with suppress(OSError):
            reader.shutdown()
