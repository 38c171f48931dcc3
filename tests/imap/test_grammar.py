"""The grammar: the RFCs' own examples, what real servers send instead, and anything at all."""

import sys
from datetime import UTC, datetime, timedelta, timezone
from types import FrameType

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from idlepush.errors import RemoteProtocolError
from idlepush.imap.framing import Frame, Framer
from idlepush.imap.grammar import parse
from idlepush.imap.reader import MAX_NESTING, MAX_VALUES, MAX_WORDS
from idlepush.imap.responses import (
    BodySection,
    Capabilities,
    Code,
    Completion,
    Condition,
    Continuation,
    Enabled,
    Exists,
    Expunge,
    Fetch,
    ListEntry,
    MailboxFlags,
    Namespace,
    Part,
    Recent,
    Response,
    Search,
    ServerId,
    Status,
    StatusReply,
    Structure,
    Unknown,
    Vanished,
)
from idlepush.imap.types import MailboxName, ModSeq, Uid
from idlepush.imap.uidset import UidSet

MST = timezone(timedelta(hours=-7))


def read(stream: bytes) -> Response:
    """Read the one response in *stream*."""
    (frame,) = Framer().feed(stream + b"\r\n")
    return parse(frame)


def verdict(frame: Frame) -> Response | None:
    """Return what *frame* says, None where it breaks the protocol; any other exception is a bug."""
    try:
        return parse(frame)
    except RemoteProtocolError as broken:
        sentence = str(broken)
    assert sentence.isprintable()
    assert len(sentence) < 160
    return None


def fetched(stream: bytes) -> Fetch:
    response = read(stream)
    assert isinstance(response, Fetch)
    return response


