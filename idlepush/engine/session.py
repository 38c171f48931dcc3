"""A session: what is true between login and logout, and the commands the engine speaks in it.

Every command says which untagged responses are its answer; all others are hints and go to the view of the selected
mailbox. A UID that a command in flight asked for is an answer, every other one a hint (`sync.md`, Fetch).
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

import anyio

import idlepush
from idlepush.engine.connection import Ask, Connection, IdleEnd, connect
from idlepush.engine.dial import Dial, Endpoint, dial_tcp
from idlepush.engine.sasl import Challenges, Login, login_command, scrubber
from idlepush.engine.wake import Wake
from idlepush.errors import (
    AuthenticationFailed,
    FailureClass,
    MailboxUnavailable,
    Refused,
    RemoteProtocolError,
    TlsFailed,
)
from idlepush.imap import commands
from idlepush.imap.responses import (
    Capabilities,
    Code,
    Completion,
    Condition,
    Exists,
    Fetch,
    ListEntry,
    MailboxFlags,
    Recent,
    Search,
    ServerId,
    Status,
    StatusReply,
    Untagged,
)
from idlepush.imap.types import MailboxName, ModSeq, Uid, UidValidity
from idlepush.imap.uidset import UidSet
from idlepush.sync.mailboxes import UNSELECTABLE
from idlepush.sync.view import View

SLICE: Final = 262_144
"""Octets of a body asked for at once: longer ones come in slices of this length."""
LONG_SLICE: Final = 4 * SLICE
"""Octets asked for at once of what is left of a long body."""
MAX_LITERAL: Final = 24 * 1024 * 1024
"""A literal announced longer than this ends the connection; only servers that ignore slices ever come near it."""
LISTING: Final = "(UID FLAGS INTERNALDATE RFC822.SIZE)"
FLAGS: Final = "(UID FLAGS)"
WHOLE: Final = f"(UID FLAGS INTERNALDATE RFC822.SIZE BODY.PEEK[]<0.{SLICE}>)"
HEADER: Final = f"(UID FLAGS INTERNALDATE RFC822.SIZE BODY.PEEK[HEADER]<0.{SLICE}>)"
_STATUS_ITEMS: Final = ("MESSAGES", "UIDNEXT", "UIDVALIDITY")
_SEARCH_WINDOW: Final = 150_000


class Session:
    """A logged-in connection. One task at a time may use it."""

    def __init__(self, connection: Connection) -> None:
        self.capabilities: frozenset[str] = frozenset()
        self.server: Mapping[str, str] = {}
        self.view: View | None = None
        self.alerts: list[str] = []
        self.connect_seconds = 0.0
        self.login_seconds = 0.0
        self._shows_no_uidnext = False
        self._connection = connection
        connection.unclaimed = self._heard
        connection.has_hints = self._has_hints

    @property
    def can_idle(self) -> bool:
        """The server offers IDLE."""
        return "IDLE" in self.capabilities

    @property
    def omits_expunged(self) -> bool:
        """The server was seen to answer NIL, and nothing else, for a message expunged just now (Dovecot 2.3)."""
        return self.server.get("name", "").casefold() == "dovecot"

    @property
    def endpoint(self) -> str:
        """host:port of the server."""
        return str(self._connection.endpoint)

    @property
    def octets_received(self) -> int:
        """Octets received over this connection so far."""
        return self._connection.octets_received

    # Hints

    def _has_hints(self) -> bool:
        return self.view is not None and bool(self.view.heard)

    def _heard(self, said: Untagged) -> bool:
        match said:
            case Capabilities(names):
                self.capabilities = names
            case Condition(code=Code("CAPABILITY", frozenset() as names)):
                self.capabilities = names
            case Condition(code=Code("ALERT"), text=text):
                self.alerts = [*self.alerts[-9:], self._connection.scrub(text)]
            case _:
                return self.view is not None and self.view.hear(said)
        return False

    # Opening

    async def open(self, login: Login) -> None:
        """Do everything from the greeting to a session in which mailboxes can be selected.

        Raises:
            AuthenticationFailed: the server does not take the credentials.
            TlsFailed: STARTTLS could not be had; no secret was sent.
            Trouble: everything else.
        """
        connection, endpoint = self._connection, self._connection.endpoint
        connection.scrub = scrubber(login)
        greeting = await connection.greeting()
        if endpoint.starttls:
            if greeting.status is Status.PREAUTH:
                await connection.aclose()
                raise TlsFailed("the server says PREAUTH before STARTTLS; whoever it is, it is not trusted")
            await connection.start_tls()
            connection.check_pin()
            self.capabilities = frozenset()
        elif greeting.code is not None:
            self._heard(greeting)
        if greeting.status is not Status.PREAUTH:
            if not self.capabilities:
                await self._ask_capabilities()
            await self._authenticate(login)
        if not self.capabilities:
            await self._ask_capabilities()
        if "ID" in self.capabilities:
            await self._introduce()

    async def _ask_capabilities(self) -> None:
        def claim(said: Untagged) -> bool:
            if isinstance(said, Capabilities):
                self.capabilities = said.names
            return isinstance(said, Capabilities)

        await self._connection.run(Ask(commands.capability(), claim))

    async def _authenticate(self, login: Login) -> None:
        offered = self.capabilities
        ir = "SASL-IR" in offered
        command, answer = login_command(login, offered, self._connection.endpoint, initial_response=ir)
        challenges = Challenges(None if ir else answer)
        self.capabilities = frozenset()
        try:
            (done,) = await self._connection.run(Ask(command, respond=challenges.respond if answer else None))
        except Refused as refused:
            if refused.failure_class is FailureClass.AUTHENTICATION:
                detail = f" ({challenges.error})" if challenges.error else ""
                raise AuthenticationFailed(self._connection.scrub(f"{refused}{detail}")) from None
            raise
        self._learn(done)

    def _learn(self, done: Completion) -> None:
        # RFC 9051 section 7.1: what was known before a login is void; only what its completion says counts.
        if done.code is not None and done.code.name == "CAPABILITY" and isinstance(done.code.value, frozenset):
            self.capabilities = done.code.value

    async def _introduce(self) -> None:
        """Send ID: 163.com and its kin refuse to select anything ("Unsafe Login") from a client without a name."""

        def claim(said: Untagged) -> bool:
            if isinstance(said, ServerId):
                self.server = said.fields
            return isinstance(said, ServerId)

        fields = {"name": "idlepush", "version": idlepush.__version__}
        await self._connection.run(Ask(commands.id_(fields), claim, tolerant=True))

    # Mailboxes

    async def examine(self, mailbox: MailboxName) -> View:
        """Select *mailbox* read-only and return the view of it; from here on the session keeps it up.

        What was heard of the same mailbox before is still to be looked into.

        Raises:
            MailboxUnavailable: the server refuses it; nothing is selected now.
        """
        if "IMAP4REV2" not in self.capabilities and self._shows_no_uidnext:
            said = await self.status(mailbox)
            uidnext = said.uidnext
        else:
            uidnext = None
        answer = _Selection()
        before, self.view = self.view, None
        try:
            (done,) = await self._connection.run(Ask(commands.examine(mailbox), answer.claim))
        except Refused as refused:
            raise _unavailable(mailbox, refused) from None
        fresh = answer.view(mailbox, done, uidnext)
        if fresh.uidnext is None and not self._shows_no_uidnext:
            # A STATUS of the selected mailbox may be stale until NOOP (seen), so the next EXAMINE asks before it.
            self._shows_no_uidnext = True
        if before is not None and before.mailbox == mailbox:
            before.reselected(fresh)
            fresh = before
        self.view = fresh
        return fresh

    async def status(self, mailbox: MailboxName) -> "MailboxStatus":
        """Ask how a mailbox stands without selecting it.

        Raises:
            MailboxUnavailable: the server refuses it.
        """
        answers: dict[str, int | str] = {}

        def claim(said: Untagged) -> bool:
            if isinstance(said, StatusReply) and said.mailbox == mailbox:
                answers.update(said.items)
                return True
            return False

        try:
            await self._connection.run(Ask(commands.status(mailbox, _STATUS_ITEMS), claim))
        except Refused as refused:
            raise _unavailable(mailbox, refused) from None
        return MailboxStatus(
            messages=_number(answers.get("MESSAGES")),
            uidnext=_uid(answers.get("UIDNEXT")),
            uidvalidity=_uidvalidity(answers.get("UIDVALIDITY")),
        )

    async def list(self, pattern: str | bytes = "*") -> Sequence[ListEntry]:
        """Return the mailboxes that match *pattern*, a text or the server's own spelling."""
        found: list[ListEntry] = []

        def claim(said: Untagged) -> bool:
            if isinstance(said, ListEntry):
                found.append(said)
            return isinstance(said, ListEntry)

        await self._connection.run(Ask(commands.list_("", pattern), claim))
        return found

    async def lists(self, mailbox: MailboxName) -> bool:
        """Tell whether the server lists *mailbox* as one that can be selected."""
        return any(not entry.attributes & UNSELECTABLE for entry in await self.listed(mailbox))

    async def listed(self, mailbox: MailboxName) -> Sequence[ListEntry]:
        """Return what LIST says of this one mailbox."""
        return [entry for entry in await self.list(mailbox.raw) if entry.name == mailbox]

    # Messages

    async def fetch(self, uids: UidSet, items: str, *, octets: int = 0, settle: bool = False) -> Mapping[Uid, Fetch]:
        """UID FETCH *items* of *uids*; what came, merged by UID. UIDs nobody asked for are hints, not answers.

        With *settle* a NOOP leaves in the same write: after it the session's own SEARCH no longer lists what was
        expunged meanwhile (seen on two servers).

        Raises:
            Refused: NO or BAD; what came before it is lost.
        """
        answers = _Answers(uids, asks_flags="FLAGS" in items)
        asked = [
            Ask(
                commands.uid_fetch(spelled, items),
                answers.claim,
                octets=octets,
            )
            for spelled in uids.spelled()
        ]
        if settle:
            asked.append(Ask(commands.noop()))
        try:
            await self._connection.run(*asked)
        except Refused as refused:
            # Some messages were expunged meanwhile: what is missing is for the presence check to explain.
            if refused.code != "EXPUNGEISSUED":
                raise
        return answers.merged

    async def fetch_numbers(self, numbers: Iterable[int]) -> Mapping[Uid, Fetch]:
        """FETCH the UIDs and flags behind sequence numbers."""
        wanted = UidSet.from_uids(numbers)
        found: dict[Uid, Fetch] = {}

        def claim(said: Untagged) -> bool:
            if isinstance(said, Fetch) and said.number in wanted:
                if said.uid is not None and said.flags is not None:
                    found[said.uid] = said
                    return True
                return False
            return False

        asked = [
            Ask(commands.fetch(UidSet.parse(spelled), FLAGS), claim, tolerant=True) for spelled in wanted.spelled()
        ]
        await self._connection.run(*asked)
        return found

    async def search(self, uids: UidSet) -> UidSet:
        """UID SEARCH: which of *uids* are there."""
        found = UidSet()

        def claim(said: Untagged) -> bool:
            nonlocal found
            if isinstance(said, Search):
                found = found | said.found
            return isinstance(said, Search)

        esearch = "ESEARCH" in self.capabilities or "IMAP4REV2" in self.capabilities
        # One after the other: an untagged SEARCH does not say which command it answers.
        for window in [uids] if esearch else self._search_windows(uids):
            for spelled in window.spelled():
                await self._connection.run(Ask(commands.uid_search(spelled, esearch=esearch), claim))
        return found & uids

    def _search_windows(self, uids: UidSet) -> Iterable[UidSet]:
        """Cut *uids* so that no answer, which names each UID, is longer than a line may be."""
        view = self.view
        if view is None or view.exists <= _SEARCH_WINDOW or view.uidnext is None:
            return [uids]
        return [*uids.below(view.uidnext).chunks(_SEARCH_WINDOW), uids.above(view.uidnext - 1)]

    async def noop(self) -> None:
        """Give the server an opportunity to speak."""
        await self._connection.run(Ask(commands.noop()))

    async def idle(self, *, at_most: float, wake: Wake) -> IdleEnd:
        """Idle in the selected mailbox; see `Connection.idle`."""
        return await self._connection.idle(at_most=at_most, wake=wake)

    async def logout(self) -> None:
        """Leave politely, within 2 seconds."""
        await self._connection.logout(commands.logout())

    async def aclose(self) -> None:
        """Leave at once."""
        await self._connection.aclose()


