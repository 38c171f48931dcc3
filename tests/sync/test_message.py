"""Headers of strangers: RFC 5322 and 2047 as written, as mailers write them, and anything at all."""

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from idlepush.sync.message import (
    ADDRESSES_LIMIT,
    HEADER_LIMIT,
    MESSAGE_ID_LIMIT,
    SUBJECT_LIMIT,
    Address,
    Headers,
    fingerprint,
    header_of,
    headers_of,
)

MAIL = b"""\
Return-Path: <joerg@example.org>\r
Received: from mx.example.org by mail.example.com\r
\tfor <bob@example.com>; Fri, 21 Nov 1997 09:55:06 -0600\r
from: =?utf-8?Q?J=C3=B6rg?= Meier <joerg@example.org>\r
To: "Bob, the Builder" <bob@example.com>,\r
 alice@example.com (Alice)\r
SUBJECT: =?utf-8?B?R3LDvA==?=\r
 =?utf-8?B?w59l?= from here\r
Date: Fri, 21 Nov 1997 09:55:06 -0600\r
Message-ID: <1234@local.machine.example>\r
\r
Subject: not this one\r
"""


def test_a_usual_mail_is_read() -> None:
    assert headers_of(MAIL) == Headers(
        message_id="<1234@local.machine.example>",
        subject="Grüße from here",
        sender=(Address("Jörg Meier", "joerg@example.org"),),
        to=(Address("Bob, the Builder", "bob@example.com"), Address("Alice", "alice@example.com")),
        date=datetime(1997, 11, 21, 15, 55, 6, tzinfo=UTC),
    )


def test_line_ends_of_any_kind_mean_the_same() -> None:
    assert headers_of(MAIL.replace(b"\r\n", b"\n")) == headers_of(MAIL)


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"\r\n",
        b"\n",
        b"\r\nSubject: in the body",
        b"no header at all",
        b"\0\0\0",
        b"Subject",
        b":\r\n:",
        b"\xff" * 100,
    ],
    ids=repr,
)
def test_a_mail_without_a_header_has_none(raw: bytes) -> None:
    assert headers_of(raw) == Headers()


