r"""An IMAP server in the test's own process and loop, that keeps the rules until it is told to break one.

    fake = FakeImap()                                   # everything as it should be
    fake = FakeImap(idle="NO", pushes="on DONE")        # or with faults, which may also be changed at any time:
    fake.done = "mute"
    fake.at("EXAMINE", answer("NO [UNAVAILABLE] later"), times=2)

    transport, client = await open_memory(factory, fake)                     # without sockets, in virtual time
    async with fake.listening() as (host, port): ...                         # or over TCP

    uid = fake.deliver(b"Subject: x\r\n\r\n")          # idling sessions are told at once, the others when allowed
    await fake.until(lambda: fake.idling == 1)

Behaviour is what the fields below say; what they cannot say, a subclass can, by overriding the methods under
"Hooks". Times are the loop's; nothing here sleeps. The sessions themselves are in `fake_session.py`.
"""

import asyncio
import itertools
import ssl
from collections.abc import AsyncGenerator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Final, Literal

from tests.peers.fake_session import Command, Fault, Session
from tests.peers.model import Mailbox, Message, quoted

__all__ = ["PASSWORD", "Command", "FakeImap", "Mailbox", "Message", "Session", "answer", "bye", "cut", "mute", "say"]

PASSWORD: Final = "pass-of-everyone"  # an account of a throw-away server
CAPABILITIES: Final = (
    "IMAP4rev1 LITERAL+ SASL-IR ID ENABLE IDLE NAMESPACE UIDPLUS UNSELECT ESEARCH LIST-EXTENDED LIST-STATUS"
    " SPECIAL-USE AUTH=PLAIN AUTH=XOAUTH2 AUTH=OAUTHBEARER"
)
CONDSTORE: Final = CAPABILITIES + " CONDSTORE"
QRESYNC: Final = CONDSTORE + " QRESYNC"
NOTIFY: Final = CAPABILITIES + " NOTIFY"
OBJECTID: Final = CAPABILITIES + " OBJECTID"
How = Literal["close", "reset", "stall"]


# Faults for `FakeImap.at`


def answer(text: str) -> Fault:
    """Complete the command with this, `answer("NO [LIMIT] slow down")`, and do not carry it out."""

    def fault(session: Session, tag: str) -> bool:
        session.complete(tag, text)
        return False

    return fault


def bye(text: str = "going down", how: How = "close") -> Fault:
    """Say BYE and end the connection."""

    def fault(session: Session, _tag: str) -> bool:
        session.say(f"* BYE {text}")
        session.end(how)
        return False

    return fault


def cut(how: How = "reset") -> Fault:
    """End the connection without a word; "stall" keeps it open and deaf."""

    def fault(session: Session, _tag: str) -> bool:
        session.end(how)
        return False

    return fault


def say(raw: bytes) -> Fault:
    """Send these bytes, then go on as if nothing had happened."""

    def fault(session: Session, _tag: str) -> bool:
        session.send(raw)
        return True

    return fault


def mute(_session: Session, _tag: str) -> bool:
    """Do not answer the command, and go on with the next."""
    return False


