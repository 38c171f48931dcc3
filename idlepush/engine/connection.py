r"""One IMAP connection: the only file that knows the event loop, aioimaplib and the wire.

aioimaplib carries the protocol object, its commands, states and tags. Its receive path is replaced: bytes go through
`imap/framing` and `imap/grammar`, completions are found by tag in a table of our own (servers answer pipelined
commands in any order), and what nobody asked for goes to `unclaimed` instead of being dropped.

        connect()            run(Ask, …)                    idle()
    bytes ──▶ Framer ──▶ parse ──▶ completion ──▶ Exchange, by tag
                                ├▶ continuation ─▶ the exchange that waits for it (literal, challenge, IDLE)
                                └▶ untagged ────▶ every exchange that claims it, else `unclaimed`

IDLE (RFC 2177) is a mode of the connection, so that DONE and the next commands leave in one write:

    OFF ─IDLE─▶ REQUESTED ─"+"─▶ ACTIVE ─DONE + commands─▶ ENDING ─completion─▶ OFF
                    └──── completion (refused) ────┴── (ended by the server) ──────▲

COMPRESS (RFC 4978) changes the meaning of bytes in the middle of a read: while it is in flight, lines are taken one by
one, and the first byte behind its OK is inflated. What is inflated is taken in bounded pieces, one in each turn of
the loop; meanwhile nothing more is read. So a compression bomb costs its own connection time, and nobody memory.

Whatever ends the connection (EOF, BYE, a broken line, a deadline, a cancelled command) is kept in `failure`, fails
everyone who waits at once, and every later call. No secret leaves this file: exchanges know a command's name only.
"""

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final, cast

import aioimaplib

from idlepush.engine.dial import Dial, Endpoint, dial_tcp, translated, tune
from idlepush.engine.refusals import failure_class_of
from idlepush.engine.tls import check_pin
from idlepush.engine.wake import Wake
from idlepush.errors import (
    ConnectionLost,
    IdlepushError,
    IdleTimedOut,
    Refused,
    RemoteProtocolError,
    TimedOut,
    TlsFailed,
)
from idlepush.imap.commands import DONE, Command, idle, starttls
from idlepush.imap.deflate import Deflate
from idlepush.imap.framing import Frame, Framer
from idlepush.imap.grammar import parse
from idlepush.imap.responses import Completion, Condition, Continuation, Status, Untagged

GREETING_DEADLINE: Final = 30.0
DONE_DEADLINE: Final = 15.0
IDLE_DEADLINE: Final = 15.0
"""For the `+` to IDLE, and for the completion of an IDLE that DONE has ended: seconds."""
CLOCK_RESOLUTION: Final = 0.002
"""Seconds by which a timer of uvloop may fire too early."""
MAX_LINE: Final = 2 * 1024 * 1024
"""Octets of one response without its literals. Parsing more of a hostile one would hold the loop, and every account."""
MOST_LITERALS: Final = 40 * 1024 * 1024
"""Octets of literals that the answers to one write may have beyond what was asked for: more is an attack."""
MOST_ANSWERS: Final = 160 * 1024 * 1024
"""The same of all octets: the flags of a million messages are fewer."""
SLOWEST: Final = 8192
"""Octets a second: a server slower than this over a whole command has failed, however steadily it trickles."""


class Idle(StrEnum):
    """Where a connection stands in the IDLE exchange."""

    OFF = "off"  # ordinary commands may be sent
    REQUESTED = "requested"  # IDLE sent, "+" not yet seen: nothing may be sent
    ACTIVE = "active"  # the server may push; we may send only DONE
    ENDING = "ending"  # DONE sent, completion not yet seen


class IdleEnd(StrEnum):
    """Why a wait in IDLE ended; in every case but REFUSED what was heard is to be looked into."""

    HINT = "hint"  # the server said something
    WAKE = "wake"  # somebody here did
    DUE = "due"  # the time was up
    ENDED = "ended"  # the server ended IDLE by itself
    REFUSED = "refused"  # NO or BAD


def _claim_nothing(_: Untagged) -> bool:
    return False


@dataclass(frozen=True, slots=True)
class Ask:
    """A command to send: `claim` takes each untagged response and says whether it is (wholly) this one's answer.

    `respond` answers the server's challenges (AUTHENTICATE). `octets` is about what the answer may bring: it
    stretches the deadline. With `tolerant` a NO is not raised but left to the caller in the completion; with `by_parts`
    one that says that only a part was carried out (`Completion.is_cut`).
    """

    command: Command
    claim: Callable[[Untagged], bool] = _claim_nothing
    respond: Callable[[bytes], bytes] | None = None
    octets: int = 0
    tolerant: bool = False
    by_parts: bool = False


