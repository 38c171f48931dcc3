"""The fake IMAP server keeps the rules, and breaks exactly those it is told to break."""

import asyncio
import base64
import imaplib
import re
import ssl
from collections.abc import Callable

import pytest
import trustme

from tests.peers.fake import PASSWORD, FakeImap, answer, bye, cut, mute, say
from tests.peers.memory import open_memory
from tests.peers.model import Mailbox
from tests.peers.virtual import virtual_time

ONE = b"From: a@example.org\r\nSubject: one\r\n\r\nfirst\r\n"
TWO = b"Subject: two\r\nX-Long: folded\r\n over\r\n\r\nsecond\r\n"


class Client(asyncio.Protocol):
    """A client that writes bytes and waits for what comes."""

    def __init__(self) -> None:
        self.text = ""
        self.end: str | None = None
        self._stirred = asyncio.Event()
        self._position = 0
        self._tags = 0
        self.transport: asyncio.Transport

    @classmethod
    async def connected(cls, fake: FakeImap, *, login: bool = True, mailbox: str | None = "INBOX") -> "Client":
        _, client = await open_memory(cls, fake)
        if login:
            await client.run(f"LOGIN alice {PASSWORD}")
        if login and mailbox:
            await client.run(f"EXAMINE {mailbox}")
        return client

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.text += data.decode("latin-1")
        self._stirred.set()

    def connection_lost(self, exc: Exception | None) -> None:
        self.end = type(exc).__name__ if exc else "closed"
        self._stirred.set()

    async def until(self, what: str | Callable[[], bool], within: float = 60) -> str:
        """Wait for a text (or a claim) behind all that was returned before, and return what came with it."""
        async with asyncio.timeout(within):
            while not (what in self.text[self._position :] if isinstance(what, str) else what()):
                self._stirred.clear()
                await self._stirred.wait()
        start, self._position = self._position, len(self.text)
        return self.text[start:]

    def write(self, line: str) -> None:
        self.transport.write(line.encode() + b"\r\n")

    async def run(self, command: str, within: float = 60) -> str:
        self._tags += 1
        self.write(f"t{self._tags} {command}")
        completion = re.compile(rf"^t{self._tags} .*\n", re.MULTILINE)
        return await self.until(lambda: completion.search(self.text, self._position) is not None, within)


@virtual_time
async def test_two_messages_are_listed_and_read() -> None:
    fake = FakeImap()
    fake.deliver(ONE, {r"\Seen"})
    fake.deliver(TWO, uid=7)
    client = await Client.connected(fake, mailbox=None)
    selected = await client.run("EXAMINE INBOX")
    assert "* 2 EXISTS" in selected
    assert "[UIDNEXT 8]" in selected
    listed = await client.run("UID FETCH 1:* (FLAGS RFC822.SIZE)")
    assert rf"* 1 FETCH (UID 1 FLAGS (\Seen) RFC822.SIZE {len(ONE)})" in listed
    assert f"* 2 FETCH (UID 7 FLAGS () RFC822.SIZE {len(TWO)})" in listed
    sliced = await client.run("FETCH 2 (UID BODY.PEEK[]<4.10>)")
    assert "* 2 FETCH (UID 7 BODY[]<4> {10}\r\nect: two\r\n)" in sliced
    fields = await client.run("UID FETCH 7 BODY.PEEK[HEADER.FIELDS (x-long)]")
    assert "BODY[HEADER.FIELDS (x-long)] {25}\r\nX-Long: folded\r\n over\r\n\r\n)" in fields
    assert fake.changes_by_clients == []


@virtual_time
async def test_searching_tells_what_the_session_knows() -> None:
    fake = FakeImap(silent_expunges=True)
    for _ in range(4):
        fake.deliver(ONE)
    client = await Client.connected(fake)
    fake.expunge(2)
    assert "* SEARCH 1 2 3 4\r\n" in await client.run("UID SEARCH ALL")
    assert "3 OK" in (noop := await client.run("NOOP")) or "* 2 EXPUNGE" in noop
    assert '* ESEARCH (TAG "t5") UID ALL 1,3:4\r\n' in await client.run("UID SEARCH RETURN (ALL) UID 1:9")
    assert '* ESEARCH (TAG "t6") UID\r\n' in await client.run("UID SEARCH RETURN (ALL) UID 2")