@dataclass(eq=False, kw_only=True)
class Behaviour:
    """What kind of server it is. Every field may be given at the start and changed at any time."""

    # Greeting and login
    capabilities: str = CAPABILITIES
    capabilities_after_login: str | None = None  # None: the same
    says_capabilities: bool = True  # in the greeting and in the answer to LOGIN, unasked
    greeting: bytes | None = None  # all of it, as it is sent; PREAUTH logs in as "preauth"
    password: str = PASSWORD
    passwords: dict[str, str] = field(default_factory=dict)  # of users who have one of their own
    access_tokens: set[str] = field(default_factory=set)  # what XOAUTH2 and OAUTHBEARER take
    login_refusal: str = "NO [AUTHENTICATIONFAILED] Authentication failed."  # {user} and {password} are filled in
    token_challenge: str = '{"status":"401","schemes":"bearer"}'
    empty_challenges: int = 0  # so many rounds of "+ " before a SASL exchange is answered
    tls: ssl.SSLContext | None = None  # STARTTLS is offered where there is one
    starttls: Literal["yes", "NO", "stripped"] = "yes"
    inject_behind_starttls: bytes = b""  # sent in clear in one write with the answer to STARTTLS

    compress: Literal["yes", "NO", "BAD"] = "yes"  # offered only where the capabilities say so
    behind_compress: bytes = b""  # said in one write with the OK to COMPRESS, compressed already

    # IDLE and pushes
    idle: Literal["yes", "NO", "BAD", "mute"] = "yes"  # mute: never confirmed by "+"
    done: Literal["yes", "mute"] = "yes"  # mute: DONE is never answered
    pushes: Literal["at once", "on DONE", "never"] = "at once"
    pushes_before_confirming: bool = False  # what IDLE finds comes before its "+"
    push_uids: bool = False  # pushed FETCH responses carry the UID
    keepalive: float | None = None  # seconds between "* OK Still here"
    idle_ends_after: float | None = None  # seconds after which IDLE completes by itself
    idle_cut_after: float | None = None  # seconds after which the connection ends
    idle_cut_how: How = "close"

    # NOTIFY, where `capabilities` offers it (NOTIFY): what it tells, once it was asked for
    # once: mute after a SET on top of another (Dovecot 2.3); BADEVENT: it knows MessageNew and MessageExpunge alone
    notify: Literal["yes", "mute", "once", "overflow", "NO", "BADEVENT"] = "yes"

    # Mailboxes
    delimiter: str = "/"
    per_user: bool = False  # every user has mailboxes of his own; otherwise all share those of ""
    when_deleted: Literal["bye", "close", "nonexistent", "unnoticed"] = "nonexistent"  # what whoever selected it sees
    silent_expunges: bool = False  # told on NOOP, CHECK, IDLE and a new EXAMINE only, not behind UID commands

    # FETCH
    expunged_body: Literal["nil", "empty", "omitted", "stand-in", "kept"] = "nil"  # expunged, but not told yet
    omitted_uids: set[int] = field(default_factory=set)  # left out of every FETCH
    poison: dict[int, Literal["NO", "BAD", "cut"]] = field(default_factory=dict)  # what asking for that body does
    fetch_order: Literal["up", "down"] = "up"
    fetch_twice: bool = False  # every answer twice
    fetch_noise: bytes = b""  # sent in front of every answer to FETCH: alien UIDs, unsolicited data
    structures: dict[int, bytes] = field(default_factory=dict)  # BODYSTRUCTURE by UID, where it is not one plain text
    structure: Literal["yes", "NO", "BAD"] = "yes"  # what asking for it is answered with
    structure_early: bool = False  # it comes right behind the UID, whatever the order it was asked for in
    lower_case: bool = False  # "fetch", "uid", "body[]"
    body_spelling: Literal["literal", "literal8", "quoted"] = "literal"
    announced_sizes: dict[int, int] = field(default_factory=dict)  # RFC822.SIZE by UID, where it lies
    literal_sizes: dict[int, int] = field(default_factory=dict)  # the size announced for the literal, where it lies

    # CONDSTORE and QRESYNC, where `capabilities` offers them (CONDSTORE_QRESYNC)
    enables: Literal["yes", "nothing", "mute", "BAD"] = "yes"  # what ENABLE is answered with
    highestmodseq: Literal["told", "still", "missing", "NOMODSEQ"] = "told"
    hides_vanished: bool = False  # what is gone is not told of by VANISHED (EARLIER)
    vanished_besides: set[int] = field(default_factory=set)  # UIDs told to have vanished earlier, though they are there
    lost_changes: set[int] = field(default_factory=set)  # UIDs that CHANGEDSINCE and QRESYNC do not tell of

    # RFC 9738: how many messages one FETCH or SEARCH is carried out for
    message_limit: int | None = None
    over_limit: Literal["newest", "oldest", "NO"] = "newest"  # which of them are answered for, if any

    # The wire
    reverses_completions: bool = False  # of commands that arrive together, the last is completed first
    seconds_per_byte: float = 0  # slow-loris
    cut_after: int | None = None  # bytes sent, over all sessions, once
    cut_how: How = "reset"
    longest_line: int = 65536  # longer ones are answered with BYE