@pytest.mark.parametrize(
    ("field", "subject"),
    [
        pytest.param(b"Subject: Hello", "Hello", id="plain"),
        pytest.param(b"Subject:Hello", "Hello", id="no space"),
        pytest.param(b"Subject : Hello", "Hello", id="obsolete space"),
        pytest.param(b"Subject: a\r\n\tb\r\n  c", "a b  c", id="folded"),
        pytest.param(b"Subject:", None, id="empty"),
        pytest.param(b"Subject:  \r\n \r\n ", None, id="nothing but folds"),
        pytest.param(
            b"Subject-X: no\r\nX-Subject: no\r\nSubject: yes\r\nSubject: second", "yes", id="the first of its name"
        ),
        pytest.param("Subject: Žluťoučký kůň".encode(), "Žluťoučký kůň", id="raw UTF-8"),
        pytest.param(b"Subject: Gr\xfc\xdfe", "Grüße", id="raw Latin-1"),
        pytest.param(b"Subject: =?ISO-8859-1?Q?a?=", "a", id="RFC 2047, one word"),
        pytest.param(b"Subject: =?ISO-8859-1?Q?a?= b", "a b", id="RFC 2047, a word and text"),
        pytest.param(b"Subject: =?ISO-8859-1?Q?a?= =?ISO-8859-1?Q?b?=", "ab", id="RFC 2047, two words"),
        pytest.param(b"Subject: =?ISO-8859-1?Q?a?=\r\n    =?ISO-8859-1?Q?b?=", "ab", id="RFC 2047, folded words"),
        pytest.param(b"Subject: =?ISO-8859-1?Q?a_b?=", "a b", id="RFC 2047, an underscore"),
        pytest.param(b"Subject: =?ISO-8859-1?Q?a?= =?ISO-8859-2?Q?_b?=", "a b", id="RFC 2047, two charsets"),
        pytest.param(b"Subject: =?US-ASCII*EN?Q?Keith_Moore?=", "Keith Moore", id="RFC 2231, a language"),
        pytest.param(b"Subject: =?utf-8?B?w?= =?utf-8?B?6Q==?=", "�", id="base64 of too few characters"),
        pytest.param(b"Subject: =?utf-8?Q?=C3?= =?utf-8?Q?=A9?=", "é", id="a character cut in two"),
        pytest.param(b"Subject: =?utf-8?B?w6k?= x", "é x", id="base64 without padding"),
        pytest.param(b"Subject: =?utf-8?B?w6k=4?=", "é", id="base64 with too much"),
        pytest.param(b"Subject: =?utf-8?B?4?=", None, id="base64 of nothing"),
        pytest.param(b"Subject: =?utf-8?Q?=ZZ=?=", "=ZZ", id="broken quoted-printable"),
        pytest.param(b"Subject: =?utf-8?Q?=FF?=", "�", id="not the charset it says"),
        pytest.param(b"Subject: =?x-no-such?Q?=E9t=E9?=", "été", id="an unknown charset"),
        pytest.param(b"Subject: =?us-ascii?Q?caf=C3=A9?=", "café", id="ASCII that is none"),
        pytest.param(b"Subject: =?iso-8859-1?Q?=93x=94_=80?=", "“x” €", id="Latin-1 that is Windows-1252"),
        pytest.param(b"Subject: =?gb2312?B?lkE=?=", "朅", id="GB 2312 that is GB 18030"),
        pytest.param(b"Subject: =?iso-2022-jp?B?GyRCRnxLXBsoQg==?=", "日本", id="ISO-2022-JP"),
        pytest.param(b"Subject: =?koi8-u?Q?=A4?=", "є", id="KOI8-U"),
        pytest.param(b"Subject: =?unicode_escape?Q?=5Cx41?=", "\\x41", id="a codec that is no charset"),
        pytest.param(b"Subject: =?hex?Q?41?= =?rot13?Q?n?=", "41n", id="codecs of octets and texts"),
        pytest.param(b"Subject: =?tis260?Q?x?=", "x", id="an alias of a codec that does not exist"),
        pytest.param(b"Subject: =?utf-7?Q?+2AA-?=", None, id="a surrogate"),
        pytest.param(b"Subject: =?utf-8?X?abc?=", "=?utf-8?X?abc?=", id="an unknown encoding"),
        pytest.param(b"Subject: a=?utf-8?Q?b?=c", "abc", id="a word in a word"),
        pytest.param(b"Subject: a\0b\x1b[2J\x7fc", "a b [2J c", id="control characters"),
        pytest.param(b"Subject: =?utf-8?Q?=0D=0ABcc:_x=E2=80=AE?=", "Bcc: x", id="control characters, encoded"),
    ],
)
def test_subjects_as_they_come(field: bytes, subject: str | None) -> None:
    assert headers_of(b"X: y\r\n" + field + b"\r\n\r\nbody").subject == subject
    assert headers_of(field).subject == subject


