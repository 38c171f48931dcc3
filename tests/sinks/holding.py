"""A Maildir held against the store it was made from: every row against every file, by somebody who knows neither."""

from collections.abc import AsyncIterator
from pathlib import Path

from idlepush.imap.types import MailboxName
from idlepush.store.base import MessageRow, Reader

_LETTERS = {"F": "\\Flagged", "R": "\\Answered", "S": "\\Seen", "T": "\\Deleted", "D": "\\Draft", "P": "$Forwarded"}
Held = dict[str, tuple[str, tuple[str, ...], bytes, int]]


async def differences(store: Reader, root: Path, account: str = "alice") -> list[str]:
    """Return what is wrong with the Maildir, in words; nothing where it is the mirror's equal.

    Mailboxes' names hold neither what is escaped nor other flags than Maildir's, and every message has a date.
    """
    expected: Held = {}
    async for mailbox, row in _live(store, account):
        whole = b"".join([piece async for piece in store.raw(row.id)])
        assert row.internal_date is not None
        flags = tuple(flag for flag in row.flags if flag in _LETTERS.values())
        expected[row.id] = (mailbox, flags, whole, int(row.internal_date.timestamp()))

    found: Held = {}
    wrong = [f"left behind: {path.relative_to(root)}" for path in root.rglob("tmp/*")]
    for path in [*root.rglob("new/*.idlepush*"), *root.rglob("cur/*.idlepush*")]:
        id_ = path.name.split(".")[1]
        if id_ in found:
            wrong.append(f"{id_} is there twice")
        folder = path.parent.parent.relative_to(root).name
        letters = path.name.partition(":2,")[2]
        found[id_] = (
            "INBOX" if folder == "" else folder[1:].replace(".", "/").replace("\\2e", "."),
            tuple(sorted(_LETTERS[letter] for letter in letters if letter in _LETTERS)),
            path.read_bytes().replace(b"\n", b"\r\n"),
            int(path.stat().st_mtime),
        )
    return wrong + [
        f"{id_}: {found.get(id_)} in place of {expected.get(id_)}"
        for id_ in sorted(expected.keys() | found.keys())
        if expected.get(id_) != found.get(id_)
    ]


async def _live(store: Reader, account: str) -> AsyncIterator[tuple[str, MessageRow]]:
    for mailbox in await store.mailboxes(account):
        if mailbox.uidvalidity is not None:
            async for row in store.messages(account, MailboxName(mailbox.raw)):
                if row.sha256 is not None:
                    yield mailbox.name, row