@virtual_time
async def test_an_idling_session_is_told_at_once() -> None:
    fake = FakeImap()
    first = fake.deliver(ONE)
    client = await Client.connected(fake)
    client.write("t9 IDLE")
    await client.until("+ idling")
    fake.deliver(TWO)
    fake.set_flags(first, {r"\Flagged"})
    fake.expunge(first)
    assert await client.until("EXPUNGE") == "* 2 EXISTS\r\n* 1 FETCH (FLAGS (\\Flagged))\r\n* 1 EXPUNGE\r\n"
    client.write("DONE")
    assert await client.until("t9 ") == "t9 OK idle over\r\n"


@virtual_time
async def test_an_expunge_is_never_told_during_a_fetch_by_number() -> None:
    fake = FakeImap()
    fake.deliver(ONE)
    fake.deliver(TWO)
    client = await Client.connected(fake)
    fake.expunge(1)
    assert "EXPUNGE" not in await client.run("FETCH 1:2 (UID)")
    assert "EXPUNGE" not in await client.run("SEARCH ALL")
    assert "* 1 EXPUNGE" in await client.run("UID FETCH 2 (FLAGS)")


@virtual_time
async def test_each_session_counts_for_itself() -> None:
    fake = FakeImap()
    for _ in range(3):
        fake.deliver(ONE)
    early = await Client.connected(fake)
    fake.expunge(1)
    late = await Client.connected(fake)
    assert "* 1 FETCH (UID 2 " in await late.run("FETCH 1 (UID FLAGS)")
    assert "* 1 FETCH (UID 1 " in await early.run("FETCH 1 (UID FLAGS)")
    assert (fake.sessions_ever, len(fake.sessions)) == (2, 2)


@pytest.mark.parametrize(
    ("how", "expected"),
    [
        ("nil", "BODY[] NIL)"),
        ("empty", "BODY[] {0}\r\n)"),
        ("stand-in", "System Administrator"),
        ("kept", "first"),
        ("omitted", "t3 OK done"),
    ],
)
def test_an_expunged_message_is_answered_as_the_server_is_built(how: str, expected: str) -> None:
    @virtual_time
    async def test() -> None:
        fake = FakeImap(expunged_body=how, silent_expunges=True)  # type: ignore[arg-type] # one of the literals
        fake.deliver(ONE)
        client = await Client.connected(fake)
        fake.expunge(1)
        answered = await client.run("UID FETCH 1 (BODY.PEEK[])")
        assert expected in answered
        assert ("EXPUNGEISSUED" in answered) == (how in {"nil", "empty"})

    test()


@virtual_time
async def test_idle_may_be_refused_or_never_confirmed_or_never_end() -> None:
    fake = FakeImap(idle="NO")
    client = await Client.connected(fake)
    assert " NO IDLE" in await client.run("IDLE")
    fake.idle, fake.done = "mute", "mute"
    client.write("x IDLE")
    with pytest.raises(TimeoutError):
        await client.until("+", within=3600)
    client.write("DONE")
    with pytest.raises(TimeoutError):
        await client.until("x ", within=3600)


@virtual_time
async def test_idle_may_end_by_itself_or_only_keep_alive() -> None:
    fake = FakeImap(keepalive=120, idle_ends_after=300, pushes="never")
    client = await Client.connected(fake)
    client.write("x IDLE")
    await client.until("+ idling")
    fake.deliver(ONE)
    ended = await client.until("x OK", within=301)
    assert ended == "* OK Still here\r\n* OK Still here\r\nx OK enough\r\n"
    assert "* 1 EXISTS" in await client.run("NOOP")


@virtual_time
async def test_pushes_may_wait_for_done_or_precede_the_confirmation() -> None:
    fake = FakeImap(pushes="on DONE")
    client = await Client.connected(fake)
    client.write("x IDLE")
    await client.until("+ idling")
    fake.deliver(ONE)
    client.write("DONE")
    assert await client.until("x OK") == "* 1 EXISTS\r\nx OK idle over\r\n"
    fake.pushes, fake.pushes_before_confirming = "at once", True
    fake.deliver(TWO)
    client.write("y IDLE")
    assert await client.until("+ idling") == "* 2 EXISTS\r\n+ idling\r\n"