@pytest.mark.parametrize(
    ("field", "sender"),
    [
        pytest.param(b"John Doe <jdoe@machine.example>", [("John Doe", "jdoe@machine.example")], id="RFC 5322 A.1.1"),
        pytest.param(
            b'"Joe Q. Public" <john.q.public@example.com>',
            [("Joe Q. Public", "john.q.public@example.com")],
            id="quoted",
        ),
        pytest.param(
            b"Mary Smith <mary@x.test>, jdoe@example.org, Who? <one@y.test>, <boss@nil.test>, "
            b'"Giant; \\"Big\\" Box" <s@e.test>',
            [
                ("Mary Smith", "mary@x.test"),
                (None, "jdoe@example.org"),
                ("Who?", "one@y.test"),
                (None, "boss@nil.test"),
                ('Giant; "Big" Box', "s@e.test"),
            ],
            id="RFC 5322 A.1.2",
        ),
        pytest.param(
            b"A Group:Ed Jones <c@a.test>,joe@where.test,John <jdoe@one.test>;",
            [("Ed Jones", "c@a.test"), (None, "joe@where.test"), ("John", "jdoe@one.test")],
            id="RFC 5322 A.1.3",
        ),
        pytest.param(b"Undisclosed recipients:;", [], id="an empty group"),
        pytest.param(
            b"Pete(A nice \\) chap) <pete(his account)@silly.test(his host)>", [("Pete", "pete@silly.test")], id="A.5"
        ),
        pytest.param(
            b"Mary Smith <@node.test,@m.test:mary@example.net>, , jdoe@test  . example",
            [("Mary Smith", "mary@example.net"), (None, "jdoe@test.example")],
            id="A.6.1 and A.6.3",
        ),
        pytest.param(b"joe@x.test (Joe (the) Man)", [("Joe the Man", "joe@x.test")], id="a comment as the name"),
        pytest.param(b"John Doe joe@x.test", [("John Doe", "joe@x.test")], id="no brackets"),
        pytest.param(b"root", [(None, "root")], id="a local user"),
        pytest.param(b"John Doe", [("John Doe", None)], id="a name alone"),
        pytest.param(b'"nobody"', [("nobody", None)], id="a quoted name alone"),
        pytest.param(b"MAILER-DAEMON <>", [("MAILER-DAEMON", None)], id="nobody's address"),
        pytest.param(b"=?utf-8?Q?Doe,_J=C3=B6rg?= <j@x>", [("Doe, Jörg", "j@x")], id="a comma in an encoded word"),
        pytest.param(b'"=?utf-8?Q?J=C3=B6rg?=" <j@x>', [("Jörg", "j@x")], id="an encoded word in quotes"),
        pytest.param("Jörg <j@x>".encode("latin-1"), [("Jörg", "j@x")], id="raw Latin-1"),
        pytest.param(b'"no end <j@x>', [("no end", "j@x")], id="a quote without its end"),
        pytest.param(b"a <j@x", [("a", "j@x")], id="a bracket without its end"),
        pytest.param(b"a\x00\x1b <j\x07@x>", [("a", "j @x")], id="control characters"),
        pytest.param(b"", [], id="nobody"),
        pytest.param(b",;,()", [], id="nobody, several times"),
    ],
)
def test_addresses_as_they_come(field: bytes, sender: list[tuple[str | None, str | None]]) -> None:
    expected = tuple(Address(name, address) for name, address in sender)
    headers = headers_of(b"To: " + field + b"\r\nFrom: " + field + b"\r\n\r\n")
    assert headers.sender == headers.to == expected


@pytest.mark.parametrize(
    ("field", "date"),
    [
        pytest.param(b"Fri, 21 Nov 1997 09:55:06 -0600", datetime(1997, 11, 21, 15, 55, 6, tzinfo=UTC), id="RFC 5322"),
        pytest.param(b"21 Nov 97 09:55:06 GMT", datetime(1997, 11, 21, 9, 55, 6, tzinfo=UTC), id="RFC 822"),
        pytest.param(
            b"Thu, 13\r\n  Feb\r\n 1969 23:32 -0330 (Newfoundland Time)",
            datetime(1969, 2, 14, 3, 2, tzinfo=UTC),
            id="folded",
        ),
        pytest.param(
            b"Fri, 21 Nov 1997 09:55:06 -0000", datetime(1997, 11, 21, 9, 55, 6, tzinfo=UTC), id="of an unknown place"
        ),
        pytest.param(b"Fri, 31 Feb 1997 09:55:06 +0000", None, id="no such day"),
        pytest.param(b"Mon, 01 Jan 0001 00:00:00 +0000", datetime(2001, 1, 1, tzinfo=UTC), id="a year of two digits"),
        pytest.param(b"Fri, 31 Dec 9999 23:59:59 -1200", None, id="behind the calendar"),
        pytest.param(b"Fri, 21 Nov 99999999999 09:55:06 +0000", None, id="no such year"),
        pytest.param(b"Fri, 21 Nov 1997 09:55:06 +999999", None, id="no such zone"),
        pytest.param(b"yesterday", None, id="no date"),
        pytest.param(b"9" * 10_000, None, id="digits"),
        pytest.param(b"", None, id="nothing"),
    ],
)
def test_dates_as_they_come(field: bytes, date: datetime | None) -> None:
    assert headers_of(b"Date: " + field + b"\r\n\r\n").date == date


