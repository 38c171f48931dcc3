"""The wire: TLS that is trusted or refused, deadlines, waiters that fail at once, and no secret anywhere."""

import asyncio
import contextlib
import hashlib
import ssl
import subprocess
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import anyio
import pytest
import trustme

from idlepush.engine.connection import connect
from idlepush.engine.credentials import Secret
from idlepush.engine.dial import Endpoint
from idlepush.engine.sasl import Login
from idlepush.engine.session import Session, open_session
from idlepush.engine.tls import context
from idlepush.engine.wake import Wake
from idlepush.errors import (
    AuthenticationFailed,
    ConnectionLost,
    FailureClass,
    Refused,
    RemoteProtocolError,
    TimedOut,
    TlsFailed,
    Trouble,
)
from idlepush.imap.types import MailboxName
from idlepush.imap.uidset import UidSet
from tests.peers.fake import PASSWORD, FakeImap, answer, bye, say
from tests.peers.memory import open_memory
from tests.peers.scripted import ScriptedServer, scripted
from tests.peers.virtual import virtual_time

CANARY = 'c4n4ry-p4ss "w\\ord'
INBOX = MailboxName(b"INBOX")


@pytest.fixture(scope="session")
def authority() -> trustme.CA:
    return trustme.CA()


def server_context(authority: trustme.CA, host: str = "localhost", **more: object) -> ssl.SSLContext:
    made = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert(host, **more).configure_cert(made)  # type: ignore[arg-type]
    return made


def ca_file(authority: trustme.CA, folder: Path) -> Path:
    path = folder / "ca.pem"
    authority.cert_pem.write_to_path(str(path))
    return path


def login(password: str = PASSWORD) -> Login:
    return Login(username="alice", secret=Secret(password))


async def open_at(host: str, port: int, tls: ssl.SSLContext | None, **more: object) -> Session:
    endpoint = Endpoint(host, port, tls, **more)  # type: ignore[arg-type]
    return await open_session(endpoint, login(), connect_timeout=10, command_timeout=10)


# TLS


async def test_implicit_tls_with_a_trusted_certificate(authority: trustme.CA, tmp_path: Path) -> None:
    fake = FakeImap(tls=server_context(authority))
    async with fake.listening():
        session = await open_at("localhost", fake.tls_port, context(ca_file(authority, tmp_path), pinned=False))
        assert session.can_idle
        await session.logout()


async def test_starttls_asks_for_the_capabilities_again(authority: trustme.CA, tmp_path: Path) -> None:
    fake = FakeImap(tls=server_context(authority))
    async with fake.listening() as (_, port):
        session = await open_at("localhost", port, context(ca_file(authority, tmp_path), pinned=False), starttls=True)
        names = [command.name for command in fake.commands]
        assert names[0] == "STARTTLS"
        assert "CAPABILITY" in names
        await session.logout()


@pytest.mark.parametrize(
    ("certificate", "words"),
    [
        pytest.param({"host": "other.example"}, "not trusted", id="for another host"),
        pytest.param({"not_after": datetime(2020, 1, 1, tzinfo=UTC)}, "expired", id="expired"),
        pytest.param({"not_before": datetime.now(UTC) + timedelta(days=9)}, "not yet valid", id="not yet valid"),
    ],
)
@pytest.mark.parametrize("starttls", [False, True], ids=["implicit", "starttls"])
async def test_a_bad_certificate_is_refused_before_any_secret_is_sent(
    authority: trustme.CA, tmp_path: Path, certificate: dict[str, object], words: str, starttls: bool
) -> None:
    keys = dict(certificate)
    fake = FakeImap(tls=server_context(authority, str(keys.pop("host", "localhost")), **keys))
    async with fake.listening() as (_, port):
        with pytest.raises(TlsFailed, match=words) as failed:
            await open_at(
                "localhost",
                port if starttls else fake.tls_port,
                context(ca_file(authority, tmp_path), pinned=False),
                starttls=starttls,
            )
        assert failed.value.failure_class is FailureClass.TLS
        await fake.until(lambda: not fake.sessions)
    assert not fake.logins
    assert not [command for command in fake.commands if command.name != "STARTTLS"]


async def test_an_unknown_authority_is_refused(authority: trustme.CA) -> None:
    fake = FakeImap(tls=server_context(authority))
    async with fake.listening():
        with pytest.raises(TlsFailed, match="not trusted"):
            await open_at("localhost", fake.tls_port, context(None, pinned=False))