# What servers say, each with what it means. Also the corpus that is mutated below.
CASES: dict[str, tuple[bytes, Response]] = {
    # RFC 9051 and 3501, status responses
    "a greeting": (
        b"* OK IMAP4rev2 server ready",
        Condition(Status.OK, None, "IMAP4rev2 server ready"),
    ),
    "Dovecot's greeting": (
        b"* OK [CAPABILITY IMAP4rev1 SASL-IR login-referrals ID ENABLE IDLE LITERAL+ AUTH=PLAIN] Dovecot ready.",
        Condition(
            Status.OK,
            Code(
                "CAPABILITY",
                frozenset(
                    {"IMAP4REV1", "SASL-IR", "LOGIN-REFERRALS", "ID", "ENABLE", "IDLE", "LITERAL+", "AUTH=PLAIN"}
                ),
            ),
            "Dovecot ready.",
        ),
    ),
    "a greeting already logged in": (
        b"* PREAUTH IMAP4rev1 server logged in as Smith",
        Condition(Status.PREAUTH, None, "IMAP4rev1 server logged in as Smith"),
    ),
    "an alert": (
        b"* OK [ALERT] System shutdown in 10 minutes",
        Condition(Status.OK, Code("ALERT"), "System shutdown in 10 minutes"),
    ),
    "a farewell": (
        b"* BYE Autologout; idle for too long",
        Condition(Status.BYE, None, "Autologout; idle for too long"),
    ),
    "a farewell with a code": (
        b"* BYE [UNAVAILABLE] Server shutting down",
        Condition(Status.BYE, Code("UNAVAILABLE"), "Server shutting down"),
    ),
    "no text at all": (b"* OK", Condition(Status.OK, None, "")),
    "lower case": (b"* ok hello", Condition(Status.OK, None, "hello")),
    "UIDVALIDITY": (
        b"* OK [UIDVALIDITY 3857529045] UIDs valid",
        Condition(Status.OK, Code("UIDVALIDITY", 3857529045), "UIDs valid"),
    ),
    "UIDNEXT": (
        b"* OK [UIDNEXT 4392] Predicted next UID",
        Condition(Status.OK, Code("UIDNEXT", 4392), "Predicted next UID"),
    ),
    "UNSEEN": (
        b"* OK [UNSEEN 8] Message 8 is first unseen",
        Condition(Status.OK, Code("UNSEEN", 8), "Message 8 is first unseen"),
    ),
    "HIGHESTMODSEQ": (
        b"* OK [HIGHESTMODSEQ 9223372036854775807] Highest",
        Condition(Status.OK, Code("HIGHESTMODSEQ", 2**63 - 1), "Highest"),
    ),
    "NOMODSEQ": (b"* OK [NOMODSEQ] Sorry", Condition(Status.OK, Code("NOMODSEQ"), "Sorry")),
    "CLOSED": (b"* OK [CLOSED]", Condition(Status.OK, Code("CLOSED"), "")),
    "MESSAGELIMIT with the UID it stopped at": (
        b"* OK [MESSAGELIMIT 1000 23221] partial",
        Condition(Status.OK, Code("MESSAGELIMIT", 1000), "partial"),
    ),
    "PERMANENTFLAGS": (
        b"* OK [PERMANENTFLAGS (\\Deleted \\seen \\*)] Limited",
        Condition(Status.OK, Code("PERMANENTFLAGS", frozenset({"\\Deleted", "\\Seen", "\\*"})), "Limited"),
    ),
    "PERMANENTFLAGS of Gmail, with a bracket in a flag": (
        b"* OK [PERMANENTFLAGS (\\Answered $Phishing foo] [Imap]/Sent \\*)] Flags permitted.",
        Condition(
            Status.OK,
            Code("PERMANENTFLAGS", frozenset({"\\Answered", "$Phishing", "foo]", "[Imap]/Sent", "\\*"})),
            "Flags permitted.",
        ),
    ),
    "a code that holds a bracket in quotes": (b'* NO [X "]" y] z', Condition(Status.NO, Code("X", '"]" y'), "z")),
    "a code without its end": (b"* NO [ALERT oh", Condition(Status.NO, None, "[ALERT oh")),
    "a code that is not what it promises": (b"* OK [UIDNEXT 0] x", Condition(Status.OK, Code("UIDNEXT", "0"), "x")),
    "a code out of bounds": (
        b"* OK [UIDVALIDITY 4294967296] x",
        Condition(Status.OK, Code("UIDVALIDITY", "4294967296"), "x"),
    ),
    "a HIGHESTMODSEQ of nothing": (b"* OK [HIGHESTMODSEQ 0] x", Condition(Status.OK, Code("HIGHESTMODSEQ", "0"), "x")),
    "an unknown code": (b"* OK [X-Foo a b] x", Condition(Status.OK, Code("X-FOO", "a b"), "x")),
    # tagged
    "a completion": (
        b"a002 OK [READ-ONLY] EXAMINE completed",
        Completion("a002", Status.OK, Code("READ-ONLY"), "EXAMINE completed"),
    ),
    "a refusal": (
        b"A1 NO [AUTHENTICATIONFAILED] Authentication failed.",
        Completion("A1", Status.NO, Code("AUTHENTICATIONFAILED"), "Authentication failed."),
    ),
    "a refusal in lower case, without a code": (
        b"A1 no Login failed.",
        Completion("A1", Status.NO, None, "Login failed."),
    ),
    "a completion without a text": (b"x BAD", Completion("x", Status.BAD, None, "")),
    "APPENDUID": (
        b"A003 OK [APPENDUID 38505 3955] done",
        Completion("A003", Status.OK, Code("APPENDUID", "38505 3955"), "done"),
    ),
    # continuation
    "a continuation request": (b"+ idling", Continuation(b"idling")),
    "a bare one": (b"+", Continuation(b"")),
    "one without its space": (b"+idling", Continuation(b"idling")),
    "a challenge": (b"+ eyJzdGF0dXMiOiI0MDEifQ==", Continuation(b"eyJzdGF0dXMiOiI0MDEifQ==")),
    # lists of words
    "CAPABILITY": (
        b"* CAPABILITY IMAP4rev1 idle  AUTH=PLAIN ",
        Capabilities(frozenset({"IMAP4REV1", "IDLE", "AUTH=PLAIN"})),
    ),
    "ENABLED": (b"* ENABLED CONDSTORE qresync", Enabled(frozenset({"CONDSTORE", "QRESYNC"}))),
    "ENABLED, of nothing": (b"* ENABLED", Enabled(frozenset())),
    "FLAGS": (b"* FLAGS (\\Answered \\Recent $Forwarded)", MailboxFlags(frozenset({"\\Answered", "$Forwarded"}))),
    # numbers
    "EXISTS": (b"* 172 EXISTS", Exists(172)),
    "EXISTS, none and in lower case": (b"* 0 exists", Exists(0)),
    "EXISTS with a space behind it": (b"* 23 EXISTS ", Exists(23)),
    "RECENT": (b"* 5 RECENT", Recent(5)),
    "EXPUNGE": (b"* 44 EXPUNGE", Expunge(44)),
    # RFC 7162
    "VANISHED (EARLIER)": (
        b"* VANISHED (EARLIER) 41,43:116,118,120:211,214:540",
        Vanished(UidSet.parse("41,43:116,118,120:211,214:540"), earlier=True),
    ),
    "VANISHED": (b"* VANISHED 405,407,410,425", Vanished(UidSet.of(405, 407, 410, 425), earlier=False)),
    "VANISHED, of nothing": (b"* VANISHED (earlier) ", Vanished(UidSet(), earlier=True)),
    # SEARCH
    "SEARCH": (b"* SEARCH 2 84 882", Search(UidSet.of(2, 84, 882))),
    "SEARCH, nothing": (b"* SEARCH", Search(UidSet())),
    "SEARCH, unordered and repeated": (b"* SEARCH 5 3 4 3 ", Search(UidSet.range(3, 5))),
    "SEARCH with MODSEQ": (
        b"* SEARCH 2 5 6 7 (MODSEQ 917162500)",
        Search(UidSet.parse("2,5:7"), modseq=ModSeq(917162500)),
    ),
    "ESEARCH, RFC 4731": (
        b'* ESEARCH (TAG "A282") MIN 2 COUNT 3',
        Search(UidSet.of(2), tag="A282", count=3),
    ),
    "ESEARCH ALL": (b'* ESEARCH (TAG "A283") UID ALL 2,10:11', Search(UidSet.parse("2,10:11"), tag="A283")),
    "ESEARCH of both ends": (b'* ESEARCH (TAG "a") UID MIN 7 MAX 3800', Search(UidSet.of(7, 3800), tag="a")),
    "ESEARCH, nothing": (b'* ESEARCH (TAG "A284") UID', Search(UidSet(), tag="A284")),
    "ESEARCH without anything": (b"* ESEARCH", Search(UidSet())),
    "ESEARCH with MODSEQ": (
        b'* ESEARCH (TAG "a567") UID ALL 1:3 MODSEQ 1236',
        Search(UidSet.range(1, 3), tag="a567", modseq=ModSeq(1236)),
    ),
    "ESEARCH with what is to come": (
        b'* ESEARCH (TAG "a" MAILBOX "x" UIDVALIDITY 1) UID PARTIAL (1:5 7) COUNT 0 ALL 9',
        Search(UidSet.of(9), tag="a", count=0),
    ),
    # LIST
    "LIST": (
        b'* LIST (\\Noselect) "/" ~/Mail/foo',
        ListEntry(frozenset({"\\noselect"}), "/", MailboxName(b"~/Mail/foo")),
    ),
    "LIST, special use": (
        b'* LIST (\\HasNoChildren \\Sent) "." "INBOX.Sent Items"',
        ListEntry(frozenset({"\\hasnochildren", "\\sent"}), ".", MailboxName(b"INBOX.Sent Items")),
    ),
    "LIST, the delimiter": (b'* LIST (\\Noselect) "/" ""', ListEntry(frozenset({"\\noselect"}), "/", MailboxName(b""))),
    "LIST without a hierarchy": (b"* LIST () NIL inbox", ListEntry(frozenset(), None, MailboxName(b"INBOX"))),
    "LIST with an escaped delimiter": (
        b'* LIST () "\\\\" "a\\\\b\\"c"',
        ListEntry(frozenset(), "\\", MailboxName(b'a\\b"c')),
    ),
    "LIST with a literal": (
        b'* LIST () "/" {7}\r\na"b\r\n\\c',
        ListEntry(frozenset(), "/", MailboxName(b'a"b\r\n\\c')),
    ),
    "LIST with OLDNAME": (
        b'* LIST () "/" "New" ("CHILDINFO" ("SUBSCRIBED") "OLDNAME" ("Old \\"x\\""))',
        ListEntry(frozenset(), "/", MailboxName(b"New"), MailboxName(b'Old "x"')),
    ),
    "LIST in raw UTF-8": (
        '* LIST () "/" "Entwürfe"'.encode(),
        ListEntry(frozenset(), "/", MailboxName("Entwürfe".encode())),
    ),
    "LIST of an atom that should be quoted": (
        b'* LIST () "/" [Gmail]/All(x)',
        ListEntry(frozenset(), "/", MailboxName(b"[Gmail]/All(x)")),
    ),
    "LIST of a mailbox called NIL": (b'* LIST () "/" NIL', ListEntry(frozenset(), "/", MailboxName(b"NIL"))),
    "LSUB": (b'* LSUB () "." #news.comp.mail.misc', ListEntry(frozenset(), ".", MailboxName(b"#news.comp.mail.misc"))),
    "XLIST": (b'* XLIST (\\Inbox) "/" "Inbox"', ListEntry(frozenset({"\\inbox"}), "/", MailboxName(b"INBOX"))),
    # STATUS
    "STATUS": (
        b"* STATUS blurdybloop (MESSAGES 231 UIDNEXT 44292)",
        StatusReply(MailboxName(b"blurdybloop"), {"MESSAGES": 231, "UIDNEXT": 44292}),
    ),
    "STATUS, nothing known": (b'* STATUS "a b" ()', StatusReply(MailboxName(b"a b"), {})),
    "STATUS with MAILBOXID and a wide size": (
        b"* STATUS inbox (mailboxid (F2212ea87-6097) SIZE 44421000000 HIGHESTMODSEQ 65402)",
        StatusReply(
            MailboxName(b"INBOX"), {"MAILBOXID": "F2212ea87-6097", "SIZE": 44421000000, "HIGHESTMODSEQ": 65402}
        ),
    ),
    "STATUS of what cannot be selected": (
        b"* STATUS x (MESSAGES 0 UIDNEXT 0 UIDVALIDITY 0)",
        StatusReply(MailboxName(b"x"), {"MESSAGES": 0}),
    ),
    "STATUS of a full mailbox": (b"* STATUS x (UIDNEXT 4294967296)", StatusReply(MailboxName(b"x"), {})),
    "STATUS of a literal name": (b'* STATUS {3}\r\na"b (UNSEEN 1)', StatusReply(MailboxName(b'a"b'), {"UNSEEN": 1})),
    # ID, NAMESPACE
    "ID": (b'* ID ("Name" "Cyrus" "version" "1.5" "os" NIL)', ServerId({"name": "Cyrus", "version": "1.5"})),
    "ID, nothing": (b"* ID NIL", ServerId({})),
    "NAMESPACE": (
        b'* NAMESPACE (("" "/")) (("~" "/")) (("#shared/" "/")("#public/" NIL "X-P" ("a")))',
        Namespace((("", "/"),), (("~", "/"),), (("#shared/", "/"), ("#public/", None))),
    ),
    "NAMESPACE, one": (b'* NAMESPACE (("INBOX." ".")) NIL NIL', Namespace((("INBOX.", "."),), (), ())),
    # what nobody reads
    "an unknown response": (b"* GENURLAUTH foo {3}\r\nabc (", Unknown("GENURLAUTH")),
    "an unknown numbered one": (b"* 5 Frob (x)", Unknown("FROB")),
    # FETCH
    "FETCH, RFC 3501": (
        b'* 12 FETCH (FLAGS (\\Seen) INTERNALDATE "17-Jul-1996 02:44:25 -0700" RFC822.SIZE 4286)',
        Fetch(12, flags=frozenset({"\\Seen"}), internal_date=datetime(1996, 7, 17, 2, 44, 25, tzinfo=MST), size=4286),
    ),
    "FETCH FLAGS": (
        b"* 14 FETCH (FLAGS (\\Seen \\deleted $Foo) UID 9 MODSEQ (1121))",
        Fetch(14, Uid(9), frozenset({"\\Seen", "\\Deleted", "$Foo"}), modseq=ModSeq(1121)),
    ),
    "FETCH in lower case, with spaces": (
        b"* 14 fetch  ( flags ( \\seen )  uid 9 )",
        Fetch(14, Uid(9), frozenset({"\\Seen"})),
    ),
    "FETCH of odd flags": (
        b'* 1 FETCH (FLAGS (] [x "a {5 \xc3\xa9 \\Junk%*))',
        Fetch(1, flags=frozenset({"]", "[x", '"a', "{5", "é", "\\Junk%*"})),
    ),
    "FETCH of nothing": (b"* 1 FETCH ()", Fetch(1)),
    "FETCH of a body": (
        b"* 3 FETCH (UID 7 FLAGS () BODY[] {12}\r\nA: b\r\n\r\n)}\r\n)",
        Fetch(3, Uid(7), frozenset(), bodies=(BodySection("", None, b"A: b\r\n\r\n)}\r\n"),)),
    ),
    "FETCH of a slice": (
        b"* 3 FETCH (BODY[]<262144> {2}\r\nab UID 7)",
        Fetch(3, Uid(7), bodies=(BodySection("", 262144, b"ab"),)),
    ),
    "FETCH past the end": (b'* 3 FETCH (BODY[]<9> "" UID 7)', Fetch(3, Uid(7), bodies=(BodySection("", 9, b""),))),
    "FETCH of what was expunged": (
        b"* 3 FETCH (UID 7 BODY[] NIL)",
        Fetch(3, Uid(7), bodies=(BodySection("", None, None),)),
    ),
    "FETCH of a quoted body": (
        b'* 3 FETCH (BODY[TEXT] "a \\"b\\" \\\\\\\\ (c")',
        Fetch(3, bodies=(BodySection("TEXT", None, b'a "b" \\\\ (c'),)),
    ),
    "FETCH of a body as an atom": (b"* 3 FETCH (BODY[TEXT] 12)", Fetch(3, bodies=(BodySection("TEXT", None, b"12"),))),
    "FETCH of header fields": (
        b'* 3 FETCH (BODY[HEADER.FIELDS (Date "X]Y" {2}\r\nTo)] {2}\r\n\r\n BODY[1.2.mime] "")',
        Fetch(
            3, bodies=(BodySection('HEADER.FIELDS (DATE "X]Y" TO)', None, b"\r\n"), BodySection("1.2.MIME", None, b""))
        ),
    ),
    "FETCH RFC822 and its kin": (
        b'* 3 FETCH (RFC822 {1}\r\na RFC822.HEADER "b" RFC822.TEXT NIL)',
        Fetch(
            3, bodies=(BodySection("", None, b"a"), BodySection("HEADER", None, b"b"), BodySection("TEXT", None, None))
        ),
    ),
    "FETCH BINARY": (
        b"* 3 FETCH (BINARY[1]<0> ~{3}\r\n\0\r\n BINARY.SIZE[1] 3)",
        Fetch(3, bodies=(BodySection("BINARY[1]", 0, b"\0\r\n"),), others={"BINARY.SIZE[1]": 3}),
    ),
    "FETCH OBJECTID": (
        b"* 3 FETCH (EMAILID (M6d99ac3275bb4e) THREADID (T64b478a75b7ea9))",
        Fetch(3, email_id="M6d99ac3275bb4e", thread_id="T64b478a75b7ea9"),
    ),
    "FETCH OBJECTID, of digits and of nothing": (b"* 3 FETCH (EMAILID (12) THREADID NIL)", Fetch(3, email_id="12")),
    "FETCH of Gmail": (
        b'* 1 FETCH (X-GM-THRID 1278455344230334865 X-GM-LABELS ("\\\\Inbox" foo) X-GM-MSGID 18446744073709551615)',
        Fetch(
            1, others={"X-GM-THRID": 1278455344230334865, "X-GM-LABELS": (b"\\Inbox", b"foo"), "X-GM-MSGID": 2**64 - 1}
        ),
    ),
    "FETCH of structures": (
        b'* 1 FETCH (ENVELOPE ("Wed" NIL (("T" NIL "g" {3}\r\nx.y))) BODY ("T" "PLAIN" () 92 "12") BODYSTRUCTURE (a))',
        Fetch(
            1,
            structure=Structure((Part(section="1", type=""),), understood=False),
            others={"ENVELOPE": (b"Wed", None, ((b"T", None, b"g", b"x.y"),))},
        ),
    ),
    "FETCH of the greatest numbers": (
        b"* 4294967295 FETCH (UID 4294967295 MODSEQ (9223372036854775807) RFC822.SIZE 9223372036854775807)",
        Fetch(2**32 - 1, Uid(2**32 - 1), modseq=ModSeq(2**63 - 1), size=2**63 - 1),
    ),
    "FETCH, MODSEQ without its parentheses": (b"* 1 FETCH (MODSEQ 5)", Fetch(1, modseq=ModSeq(5))),
    "FETCH, the same item twice": (b"* 1 FETCH (UID 5 UID 6)", Fetch(1, Uid(6))),
}


