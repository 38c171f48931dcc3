r"""How mailboxes and messages are called in a Maildir++. Pure: what a server names reaches the disk through here alone.

A mailbox is a folder, `.Archive.2026`, INBOX the Maildir itself. Maildir++ and Dovecot know one delimiter, `.`, and
names in modified UTF-7. What does not fit is escaped as Dovecot's listescape does it, a backslash and two hexadecimal
digits, so that Dovecot with that plugin shows the very name, and without it one that can be read:

    server              delimiter   folder
    INBOX               any         (the Maildir itself)
    Archive/2026        /           .Archive.2026
    v1.2/notes          /           .v1\2e2.notes
    ../../etc/passwd    /           .\2e\2e.\2e\2e.etc.passwd
    日本語              /           .&ZeVnLIqe-
    a//b                /           .a\2f\2fb          no level is empty

No two mailboxes share a folder, whatever their names (the escape can be undone), and none leaves the Maildir: there
is no `/` in a folder's name, and behind its first dot neither a dot nor nothing. A name too long for a file system
(255 octets) is cut, and `\-` with a digest of the whole stands for the rest.

A message is a file, `1763750000.mk3.idlepush,W=4711:2,FS`: internal date, id, octets as IMAP counts them (which
spares Dovecot from reading the file), flags. Its middle is what it is found by, for mutt and Dovecot rename the rest.
"""

import hashlib
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import combinations
from typing import Final

from idlepush.imap.types import Flags, MailboxName, encode_mutf7

LONGEST: Final = 255
"""Octets that a file system allows for a name."""
_DIGEST: Final = 32

# What would be a path, a level, an escape, a line end, or not text.
_UNFIT: Final = re.compile(rb"[\x00-\x1f./\\\x7f-\xff]")
_HALF_ESCAPE: Final = re.compile(r"\\[0-9a-f]?$")
_HALF_SHIFT: Final = re.compile(r"&[^-]*$")

_LETTERS: Final = {
    "\\draft": "D",
    "\\flagged": "F",
    "$forwarded": "P",
    "\\answered": "R",
    "\\seen": "S",
    "\\deleted": "T",
}
OURS: Final = frozenset(_LETTERS.values())
"""The letters that say what the server says; others are somebody else's and stay."""
_SETS: Final = tuple("".join(some) for count in range(7) for some in combinations(sorted(OURS), count))

_FILE: Final = re.compile(
    r"(0|[1-9][0-9]{0,11})\.([0-9A-Za-z]{1,64})\.idlepush((?:,[A-Z]=[0-9]{1,20})*)(?::2,(.*))?", re.DOTALL
)


def folder_of(mailbox: MailboxName, delimiter: str | None) -> str:
    """Return the name of the mailbox's folder within the Maildir; empty for INBOX, which is the Maildir itself.

    *delimiter* is what the server separates levels by, None where it has no levels.
    """
    if mailbox.raw == b"INBOX":
        return ""
    folder = "." + _spelled(mailbox.raw, delimiter)
    return folder if 1 < len(folder) <= LONGEST else folder_apart(mailbox, delimiter)


def folder_apart(mailbox: MailboxName, delimiter: str | None) -> str:
    """Return another name for the mailbox's folder, with a digest in it: for where the first one is taken already.

    File systems that do not tell `a` from `A` have one folder for two mailboxes.
    """
    cut = _spelled(mailbox.raw, delimiter)[: LONGEST - 3 - _DIGEST]
    cut = _HALF_SHIFT.sub("", _HALF_ESCAPE.sub("", cut)).rstrip(".")
    return f".{cut}\\-{hashlib.sha256(mailbox.raw).hexdigest()[:_DIGEST]}"


def _spelled(raw: bytes, delimiter: str | None) -> str:
    if encode_mutf7(MailboxName(raw).text) != raw:
        # No modified UTF-7: what looks like the beginning of a shift is none, and Dovecot must not take it for one.
        raw_parts = [part.split(b"&") for part in _levels(raw, delimiter)]
        parts = ["\\26".join(_escaped(piece) for piece in pieces) for pieces in raw_parts]
    else:
        parts = [_escaped(part) for part in _levels(raw, delimiter)]
    spelled = ".".join(parts)
    return "\\7e" + spelled[1:] if spelled.startswith("~") else spelled  # Dovecot refuses it: somebody's home


def _levels(raw: bytes, delimiter: str | None) -> list[bytes]:
    # A delimiter that modified UTF-7 is made of could stand within a character.
    if (
        delimiter is None
        or len(delimiter) != 1
        or not delimiter.isascii()
        or delimiter.isalnum()
        or delimiter in "&+,-"
    ):
        return [raw]
    levels = raw.split(delimiter.encode("ascii"))
    return levels if all(levels) else [raw]


def _escaped(part: bytes) -> str:
    return _UNFIT.sub(lambda match: b"\\%02x" % match[0][0], part).decode("ascii")


def letters_of(flags: Flags | Iterable[str]) -> str:
    """Return the letters of the flags that Maildir has letters for, sorted as it demands."""
    return "".join(sorted({_LETTERS[folded] for flag in flags if (folded := flag.casefold()) in _LETTERS}))


@dataclass(frozen=True, slots=True, kw_only=True)
class MessageFile:
    """What the name of a message's file says. `info` is None where it has no flags part, as in `new`."""

    seconds: int
    id: str
    sizes: str
    info: str | None

    @classmethod
    def read(cls, name: str) -> "MessageFile | None":
        """Read a name; None where it is not one of ours."""
        found = _FILE.fullmatch(name)
        if found is None:
            return None
        return cls(seconds=int(found[1]), id=found[2], sizes=found[3], info=found[4])

    @property
    def letters(self) -> str:
        """The letters that are ours to say."""
        return "".join(sorted(OURS.intersection(self.info or "")))

    @property
    def name(self) -> str:
        """Spell it."""
        info = "" if self.info is None else f":2,{self.info}"
        return f"{self.seconds}.{self.id}.idlepush{self.sizes}{info}"

    def with_letters(self, letters: str) -> "MessageFile":
        """Return it with our letters in place of those it has; what others wrote there stays."""
        info = "".join(sorted({*letters, *(set(self.info or "") - OURS)}))
        return MessageFile(seconds=self.seconds, id=self.id, sizes=self.sizes, info=info)


def new_file(id: str, seconds: int, octets: int, letters: str) -> MessageFile:
    """Return the file of a message that was not there before; without letters it has no flags part, and is `new`.

    *seconds* since 1970 may lie before it, or be too many for a name: then they are the nearest that is not.
    """
    return MessageFile(seconds=min(max(seconds, 0), 999_999_999_999), id=id, sizes=f",W={octets}", info=letters or None)


def likely_names(file: MessageFile) -> Iterator[tuple[str, str]]:
    """Yield where the file is most likely to be, as (`new` or `cur`, name): with any of our letters, and no others."""
    bare = MessageFile(seconds=file.seconds, id=file.id, sizes=file.sizes, info=None)
    yield "new", bare.name
    for letters in _SETS:
        yield "cur", bare.with_letters(letters).name