async def test_a_pinned_certificate_needs_no_authority_and_another_is_refused(authority: trustme.CA) -> None:
    issued = authority.issue_cert("bridge.example")
    made = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    issued.configure_cert(made)
    der = ssl.PEM_cert_to_DER_cert(issued.cert_chain_pems[0].bytes().decode())
    fake = FakeImap(tls=made)
    async with fake.listening() as (_, port):
        pinned = context(None, pinned=True)
        good = "sha256:" + hashlib.sha256(der).hexdigest()
        session = await open_at("localhost", fake.tls_port, pinned, pin=good)
        await session.logout()
        for at, starttls in ((fake.tls_port, False), (port, True)):
            with pytest.raises(TlsFailed, match="pinned"):
                await open_at("localhost", at, pinned, pin="sha256:" + 64 * "0", starttls=starttls)
    assert len(fake.logins) == 1


async def test_tls_below_1_2_is_refused(authority: trustme.CA, tmp_path: Path, unused_tcp_port: int) -> None:
    issued = authority.issue_cert("localhost")
    both = tmp_path / "both.pem"
    issued.private_key_and_cert_chain_pem.write_to_path(str(both))
    old = ["openssl", "s_server", "-accept", str(unused_tcp_port), "-cert", str(both), "-tls1_1"]
    async with await anyio.open_process([*old, "-cipher", "ALL:@SECLEVEL=0"], stderr=subprocess.DEVNULL) as server:
        assert server.stdout is not None
        await server.stdout.receive()  # "ACCEPT"
        with pytest.raises(TlsFailed, match="PROTOCOL_VERSION"):
            await open_at("localhost", unused_tcp_port, context(ca_file(authority, tmp_path), pinned=False))
        server.terminate()


@pytest.mark.parametrize("starttls", ["NO", "stripped"])
async def test_starttls_that_cannot_be_had_sends_no_secret(
    authority: trustme.CA, tmp_path: Path, starttls: str
) -> None:
    fake = FakeImap(tls=server_context(authority), starttls=starttls)  # type: ignore[arg-type]
    async with fake.listening() as (_, port):
        with pytest.raises(TlsFailed, match="STARTTLS"):
            await open_at("localhost", port, context(ca_file(authority, tmp_path), pinned=False), starttls=True)
    assert not fake.logins


@pytest.mark.parametrize(
    "injected",
    [b"* CAPABILITY IMAP4rev1 AUTH=PLAIN EVIL\r\n", b"x", b"* OK [ALERT] read this\r\n* 3 EXISTS\r\n"],
)
async def test_data_behind_the_ok_to_starttls_is_an_attack(
    authority: trustme.CA, tmp_path: Path, injected: bytes
) -> None:
    fake = FakeImap(tls=server_context(authority), inject_behind_starttls=injected)
    async with fake.listening() as (_, port):
        with pytest.raises(TlsFailed, match="behind its OK"):
            await open_at("localhost", port, context(ca_file(authority, tmp_path), pinned=False), starttls=True)
    assert not fake.logins


async def test_preauth_before_starttls_is_not_trusted(authority: trustme.CA, tmp_path: Path) -> None:
    fake = FakeImap(tls=server_context(authority), greeting=b"* PREAUTH welcome\r\n")
    async with fake.listening() as (_, port):
        with pytest.raises(TlsFailed, match="PREAUTH"):
            await open_at("localhost", port, context(ca_file(authority, tmp_path), pinned=False), starttls=True)
    assert not fake.commands


# Deadlines and ends, in virtual time


@contextlib.asynccontextmanager
async def opened(fake: FakeImap, *, password: str = PASSWORD) -> AsyncIterator[Session]:
    """Open a session with *fake* over memory; its end is the block's."""
    session = await open_session(
        Endpoint("fake", 143, None),
        login(password),
        dial=lambda protocol, _: open_memory(protocol, fake),
        connect_timeout=30,
        command_timeout=60,
    )
    try:
        yield session
    finally:
        await session.aclose()


async def play(transcript: str, *, password: str = CANARY) -> Session:
    """Log in to a scripted server over memory."""
    server = ScriptedServer(transcript)
    return await open_session(
        Endpoint("fake", 143, None),
        login(password),
        dial=lambda protocol, _: open_memory(protocol, server),
        connect_timeout=30,
        command_timeout=60,
    )