@pytest.mark.parametrize(("stream", "response"), CASES.values(), ids=CASES.keys())
def test_what_servers_say_is_understood(stream: bytes, response: Response) -> None:
    assert read(stream) == response


@pytest.mark.parametrize(
    "stream",
    [
        pytest.param(b"", id="an empty line"),
        pytest.param(b"*", id="a star"),
        pytest.param(b"* ", id="a star and a space"),
        pytest.param(b"*OK", id="no space behind the star"),
        pytest.param(b"* 5", id="a number of nothing"),
        pytest.param(b"hello", id="a word"),
        pytest.param(b"a1 MAYBE x", id="an unknown completion"),
        pytest.param(b"a1 PREAUTH x", id="a tagged PREAUTH"),
        pytest.param(b"\xff1 OK x", id="a tag of eight bits"),
        pytest.param(b"x" * 200 + b" OK x", id="a tag too long"),
        pytest.param(b"* 4294967296 EXISTS", id="EXISTS out of bounds"),
        pytest.param(b"* 99999999999999999999 EXISTS", id="EXISTS of twenty digits"),
        pytest.param(b"* " + b"9" * 5000 + b" EXISTS", id="EXISTS of digits without end"),
        pytest.param(b"* -1 EXISTS", id="EXISTS below zero"),
        pytest.param(b"* 5 EXISTS x", id="something behind EXISTS"),
        pytest.param(b"* 0 EXPUNGE", id="EXPUNGE 0"),
        pytest.param(b"* 4294967296 EXPUNGE", id="EXPUNGE out of bounds"),
        pytest.param(b"* 0 FETCH (UID 5)", id="FETCH 0"),
        pytest.param(b"* 0 FETCH (X 5)", id="FETCH 0 of something else"),
        pytest.param(b"* 4294967296 FETCH (UID 5)", id="FETCH out of bounds"),
        pytest.param(b"* 1 FETCH (UID 0)", id="UID 0"),
        pytest.param(b"* 1 FETCH (UID 4294967296)", id="a UID out of bounds"),
        pytest.param(b"* 1 FETCH (X 1 UID 4294967296)", id="a UID out of bounds beside something else"),
        pytest.param(b"* 1 FETCH (UID 99999999999999999999999)", id="a UID without end"),
        pytest.param(b"* 1 FETCH (UID NIL)", id="no UID"),
        pytest.param(b"* 1 FETCH (UID (5))", id="a UID in parentheses"),
        pytest.param(b'* 1 FETCH (UID "5")', id="a UID in quotes"),
        pytest.param(b"* 1 FETCH (UID)", id="a UID of nothing"),
        pytest.param(b"* 1 FETCH (MODSEQ (9223372036854775808))", id="MODSEQ out of bounds"),
        pytest.param(b"* 1 FETCH (MODSEQ (1 2))", id="two MODSEQs"),
        pytest.param(
            b"* 1 FETCH (MODSEQ (5) X 1 MODSEQ (9223372036854775808))", id="MODSEQ out of bounds beside another"
        ),
        pytest.param(b"* 1 FETCH (RFC822.SIZE -5)", id="a size below zero"),
        pytest.param(b"* 1 FETCH (RFC822.SIZE 9223372036854775808)", id="a size out of bounds"),
        pytest.param(b"* 1 FETCH (FLAGS \\Seen)", id="flags without parentheses"),
        pytest.param(b"* 1 FETCH (FLAGS (\\Seen)", id="a FETCH that does not end"),
        pytest.param(b"* 1 FETCH (FLAGS (\\Seen))x", id="a FETCH that ends too early"),
        pytest.param(b"* 1 FETCH (FLAGS (\\Seen {1}\r\na))", id="a literal among flags"),
        pytest.param(b"* 1 FETCH FLAGS ()", id="a FETCH without parentheses"),
        pytest.param(b"* 1 FETCH (BODY[ {1}\r\na", id="a section that does not end"),
        pytest.param(b"* 1 FETCH (BODY[] (a))", id="a list as a body"),
        pytest.param(b"* 1 FETCH (BODY[] {3}\r\nabcdef)", id="a body longer than announced"),
        pytest.param(b"* 1 FETCH (BODY[] {5}\r\nab)\r\nX", id="a body shorter than announced"),
        pytest.param(b'* 1 FETCH (BODY[] "a)', id="a body whose quote does not end"),
        pytest.param(b"* 1 FETCH (X (a)))", id="a parenthesis too many"),
        pytest.param(b"* 1 FETCH (X ))", id="a name without a value"),
        pytest.param(b"* 1 FETCH (" + b"X" * 101 + b" 1)", id="a name too long"),
        pytest.param(b"* 1 FETCH (X " + b"(" * (MAX_NESTING + 1), id="lists too deep"),
        pytest.param(b"* SEARCH 0", id="SEARCH 0"),
        pytest.param(b"* SEARCH 4294967296", id="SEARCH out of bounds"),
        pytest.param(b"* SEARCH 12345678901", id="SEARCH of too many digits"),
        pytest.param(b"* SEARCH 1,2", id="SEARCH with commas"),
        pytest.param(b"* SEARCH (MODSEQ 9223372036854775808)", id="SEARCH with MODSEQ out of bounds"),
        pytest.param(b"* ESEARCH UID ALL 1:*", id="ESEARCH of a star"),
        pytest.param(b"* ESEARCH UID ALL (1)", id="ESEARCH of a list"),
        pytest.param(b"* ESEARCH MIN 0", id="ESEARCH MIN 0"),
        pytest.param(b"* ESEARCH COUNT x", id="ESEARCH COUNT of no number"),
        pytest.param(b"* ESEARCH (", id="ESEARCH cut short"),
        pytest.param(b"* VANISHED 1:*", id="VANISHED of a star"),
        pytest.param(b"* VANISHED 0", id="VANISHED 0"),
        pytest.param(b"* LIST", id="LIST of nothing"),
        pytest.param(b'* LIST () "/"', id="LIST without a name"),
        pytest.param(b'* LIST () "/" (a)', id="LIST of a list"),
        pytest.param(b'* LIST x "/" a', id="LIST without attributes"),
        pytest.param(b'* LIST () "/" a b', id="LIST with something behind it"),
        pytest.param(b"* STATUS x (MESSAGES 4294967296)", id="STATUS out of bounds"),
        pytest.param(b"* STATUS x (1 2)", id="STATUS without names"),
        pytest.param(b"* STATUS x", id="STATUS without items"),
        pytest.param(b"* STATUS x (MESSAGES 1) y", id="STATUS with something behind it"),
        pytest.param(b"* NAMESPACE NIL NIL", id="NAMESPACE of two"),
        pytest.param(b"* ID x", id="ID of an atom"),
        pytest.param(b"* FLAGS x", id="FLAGS without parentheses"),
    ],
)
def test_what_makes_no_sense_breaks_the_protocol(stream: bytes) -> None:
    with pytest.raises(RemoteProtocolError) as caught:
        read(stream)
    assert len(str(caught.value)) < 160
    assert str(caught.value).isprintable()


