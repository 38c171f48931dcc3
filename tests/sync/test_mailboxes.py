"""Which mailboxes the patterns choose."""

import pytest

from idlepush.imap.responses import ListEntry
from idlepush.imap.types import MailboxName
from idlepush.sync.mailboxes import chosen, is_plain

LISTED = [
    ListEntry(frozenset(attributes.split()), ".", MailboxName(name.encode()))
    for name, attributes in (
        ("INBOX", ""),
        ("Archive", ""),
        ("Archive.2024", ""),
        ("Archive.2024.May", ""),
        ("Sent Items", "\\sent"),
        ("Junk", "\\junk"),
        ("Parent", "\\noselect"),
    )
]


@pytest.mark.parametrize(
    ("patterns", "names"),
    [
        (["INBOX"], ["INBOX"]),
        (["inbox"], ["INBOX"]),
        (["*"], ["Archive", "Archive.2024", "Archive.2024.May", "INBOX", "Junk", "Sent Items"]),
        (["%"], ["Archive", "INBOX", "Junk", "Sent Items"]),
        (["Archive.%"], ["Archive.2024"]),
        (["Archive/*"], ["Archive.2024", "Archive.2024.May"]),
        (["Archive/2024"], ["Archive.2024"]),
        (["\\Sent"], ["Sent Items"]),
        (["INBOX", "*", "!\\Junk", "!Archive*"], ["INBOX", "Sent Items"]),
        (["*", "!Archive*", "Archive.2024"], ["INBOX", "Junk", "Sent Items", "Archive.2024"]),
        (["INBOX", "Not there yet"], ["INBOX", "Not there yet"]),
        (["Parent", "INBOX"], ["Parent", "INBOX"]),
        (["INBOX", "Junk", "!Junk"], ["INBOX"]),
        (["INBOX", "Not there yet", "!Not*"], ["INBOX"]),
    ],
)
def test_the_last_pattern_that_matches_decides(patterns: list[str], names: list[str]) -> None:
    found = [name.text for name in chosen(patterns, LISTED)]
    if patterns[0] == "INBOX":
        assert found[0] == "INBOX"
    assert sorted(found) == sorted(names)


def test_only_plain_names_need_no_listing() -> None:
    assert is_plain("INBOX")
    assert not any(map(is_plain, ["*", "A/B", "A%", "\\Sent", "!Junk"]))
