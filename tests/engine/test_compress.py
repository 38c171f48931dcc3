"""COMPRESS=DEFLATE (RFC 4978) on a whole account: the bytes around its OK, refusals, cuts, and bombs."""

import asyncio
import tracemalloc
import zlib
from collections.abc import Callable
from typing import Literal

import anyio
import pytest

from idlepush.engine.connection import connect
from idlepush.engine.credentials import Secret
from idlepush.engine.dial import Endpoint
from idlepush.engine.sasl import Login
from idlepush.engine.session import MAX_LITERAL, Session, open_session
from idlepush.errors import RemoteProtocolError
from idlepush.imap.types import MailboxName, Uid
from idlepush.imap.uidset import UidSet
from tests.engine.rig import Rig, mail
from tests.peers.dovecot import COMPRESSES, Dovecot
from tests.peers.fake import CAPABILITIES, PASSWORD, FakeImap, answer
from tests.peers.fake_session import Session as Served
from tests.peers.memory import open_memory
from tests.peers.virtual import virtual_time

OFFERED = f"{CAPABILITIES} COMPRESS=DEFLATE"


async def opened(fake: FakeImap) -> Session:
    """Log in at *fake*, compressed where it likes."""
    endpoint = Endpoint("memory", 143, None)
    connection = await connect(
        endpoint,
        dial=lambda protocol, _: open_memory(protocol, fake),
        timeout=10,
        silence=60,
        max_literal=MAX_LITERAL,
    )
    session = Session(connection)
    await session.open(Login(username="alice", secret=Secret(PASSWORD)))
    return session


@virtual_time
async def test_a_compressed_account_is_mirrored_and_pushed_to_like_any_other() -> None:
    fake = FakeImap(capabilities=OFFERED)
    for number in range(40):
        fake.deliver(mail(number, size=20_000))
    rig = Rig(fake, compress=True)
    async with rig.running():
        await rig.becomes_equal()
        await fake.until(lambda: fake.idling == 1)
        assert fake.sent < 40 * 20_000 / 4
        fake.deliver(mail(99))
        await rig.becomes_equal()
        fake.expunge(3)
        fake.set_flags(5, ["\\Seen"])
        await rig.becomes_equal()
        await rig.replays_exactly()


@virtual_time
async def test_compressing_costs_no_round_trip_of_its_own() -> None:
    fake = FakeImap(capabilities=OFFERED)
    session = await opened(fake)
    assert [command.name for command in fake.commands][-2:] == ["ID", "COMPRESS"]
    assert fake.commands[-1].time == fake.commands[-2].time
    await session.logout()


@pytest.mark.parametrize("compress", [None, False])
def test_on_loopback_it_is_off_unless_it_is_asked_for(compress: bool | None) -> None:
    @virtual_time
    async def run() -> None:
        fake = FakeImap(capabilities=OFFERED)
        fake.deliver(mail(1))
        rig = Rig(fake, compress=compress)
        async with rig.running():
            await rig.becomes_equal()
            assert "COMPRESS" not in {command.name for command in fake.commands}

    run()


@pytest.mark.parametrize("refusal", ["NO [COMPRESSIONACTIVE] TLS does it", "NO not today", "BAD what?"])
def test_a_server_that_refuses_is_gone_on_with_in_clear(refusal: str) -> None:
    @virtual_time
    async def run() -> None:
        fake = FakeImap(capabilities=OFFERED)
        fake.at("COMPRESS", answer(refusal), times=None)
        fake.deliver(mail(1))
        rig = Rig(fake, compress=True)
        async with rig.running():
            await rig.becomes_equal()
            await fake.until(lambda: fake.idling == 1)
            assert fake.sessions_ever == 1

    run()


@virtual_time
async def test_what_comes_in_one_read_with_the_ok_is_compressed_already() -> None:
    fake = FakeImap(capabilities=OFFERED, behind_compress=b"* OK [ALERT] said in the same breath\r\n")
    session = await opened(fake)
    await session.noop()
    assert session.alerts == ["said in the same breath"]
    await session.logout()


