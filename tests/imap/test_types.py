"""Flags, mailbox names, and the texts of strangers."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from idlepush.imap.types import MailboxName, decode_mutf7, encode_mutf7, excerpt, flags_of, printable, same_flags

texts = st.text(st.characters(exclude_categories=["Cs"]))


@pytest.mark.parametrize(
    ("raw", "text"),
    [
        pytest.param(b"INBOX", "INBOX", id="ASCII"),
        pytest.param(b"~peter/mail/&U,BTFw-/&ZeVnLIqe-", "~peter/mail/台北/日本語", id="RFC 3501 section 5.1.3"),
        pytest.param(b"Entw&APw-rfe", "Entwürfe", id="German drafts"),
        pytest.param(b"&BB4EQgQ,BEAEMAQyBDsENQQ9BD0ESwQ1-", "Отправленные", id="Russian sent mail"),
        pytest.param(b"A&-B", "A&B", id="an ampersand"),
        pytest.param(b"&2D3eAA-", "😀", id="a surrogate pair"),
        pytest.param(b"", "", id="nothing"),
    ],
)
def test_names_are_read_and_spelled_in_modified_utf_7(raw: bytes, text: str) -> None:
    assert decode_mutf7(raw) == text
    assert encode_mutf7(text) == raw


@pytest.mark.parametrize(
    ("raw", "text"),
    [
        pytest.param(b"&Jjo!", "&Jjo!", id="never shifted back (RFC 3501's own example)"),
        pytest.param(
            b"&U,BTFw-&ZeVnLIqe-", "&U,BTFw-&ZeVnLIqe-", id="shifted back for nothing (RFC 3501's own example)"
        ),
        pytest.param(b"&AEE-", "&AEE-", id="ASCII in a shift"),
        pytest.param(b"R&D", "R&D", id="a bare ampersand"),
        pytest.param(b"&2D0-", "&2D0-", id="half a surrogate pair"),
        pytest.param(b"&A-", "&A-", id="too few octets"),
        pytest.param("Entwürfe".encode(), "Entwürfe", id="raw UTF-8"),
        pytest.param(b"Entw\xfcrfe", "Entw�rfe", id="raw Latin-1"),
    ],
)
def test_a_name_in_no_valid_spelling_is_shown_as_it_stands(raw: bytes, text: str) -> None:
    assert decode_mutf7(raw) == text
    assert MailboxName(raw).raw == raw


@given(texts)
@settings(deadline=None)
def test_every_name_survives_the_wire(text: str) -> None:
    raw = encode_mutf7(text)
    assert decode_mutf7(raw) == text
    assert all(0x20 <= octet < 0x7F for octet in raw)


@given(st.binary() | st.text("&AJjo,-/+=U", max_size=12).map(str.encode))
@settings(deadline=None)
def test_reading_a_name_is_total_and_never_makes_two_names_one(raw: bytes) -> None:
    text = decode_mutf7(raw)
    text.encode()
    if raw.isascii() and encode_mutf7(text) != raw:
        assert text == raw.decode()


def test_inbox_is_the_same_in_any_case() -> None:
    assert MailboxName(b"inBox") == MailboxName(b"INBOX") == MailboxName.from_text("Inbox")
    assert hash(MailboxName(b"inbox")) == hash(MailboxName(b"INBOX"))
    assert MailboxName(b"inbox.sub").raw == b"inbox.sub"
    assert str(MailboxName(b"Entw&APw-rfe")) == "Entwürfe"


def test_system_flags_are_spelled_as_in_the_rfc_and_recent_is_dropped() -> None:
    assert flags_of(["\\seen", "\\RECENT", "\\FLAGGED", "$Junk", "\\*"]) == {"\\Seen", "\\Flagged", "$Junk", "\\*"}


def test_of_keywords_that_differ_in_case_one_is_kept() -> None:
    assert flags_of(["Work", "WORK", "work"]) == {"Work"}


def test_flags_are_compared_without_case() -> None:
    assert same_flags(flags_of(["Work", "\\Seen"]), flags_of(["work", "\\SEEN"]))
    assert not same_flags(flags_of(["Work"]), flags_of([]))


@given(st.text(), st.integers(0, 50))
@settings(deadline=None)
def test_printable_text_moves_no_cursor_and_is_utf_8(text: str, limit: int) -> None:
    shown = printable(text, limit)
    assert len(shown) <= limit
    assert not set(shown) & {*map(chr, range(32)), *map(chr, range(127, 160)), *"\u202a\u202e\u2066\u2069\u2028"}
    shown.encode()


def test_printable_text_keeps_what_people_write() -> None:
    assert printable("Žluťoučký 日本 😀 \N{NO-BREAK SPACE}") == "Žluťoučký 日本 😀 \N{NO-BREAK SPACE}"
    assert printable("\x1b[2J\u202egnp.exe\ud800") == " [2J gnp.exe "


@given(st.binary())
@settings(deadline=None)
def test_an_excerpt_is_short_and_printable_ascii(octets: bytes) -> None:
    shown = excerpt(octets)
    assert shown[0] + shown[-1] == "“”"
    assert len(shown) <= 42
    assert all(" " <= character <= "~" or character == "…" for character in shown[1:-1])


def test_an_excerpt_shows_what_could_be_read() -> None:
    assert excerpt(b"{-1}") == "“{-1}”"
    assert excerpt(b"\xff\0") == "“\\xff\\x00”"
    assert excerpt(b"x" * 41) == "“" + "x" * 39 + "…”"