GREETING = "S: * OK [CAPABILITY IMAP4rev1 AUTH=PLAIN SASL-IR] hi\n"


@virtual_time
async def test_a_server_that_never_greets_is_left_after_30_seconds() -> None:
    begun = anyio.current_time()
    with pytest.raises(TimedOut, match="greeting"):
        await play("wait 3600")
    assert 29 < anyio.current_time() - begun < 31


@virtual_time
async def test_a_greeting_that_is_bye_is_a_lost_connection_with_its_words() -> None:
    with pytest.raises(ConnectionLost, match="too busy"):
        await play("S: * BYE [UNAVAILABLE] too busy\nclose")


@virtual_time
async def test_too_many_connections_are_capacity_and_not_wrong_credentials() -> None:
    said = "NO [UNAVAILABLE] Maximum number of connections from user+IP exceeded (mail_max_userip_connections=10)"
    with pytest.raises(Refused) as refused:
        await play(GREETING + f"C: %1 AUTHENTICATE PLAIN *\nS: %1 {said}\n")
    assert refused.value.failure_class is FailureClass.CAPACITY


@virtual_time
async def test_a_silent_command_times_out_and_fails_everyone() -> None:
    fake = FakeImap()
    async with opened(fake) as session:
        fake.at("EXAMINE", lambda *_: False)
        begun = anyio.current_time()
        with pytest.raises(TimedOut, match="EXAMINE"):
            await session.examine(INBOX)
        assert anyio.current_time() - begun == pytest.approx(60, abs=1)
        with pytest.raises(TimedOut):
            await session.noop()


@virtual_time
async def test_a_trickle_does_not_extend_a_command_for_ever() -> None:
    fake = FakeImap()
    fake.deliver(b"Subject: x\r\n\r\n" + b"y" * 200_000)
    async with opened(fake) as session:
        await session.examine(INBOX)
        fake.seconds_per_byte = 0.2
        begun = anyio.current_time()
        with pytest.raises(TimedOut):
            await session.fetch(UidSet.of(1), "(UID BODY.PEEK[])", octets=200_000)
        assert anyio.current_time() - begun < 120


@pytest.mark.parametrize("end", [bye("going down"), lambda session, _tag: session.end("reset")], ids=["BYE", "reset"])
def test_every_waiter_fails_at_once_when_the_connection_goes(end: object) -> None:
    @virtual_time
    async def run() -> None:
        fake = FakeImap()
        async with opened(fake) as session:
            await session.examine(INBOX)
            fake.at("in IDLE", end)  # type: ignore[arg-type]
            begun = anyio.current_time()
            with pytest.raises(ConnectionLost):
                await session.idle(at_most=600, wake=Wake())
            assert anyio.current_time() - begun < 1

    run()


@pytest.mark.parametrize(
    "broken",
    [
        b"* 1 FETCH (UID 1 BODY[] {99999999999}\r\n",
        b"* 1 FETCH (UID 1 FLAGS (\\Seen\r\n",
        b"* 0 EXPUNGE\r\n",
        b"nonsense\r\n",
        b"* 1 FETCH " + b"(" * 5000 + b"\r\n",
        b"* OK " + b"x" * 3_000_000,
        b"A999 OK whose is this\r\n",
    ],
)
def test_a_broken_line_ends_the_session_with_a_protocol_error(broken: bytes) -> None:
    @virtual_time
    async def run() -> None:
        fake = FakeImap()
        async with opened(fake) as session:
            fake.at("NOOP", say(broken))
            with pytest.raises(RemoteProtocolError):
                await session.noop()
            await fake.until(lambda: not fake.sessions)

    run()


@virtual_time
async def test_a_server_that_challenges_for_ever_is_left_after_ten_rounds() -> None:
    fake = FakeImap(empty_challenges=10_000)
    with pytest.raises(RemoteProtocolError, match="challenging"):
        async with opened(fake):
            pass


@virtual_time
async def test_a_cancelled_command_closes_the_connection() -> None:
    fake = FakeImap()
    async with opened(fake) as session:
        fake.at("NOOP", lambda *_: False)
        with anyio.move_on_after(1):
            await session.noop()
        with pytest.raises(Trouble):
            await session.noop()
        await fake.until(lambda: not fake.sessions)


