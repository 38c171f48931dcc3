import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from idlepush.imap.types import MailboxName
from idlepush.sinks.maildir_names import (
    LONGEST,
    MessageFile,
    folder_apart,
    folder_of,
    letters_of,
    likely_names,
    new_file,
)

raws = (
    st.binary(max_size=400)
    | st.text("ab./\\&-~%ABZeVnLIqe+,é日\x00", max_size=60).map(lambda text: text.encode())
    | (st.text(max_size=300).map(lambda text: MailboxName.from_text(text).raw))
)
mailboxes = raws.map(MailboxName)
delimiters = st.sampled_from([None, "/", ".", "\\", "^", "&", "A", "-", " "])


def undone(folder: str, delimiter: str | None) -> bytes:
    """Read a folder's name back; only what was not cut can be."""
    assert folder.startswith(".")
    pieces = re.split(rb"(\\[0-9a-f]{2}|\.)", folder[1:].encode("ascii"))
    return b"".join(
        bytes([int(piece[1:], 16)])
        if re.fullmatch(rb"\\[0-9a-f]{2}", piece)
        else (delimiter or "").encode()
        if piece == b"."
        else piece
        for piece in pieces
    )


@pytest.mark.parametrize(
    ("text", "delimiter", "folder"),
    [
        ("INBOX", "/", ""),
        ("inbox", "/", ""),
        ("Archive/2026", "/", ".Archive.2026"),
        ("Archive.2026", ".", ".Archive.2026"),
        ("Archive.2026", "/", ".Archive\\2e2026"),
        ("Archive/2026", ".", ".Archive\\2f2026"),
        ("INBOX.Sent", ".", ".INBOX.Sent"),
        ("日本語", "/", ".&ZeVnLIqe-"),
        ("R&D", "/", ".R&-D"),
        ("../../etc/passwd", "/", ".\\2e\\2e.\\2e\\2e.etc.passwd"),
        ("..", None, ".\\2e\\2e"),
        ("~root/x", "/", ".\\7eroot.x"),
        ("a//b", "/", ".a\\2f\\2fb"),
        ("a/", "/", ".a\\2f"),
        ("C:\\mail", "\\", ".C:.mail"),
        ("C:\\mail", "/", ".C:\\5cmail"),
    ],
)
def test_a_mailbox_has_this_folder(text: str, delimiter: str | None, folder: str) -> None:
    assert folder_of(MailboxName.from_text(text), delimiter) == folder


def test_a_name_that_is_no_modified_utf7_is_no_shift_either() -> None:
    assert folder_of(MailboxName(b"A&B"), "/") == ".A\\26B"
    assert folder_of(MailboxName(b"\xe9t\xe9\n"), "/") == ".\\e9t\\e9\\0a"


@given(mailboxes, delimiters)
def test_no_name_leaves_the_maildir(mailbox: MailboxName, delimiter: str | None) -> None:
    for folder in (folder_of(mailbox, delimiter), folder_apart(mailbox, delimiter)):
        if folder == "":
            assert mailbox.raw == b"INBOX"
            continue
        assert re.fullmatch(r"\.[ -~]+", folder)
        assert len(folder.encode()) <= LONGEST
        assert "/" not in folder
        assert ".." not in folder
        assert not folder.endswith(".")
        assert not folder.startswith(".~")


@given(mailboxes, delimiters)
def test_the_name_can_be_read_back_unless_it_is_too_long(mailbox: MailboxName, delimiter: str | None) -> None:
    folder = folder_of(mailbox, delimiter)
    if folder and "\\-" not in folder:
        assert undone(folder, delimiter) == mailbox.raw


@given(mailboxes, mailboxes, delimiters)
def test_two_mailboxes_never_share_a_folder(one: MailboxName, other: MailboxName, delimiter: str | None) -> None:
    folders = {folder_of(one, delimiter), folder_apart(one, delimiter)}
    if one != other:
        assert not folders & {folder_of(other, delimiter), folder_apart(other, delimiter)}


def test_long_names_that_differ_at_their_end_alone_have_folders_of_their_own() -> None:
    one, other = (MailboxName.from_text("Ü" * 300 + end) for end in "ab")
    assert folder_of(one, "/") != folder_of(other, "/")
    assert "&" not in folder_of(one, "/"), "a shift that is cut is no text"


@pytest.mark.parametrize(
    ("flags", "letters"),
    [
        ((), ""),
        (("\\Seen", "\\Answered", "\\Flagged"), "FRS"),
        (("\\Draft", "\\Deleted", "$Forwarded", "$forwarded", "work"), "DPT"),
    ],
)
def test_flags_have_these_letters(flags: tuple[str, ...], letters: str) -> None:
    assert letters_of(frozenset(flags)) == letters


@given(
    st.integers(-(2**40), 2**50),
    st.from_regex("[0-9a-z]{1,13}", fullmatch=True),
    st.integers(0, 2**40),
    st.sets(st.sampled_from("DFPRST")).map(lambda letters: "".join(sorted(letters))),
)
def test_a_files_name_is_read_back(seconds: int, id: str, octets: int, letters: str) -> None:
    file = new_file(id, seconds, octets, letters)
    assert MessageFile.read(file.name) == file
    assert file.letters == letters
    assert len(file.name.encode()) <= LONGEST
    assert ("cur" if letters else "new", file.name) in [*likely_names(file)]


@given(st.text(max_size=80))
def test_any_name_at_all_can_be_read(name: str) -> None:
    file = MessageFile.read(name)
    assert file is None or file.name == name


def test_letters_of_others_outlive_ours() -> None:
    file = MessageFile.read("17.m1.idlepush,W=5:2,FSab")
    assert file is not None
    assert file.letters == "FS"
    assert file.with_letters("R").name == "17.m1.idlepush,W=5:2,Rab"


@pytest.mark.parametrize("name", ["1700000000.M1P2.host", "17.m1.idlepush.lock", ".nfs0001", "17.m1.idlepush,S=x"])
def test_a_file_of_somebody_else_is_none_of_ours(name: str) -> None:
    assert MessageFile.read(name) is None