@pytest.mark.parametrize(
    ("spelled", "moment"),
    [
        pytest.param(
            b" 1-jan-2024 00:00:00 +0000", datetime(2024, 1, 1, tzinfo=UTC), id="a padded day, a month in lower case"
        ),
        pytest.param(b"1-FEB-2024 00:00:00 -0000", datetime(2024, 2, 1, tzinfo=UTC), id="one digit, capitals"),
        pytest.param(b"29-Feb-2024 23:59:59 +0530", datetime(2024, 2, 29, 18, 29, 59, tzinfo=UTC), id="another zone"),
        pytest.param(b"30-Feb-2024 00:00:00 +0000", None, id="no such day"),
        pytest.param(b"01-Foo-2024 00:00:00 +0000", None, id="no such month"),
        pytest.param(b"01-Jan-2024 25:00:00 +0000", None, id="no such hour"),
        pytest.param(b"01-Jan-2024 00:00:00 +9999", None, id="no such zone"),
        pytest.param(b"01-Jan-0000 00:00:00 +0000", None, id="no such year"),
        pytest.param(b"01-Jan-0001 00:00:00 +0100", None, id="before the calendar in UTC"),
        pytest.param(b"31-Dec-9999 23:00:00 -0200", None, id="behind the calendar in UTC"),
        pytest.param(b"Mon, 1 Jan 2024", None, id="another format"),
        pytest.param(b"", None, id="nothing"),
    ],
)
def test_a_date_that_cannot_be_read_costs_itself_not_the_message(spelled: bytes, moment: datetime | None) -> None:
    fast = fetched(b'* 1 FETCH (INTERNALDATE "' + spelled + b'" UID 4)')
    slow = fetched(b'* 1 FETCH (INTERNALDATE "' + spelled + b'" UID 4 X 1)')
    assert fast.internal_date == slow.internal_date == moment
    assert fast.uid == slow.uid == 4