@virtual_time
async def test_a_non_ascii_password_goes_as_a_literal_in_login() -> None:
    fake = FakeImap(capabilities="IMAP4rev1", password="pässwörd")
    async with opened(fake, password="pässwörd") as session:
        await session.noop()
    assert [command.name for command in fake.commands][:2] == ["LOGIN", "NOOP"]


@virtual_time
async def test_logout_is_said_and_answered() -> None:
    fake = FakeImap()
    async with opened(fake) as session:
        await session.logout()
    assert fake.commands[-1].name == "LOGOUT"
    assert not fake.sessions


@virtual_time
async def test_done_and_the_next_command_leave_in_one_write() -> None:
    writes: list[bytes] = []

    async def dial(
        protocol: Callable[[], asyncio.Protocol], endpoint: Endpoint
    ) -> tuple[asyncio.Transport, asyncio.Protocol]:
        transport, made = await open_memory(protocol, fake)
        real = transport.write

        def write(data: bytes | bytearray | memoryview) -> None:
            writes.append(bytes(data))
            real(data)

        transport.write = write  # type: ignore[method-assign]
        return transport, made

    fake = FakeImap()
    session = await open_session(
        Endpoint("fake", 143, None), login(), dial=dial, connect_timeout=30, command_timeout=60
    )
    await session.examine(INBOX)
    asyncio.get_running_loop().call_later(1, fake.deliver, b"Subject: x\r\n\r\n")
    await session.idle(at_most=60, wake=Wake())
    writes.clear()
    await session.fetch(UidSet.range(1, 9), "(UID FLAGS)", settle=True)
    assert len(writes) == 1
    assert writes[0].startswith(b"DONE\r\n")
    assert writes[0].endswith(b"NOOP\r\n")
    await session.aclose()


# Secrets


ECHOES = [
    "NO [AUTHENTICATIONFAILED] you sent {password}",
    "NO {password}",
    "BAD what is {password}?",
    "NO [ALERT] {password} is wrong",
]


@pytest.mark.parametrize("refusal", ECHOES)
@pytest.mark.parametrize("capabilities", ["IMAP4rev1", "IMAP4rev1 AUTH=PLAIN", "IMAP4rev1 AUTH=PLAIN SASL-IR"])
def test_a_server_that_echoes_the_password_shows_it_to_nobody(
    refusal: str, capabilities: str, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    @virtual_time
    async def run() -> None:
        fake = FakeImap(capabilities=capabilities, login_refusal=refusal, password="another")
        with pytest.raises(Refused if "BAD" in refusal else AuthenticationFailed) as refused:
            async with opened(fake, password=CANARY):
                pass
        assert CANARY not in str(refused.value)
        assert CANARY not in repr(refused.value)
        assert "***" in str(refused.value)

    with caplog.at_level(0):
        run()
    assert CANARY not in caplog.text
    assert CANARY not in "".join(capfd.readouterr())


@virtual_time
async def test_refusals_of_other_commands_live_on() -> None:
    fake = FakeImap()
    async with opened(fake) as session:
        fake.at("NOOP", answer("NO [SERVERBUG] try later"))
        with pytest.raises(Refused) as refused:
            await session.noop()
        assert refused.value.failure_class is FailureClass.NETWORK
        await session.noop()


async def test_nobody_there_is_a_sentence(unused_tcp_port: int) -> None:
    with pytest.raises(ConnectionLost, match="refused"):
        await connect(Endpoint("127.0.0.1", unused_tcp_port, None), timeout=5, silence=5, max_literal=1000)
    with pytest.raises(ConnectionLost, match="cannot be resolved"):
        await connect(Endpoint("host.invalid", 143, None), timeout=20, silence=5, max_literal=1000)


async def test_a_script_is_followed_to_its_end() -> None:
    script = GREETING + "C: %1 AUTHENTICATE PLAIN *\nS: %1 OK [CAPABILITY IMAP4rev1 ID] in\nC: %2 ID *\nS: %2 OK\n"
    async with scripted(script + "C: %3 LOGOUT\nS: * BYE\nS: %3 OK\n") as server:
        session = await open_session(
            Endpoint(server.host, server.port, None), login(), connect_timeout=5, command_timeout=5
        )
        await session.logout()
        await server.finish()
