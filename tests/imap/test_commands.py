"""Commands: spelled as the RFCs' examples are, and impossible to break out of."""

import base64
import re
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from idlepush.errors import LocalProtocolError
from idlepush.imap import commands
from idlepush.imap.commands import DONE, MAX_COMMAND, Command, Literals, Secret
from idlepush.imap.types import MAX_UID, MailboxName, ModSeq, UidValidity
from idlepush.imap.uidset import UidSet

INBOX = MailboxName(b"INBOX")
VALIDITY = UidValidity(67890007)


def wire(command: Command) -> bytes:
    return b"".join(command.wire("a1"))


@pytest.mark.parametrize(
    ("command", "spelled"),
    [
        (commands.capability(), b"CAPABILITY"),
        (commands.noop(), b"NOOP"),
        (commands.logout(), b"LOGOUT"),
        (commands.starttls(), b"STARTTLS"),
        (commands.idle(), b"IDLE"),
        (commands.compress(), b"COMPRESS DEFLATE"),
        (commands.id_(), b"ID NIL"),
        (commands.id_({"name": "idlepush", "version": '0.1 "x"'}), b'ID ("name" "idlepush" "version" "0.1 \\"x\\"")'),
        (commands.enable("QRESYNC"), b"ENABLE QRESYNC"),
        (commands.enable("CONDSTORE", "UTF8=ACCEPT"), b"ENABLE CONDSTORE UTF8=ACCEPT"),
        (commands.login("SMITH", 'SES"A\\ME'), b'LOGIN "SMITH" "SES\\"A\\\\ME"'),
        (commands.examine(INBOX), b'EXAMINE "INBOX"'),
        (commands.examine(INBOX, condstore=True), b'EXAMINE "INBOX" (CONDSTORE)'),
        (
            commands.examine(INBOX, condstore=True, qresync=(VALIDITY, ModSeq(20050715194045000))),
            b'EXAMINE "INBOX" (QRESYNC (67890007 20050715194045000))',
        ),
        (
            commands.status(MailboxName.from_text("Entwürfe"), ["UIDNEXT", "MESSAGES"]),
            b'STATUS "Entw&APw-rfe" (UIDNEXT MESSAGES)',
        ),
        (commands.list_("", "*"), b'LIST "" "*"'),
        (commands.list_("Sent/", b"%"), b'LIST "Sent/" "%"'),
        (commands.list_("", "Entwürfe/%"), b'LIST "" "Entw&APw-rfe/%"'),
        (
            commands.list_("", "INBOX", "a.*", status_items=["MESSAGES", "UIDNEXT"]),
            b'LIST "" ("INBOX" "a.*") RETURN (STATUS (MESSAGES UIDNEXT))',
        ),
        (
            commands.list_("", "*", special_use=True, status_items=["MESSAGES"]),
            b'LIST "" "*" RETURN (SPECIAL-USE STATUS (MESSAGES))',
        ),
        (commands.list_("", "*", special_use=True), b'LIST "" "*" RETURN (SPECIAL-USE)'),
        (
            commands.notify([INBOX, MailboxName(b'a "b"')], ["MessageNew", "MessageExpunge"], names=True),
            b"NOTIFY SET STATUS (SELECTED-DELAYED (MessageNew MessageExpunge)) "
            b'(MAILBOXES ("INBOX" "a \\"b\\"") (MessageNew MessageExpunge)) (PERSONAL (MailboxName))',
        ),
        (commands.notify([], ["MessageNew"], names=True), b"NOTIFY NONE"),
        (
            commands.uid_fetch(UidSet.parse("4392:4294967295"), "(UID FLAGS BODY.PEEK[]<0.262144>)"),
            b"UID FETCH 4392:4294967295 (UID FLAGS BODY.PEEK[]<0.262144>)",
        ),
        (
            commands.uid_fetch("1:3,7", "FLAGS", changed_since=ModSeq(12345), vanished=True),
            b"UID FETCH 1:3,7 (FLAGS) (CHANGEDSINCE 12345 VANISHED)",
        ),
        (
            commands.uid_fetch("300:500", "BODY.PEEK[HEADER.FIELDS (MESSAGE-ID DATE)]", changed_since=ModSeq(1)),
            b"UID FETCH 300:500 (BODY.PEEK[HEADER.FIELDS (MESSAGE-ID DATE)]) (CHANGEDSINCE 1)",
        ),
        (commands.fetch(UidSet.of(3), "(UID FLAGS)"), b"FETCH 3 (UID FLAGS)"),
        (commands.uid_search(UidSet.range(1, 5), esearch=True), b"UID SEARCH RETURN (ALL) UID 1:5"),
        (commands.uid_search("7", esearch=False), b"UID SEARCH UID 7"),
        (commands.uid_search(esearch=True), b"UID SEARCH RETURN (ALL) ALL"),
        (commands.uid_search(None, esearch=False), b"UID SEARCH ALL"),
    ],
    ids=lambda value: value.decode() if isinstance(value, bytes) else "",
)
def test_a_command_is_spelled_as_the_rfc_spells_it(command: Command, spelled: bytes) -> None:
    assert command.wire("a1") == (b"a1 " + spelled + b"\r\n",)