@virtual_time
async def test_faults_happen_where_and_as_often_as_told() -> None:
    fake = FakeImap()
    fake.deliver(ONE)
    fake.deliver(TWO)
    fake.at("EXAMINE", answer("NO [UNAVAILABLE] later"), times=2)
    fake.at("in FETCH", bye("sorry"))
    fake.at("after LOGIN", say(b"* 9 EXISTS\r\n"))
    client = await Client.connected(fake, mailbox=None)
    await client.until("* 9 EXISTS")
    refused = await client.run("EXAMINE INBOX")
    assert refused.endswith("NO [UNAVAILABLE] later\r\n")
    assert "[UNAVAILABLE]" in await client.run("EXAMINE INBOX")
    assert "READ-ONLY" in await client.run("EXAMINE INBOX")
    client.write("x UID FETCH 1:* (FLAGS)")
    assert (await client.until("BYE")).endswith("* 1 FETCH (UID 1 FLAGS ())\r\n* BYE sorry\r\n")
    await client.until(lambda: client.end == "closed")
    fake.at("connect", cut())
    unwelcome = await Client.connected(fake, login=False)
    await unwelcome.until(lambda: unwelcome.end == "ConnectionResetError")
    assert unwelcome.text == ""
    await fake.until(lambda: not fake.sessions)


@virtual_time
async def test_a_command_may_stay_without_an_answer() -> None:
    fake = FakeImap()
    fake.at("NOOP", mute)
    client = await Client.connected(fake)
    with pytest.raises(TimeoutError):
        await client.run("NOOP", within=60)
    assert " OK done" in await client.run("NOOP")


@virtual_time
async def test_a_poison_message_is_refused_and_the_others_are_not() -> None:
    fake = FakeImap(poison={2: "NO"})
    for _ in range(3):
        fake.deliver(ONE)
    client = await Client.connected(fake)
    assert "NO [SERVERBUG]" in await client.run("UID FETCH 1:3 (BODY.PEEK[])")
    assert "OK done" in await client.run("UID FETCH 1,3 (BODY.PEEK[])")
    assert "OK done" in await client.run("UID FETCH 1:3 (FLAGS)")


@virtual_time
async def test_fetch_may_leave_out_double_reverse_and_add() -> None:
    fake = FakeImap(omitted_uids={2}, fetch_twice=True, fetch_order="down", fetch_noise=b"* 9 FETCH (UID 99)\r\n")
    for _ in range(3):
        fake.deliver(ONE)
    client = await Client.connected(fake)
    answered = await client.run("UID FETCH 1:3 (UID)")
    three, one = "* 3 FETCH (UID 3)\r\n", "* 1 FETCH (UID 1)\r\n"
    assert answered.startswith("* 9 FETCH (UID 99)\r\n" + three * 2 + one * 2)


@virtual_time
async def test_completions_may_come_in_reverse() -> None:
    fake = FakeImap(reverses_completions=True)
    client = await Client.connected(fake)
    client.transport.write(b"a IDLE\r\n")
    await client.until("+ idling")
    client.transport.write(b"DONE\r\nb NOOP\r\nc IDLE\r\n")
    assert await client.until("a OK") == "+ idling\r\nb OK done\r\na OK idle over\r\n"


@virtual_time
async def test_the_server_may_be_as_slow_as_one_byte_a_second() -> None:
    fake = FakeImap(seconds_per_byte=1, greeting=b"* OK hi\r\n")
    client = await Client.connected(fake, login=False)
    await client.until("\r\n")
    assert asyncio.get_running_loop().time() == pytest.approx(9)


@virtual_time
async def test_the_connection_is_cut_behind_the_byte_that_was_named() -> None:
    fake = FakeImap(cut_after=5, greeting=b"* OK hi\r\n")
    client = await Client.connected(fake, login=False)
    await client.until(lambda: client.end is not None)
    assert (client.text, client.end) == ("* OK ", "ConnectionResetError")
    again = await Client.connected(fake, login=False)
    assert await again.until("hi") == "* OK hi\r\n"