@pytest.mark.parametrize("how", ["by single bytes", "all in one read"])
def test_the_ok_is_found_however_the_read_is_cut(how: Literal["by single bytes", "all in one read"]) -> None:
    class Cutter(asyncio.Protocol):
        """Answers LOGIN and COMPRESS, and says a line compressed behind the OK, as *how* says."""

        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            assert isinstance(transport, asyncio.Transport)
            self.transport = transport
            transport.write(b"* PREAUTH [CAPABILITY IMAP4rev1 COMPRESS=DEFLATE] hello\r\n")
            self.unpack = zlib.decompressobj(wbits=-15)
            self.is_packed = False

        def data_received(self, data: bytes) -> None:
            line = self.unpack.decompress(data) if self.is_packed else data
            tag = line.split()[0]
            if self.is_packed:
                return
            self.is_packed = True
            pack = zlib.compressobj(wbits=-15)
            said = b"* OK [ALERT] {7}\r\n* OK [ALERT] two\r\n"
            octets = tag + b" OK on\r\n" + pack.compress(said) + pack.flush(zlib.Z_SYNC_FLUSH)
            for piece in [octets] if how == "all in one read" else [bytes([one]) for one in octets]:
                self.transport.write(piece)

    class Peer:
        def accept(self) -> asyncio.BaseProtocol:
            return Cutter()

    @virtual_time
    async def run() -> None:
        endpoint = Endpoint("memory", 143, None)
        connection = await connect(
            endpoint, dial=lambda made, _: open_memory(made, Peer()), timeout=10, silence=60, max_literal=MAX_LITERAL
        )
        session = Session(connection)
        await session.open(Login(username="alice", secret=Secret(PASSWORD)))
        await anyio.sleep(1)
        assert session.alerts == ["{7}", "two"]
        await session.aclose()

    run()


@pytest.mark.parametrize(
    ("garbage", "words"),
    [
        pytest.param(b"* 1 EXISTS\r\n", "not compressed as agreed", id="in clear"),
        pytest.param(zlib.compress(b"* 1 EXISTS\r\n", wbits=-15), "ended the compressed stream", id="an end"),
    ],
)
def test_a_stream_that_breaks_ends_the_connection_and_is_told_in_words(garbage: bytes, words: str) -> None:
    @virtual_time
    async def run() -> None:
        fake = FakeImap(capabilities=OFFERED)
        session = await opened(fake)

        def break_it(served: Served, _tag: str) -> bool:
            served._deflating = None
            served.send(garbage)
            return False

        fake.at("NOOP", break_it)
        with pytest.raises(RemoteProtocolError, match=words):
            await session.noop()

    run()


def bomb(head: bytes, filler: bytes, times: int) -> bytes:
    """Pack *head* and so many times *filler* as a server's next write."""
    out = zlib.compressobj(9, wbits=-15)
    packed = [out.compress(head)]
    packed += [out.compress(filler) for _ in range(times)]
    return b"".join([*packed, out.flush(zlib.Z_SYNC_FLUSH)])


async def test_a_dovecot_that_compresses_is_mirrored(own_dovecot: Callable[..., Dovecot]) -> None:
    server = own_dovecot(extra=COMPRESSES)
    server.deliver("alice", b"Subject: long\r\n\r\n" + b"the same line again and again\r\n" * 20_000)
    for compress in (True, False):
        endpoint = Endpoint(server.host, server.port, None, compress=compress)
        session = await open_session(
            endpoint, Login(username="alice", secret=Secret(PASSWORD)), connect_timeout=10, command_timeout=10
        )
        await session.examine(MailboxName(b"INBOX"))
        answers = await session.fetch(UidSet.of(1), "(UID BODY.PEEK[])")
        assert len(answers[Uid(1)].bodies[0].data or b"") > 500_000
        assert (session.octets_received < 50_000) is compress
        await session.logout()


MIB = b"x" * 1024 * 1024
FETCH = b"* 1 FETCH (UID 1 FLAGS () BODY[]<0> {%d}\r\n%s)\r\n"


@pytest.mark.parametrize(
    ("packed", "words"),
    [
        pytest.param(bomb(b"* OK ", MIB, 512), "octets of text", id="a line"),
        pytest.param(bomb(b"* 1 FETCH (BODY[] {536870912}\r\n", MIB, 512), "too many for one response", id="a literal"),
        pytest.param(
            bomb(b"", FETCH % (20 << 20, MIB * 20), 26), "far more than was asked for", id="bodies over and over"
        ),
        pytest.param(bomb(b"", b"* OK %s\r\n" % (b"x" * 20_000) * 500, 20), "far more than was asked for", id="lines"),
    ],
)
def test_a_bomb_is_cut_at_a_bound_of_memory_and_the_loop_is_never_held(packed: bytes, words: str) -> None:
    async def run() -> None:
        fake = FakeImap(capabilities=OFFERED)
        session = await opened(fake)
        await session.examine(MailboxName(b"INBOX"))
        held: list[float] = []

        async def tick() -> None:
            loop = asyncio.get_running_loop()
            while True:
                begun = loop.time()
                await asyncio.sleep(0.001)
                held.append(loop.time() - begun)

        def explode(served: Served, _tag: str) -> bool:
            served.send_packed(packed)
            return False

        fake.at("UID FETCH", explode)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(tick)
            tracemalloc.start()
            try:
                with pytest.raises(RemoteProtocolError, match=words):
                    await session.fetch(UidSet.of(1), "(UID FLAGS BODY.PEEK[])")
                _, peak = tracemalloc.get_traced_memory()
            finally:
                tracemalloc.stop()
            tasks.cancel_scope.cancel()
        assert peak < 64 * 1024 * 1024
        assert max(held, default=0) < 2.5

    assert len(packed) < 2_000_000
    asyncio.run(run())