@pytest.mark.parametrize(
    ("field", "message_id"),
    [
        pytest.param(b"<a@b>", "<a@b>", id="as it should be"),
        pytest.param(b"\r\n <a@b>", "<a@b>", id="folded"),
        pytest.param(b"<a b@c> (comment)", "<a b@c>", id="a space in it"),
        pytest.param(b"a@b", "a@b", id="no brackets"),
        pytest.param(b"a@b c@d", "a@b", id="two"),
        pytest.param(b"<a", "<a", id="a bracket without its end"),
        pytest.param(b"<\xe9@b>", "<é@b>", id="eight bits"),
        pytest.param(b"<a\0\x1bb>", "<a  b>", id="control characters"),
        pytest.param(b"", None, id="nothing"),
    ],
)
def test_message_ids_as_they_come(field: bytes, message_id: str | None) -> None:
    assert headers_of(b"Message-Id: " + field + b"\r\n\r\n").message_id == message_id


def test_everything_has_an_end() -> None:
    headers = headers_of(
        b"Message-ID: <" + b"a" * 5000 + b">\nSubject: " + b"s" * 50_000 + b"\nTo: " + b"a@b," * 5000 + b"\n\n"
    )
    assert len(headers.message_id or "") == MESSAGE_ID_LIMIT
    assert len(headers.subject or "") == SUBJECT_LIMIT
    assert len(headers.to) == ADDRESSES_LIMIT