class _Exchange(aioimaplib.Command):  # type: ignore[misc]
    """A command in flight. Only its name is in here, never its line."""

    def __init__(self, tag: str, ask: Ask) -> None:
        super().__init__(ask.command.name, tag)
        self.claim = ask.claim
        self.respond = ask.respond
        self.waiting_parts: deque[bytes] = deque()
        self.completion: Completion | None = None
        self.settled: asyncio.Future[Completion] = asyncio.get_running_loop().create_future()

    def settle(self, completion: Completion) -> None:
        self.completion = completion
        self.close(b"", completion.status.value)
        if not self.settled.done():
            self.settled.set_result(completion)

    def fail(self, failure: BaseException) -> None:
        if not self.settled.done():
            self.settled.set_exception(failure)
            self.settled.exception()  # whoever waits gets it raised; an exchange nobody waits for is no news


class Connection(aioimaplib.IMAP4ClientProtocol):  # type: ignore[misc]
    """A connected, greeted IMAP connection. One task at a time may use it."""

    def __init__(self, endpoint: Endpoint, *, silence: float, max_literal: int) -> None:
        super().__init__(asyncio.get_running_loop())
        self.transport: asyncio.Transport
        self.endpoint = endpoint
        self.failure: BaseException | None = None
        self.unclaimed: Callable[[Untagged], object] = lambda _: None
        self.has_hints: Callable[[], bool] = lambda: False
        self.scrub: Callable[[str], str] = lambda text: text
        self.octets_received = 0
        """As they came over the wire: compressed, where COMPRESS is on."""
        self._bound: tuple[int, int] | None = None  # what the answers may still have: octets of literals, octets
        self._deflate: Deflate | None = None
        self._is_inflating = False
        self._awaits_compression = False
        self._silence = silence
        self._max_literal = max_literal
        self._framer = self._new_framer()
        self._exchanges: dict[str, _Exchange] = {}
        self._greeting: asyncio.Future[Condition] = self.loop.create_future()
        self._idle = Idle.OFF
        self._idle_exchange: _Exchange | None = None
        self._stirred = asyncio.Event()
        self._heard_at = self.loop.time()
        self._closing = False
        self._gone = asyncio.Event()

    def _new_framer(self) -> Framer:
        return Framer(max_line=MAX_LINE, max_literal=self._max_literal)

    @property
    def is_compressed(self) -> bool:
        """COMPRESS is on: both directions are deflated."""
        return self._deflate is not None

    # What the event loop calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Tune the socket; the server speaks first."""
        super().connection_made(transport)
        tune(transport)

    def data_received(self, data: bytes) -> None:
        """Take bytes in; whatever is wrong with them ends the connection, and nothing else."""
        if self.failure is not None:
            return
        self._heard_at = self.loop.time()
        self.octets_received += len(data)
        if self._deflate is not None:
            self._inflate(data)
        elif self._awaits_compression:
            self._take_by_line(data)
        else:
            self._take(data)

    def eof_received(self) -> bool:
        """Half-closed is closed: the server will say nothing more."""
        self._fail(ConnectionLost("the server closed the connection"))
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """Fail every waiter at once."""
        reason = f"the connection broke: {exc.strerror or exc}" if isinstance(exc, OSError) else None
        self._fail(ConnectionLost(reason or "the connection was lost"))
        self._gone.set()

    # Receiving

    def _take(self, data: bytes) -> None:
        """Take in what the server said, in clear."""
        try:
            frames = self._framer.feed(data)
            self._hold_against_bound(len(data), frames)
            for index, frame in enumerate(frames):
                self._receive(parse(frame))
                if self._framer_is_stale(rest=len(frames) - index - 1):
                    return
            if self._framer.error is not None:
                self._fail(self._framer.error)
        except IdlepushError as error:
            self._fail(error)
        except Exception as bug:  # a bug of ours must fail those who wait, not vanish in the event loop's log
            self._fail(bug)

    def _hold_against_bound(self, octets: int, frames: Iterable[Frame]) -> None:
        if self._bound is None:
            return
        literals, all_octets = self._bound
        literals -= sum(len(literal) for frame in frames for literal in frame.literals)
        self._bound = literals, all_octets - octets
        if min(self._bound) < 0:
            raise RemoteProtocolError("the server answers with far more than was asked for")

    def _take_by_line(self, data: bytes) -> None:
        """COMPRESS is in flight: what stands behind the line that completes it is compressed."""
        at = 0
        while at < len(data) and self._awaits_compression and self.failure is None:
            end = data.find(b"\n", at) + 1 or len(data)
            self._take(data[at:end])
            at = end
        if at < len(data) and self.failure is None:
            (self._take if self._deflate is None else self._inflate)(data[at:])

    def _inflate(self, data: bytes) -> None:
        assert self._deflate is not None
        self._deflate.feed(data)
        if not self._is_inflating:
            self._take_inflated()

    def _take_inflated(self) -> None:
        """Take in a piece of what came compressed; the next one in the next turn of the loop, others between them."""
        if self.failure is not None:
            return
        assert self._deflate is not None
        try:
            piece = self._deflate.take()
        except RemoteProtocolError as error:
            self._fail(error)
            return
        if piece:
            self._heard_at = self.loop.time()
            self._take(piece)
        goes_on = not self._deflate.is_drained and self.failure is None
        if goes_on and not self._is_inflating:
            self.transport.pause_reading()
        elif self._is_inflating and not goes_on and self.failure is None:
            self.transport.resume_reading()
        self._is_inflating = goes_on
        if goes_on:
            self.loop.call_soon(self._take_inflated)

    def _framer_is_stale(self, *, rest: int) -> bool:
        """After OK to STARTTLS nothing that came in clear counts (CVE-2021-39272 and its kin)."""
        if self.state != "STARTTLS":
            return False
        if rest or self._framer.pending:
            self._fail(TlsFailed("the server (or someone between) sent data behind its OK to STARTTLS"))
        return True

    def _receive(self, said: Completion | Continuation | Untagged) -> None:
        if isinstance(said, Completion):
            self._complete(said)
        elif isinstance(said, Continuation):
            self._continue(said)
        elif not self._greeting.done():
            self._greet(said)
        else:
            self._untagged(said)

    def _greet(self, said: Untagged) -> None:
        if not isinstance(said, Condition):
            raise RemoteProtocolError("the server's first line is not an IMAP greeting")
        self._greeting.set_result(said)

    def _untagged(self, said: Untagged) -> None:
        if isinstance(said, Condition) and said.status is Status.BYE:
            if not self._closing:
                self._fail(self._bye(said))
            return
        # Every exchange is asked: two fetches in flight may both have asked for this UID.
        claims = [exchange.claim(said) for exchange in self._exchanges.values()]
        if not any(claims):
            hint = self.unclaimed(said)
            if hint:
                self._stirred.set()

    def _complete(self, said: Completion) -> None:
        exchange = self._exchanges.pop(said.tag, None)
        if exchange is None:
            raise RemoteProtocolError("the server completed a command that was never sent")
        if exchange is self._idle_exchange:
            self._idle = Idle.OFF
            self._idle_exchange = None
            self._stirred.set()
        if exchange.name == "STARTTLS" and said.status is Status.OK:
            self.state = "STARTTLS"
        if exchange.name == "COMPRESS":
            self._awaits_compression = False
            self._deflate = Deflate() if said.status is Status.OK else None
        exchange.settle(said)

    def _continue(self, said: Continuation) -> None:
        for exchange in self._exchanges.values():
            if exchange.waiting_parts:
                self._write(exchange.waiting_parts.popleft())
                return
            if exchange.respond is not None:
                self._write(exchange.respond(said.text))
                return
        if self._idle is Idle.REQUESTED:
            self._idle = Idle.ACTIVE
            self._stirred.set()
        # Any other "+" is noise; some servers send one twice.

    def _bye(self, said: Condition) -> ConnectionLost:
        text = self.scrub(said.text)
        code = said.code.name if said.code else None
        failure_class = failure_class_of(code, said.text)
        known = failure_class if failure_class.value != "other" else None
        return ConnectionLost(f"the server said BYE: {text}", failure_class=known)

    def _fail(self, failure: BaseException) -> None:
        if self.failure is not None:
            return
        self.failure = failure
        if not self._greeting.done():
            self._greeting.set_exception(failure)
            self._greeting.exception()
        for exchange in self._exchanges.values():
            exchange.fail(failure)
        self._exchanges.clear()
        self._idle = Idle.OFF
        self._stirred.set()
        if self.transport is not None:
            self.transport.abort()

    # Sending

    async def greeting(self) -> Condition:
        """Return the server's greeting: OK or PREAUTH.

        Raises:
            ConnectionLost: it said BYE, or nothing and closed.
            TimedOut: it said nothing.
        """
        with self._deadline(GREETING_DEADLINE, GREETING_DEADLINE, "its greeting"):
            said = await self._greeting
        if said.status is Status.BYE:
            failure = self._bye(said)
            self._fail(failure)
            raise failure
        if said.status not in (Status.OK, Status.PREAUTH):
            failure_ = RemoteProtocolError("the server's greeting is neither OK nor PREAUTH")
            self._fail(failure_)
            raise failure_
        self.state = aioimaplib.NONAUTH if said.status is Status.OK else aioimaplib.AUTH
        return said

    async def run(self, *asked: Ask) -> Sequence[Completion]:
        """Send *asked* in one write (behind DONE, if IDLE is on) and return when all are completed.

        Raises:
            Refused: NO or BAD to one that is not tolerant of it; the connection lives on.
            Trouble: the connection is gone.
        """
        await self._settle_idle_request()
        idling = self._idle_exchange if self._idle is Idle.ACTIVE else None
        sent = self._transmit(asked)
        asked_for = 4 * sum(ask.octets for ask in asked)
        self._bound = MOST_LITERALS + asked_for, MOST_ANSWERS + asked_for
        try:
            if idling is not None:
                with self._deadline(DONE_DEADLINE, DONE_DEADLINE, "the end of IDLE", IdleTimedOut):
                    await asyncio.shield(idling.settled)
            completions = []
            for ask, exchange in zip(asked, sent, strict=True):
                total = self._silence + ask.octets / SLOWEST
                with self._deadline(self._silence, total, f"{ask.command.name}"):
                    completions.append(await exchange.settled)
        except BaseException as error:
            # The rest of the answers would be taken for those of the next command (cancelled, timed out, or lost).
            self._fail(ConnectionLost("a command was given up") if isinstance(error, asyncio.CancelledError) else error)
            raise
        finally:
            self._bound = None
        for ask, completion in zip(asked, completions, strict=True):
            is_no = completion.status is Status.NO
            if completion.status is not Status.OK and not (
                is_no and (ask.tolerant or (ask.by_parts and completion.is_cut))
            ):
                raise self._refused(ask.command.name, completion)
        return completions

    def _refused(self, name: str, said: Completion) -> Refused:
        code = said.code.name if said.code else None
        login = name in ("LOGIN", "AUTHENTICATE")
        failure_class = failure_class_of(code, said.text, login=login and said.status is Status.NO)
        spelled = f"[{code}] " if code else ""
        return Refused(
            f"the server answered {name} with {said.status}: {spelled}{self.scrub(said.text)}",
            command=name,
            code=code,
            is_bad=said.status is Status.BAD,
            failure_class=failure_class,
        )

    def _transmit(self, asked: Sequence[Ask]) -> list[_Exchange]:
        if self.failure is not None:
            raise self.failure
        octets = bytearray()
        if self._idle is Idle.ACTIVE:
            self._idle = Idle.ENDING
            octets += DONE
        sent = []
        for ask in asked:
            exchange = _Exchange(self.new_tag(), ask)
            first, *rest = ask.command.wire(exchange.tag)
            exchange.waiting_parts.extend(rest)
            self._exchanges[exchange.tag] = exchange
            sent.append(exchange)
            octets += first
            self._awaits_compression |= exchange.name == "COMPRESS"
        self._write(bytes(octets))
        return sent

    def _write(self, octets: bytes) -> None:
        self.transport.write(octets if self._deflate is None else self._deflate.pack(octets))

    @contextlib.contextmanager
    def _deadline(self, silence: float, total: float, what: str, failure: type[TimedOut] = TimedOut) -> Any:
        """End the connection with *failure* if no byte comes for *silence* seconds, or the block takes *total*."""
        begun = self.loop.time()
        self._heard_at = begun
        ends = begun + total

        def check() -> None:
            now = self.loop.time()
            due = min(ends, self._heard_at + silence)
            if now >= due - CLOCK_RESOLUTION:
                waited = round(now - begun)
                self._fail(failure(f"the server did not finish {what} within {waited} s"))
            else:
                timers.append(self.loop.call_at(due, check))
                del timers[:-1]

        timers = [self.loop.call_at(min(ends, begun + silence), check)]
        try:
            yield
        finally:
            timers[-1].cancel()

    # IDLE

    async def idle(self, *, at_most: float, wake: Wake) -> IdleEnd:
        """Stay in IDLE until the server says something, *wake* is set, or *at_most* seconds are over.

        On return IDLE may still be on: the next command takes it off, in one write with itself. Where there is none,
        because what was heard needed no question, the next call goes on with it.

        Raises:
            TimedOut: the server never confirmed, or said nothing at all for far longer than *at_most*.
            Trouble: the connection is gone.
        """
        exchange = self._idle_exchange
        if exchange is None:
            self._stirred.clear()
            exchange = self._transmit_idle()
        await self._settle_idle_request()
        wake.tell(self._stirred.set)
        is_due = asyncio.Event()  # not a comparison of clocks: a timer may fire a clock's resolution too early
        timer = self.loop.call_later(at_most, self._come_due, is_due)
        try:
            while True:
                if self.failure is not None:
                    raise self.failure
                if exchange.completion is not None:
                    return IdleEnd.ENDED if exchange.completion.status is Status.OK else IdleEnd.REFUSED
                if self.has_hints():
                    return IdleEnd.HINT
                if wake.is_set:
                    return IdleEnd.WAKE
                if is_due.is_set():
                    return IdleEnd.DUE
                self._stirred.clear()
                await self._stirred.wait()
        finally:
            wake.tell(None)
            timer.cancel()

    def _come_due(self, is_due: asyncio.Event) -> None:
        is_due.set()
        self._stirred.set()

    def _transmit_idle(self) -> _Exchange:
        (exchange,) = self._transmit([Ask(idle())])
        self._idle = Idle.REQUESTED
        self._idle_exchange = exchange
        return exchange

    async def _settle_idle_request(self) -> None:
        """Wait until IDLE is confirmed or refused: before that not even DONE may be sent."""
        if self._idle is not Idle.REQUESTED:
            return
        with self._deadline(IDLE_DEADLINE, IDLE_DEADLINE, "the start of IDLE", IdleTimedOut):
            while self._idle is Idle.REQUESTED:
                self._stirred.clear()
                await self._stirred.wait()
        if self.failure is not None:
            raise self.failure

    # TLS and the end

    async def start_tls(self) -> None:
        """STARTTLS (RFC 9051 section 6.2.1); nothing heard before it counts afterwards.

        Raises:
            TlsFailed: refused, injected into, or the handshake or certificate was not good.
        """
        context = self.endpoint.context
        assert context is not None
        try:
            await self.run(Ask(starttls()))
        except Refused:
            failure = TlsFailed("the server refuses STARTTLS")
            self._fail(failure)
            raise failure from None
        if self.failure is not None:
            raise self.failure
        self._framer = self._new_framer()
        with translated(self.endpoint), self._ended_by_failure():
            plain = self.transport
            transport = await self.loop.start_tls(
                plain, self, context, server_hostname=self.endpoint.host, ssl_handshake_timeout=self._silence
            )
        if transport is None:
            raise ConnectionLost("the server closed the connection in the TLS handshake")
        self.transport = transport
        self.state = aioimaplib.NONAUTH

    @contextlib.contextmanager
    def _ended_by_failure(self) -> Any:
        """A handshake that fails ends the connection without telling its protocol (asyncio does, uvloop too)."""
        try:
            yield
        except BaseException:
            self._gone.set()
            raise

    def check_pin(self) -> None:
        """Hold the certificate against the pinned one, if there is one; before any secret is sent."""
        if self.endpoint.pin is not None:
            tls = self.transport.get_extra_info("ssl_object")
            try:
                check_pin(tls.getpeercert(binary_form=True) if tls is not None else None, self.endpoint.pin)
            except TlsFailed as failure:
                self._fail(failure)
                raise

    async def logout(self, command: Command) -> None:
        """Say LOGOUT and go; whatever the server makes of it, the connection is closed after at most 2 seconds."""
        if self.failure is None and self._idle is not Idle.REQUESTED:
            self._closing = True
            sent = self._transmit([Ask(command)])
            with contextlib.suppress(IdlepushError, TimeoutError):
                async with asyncio.timeout(2):
                    await sent[0].settled
        await self.aclose()

    async def aclose(self) -> None:
        """Close at once."""
        self._closing = True
        self._fail(ConnectionLost("closed by us"))
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(2):
                await self._gone.wait()


async def connect(
    endpoint: Endpoint, *, dial: Dial = dial_tcp, timeout: float, silence: float, max_literal: int
) -> Connection:
    """Dial *endpoint* within *timeout* seconds; TLS is on, unless it is to be started by STARTTLS.

    Raises:
        ConnectionLost, TimedOut, TlsFailed: in these words.
    """
    with translated(endpoint):
        async with asyncio.timeout(timeout):
            _, made = await dial(lambda: Connection(endpoint, silence=silence, max_literal=max_literal), endpoint)
    connection = cast("Connection", made)
    if not endpoint.starttls:
        connection.check_pin()
    return connection
