"""What is fuzzed of a Maildir: no name of a server's leaves it or meets another's, and line ends can be put back."""

import re
import zlib
from itertools import combinations

from idlepush.imap.types import MailboxName
from idlepush.sinks.line_ends import LineEnds
from idlepush.sinks.maildir_names import (
    LONGEST,
    MessageFile,
    folder_apart,
    folder_of,
    letters_of,
    likely_names,
    new_file,
)

_DELIMITERS = (None, "/", ".", "\\", "^", "&", "-", " ", "é")


def folders(octets: bytes) -> str:
    """Lines of mailbox names: each has a folder of its own, which is one name of a file system within the Maildir."""
    delimiter = _DELIMITERS[zlib.crc32(octets) % len(_DELIMITERS)]
    mailboxes = {MailboxName(line) for line in octets.split(b"\n")[:20]}
    named = {mailbox: folder_of(mailbox, delimiter) for mailbox in mailboxes}
    apart = {mailbox: folder_apart(mailbox, delimiter) for mailbox in mailboxes}
    for folder in (*named.values(), *apart.values()):
        assert folder == "" or re.fullmatch(
            r"\.[^./\x00-\x1f\x7f-\U0010ffff](\.?[^./\x00-\x1f\x7f-\U0010ffff])*", folder
        )
        assert len(folder.encode()) <= LONGEST
        assert not folder.startswith(".~")
    for one, other in combinations(mailboxes, 2):
        assert len({named[one], named[other], apart[one], apart[other]}) == 4 - (named[one] == apart[one]) - (
            named[other] == apart[other]
        ), f"{one.raw!r} and {other.raw!r} share a folder"
    cut = sum("\\-" in folder for folder in named.values())
    return f"{min(3, len(mailboxes))} {min(2, cut)} {delimiter} {any('&' in folder for folder in named.values())}"


def files(octets: bytes) -> str:
    """A name is ours or not; one of ours says again what it said, whoever wrote letters there."""
    text = octets.decode("utf-8", "surrogateescape")
    file = MessageFile.read(text)
    flags = frozenset(text.split(" "))
    letters = letters_of(flags)
    assert letters == "".join(sorted(set(letters)))
    made = new_file("m" + str(zlib.crc32(octets)), zlib.crc32(octets[::-1]) - 2**31, len(octets), letters)
    assert MessageFile.read(made.name) == made
    assert len(made.name) <= LONGEST
    likely = list(likely_names(made))
    assert len(set(likely)) == len(likely)
    if file is None:
        return f"none {letters}"
    assert file.name == text
    again = file.with_letters(letters)
    assert again.letters == letters
    assert MessageFile.read(again.name) == again
    assert set(again.info or "") - set(letters) == set(file.info or "") - set("DFPRST")
    return f"ours {file.letters} {again.letters}"


def line_ends(octets: bytes) -> str:
    """What is turned is the same again with the CRs put back, however it was cut; what could not be is told."""
    size = 1 + zlib.crc32(octets) % 7
    for step in (max(1, len(octets)), size):
        ends, turned = LineEnds(), []
        for at in range(0, len(octets), step):
            piece = ends.turn(octets[at : at + step])
            if piece is None:
                break
            turned.append(piece)
        else:
            is_whole = ends.is_over
            assert not is_whole or b"".join(turned).replace(b"\n", b"\r\n") == octets
            assert is_whole or octets.endswith(b"\r")
            continue
        assert re.search(rb"(?<!\r)\n|\r(?!\n)", octets)
        return f"no {size}"
    return f"yes {size}"