@dataclass(frozen=True, slots=True)
class MailboxStatus:
    """What STATUS said; None where it did not."""

    messages: int | None
    uidnext: Uid | None
    uidvalidity: UidValidity | None


class _Selection:
    """Collects what EXAMINE answers; a number said twice counts as it was said last."""

    def __init__(self) -> None:
        self._exists = 0
        self._uidnext: Uid | None = None
        self._uidvalidity: UidValidity | None = None
        self._modseq: ModSeq | None = None

    def claim(self, said: Untagged) -> bool:
        match said:
            case Exists(count):
                self._exists = count
            case Condition(code=Code("UIDNEXT", int() as value)):
                self._uidnext = _uid(value)
            case Condition(code=Code("UIDVALIDITY", int() as value)):
                self._uidvalidity = _uidvalidity(value)
            case Condition(code=Code("HIGHESTMODSEQ", int() as value)):
                self._modseq = ModSeq(value) if value >= 1 else None
            case Condition(code=Code("ALERT" | "CAPABILITY")):
                return False
            case Condition() | Recent() | MailboxFlags():
                pass
            case _:
                return False
        return True

    def view(self, mailbox: MailboxName, done: Completion, uidnext: Uid | None) -> View:
        if done.code is not None:
            self.claim(Condition(Status.OK, done.code, ""))
        if self._uidvalidity is None:
            raise RemoteProtocolError(f"{mailbox}: EXAMINE shows no UIDVALIDITY, so its UIDs mean nothing")
        return View(mailbox, self._uidvalidity, self._uidnext or uidnext, self._exists, self._modseq)


