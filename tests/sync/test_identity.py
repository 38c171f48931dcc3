"""What tells a message whatever its mailbox, UID and UIDVALIDITY."""

from datetime import UTC, datetime

import pytest

from idlepush.imap.framing import Frame, Framer
from idlepush.imap.grammar import parse
from idlepush.imap.responses import BodySection, Fetch
from idlepush.imap.types import Uid
from idlepush.sync.arrivals import told_apart
from idlepush.sync.identity import Identity, identity_items, identity_of

NOON = datetime(2026, 11, 21, 12, tzinfo=UTC)


def fetched(line: bytes) -> Fetch:
    (frame,) = [one for one in Framer().feed(line + b"\r\n") if isinstance(one, Frame)]
    said = parse(frame)
    assert isinstance(said, Fetch)
    return said


@pytest.mark.parametrize(
    ("line", "identity"),
    [
        (b"* 1 FETCH (UID 3 FLAGS ())", Identity()),
        (b"* 1 FETCH (UID 3 EMAILID (M1) THREADID (T1))", Identity("M1", "T1")),
        (b"* 1 FETCH (UID 3 EMAILID (M1) THREADID NIL)", Identity("M1", None)),
        (
            rb'* 1 FETCH (X-GM-THRID 17 X-GM-MSGID 1278455344230334865 X-GM-LABELS (\Inbox "Muy &AOk-" foo) UID 3)',
            Identity("x-gm-msgid:1278455344230334865", "x-gm-thrid:17", ("Muy é", "\\Inbox", "foo")),
        ),
        (b"* 1 FETCH (UID 3 X-GUID 9d1f8d)", Identity("x-guid:9d1f8d")),
        (b"* 1 FETCH (UID 3 X-GM-LABELS ())", Identity(None, None, ())),
        (b"* 1 FETCH (UID 3 X-GM-MSGID NIL X-GM-LABELS NIL)", Identity()),
    ],
)
def test_each_servers_name_of_a_message_is_read(line: bytes, identity: Identity) -> None:
    assert identity_of(fetched(line)) == identity


@pytest.mark.parametrize(
    ("capabilities", "server", "items"),
    [
        ({"IMAP4REV1"}, "", ""),
        ({"OBJECTID", "SAVEDATE"}, "Cyrus", " EMAILID THREADID SAVEDATE"),
        ({"X-GM-EXT-1"}, "GImap", " X-GM-MSGID X-GM-THRID X-GM-LABELS"),
        ({"IMAP4REV1", "SAVEDATE"}, "Dovecot", " X-GUID SAVEDATE"),
    ],
)
def test_only_what_a_server_has_is_asked_for(capabilities: set[str], server: str, items: str) -> None:
    assert identity_items(frozenset(capabilities), server) == items


def said(uid: int, header: bytes | None = None, **more: object) -> Fetch:
    bodies = () if header is None else (BodySection("HEADER", 0, header),)
    fields = {"flags": frozenset[str](), "size": 100, "internal_date": NOON, "bodies": bodies, **more}
    return Fetch(uid, Uid(uid), **fields)  # type: ignore[arg-type]


def test_a_name_tells_and_without_one_only_a_message_id_that_stands_alone() -> None:
    header = b"Message-ID: <%d@x.example>\r\n\r\n"
    known = told_apart(
        [
            said(1, email_id="M1"),
            said(2),
            said(3, header % 3),
            said(4, header % 4),
            said(5, header % 4),
            said(6, b"Subject: nobody\r\n\r\n"),
            said(7, header % 7, flags=None),
        ]
    )
    assert [one.uid for one in known] == [1, 3]
    assert known[0].fingerprint is None
    assert known[1].fingerprint is not None


def test_copies_of_one_name_are_all_told() -> None:
    assert [one.uid for one in told_apart([said(1, email_id="M1"), said(2, email_id="M1")])] == [1, 2]