@given(
    st.permutations(
        [
            b"UID 17",
            b"FLAGS (\\seen Foo)",
            b"MODSEQ (5)",
            b"RFC822.SIZE 100",
            b'INTERNALDATE "17-Jul-1996 02:44:25 -0700"',
        ]
    ),
    st.integers(1, 5),
)
@settings(deadline=None)
def test_the_short_way_and_the_long_way_read_the_same(items: list[bytes], count: int) -> None:
    spelled = b" ".join(items[:count])
    short = fetched(b"* 3 FETCH (" + spelled + b")")
    # Anything the short way does not know sends the line the long way.
    assert short == fetched(b"* 3 FETCH (" + spelled + b" )") == fetched(b"* 3 fetch (" + spelled + b")")
    assert short.others == {}


def test_messages_share_their_flags() -> None:
    one, other = fetched(b"* 1 FETCH (FLAGS (\\Seen a))"), fetched(b"* 2 FETCH (FLAGS (\\Seen a))")
    assert one.flags is other.flags


def test_a_long_list_of_flags_is_read_but_not_remembered() -> None:
    flags = frozenset(f"keyword{number}" for number in range(100))
    stream = b"* 1 FETCH (FLAGS (" + " ".join(flags).encode() + b"))"
    assert fetched(stream).flags == fetched(stream.replace(b"FETCH", b"fetch")).flags == flags
    assert fetched(stream).flags is not fetched(stream).flags