@virtual_time
async def test_a_message_may_arrive_at_every_byte_of_the_client() -> None:
    fake = FakeImap()
    fake.on_client_bytes = lambda count: fake.deliver(ONE) if count % 10 == 0 else None
    client = await Client.connected(fake)
    await client.run("NOOP")
    assert len(fake.mailbox().messages) == fake.received // 10
    assert fake.received == len(fake.sessions[0].heard)


@virtual_time
async def test_a_wrong_password_is_answered_as_told_even_with_the_password() -> None:
    fake = FakeImap(login_refusal="NO {user} cannot come in with {password}")
    client = await Client.connected(fake, login=False)
    assert "NO alice cannot come in with hunter2" in await client.run('LOGIN alice "hunter2"')
    assert "OK" in await client.run(f"LOGIN alice {PASSWORD}")
    assert [let_in for _, _, let_in in fake.logins] == [False, True]


@virtual_time
async def test_sasl_judges_behind_as_many_rounds_as_told() -> None:
    fake = FakeImap(empty_challenges=3)
    client = await Client.connected(fake, login=False)
    client.write("x AUTHENTICATE PLAIN " + base64.b64encode(f"\0alice\0{PASSWORD}".encode()).decode())
    for _ in range(3):
        await client.until("+ \r\n")
        client.write("")
    assert "x OK" in await client.until("x ")


@virtual_time
async def test_an_unknown_token_is_challenged_in_json_and_refused() -> None:
    fake = FakeImap(access_tokens={"good"})
    client = await Client.connected(fake, login=False)
    spelled = base64.b64encode(b"user=alice\x01auth=Bearer bad\x01\x01").decode()
    client.write(f"x AUTHENTICATE XOAUTH2 {spelled}")
    challenge = await client.until("\r\n+ ")
    assert b'"status":"401"' in base64.b64decode(challenge.rpartition("\r\n+ ")[2])
    client.write("")
    assert "x NO [AUTHENTICATIONFAILED]" in await client.until("x ")
    good = base64.b64encode(b"user=alice\x01auth=Bearer good\x01\x01").decode()
    assert "OK" in await client.run(f"AUTHENTICATE XOAUTH2 {good}")


@virtual_time
async def test_starttls_works_and_what_came_before_it_is_forgotten() -> None:
    ca = trustme.CA()
    serving, trusting = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.create_default_context()
    ca.issue_cert("localhost").configure_cert(serving)
    ca.configure_trust(trusting)
    fake = FakeImap(tls=serving)
    client = await Client.connected(fake, login=False)
    client.transport.write(b"a STARTTLS\r\nb NOOP\r\n")
    await client.until("a OK")
    upgraded = await asyncio.get_running_loop().start_tls(
        client.transport, client, trusting, server_hostname="localhost"
    )
    assert upgraded
    client.transport = upgraded
    assert "STARTTLS" not in await client.run("CAPABILITY")
    assert [command.name for command in fake.commands] == ["STARTTLS", "CAPABILITY"]
    upgraded.close()
    await fake.until(lambda: not fake.sessions)


@virtual_time
async def test_uidvalidity_and_uidnext_are_said_as_a_subclass_has_it() -> None:
    class Forgetful(FakeImap):
        def uidnext(self, mailbox: Mailbox, where: str) -> int | None:
            return None if where == "SELECT" else mailbox.uidnext - 1

    fake = Forgetful()
    fake.deliver(ONE)
    client = await Client.connected(fake, mailbox=None)
    assert "UIDNEXT" not in await client.run("EXAMINE INBOX")
    assert "* STATUS" in (said := await client.run("STATUS INBOX (UIDNEXT MESSAGES)"))
    assert "(UIDNEXT 1 MESSAGES 1)" in said
    before = fake.mailbox().uidvalidity
    fake.bump_uidvalidity()
    assert "* BYE" in await client.until("BYE")
    assert fake.mailbox().uidvalidity > before