@dataclass(eq=False, kw_only=True)
class FakeImap(Behaviour):
    """The server: its mail, its sessions and what they did."""

    host: str = field(default="", init=False)
    port: int = field(default=0, init=False)
    tls_port: int = field(default=0, init=False)
    sessions: list[Session] = field(default_factory=list, init=False)  # open ones
    sessions_ever: int = field(default=0, init=False)
    sessions_most: int = field(default=0, init=False)  # open at the same time
    commands: list[Command] = field(default_factory=list, init=False)
    logins: list[tuple[float, str, bool]] = field(default_factory=list, init=False)  # when, who, whether let in
    received: int = field(default=0, init=False)  # bytes, over all sessions
    sent: int = field(default=0, init=False)
    changes_by_clients: list[str] = field(default_factory=list, init=False)  # must stay empty: the mirror only looks
    on_client_bytes: Callable[[int], object] | None = field(default=None, init=False)
    on_server_bytes: Callable[[int], object] | None = field(default=None, init=False)
    on_command: Callable[[Session, Command], object] | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        self._accounts: dict[str, dict[str, Mailbox]] = {}
        self._faults: dict[str, list[tuple[Fault, int | None]]] = {}
        self._uidvalidities = itertools.count(1_000)
        self._numbers = itertools.count(1)
        self._object_ids = itertools.count(1)
        self._waiters: set[asyncio.Future[None]] = set()

    # Connections

    def accept(self, *, over_tls: bool = False) -> Session:
        """Return the server's end of one more connection."""
        return Session(self, next(self._numbers), over_tls=over_tls)

    @asynccontextmanager
    async def listening(self, host: str = "127.0.0.1") -> AsyncGenerator[tuple[str, int]]:
        """Listen on a free port, and on one with TLS (`tls_port`) where there is a context for it."""
        loop = asyncio.get_running_loop()
        server = await loop.create_server(self.accept, host, 0)
        servers = [server]
        self.host, self.port = server.sockets[0].getsockname()[:2]
        try:
            if self.tls is not None:
                secure = await loop.create_server(lambda: self.accept(over_tls=True), host, 0, ssl=self.tls)
                servers.append(secure)
                self.tls_port = secure.sockets[0].getsockname()[1]
            yield self.host, self.port
        finally:
            for each in servers:
                each.close()
            for session in list(self.sessions):
                session.abort()
            await self.until(lambda: not self.sessions)

    def end_all(self, how: How = "close") -> None:
        """End every session now."""
        for session in list(self.sessions):
            session.end(how)

    def bye_all(self, text: str = "going down") -> None:
        """Say BYE to every session and end it."""
        for session in list(self.sessions):
            session.say(f"* BYE {text}")
        self.end_all()

    @property
    def idling(self) -> int:
        """How many sessions are in IDLE now."""
        return sum(session.is_idling for session in self.sessions)

    async def until(self, claim: Callable[[], bool], *, within: float = 10) -> None:
        """Wait until *claim* holds; it is asked again after everything that happens here.

        Raises:
            TimeoutError: it did not come true within so many seconds of the loop.
        """
        async with asyncio.timeout(within):
            while not claim():
                waiter = asyncio.get_running_loop().create_future()
                self._waiters.add(waiter)
                try:
                    await waiter
                finally:
                    self._waiters.discard(waiter)

    def welcome(self, session: Session) -> bool:
        """Count a session in; tell whether it is to be greeted."""
        self.sessions.append(session)
        self.sessions_ever += 1
        self.sessions_most = max(self.sessions_most, len(self.sessions))
        return self.pass_point("connect", session, "*")

    def see_off(self, session: Session) -> None:
        """Count a session out."""
        if session in self.sessions:
            self.sessions.remove(session)
        self.stir()

    def stir(self) -> None:
        """Let those who wait in `until` look again."""
        for waiter in self._waiters:
            if not waiter.done():
                waiter.get_loop().call_soon(_wake, waiter)

    # Faults at a point of the dialog

    def at(self, point: str, fault: Fault, *, times: int | None = 1) -> None:
        """Let *fault* happen the next so many times (None: always) that a session comes to *point*.

        Points: "connect" (in place of the greeting); a command's name, as "LOGIN", "EXAMINE", "UID FETCH" (before
        it is carried out), "after LOGIN" (behind its completion), "in IDLE" (behind the "+"), "in FETCH" (behind
        the first message of an answer). Faults come one after the other in the order given.
        """
        self._faults.setdefault(point, []).append((fault, times))

    def pass_point(self, point: str, session: Session, tag: str) -> bool:
        """Let the fault that is due here happen; tell whether the session goes on as if there were none."""
        due = self._faults.get(point)
        if not due:
            return True
        fault, times = due[0]
        if times is not None:
            if times > 1:
                due[0] = (fault, times - 1)
            else:
                due.pop(0)
        return fault(session, tag)

    # Mail

    def mailboxes(self, user: str = "") -> dict[str, Mailbox]:
        """Return the mailboxes of an account by name; INBOX is always there."""
        account = self._accounts.get(user if self.per_user else "")
        if account is None:
            account = self._accounts[user if self.per_user else ""] = {}
            number = next(self._uidvalidities)
            account["INBOX"] = Mailbox(name="INBOX", uidvalidity=number, object_id=f"F{next(self._object_ids)}")
        return account

    def mailbox(self, name: str = "INBOX", user: str = "") -> Mailbox:
        """Return a mailbox."""
        return self.mailboxes(user)[name]

    def deliver(
        self,
        raw: bytes,
        flags: Iterable[str] = (),
        mailbox: str = "INBOX",
        *,
        user: str = "",
        uid: int | None = None,
        internaldate: str = "21-Nov-2026 20:00:00 +0000",
        emailid: str = "",
    ) -> int:
        """Deliver a message and return its UID."""
        target = self.mailbox(mailbox, user)
        message = target.add(raw, flags=flags, internaldate=internaldate, uid=uid, emailid=emailid)
        self._push(target)
        return message.uid

    def expunge(self, uid: int, mailbox: str = "INBOX", *, user: str = "") -> None:
        """Remove a message for good."""
        target = self.mailbox(mailbox, user)
        target.remove(uid)
        self._push(target)

    def set_flags(self, uid: int, flags: Iterable[str], mailbox: str = "INBOX", *, user: str = "") -> None:
        """Give a message these flags and no others."""
        target = self.mailbox(mailbox, user)
        message = target.message(uid)
        if message.flags != frozenset(flags):
            message.flags = frozenset(flags)
            target.touch(message)
        self._push(target)

    def bump_uidvalidity(
        self, mailbox: str = "INBOX", *, to: int | None = None, renumber: bool = True, user: str = ""
    ) -> None:
        """Give the mailbox a new UIDVALIDITY and its messages UIDs from 1 on; sessions that have it open get BYE."""
        target = self.mailbox(mailbox, user)
        target.uidvalidity = next(self._uidvalidities) if to is None else to
        if renumber:
            for uid, message in enumerate(target.messages, 1):
                message.uid = uid
            target.uidnext = len(target.messages) + 1
        for session in self._with_selected(target):
            session.say("* BYE UIDVALIDITY changed")
            session.end("close")

    def create(
        self, mailbox: str, attributes: Sequence[str] = (), *, uidvalidity: int | None = None, user: str = ""
    ) -> Mailbox:
        """Make a mailbox."""
        account = self.mailboxes(user)
        if mailbox in account:
            raise ValueError(f"there is a {mailbox} already")
        number = next(self._uidvalidities) if uidvalidity is None else uidvalidity
        made = account[mailbox] = Mailbox(
            name=mailbox, uidvalidity=number, attributes=tuple(attributes), object_id=f"F{next(self._object_ids)}"
        )
        self._tell_name(made)
        return made

    def delete(self, mailbox: str, *, user: str = "") -> None:
        """Delete a mailbox; sessions that have it open learn of it as `when_deleted` says."""
        target = self.mailboxes(user).pop(mailbox)
        for session in self._with_selected(target):
            session.lose_mailbox()
        self._tell_name(target, r"\NonExistent")

    def rename(self, mailbox: str, to: str, *, user: str = "") -> None:
        """Rename a mailbox; it keeps its UIDVALIDITY, and stays open where it is."""
        account = self.mailboxes(user)
        if to in account:
            raise ValueError(f"there is a {to} already")
        target = account.pop(mailbox)
        target.name = to
        account[to] = target
        self._tell_name(target)

    # Hooks: what a subclass may override

    def uidnext(self, mailbox: Mailbox, _where: Literal["SELECT", "STATUS"]) -> int | None:
        """Return the UIDNEXT that is said there, or None to leave it out."""
        return mailbox.uidnext

    def uidvalidity(self, mailbox: Mailbox, _where: Literal["SELECT", "STATUS"]) -> int | None:
        """Return the UIDVALIDITY that is said there, or None to leave it out."""
        return mailbox.uidvalidity

    def modseq(self, mailbox: Mailbox) -> int | None:
        """Return the HIGHESTMODSEQ that is said, or None to leave it out."""
        return {"told": mailbox.highestmodseq, "still": 1}.get(self.highestmodseq)

    def exists(self, count: int, _mailbox: Mailbox) -> Sequence[int]:
        """Return the numbers of the EXISTS lines that tell of *count* messages."""
        return (count,)

    def spell_name(self, mailbox: Mailbox) -> str:
        """Spell a mailbox's name for LIST and STATUS."""
        return quoted(mailbox.name)

    def lets_in(self, user: str, password: str) -> bool:
        """Judge credentials."""
        return password == self.passwords.get(user, self.password)

    # Inside

    def _push(self, mailbox: Mailbox) -> None:
        for session in list(self.sessions):
            if session.mailbox is mailbox:
                session.push()
            elif mailbox in self.mailboxes(session.user or "").values():
                session.hint(mailbox)
        self.stir()

    def _tell_name(self, mailbox: Mailbox, *attributes: str) -> None:
        for session in list(self.sessions):
            session.hint_name(mailbox, attributes)

    def _with_selected(self, mailbox: Mailbox) -> list[Session]:
        return [session for session in self.sessions if session.mailbox is mailbox]


def _wake(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)