def test_texts_for_people_are_short_and_harmless() -> None:
    hostile = read(b"* OK [X \x1b[2J] \x1b]0;pwned\x07 \xe2\x80\xaegnp.exe \xff" + b"y" * 5000)
    assert isinstance(hostile, Condition)
    assert hostile.code == Code("X", "[2J")
    assert hostile.text.startswith("]0;pwned   gnp.exe �yyy")
    assert 990 < len(hostile.text) <= 1000


def test_a_number_in_others_that_no_protocol_has_stays_text() -> None:
    digits = b"9" * 100_000
    assert fetched(b"* 1 FETCH (X " + digits + b")").others == {"X": digits}


def test_more_lists_than_any_message_has_break_the_protocol() -> None:
    # c1: two hundred thousand parentheses.
    with pytest.raises(RemoteProtocolError, match="deeper than"):
        read(b"* 1 FETCH (X " + b"(" * 200_000 + b")" * 200_000 + b")")
    with pytest.raises(RemoteProtocolError, match="more than 100000 values"):
        read(b"* 1 FETCH (X (" + b"()" * MAX_VALUES + b"))")
    with pytest.raises(RemoteProtocolError, match="more than 100000 values"):
        read(b"* 1 FETCH (" + b"fLAGS () " * (MAX_VALUES + 1) + b")")
    deep = b"(" * MAX_NESTING + b")" * MAX_NESTING
    assert fetched(b"* 1 FETCH (X " + deep + b")").others["X"] is not None