def test_done_is_a_line_without_a_tag() -> None:
    assert DONE == b"DONE\r\n"


# ---- literals

PASSWORD = "pässword"


@pytest.mark.parametrize(
    ("literals", "parts"),
    [
        (Literals.SYNC, (b'a1 LOGIN "u" {9}\r\n', b"p\xc3\xa4ssword\r\n")),
        (Literals.MINUS, (b'a1 LOGIN "u" {9+}\r\np\xc3\xa4ssword\r\n',)),
        (Literals.PLUS, (b'a1 LOGIN "u" {9+}\r\np\xc3\xa4ssword\r\n',)),
    ],
)
def test_what_cannot_be_quoted_goes_as_a_literal_and_waits_only_where_it_must(
    literals: Literals, parts: tuple[bytes, ...]
) -> None:
    assert commands.login("u", PASSWORD, literals).wire("a1") == parts


@pytest.mark.parametrize(
    ("size", "literals", "parts"), [(4096, Literals.MINUS, 1), (4097, Literals.MINUS, 2), (5000, Literals.PLUS, 1)]
)
def test_literal_minus_ends_at_4096_octets(size: int, literals: Literals, parts: int) -> None:
    command = commands.login("u", "é" + "x" * (size - 2), literals)
    assert len(command.parts) == parts


def test_two_literals_are_waited_for_twice() -> None:
    command = commands.login("usér", PASSWORD)
    assert command.wire("a1") == (b"a1 LOGIN {5}\r\n", b"us\xc3\xa9r {9}\r\n", b"p\xc3\xa4ssword\r\n")


def test_a_mailbox_of_raw_octets_is_named_by_the_same_octets() -> None:
    raw = 'Entwürfe"\\\r\nx'.encode()
    first, second = commands.examine(MailboxName(raw), condstore=True).wire("a1")
    assert first == b"a1 EXAMINE {%d}\r\n" % len(raw)
    assert second == raw + b" (CONDSTORE)\r\n"


def test_no_string_of_imap_holds_a_nul() -> None:
    with pytest.raises(ValueError, match="holds a NUL"):
        commands.login("u", "a\0b")
    with pytest.raises(ValueError, match="holds a NUL"):
        commands.examine(MailboxName(b"a\0"))
    with pytest.raises(ValueError, match="holds a NUL"):
        commands.plain_answer("u\0", "p")


LINE = re.compile(rb'"(?:[^"\\\r\n\0]|\\["\\])*"|\{([0-9]+)\+?\}\r\n')


def read_by_a_server(parts: tuple[bytes, ...]) -> tuple[bytes, list[bytes]]:
    """Read one command as RFC 9051 says; return its words outside of strings, and its strings."""
    stream = b"".join(parts)
    words, strings, at = b"", [], 0
    while stream[at : at + 2] != b"\r\n":
        string = LINE.match(stream, at)
        if string is None:
            words += stream[at : at + 1]
            at += 1
        elif string[1] is None:
            strings.append(re.sub(rb"\\(.)", rb"\1", string[0][1:-1]))
            at = string.end()
        else:
            at = string.end() + int(string[1])
            strings.append(stream[string.end() : at])
    assert at + 2 == len(stream), "something stands behind the command"
    return words, strings