def test_a_header_is_looked_at_up_to_a_limit() -> None:
    # c2: a header of a megabyte, and twenty thousand headers.
    filler = b"X-Filler: " + b"x" * 60 + b"\r\n"
    far = filler * (HEADER_LIMIT // len(filler) + 1) + b"Subject: too far\r\n\r\n"
    assert headers_of(far) == Headers()
    assert headers_of(b"Subject: near\r\n" + filler * 20_000).subject == "near"
    assert headers_of(b"Subject: " + b"x" * 2**20).subject == "x" * SUBJECT_LIMIT


@pytest.mark.parametrize(
    "field",
    [
        b'To: "' + b'\\"' * 130_000,
        b'To: "' + b" " * 250_000 + b'" @x',
        b"To: " + b"(" * 250_000,
        b"To: " + b"<" * 250_000,
        b"To: " + b">" * 250_000,
        b"To: x" + b"\n " * 125_000,
        b"Subject: " + b"=?a?q?" * 40_000,
        b"Subject: " + b"=?utf-8?q?a?= =?x?q?b?= " * 10_000,
        b"from\n" * 50_000,
        b"from" + b" " * 250_000,
        b"Date: " + b"1 " * 120_000,
        b"Message-ID: " + b"<" * 250_000,
        b"\n x" * 80_000,
    ],
    ids=lambda field: ascii(field[:16]),
)
def test_a_header_made_to_be_slow_is_not(field: bytes) -> None:
    # Were one of these quadratic, it would run into the suite's timeout.
    headers_of(field)


@pytest.mark.parametrize(
    ("raw", "header"),
    [
        (b"A: b\r\n\r\nbody\r\n\r\n", b"A: b\r\n\r\n"),
        (b"A: b\n\nbody\r\n\r\n", b"A: b\n\n"),
        (b"A: b\n\r\nbody\n\n", b"A: b\n\r\n"),
        (b"A: b\r\n\nbody", b"A: b\r\n\n"),
        (b"\r\nbody", b"\r\n"),
        (b"\n\nbody", b"\n"),
        (b"A: b\r\n", b"A: b\r\n"),
        (b"", b""),
    ],
)
def test_the_header_ends_with_its_blank_line(raw: bytes, header: bytes) -> None:
    assert header_of(raw) == header


@given(st.integers(4080, 4110), st.sampled_from([b"\r\n\r\n", b"\n\n", b"\n\r\n"]))
@settings(deadline=None)
def test_the_blank_line_is_found_wherever_the_windows_of_the_search_meet(size: int, blank: bytes) -> None:
    header = b"A: " + b"x" * size + blank
    assert header_of(header + b"body" + blank) == header
    assert header_of(b"y" * 8192 + header + b"body\n\n") == b"y" * 8192 + header


# ---- anything at all

words = st.sampled_from(
    [
        b"From: ",
        b"To:",
        b"Subject: ",
        b"date: ",
        b"Message-ID:",
        b"\r\n",
        b"\n",
        b" ",
        b"\t",
        b"<",
        b">",
        b'"',
        b"\\",
        b"(",
        b")",
        b"@",
        b",",
        b";",
        b":",
        b"=?",
        b"?=",
        b"?q?",
        b"?B?",
        b"=?utf-8?Q?=C3?=",
        b"=?utf-7?B?KzJBQS0=?=",
        b"=?gb18030?q?=81=30?=",
        b"Fri, 21 Nov 1997 09:55:06 -0600",
        b"+9959",
        b"99:99",
        b"\xe2\x80\xae",
        b"\xff",
        b"\0",
        b"\xed\xa0\x80",
        b"a",
        b"\xc2\x85",
    ]
)


def shown(headers: Headers) -> list[str | None]:
    people = (*headers.sender, *headers.to)
    return [headers.message_id, headers.subject, *(text for one in people for text in (one.name, one.address))]


@given(st.lists(words | st.binary(max_size=8), max_size=40).map(b"".join))
@settings(max_examples=500, deadline=None)
def test_any_octets_have_headers_that_can_be_stored_and_shown(raw: bytes) -> None:
    headers = headers_of(raw)
    for text in shown(headers):
        if text is not None:
            text.encode()
            assert text == text.strip() != ""
            assert not set(text) & {*map(chr, range(32)), *map(chr, range(127, 160)), "\u202e"}
    assert headers.date is None or headers.date.tzinfo is UTC
    assert raw.startswith(header_of(raw))


@given(st.sampled_from(["From", "To"]), st.lists(st.sampled_from('<>()",;:@\\ a=?q.'), max_size=20).map("".join))
@settings(deadline=None)
def test_no_two_parts_of_an_address_are_both_missing(name: str, field: str) -> None:
    headers = headers_of(f"{name}: {field}\r\n\r\n".encode())
    assert all(one.name or one.address for one in (*headers.sender, *headers.to))


# ---- fingerprints

NOON = datetime(2024, 5, 1, 12, 0, 0, tzinfo=UTC)


def test_a_fingerprint_is_the_same_for_the_same_message() -> None:
    paris = NOON.astimezone(timezone(timedelta(hours=2)))
    assert fingerprint(b"A: b\r\n\r\n", 10, NOON) == fingerprint(b"A: b\r\n\r\n", 10, paris)
    assert fingerprint(b"A: b\r\n\r\n", 10, NOON) == fingerprint(b"A: b\r\n\r\n", 10, NOON.replace(microsecond=5))
    assert len(fingerprint(b"", 0, None)) == 32


def test_a_fingerprint_differs_where_anything_does() -> None:
    made = [
        fingerprint(header, size, moment)
        for header in (b"", b"A: b\r\n\r\n", b"A: b\n\n")
        for size in (0, 1, 10)
        for moment in (None, NOON, NOON + timedelta(seconds=1), datetime(1960, 1, 1, tzinfo=UTC))
    ]
    assert len(set(made)) == len(made)


def test_a_fingerprint_is_kept_from_version_to_version() -> None:
    # It is stored: another spelling would fetch every mailbox anew at its next reset.
    assert fingerprint(b"A: b\r\n\r\n", 10, NOON).hex() == PINNED


PINNED = "25b98cbf555625725c49bfbfe82d229aab70b6bb0b0c6d918368febaa120d1d7"