def test_lists_of_words_have_an_end() -> None:
    with pytest.raises(RemoteProtocolError, match="list of flags"):
        read(b"* 1 FETCH (FLAGS (" + b"a " * MAX_WORDS + b"))")
    with pytest.raises(RemoteProtocolError, match="list of capabilities"):
        read(b"* CAPABILITY " + b"a " * MAX_WORDS)
    with pytest.raises(RemoteProtocolError, match="more than 100000 values"):
        read(b"* LIST (" + b"a " * MAX_VALUES + b') "/" x')


def test_a_hundred_thousand_found_messages_are_read_in_runs() -> None:
    odd = range(1, 200_000, 2)
    response = read(b"* SEARCH " + b" ".join(b"%d" % uid for uid in odd) + b" (MODSEQ 9)")
    assert response == Search(UidSet.from_uids(odd), modseq=ModSeq(9))


def steps_of(stream: bytes) -> int:
    """Count the calls, of Python and of C, that reading *stream* costs."""
    frame = Frame((stream,))
    steps = 0

    def count(_frame: FrameType, event: str, _arg: object) -> None:
        nonlocal steps
        steps += event in {"call", "c_call"}

    sys.setprofile(count)
    try:
        parse(frame)
    finally:
        sys.setprofile(None)
    return steps