@given(
    st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=30)
    | st.text('"\\\r\n{}ab ü3', max_size=20),
    st.sampled_from(Literals),
)
@settings(deadline=None)
def test_no_user_name_or_password_can_break_out_of_login(text: str, literals: Literals) -> None:
    words, strings = read_by_a_server(commands.login(text, text[::-1], literals).wire("a1"))
    assert words == b"a1 LOGIN  "
    assert strings == [text.encode(), text[::-1].encode()]


@given(st.binary(max_size=30).filter(lambda raw: b"\0" not in raw), st.sampled_from(Literals))
@settings(deadline=None)
def test_no_mailbox_name_can_break_out_of_a_command(raw: bytes, literals: Literals) -> None:
    name = MailboxName(raw)
    words, strings = read_by_a_server(commands.examine(name, literals=literals).wire("a1"))
    assert (words, strings) == (b"a1 EXAMINE ", [name.raw])
    words, strings = read_by_a_server(commands.status(name, ["UIDNEXT"], literals=literals).wire("a1"))
    assert (words, strings) == (b"a1 STATUS  (UIDNEXT)", [name.raw])
    words, strings = read_by_a_server(commands.list_("", raw, literals=literals).wire("a1"))
    assert (words, strings) == (b"a1 LIST  ", [b"", raw])


@given(st.text(max_size=12))
@settings(deadline=None)
def test_words_and_items_hold_nothing_but_themselves(text: str) -> None:
    builders: list[Callable[[], Command]] = [
        lambda: commands.enable(text),
        lambda: commands.status(INBOX, [text]),
        lambda: commands.uid_fetch("1", text),
        lambda: commands.uid_fetch(text, "FLAGS"),
        lambda: commands.uid_search(text, esearch=False),
        lambda: commands.id_({"name": text}),
    ]
    for build in builders:
        try:
            (line,) = build().wire("a1")
        except (LocalProtocolError, ValueError):
            continue
        assert line.count(b"\r\n") == 1
        assert line.endswith(b"\r\n")
        assert not re.search(rb"\{[0-9]*\+?\}\r\n", line)


@pytest.mark.parametrize("tag", ["", "a 1", "a\r\n", "*", "+", "a" * 33, "é"])
def test_a_tag_is_a_word(tag: str) -> None:
    with pytest.raises(LocalProtocolError, match="is no tag"):
        commands.noop().wire(tag)


@pytest.mark.parametrize("items", ["", "FLAGS\r\n", "X {5}", 'X "y', "BODY[HEADER.FIELDS (é)]", "A\0"], ids=ascii)
def test_items_that_could_be_something_else_are_refused(items: str) -> None:
    with pytest.raises(LocalProtocolError, match="no items"):
        commands.uid_fetch("1", items)


def test_patterns_side_by_side_are_quoted_or_refused() -> None:
    with pytest.raises(ValueError, match="cannot be quoted"):
        commands.list_("", b"a", b"\xff")
    with pytest.raises(LocalProtocolError, match="needs a pattern"):
        commands.list_("")


# ---- sets and numbers


@pytest.mark.parametrize(
    "spelled",
    [
        "",
        "0",
        "1:0",
        "4:3",
        "1:*",
        "*",
        "4294967296",
        "1:4294967296",
        "4294967296:4294967297",
        "1,",
        ",1",
        "1 2",
        "1\r\n",
        "-1",
        "a",
        "1:2:3",
    ],
)
def test_a_range_no_server_should_see_cannot_be_spelled(spelled: str) -> None:
    builders: list[Callable[[], Command]] = [
        lambda: commands.uid_fetch(spelled, "FLAGS"),
        lambda: commands.fetch(spelled, "FLAGS"),
        lambda: commands.uid_search(spelled, esearch=True),
    ]
    for build in builders:
        with pytest.raises(LocalProtocolError):
            build()


@pytest.mark.parametrize("uids", [UidSet(), UidSet(((4, 3),)), UidSet(((0, 3),)), UidSet(((1, MAX_UID + 1),))], ids=str)
def test_a_set_that_is_none_cannot_be_asked_for(uids: UidSet) -> None:
    with pytest.raises(LocalProtocolError):
        commands.uid_fetch(uids, "FLAGS")