class _Answers:
    """Collects FETCH responses for the UIDs asked for; the latest word on each item wins."""

    def __init__(self, wanted: UidSet, *, asks_flags: bool) -> None:
        self.merged: dict[Uid, Fetch] = {}
        self._wanted = wanted
        self._asks_flags = asks_flags

    def claim(self, said: Untagged) -> bool:
        if not isinstance(said, Fetch) or said.uid is None or said.uid not in self._wanted:
            return False
        before = self.merged.get(said.uid)
        self.merged[said.uid] = said if before is None else _joined(before, said)
        # Flags that were not asked for changed just now: an answer and a hint.
        return self._asks_flags or said.flags is None


def _joined(before: Fetch, said: Fetch) -> Fetch:
    return replace(
        said,
        flags=before.flags if said.flags is None else said.flags,
        internal_date=said.internal_date or before.internal_date,
        size=before.size if said.size is None else said.size,
        modseq=said.modseq or before.modseq,
        email_id=said.email_id or before.email_id,
        thread_id=said.thread_id or before.thread_id,
        structure=said.structure or before.structure,
        bodies=said.bodies or before.bodies,
        others={**before.others, **said.others},
    )


def _unavailable(mailbox: MailboxName, refused: Refused) -> MailboxUnavailable:
    return MailboxUnavailable(f"{mailbox}: {refused}", failure_class=refused.failure_class)


def _number(value: int | str | None) -> int | None:
    return value if isinstance(value, int) else None


def _uid(value: int | str | None) -> Uid | None:
    return Uid(value) if isinstance(value, int) and 1 <= value < 2**32 else None


def _uidvalidity(value: int | str | None) -> UidValidity | None:
    return UidValidity(value) if isinstance(value, int) and 1 <= value < 2**32 else None


async def open_session(
    endpoint: Endpoint,
    login: Login,
    *,
    dial: Dial = dial_tcp,
    connect_timeout: float,
    command_timeout: float,
) -> Session:
    """Dial, start TLS, log in.

    Raises:
        Trouble: in one of its kinds; nothing is left open.
    """
    begun = anyio.current_time()
    connection = await connect(
        endpoint, dial=dial, timeout=connect_timeout, silence=command_timeout, max_literal=MAX_LITERAL
    )
    connected = anyio.current_time()
    session = Session(connection)
    try:
        await session.open(login)
    except BaseException:
        await connection.aclose()
        raise
    session.connect_seconds = connected - begun
    session.login_seconds = anyio.current_time() - connected
    return session