@pytest.mark.parametrize("how", ["bye", "close", "nonexistent", "unnoticed"])
def test_a_mailbox_deleted_while_selected_is_noticed_in_four_ways(how: str) -> None:
    @virtual_time
    async def test() -> None:
        fake = FakeImap(when_deleted=how)  # type: ignore[arg-type] # one of the literals
        fake.create("Side", [r"\Sent"])
        client = await Client.connected(fake, mailbox="Side")
        fake.delete("Side")
        if how in {"bye", "close"}:
            await client.until(lambda: client.end == "closed")
            assert ("* BYE" in client.text) == (how == "bye")
        else:
            assert ("[NONEXISTENT]" in await client.run("UID SEARCH ALL")) == (how == "nonexistent")

    test()


@virtual_time
async def test_mailboxes_are_listed_by_pattern_and_with_their_status() -> None:
    fake = FakeImap()
    fake.create("Work/2026")
    fake.create("Sent", [r"\Sent"])
    fake.rename("Sent", "Gesendet")
    fake.deliver(ONE, mailbox="Gesendet")
    client = await Client.connected(fake)
    top = await client.run('LIST "" %')
    assert '* LIST () "/" "INBOX"' in top
    assert "2026" not in top
    assert "2026" in await client.run('LIST "" *')
    status = await client.run('LIST (SPECIAL-USE) "" "*" RETURN (STATUS (MESSAGES))')
    assert '* LIST (\\Sent) "/" "Gesendet"\r\n* STATUS "Gesendet" (MESSAGES 1)' in status
    assert "INBOX" not in status


@virtual_time
async def test_users_may_have_mail_of_their_own() -> None:
    fake = FakeImap(per_user=True)
    fake.deliver(ONE, user="bob")
    client = await Client.connected(fake, mailbox=None)
    assert "* 0 EXISTS" in await client.run("EXAMINE INBOX")


@virtual_time
async def test_literals_are_taken_with_and_without_asking() -> None:
    fake = FakeImap(passwords={"alice": 'q"\\uote'})
    client = await Client.connected(fake, login=False)
    client.transport.write(b"x LOGIN {5}\r\n")
    await client.until("+ go ahead")
    client.transport.write(b'alice {8+}\r\nq"\\uote\r\n')
    client.transport.write(b'y LOGIN alice {7+}\r\nq"\\uote\r\n')
    assert "y OK" in await client.until("y ")


@pytest.mark.parametrize("spelled", ["0", "1:0", "4294967296:4294967299", "a", "1:2:3", ""])
def test_a_set_that_is_none_is_bad(spelled: str) -> None:
    @virtual_time
    async def test() -> None:
        client = await Client.connected(FakeImap())
        assert " BAD " in await client.run(f"UID SEARCH UID {spelled}" if spelled else "UID SEARCH UID")

    test()


async def test_the_standard_library_reads_it_over_tcp() -> None:
    ca = trustme.CA()
    serving, trusting = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.create_default_context()
    ca.issue_cert("127.0.0.1").configure_cert(serving)
    ca.configure_trust(trusting)
    fake = FakeImap(tls=serving)
    fake.deliver(ONE)

    def read(port: int, *, over_tls: bool) -> object:
        make = imaplib.IMAP4_SSL(fake.host, port, ssl_context=trusting) if over_tls else imaplib.IMAP4(fake.host, port)
        with make as reader:
            if not over_tls:
                reader.starttls(trusting)
            reader.login("alice", PASSWORD)
            assert reader.select("INBOX", readonly=True) == ("OK", [b"1"])
            return reader.uid("FETCH", "1:*", "(FLAGS BODY.PEEK[])")

    async with fake.listening():
        for port, over_tls in ((fake.port, False), (fake.tls_port, True)):
            answered = await asyncio.to_thread(read, port, over_tls=over_tls)
            assert answered == ("OK", [(b"1 (UID 1 FLAGS () BODY[] {%d}" % len(ONE), ONE), b")"])
    assert fake.sessions == []
    assert fake.sessions_ever == 2


async def test_over_tcp_a_reset_is_a_reset() -> None:
    fake = FakeImap()
    fake.at("NOOP", cut("reset"))
    async with fake.listening() as (host, port):
        reader, writer = await asyncio.open_connection(host, port)
        await reader.readline()
        writer.write(b"a NOOP\r\n")
        with pytest.raises(ConnectionResetError):
            await reader.read()
        writer.close()