@pytest.mark.parametrize("modseq", [0, -1, 2**63])
def test_nothing_is_asked_since_a_modseq_that_is_none(modseq: int) -> None:
    with pytest.raises(LocalProtocolError, match="no mod-sequence"):
        commands.uid_fetch("1", "FLAGS", changed_since=ModSeq(modseq))
    with pytest.raises(LocalProtocolError, match="no mod-sequence"):
        commands.examine(INBOX, qresync=(VALIDITY, ModSeq(modseq)))


def test_what_the_rfc_forbids_is_our_mistake() -> None:
    with pytest.raises(LocalProtocolError, match="needs CHANGEDSINCE"):
        commands.uid_fetch("1", "FLAGS", vanished=True)
    with pytest.raises(LocalProtocolError, match="is no UIDVALIDITY"):
        commands.examine(INBOX, qresync=(UidValidity(0), ModSeq(1)))
    with pytest.raises(LocalProtocolError, match="needs a name"):
        commands.enable()
    with pytest.raises(LocalProtocolError, match="is no atom"):
        commands.status(INBOX, ["A B"])


def test_a_command_is_shorter_than_the_strictest_server_takes() -> None:
    longest = UidSet.from_uids(range(1, 20_000, 2))
    for spelled in longest.spelled():
        assert len(wire(commands.uid_fetch(spelled, "(UID FLAGS)"))) < MAX_COMMAND
    with pytest.raises(LocalProtocolError, match="longer than every server takes"):
        commands.uid_fetch(longest, "(UID FLAGS)")
    with pytest.raises(LocalProtocolError, match="longer than every server takes"):
        commands.login("u", "x" * MAX_COMMAND)


def test_literals_do_not_count() -> None:
    long = MailboxName(b"\xff" * 3 * MAX_COMMAND)
    assert len(wire(commands.examine(long))) > 3 * MAX_COMMAND
    assert len(wire(commands.examine(long, literals=Literals.PLUS))) > 3 * MAX_COMMAND


# ---- secrets


def test_sasl_plain_is_rfc_4616s() -> None:
    encoded = base64.b64encode(b"\0tim\0tanstaaftanstaaf")
    assert wire(commands.authenticate_plain("tim", "tanstaaftanstaaf", initial_response=True)) == (
        b"a1 AUTHENTICATE PLAIN " + encoded + b"\r\n"
    )
    assert wire(commands.authenticate_plain("tim", "x", initial_response=False)) == b"a1 AUTHENTICATE PLAIN\r\n"
    assert commands.plain_answer("tim", "tanstaaftanstaaf").line == encoded + b"\r\n"


def test_xoauth2_is_googles() -> None:
    encoded = (
        b"dXNlcj1zb21ldXNlckBleGFtcGxlLmNvbQFhdXRoPUJlYXJlciB5YTI5LnZGOWRmdDRxbVRjMk52YjNSbGNrQmhkSFJoZG1semRHRXVZMjl0"
        b"Q2cBAQ=="
    )
    user, token = "someuser@example.com", "ya29.vF9dft4qmTc2Nvb3RlckBhdHRhdmlzdGEuY29tCg"
    assert commands.xoauth2_answer(user, token).line == encoded + b"\r\n"
    assert wire(commands.authenticate_xoauth2(user, token, initial_response=True)).endswith(encoded + b"\r\n")
    bare = commands.authenticate_xoauth2(user, token, initial_response=False)
    assert wire(bare) == b"a1 AUTHENTICATE XOAUTH2\r\n"


def test_oauthbearer_is_rfc_7628s() -> None:
    answer = commands.oauthbearer_answer(
        "us=er,x", "server.example.com", 143, "vF9dft4qmTc2Nvb3RlckBhbHRhdmlzdGEuY29tCg=="
    )
    assert base64.b64decode(answer.line) == (
        b"n,a=us=3Der=2Cx,\1host=server.example.com\1port=143\1auth="
        b"Bearer vF9dft4qmTc2Nvb3RlckBhbHRhdmlzdGEuY29tCg==\1\1"
    )
    whole = commands.authenticate_oauthbearer("u", "h", 993, "t", initial_response=True)
    assert wire(whole).startswith(b"a1 AUTHENTICATE OAUTHBEARER bixhPXUs")
    bare = commands.authenticate_oauthbearer("u", "h", 993, "t", initial_response=False)
    assert wire(bare) == b"a1 AUTHENTICATE OAUTHBEARER\r\n"