@pytest.mark.parametrize(
    ("begin", "again", "end"),
    [
        (b"* 1 FETCH (X (", b"(a 1) ", b"))"),
        (b"* 1 FETCH (", b"X (a) ", b")"),
        (b"* LIST (", b"\\a ", b') "/" x'),
        (b"* STATUS x (", b"A 1 ", b")"),
        (b"* NAMESPACE (", b'("" "/")', b") NIL NIL"),
    ],
)
def test_twice_the_response_costs_twice_the_steps(begin: bytes, again: bytes, end: bytes) -> None:
    assert steps_of(begin + again * 2000 + end) <= 2.1 * steps_of(begin + again * 1000 + end)


@pytest.mark.parametrize(
    "stream",
    [
        b'* 1 FETCH (X "' + b'\\"' * 500_000 + b'")',
        b'* 1 FETCH (X "' + b"\\\\" * 500_000 + b'")',
        b"* 1 FETCH (BODY[" + b'"a"' * 300_000 + b"] NIL)",
        b"* OK [A " + b"(" * 1_000_000,
        b"* OK [A " + b'"a' * 500_000,
        b"* " + b"1 " * 500_000,
        b"* 1 FETCH (" + b"UID 1 " * 150_000 + b"UID 0)",
        b"* 1 FETCH (UID " + b"1" * 1_000_000 + b")",
        b" " * 1_000_000 + b"OK",
        b"* 1 FETCH (" + b" " * 1_000_000,
        b"* VANISHED " + b"1," * 500_000,
    ],
    ids=lambda stream: stream[:20].decode(),
)
def test_a_megabyte_made_to_be_slow_is_not(stream: bytes) -> None:
    # Were one of these quadratic, it would run into the suite's timeout.
    verdict(Frame((stream,)))


# ---- anything at all

lines = st.sampled_from([stream + b"\r\n" for stream, _ in CASES.values()])
numbers = st.sampled_from(
    [b"0", b"-1", b"4294967295", b"4294967296", b"9223372036854775808", b"{3}\r\n", b"{-1}", b"9" * 30]
)
snippets = numbers | st.sampled_from(
    [b"(", b")", b'"', b"\\", b"[", b"]", b"{", b"}", b" ", b"\r\n", b"\0", b"\xff", b"NIL", b"<", b">"]
)


@st.composite
def mutated(draw: st.DrawFn) -> bytes:
    """Return a real response, cut, doubled, spliced or with something in it that does not belong there."""
    stream = bytearray(draw(lines))
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, len(stream)))
        until = min(len(stream), at + draw(st.integers(0, 6)))
        match draw(st.integers(0, 3)):
            case 0:
                stream[at:until] = draw(snippets)
            case 1:
                stream[at:until] = draw(st.binary(max_size=3))
            case 2:
                stream[at:at] = stream[at:until]
            case _:
                stream[at:until] = draw(lines)[at:until]
    return bytes(stream)


def responses_to(stream: bytes) -> list[Response]:
    try:
        frames = Framer(max_line=5000, max_literal=5000).feed(stream)
    except RemoteProtocolError:
        return []
    return [response for response in map(verdict, frames) if response is not None]


def texts_in(value: object) -> list[str]:
    match value:
        case str():
            return [value]
        case bytes() | int() | None | UidSet() | datetime():
            return []
        case dict():
            return [text for pair in value.items() for one in pair for text in texts_in(one)]
        case tuple() | frozenset():
            return [text for one in value for text in texts_in(one)]
        case _:
            slots = getattr(value, "__slots__", ())
            return [text for slot in slots for text in texts_in(getattr(value, slot))]


@given(st.lists(mutated() | st.binary(max_size=40), max_size=4).map(b"".join))
@settings(max_examples=500, deadline=None)
def test_any_octets_give_responses_or_break_the_protocol(stream: bytes) -> None:
    for response in responses_to(stream):
        for text in texts_in(response):
            text.encode()
            assert "\x1b" not in text


@given(
    st.lists(st.binary(max_size=12) | snippets, min_size=1, max_size=5),
    st.lists(st.binary(max_size=5), min_size=4, max_size=4),
    st.sampled_from(
        [b"", b"* ", b"* 1 FETCH (", b"* LIST (", b"* ESEARCH ", b"* OK [", b"* STATUS ", b"* 1 FETCH (BODY["]
    ),
)
@settings(max_examples=300, deadline=None)
def test_any_frame_gives_a_response_or_breaks_the_protocol(
    texts: list[bytes], literals: list[bytes], begin: bytes
) -> None:
    texts[0] = begin + texts[0]
    verdict(Frame(tuple(texts), tuple(literals[: len(texts) - 1])))