@pytest.mark.parametrize("user", ["a\1auth=Bearer x", "a\r\nb", "a\0"])
def test_a_user_name_cannot_forge_an_oauth_field(user: str) -> None:
    with pytest.raises(ValueError, match="control character"):
        commands.xoauth2_answer(user, "t")
    with pytest.raises(ValueError, match="control character"):
        commands.oauthbearer_answer("u", "h", 993, user)


@given(st.text("hunter2", min_size=6, max_size=12), st.booleans())
@settings(deadline=None)
def test_a_secret_is_never_shown(secret: str, initial: bool) -> None:
    for command in (
        commands.login("u", secret + "é"),
        commands.login("u", secret),
        commands.authenticate_plain("u", secret, initial_response=initial),
        commands.authenticate_xoauth2("u", secret, initial_response=initial),
        commands.authenticate_oauthbearer("u", "h", 1, secret, initial_response=initial),
    ):
        for shown in (repr(command), str(command), f"{command}"):
            assert secret not in shown
            assert shown.startswith(f"Command('{command.name}', ")
    assert repr(commands.login("u", secret)) == "Command('LOGIN', ***)"
    answer = commands.plain_answer("u", secret)
    assert repr(answer) == "Secret()"
    assert isinstance(answer, Secret)


@given(st.lists(st.binary(min_size=1, max_size=40).map(MailboxName), max_size=8), st.booleans())
def test_no_name_ends_a_notify_or_is_taken_for_more_than_a_name(names: list[MailboxName], wants_names: bool) -> None:
    (line,) = commands.notify(names, ["MessageNew", "MessageExpunge"], names=wants_names).wire("a1")
    body = line.removesuffix(b"\r\n")
    assert b"\r" not in body
    assert b"\n" not in body
    outside = re.sub(rb'"(?:[^"\\]|\\.)*"', b"", body)
    quotable = [name for name in names if re.fullmatch(rb"[\x01-\x09\x0b\x0c\x0e-\x7f]*", name.raw)]
    assert outside == (
        b"a1 NOTIFY NONE"
        if not quotable
        else b"a1 NOTIFY SET STATUS (SELECTED-DELAYED (MessageNew MessageExpunge)) (MAILBOXES ("
        + b" " * (len(quotable) - 1)
        + b") (MessageNew MessageExpunge))"
        + b" (PERSONAL (MailboxName))" * wants_names
    )


def test_a_notify_of_more_than_a_command_holds_is_of_all_personal_mailboxes() -> None:
    (line,) = commands.notify(
        [MailboxName(b"x" * 300 + b"%d" % n) for n in range(50)], ["MessageNew"], names=True
    ).wire("a")
    assert line == b"a NOTIFY SET STATUS (SELECTED-DELAYED (MessageNew)) (PERSONAL (MessageNew MailboxName))\r\n"


def test_a_command_without_a_secret_shows_its_beginning() -> None:
    assert repr(commands.noop()) == "Command('NOOP', b'NOOP\\r\\n')"
    assert len(repr(commands.uid_fetch("1," * 500 + "1", "FLAGS"))) < 140


@pytest.mark.parametrize("fields", [{"n" * 31: "x"}, {"name": "x" * 1025}, {"name": "é"}, {"name": "a\r\nb"}])
def test_id_says_only_what_rfc_2971_allows(fields: dict[str, str]) -> None:
    with pytest.raises(ValueError, match="cannot be said"):
        commands.id_(fields)


@pytest.mark.parametrize(
    ("capabilities", "literals"),
    [
        ({"LITERAL+", "LITERAL-"}, Literals.PLUS),
        ({"LITERAL-"}, Literals.MINUS),
        ({"IMAP4REV2"}, Literals.MINUS),
        ({"IMAP4REV1"}, Literals.SYNC),
    ],
)
def test_literals_are_sent_unasked_where_the_server_takes_them(capabilities: set[str], literals: Literals) -> None:
    assert Literals.offered(capabilities) is literals
    parts = commands.examine(MailboxName(b"caf\xc3\xa9"), literals=literals).parts
    assert len(parts) == (2 if literals is Literals.SYNC else 1)
