"""A session: what is true between login and logout, and the commands the engine speaks in it.

Every command says which untagged responses are its answer; all others are hints and go to the view of the selected
mailbox. A UID that a command in flight asked for is an answer, every other one a hint (`sync.md`, Fetch).
"""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Final

import anyio

import idlepush
from idlepush.engine.answers import ChangedSince, FetchAnswers, Found, Selection
from idlepush.engine.connection import Ask, Connection, IdleEnd, connect
from idlepush.engine.dial import Dial, Endpoint, dial_tcp
from idlepush.engine.observations import Feature
from idlepush.engine.refusals import failure_class_of
from idlepush.engine.sasl import Challenges, Login, login_command, scrubber
from idlepush.engine.wake import Wake
from idlepush.engine.whole import Collector, ask_whole
from idlepush.errors import (
    AuthenticationFailed,
    FailureClass,
    MailboxUnavailable,
    Refused,
    TlsFailed,
)
from idlepush.imap import commands
from idlepush.imap.commands import Literals
from idlepush.imap.responses import (
    Capabilities,
    Code,
    Completion,
    Condition,
    Enabled,
    Fetch,
    ListEntry,
    ServerId,
    Status,
    StatusReply,
    Untagged,
)
from idlepush.imap.types import MailboxName, ModSeq, Uid, UidValidity
from idlepush.imap.uidset import UidSet
from idlepush.sync.identity import identity_items
from idlepush.sync.mailboxes import UNSELECTABLE
from idlepush.sync.status import Elsewhere, MailboxStatus
from idlepush.sync.view import Changed, View, merged

SLICE: Final = 262_144
"""Octets of a body asked for at once: longer ones come in slices of this length."""
LONG_SLICE: Final = 4 * SLICE
"""Octets asked for at once of what is left of a long body."""
MAX_LITERAL: Final = 24 * 1024 * 1024
"""A literal announced longer than this ends the connection; only servers that ignore slices ever come near it."""
_FLAGS: Final = "UID FLAGS"
_LISTING: Final = "UID FLAGS INTERNALDATE RFC822.SIZE"
_STRUCTURE: Final = " BODYSTRUCTURE"
_STATUS_ITEMS: Final = ("MESSAGES", "UIDNEXT", "UIDVALIDITY")
_SEARCH_WINDOW: Final = 150_000
_MOST_CHANGES: Final = 1024 * 1024
"""Octets that the answer to CHANGEDSINCE may well have: it stretches its deadline."""


class Session:
    """A logged-in connection. One task at a time may use it."""

    def __init__(self, connection: Connection) -> None:
        self.capabilities: frozenset[str] = frozenset()
        self.server: Mapping[str, str] = {}
        self.view: View | None = None
        self.elsewhere: Elsewhere | None = None
        """Hints about other mailboxes; None: the server was not asked for any."""
        self.alerts: list[str] = []
        self.connect_seconds = 0.0
        self.login_seconds = 0.0
        self.enabled: frozenset[str] = frozenset()
        """What ENABLED has confirmed; nothing else is believed."""
        self._identity = ""
        self._structure = _STRUCTURE
        """What FETCH asks for beside the rest, to know a message again."""
        self._without: frozenset[Feature] = frozenset()
        self._shows_no_uidnext = False
        self._connection = connection
        connection.unclaimed = self._heard
        connection.has_hints = self._has_hints

    @property
    def can_idle(self) -> bool:
        """The server offers IDLE."""
        return "IDLE" in self.capabilities

    @property
    def uses_condstore(self) -> bool:
        """The server has mod-sequences, and is trusted with them."""
        return "CONDSTORE" in self.capabilities and Feature.CONDSTORE not in self._without

    @property
    def compare(self) -> str:
        """How mailboxes are compared here: qresync, condstore or uid."""
        return "qresync" if self.uses_qresync else "condstore" if self.uses_condstore else "uid"

    @property
    def uses_qresync(self) -> bool:
        """The server has confirmed QRESYNC, and is trusted with it."""
        return "QRESYNC" in self.enabled and self.uses_condstore and Feature.QRESYNC not in self._without

    def forgo(self, feature: Feature) -> None:
        """Do without *feature* from here on."""
        self._without |= {feature}
        if self.view is not None and not self.uses_condstore:
            self.view.highestmodseq = self.view.changed = None

    @property
    def names_messages(self) -> bool:
        """The server has a name for each message, whatever its mailbox and UID."""
        return self._identity not in ("", " SAVEDATE")

    @property
    def flags_items(self) -> str:
        """What FETCH asks for to compare flags."""
        return f"({_FLAGS}{self._modseq})"

    @property
    def listing_items(self) -> str:
        """What FETCH asks for to list messages."""
        return f"({_LISTING}{self._beside})"

    @property
    def whole_items(self) -> str:
        """What FETCH asks for to have messages, bodies and all, up to a slice of each."""
        return f"({_LISTING}{self._beside} BODY.PEEK[]<0.{SLICE}>)"

    @property
    def header_items(self) -> str:
        """What FETCH asks for to have messages by their headers."""
        return f"({_LISTING}{self._beside} BODY.PEEK[HEADER]<0.{SLICE}>)"

    @property
    def outline_items(self) -> str:
        """What FETCH asks for to have messages by their headers and the parts that they are made of."""
        # Last, so that one that is spelled wrong takes nothing with it, on servers that answer in the order asked.
        return f"({_LISTING}{self._beside} BODY.PEEK[HEADER]<0.{SLICE}>{self._structure})"

    @property
    def _beside(self) -> str:
        return self._modseq + self._identity

    @property
    def _modseq(self) -> str:
        return " MODSEQ" if self.view is not None and self.view.highestmodseq is not None else ""

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
        return (self.view is not None and bool(self.view.heard)) or bool(self.elsewhere)

    def _heard(self, said: Untagged) -> bool:
        match said:
            case Capabilities(names):
                self.capabilities = names
            case Condition(code=Code("CAPABILITY", frozenset() as names)):
                self.capabilities = names
            case Condition(code=Code("ALERT"), text=text):
                self.alerts = [*self.alerts[-9:], self._connection.scrub(text)]
            case _ if self.elsewhere is not None and self.elsewhere.hear(said):
                return True
            case _:
                return self.view is not None and self.view.hear(said)
        return False

    # Opening

    async def open(self, login: Login, *, without: Collection[Feature] = ()) -> None:
        """Do everything from the greeting to a session in which mailboxes can be selected, *without* some features.

        Raises:
            AuthenticationFailed: the server does not take the credentials.
            TlsFailed: STARTTLS could not be had; no secret was sent.
            Trouble: everything else.
        """
        self._without = frozenset(without)
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
        await self._settle_in()
        self._identity = identity_items(self.capabilities, self.server.get("name", ""))

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

    async def _settle_in(self) -> None:
        """Send what each session begins with, in one write: ID, ENABLE, and last COMPRESS, behind which nothing may be.

        163.com and its kin refuse to select anything ("Unsafe Login") from a client without a name. Of what is to be
        enabled only what ENABLED confirms is: some say OK to everything, iCloud says nothing (seen). A server that
        refuses to compress is gone on with as it is. Behind LOGIN itself nothing is pipelined: one server loses it.
        """

        def claim(said: Untagged) -> bool:
            match said:
                case ServerId(fields):
                    self.server = fields
                case Enabled(names):
                    self.enabled |= names
                case _:
                    return False
            return True

        offered, asked = self.capabilities, []
        if "ID" in offered:
            fields = {"name": "idlepush", "version": idlepush.__version__}
            asked.append(Ask(commands.id_(fields), claim, tolerant=True))
        if "ENABLE" in offered and "QRESYNC" in offered and Feature.QRESYNC not in self._without:
            asked.append(Ask(commands.enable("QRESYNC"), claim, tolerant=True))
        if self._connection.endpoint.compress and "COMPRESS=DEFLATE" in offered:
            asked.append(Ask(commands.compress(), tolerant=True))
        try:
            if asked:
                await self._connection.run(*asked)
        except Refused as refused:
            if refused.command not in ("ENABLE", "COMPRESS"):
                raise

    async def run(self, *asked: Ask) -> Sequence[Completion]:
        """Send *asked* in one write; see `Connection.run`."""
        return await self._connection.run(*asked)

    def unavailable(self, mailbox: MailboxName, said: Completion) -> MailboxUnavailable:
        """Return the trouble that a NO to a question about *mailbox* is."""
        code = said.code.name if said.code else None
        sentence = f"{mailbox}: the server answers {said.status}: {self._connection.scrub(said.text)}"
        return MailboxUnavailable(sentence, failure_class=failure_class_of(code, said.text))

    # Mailboxes

    async def examine(self, mailbox: MailboxName, *, since: tuple[UidValidity, ModSeq] | None = None) -> View:
        """Select *mailbox* read-only and return the view of it; from here on the session keeps it up.

        *since* is what its mirror has: with QRESYNC the server tells at once what changed, and `View.changed` has it.
        What was heard of the same mailbox before is still to be looked into.

        Raises:
            MailboxUnavailable: the server refuses it; nothing is selected now.
        """
        if "IMAP4REV2" not in self.capabilities and self._shows_no_uidnext:
            said = await self.status(mailbox)
            uidnext = said.uidnext
        else:
            uidnext = None
        before, self.view = self.view, None
        since = since if self.uses_qresync else None
        answer = Selection(since[1] if since else None, is_first=before is None)
        command = commands.examine(
            mailbox, condstore=self.uses_condstore, qresync=since, literals=Literals.offered(self.capabilities)
        )
        try:
            (done,) = await self._connection.run(Ask(command, answer.claim))
        except Refused as refused:
            raise _unavailable(mailbox, refused) from None
        fresh = answer.view(mailbox, done, uidnext)
        if not self.uses_condstore:
            fresh.highestmodseq = None
        if fresh.uidnext is None and not self._shows_no_uidnext:
            # A STATUS of the selected mailbox may be stale until NOOP (seen), so the next EXAMINE asks before it.
            self._shows_no_uidnext = True
        if before is not None and before.mailbox == mailbox:
            before.heard = merged(before.heard, answer.former)
            before.reselected(fresh)
            fresh = before
        self.view = fresh
        return fresh

    async def status(self, mailbox: MailboxName) -> MailboxStatus:
        """Ask how a mailbox stands without selecting it.

        Raises:
            MailboxUnavailable: the server refuses it.
        """
        found = MailboxStatus()

        def claim(said: Untagged) -> bool:
            nonlocal found
            if isinstance(said, StatusReply) and said.mailbox == mailbox:
                found = found.updated(MailboxStatus.of(said))
                return True
            return False

        try:
            items = [*_STATUS_ITEMS, "HIGHESTMODSEQ"] if self.uses_condstore else _STATUS_ITEMS
            await self._connection.run(
                Ask(commands.status(mailbox, items, literals=Literals.offered(self.capabilities)), claim)
            )
        except Refused as refused:
            raise _unavailable(mailbox, refused) from None
        return found

    async def list(self, pattern: str | bytes = "*") -> Sequence[ListEntry]:
        """Return the mailboxes that match *pattern*, a text or the server's own spelling."""
        found: list[ListEntry] = []

        def claim(said: Untagged) -> bool:
            if isinstance(said, ListEntry):
                found.append(said)
            return isinstance(said, ListEntry)

        await self._connection.run(
            Ask(commands.list_("", pattern, literals=Literals.offered(self.capabilities)), claim)
        )
        return found

    async def delimiter(self) -> str | None:
        """Return what separates the levels of a mailbox's name here; None where names have no levels."""
        # An empty pattern asks for nothing else (RFC 9051 section 6.3.9).
        for pattern in ("", "INBOX"):
            with suppress(Refused):
                for entry in await self.list(pattern):
                    return entry.delimiter
        return None

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
            MailboxUnavailable: the mailbox was deleted or renamed meanwhile.
            Refused: NO or BAD; what came before it is lost.
        """
        answers = FetchAnswers(uids, asks_flags="FLAGS" in items)
        try:
            await self._ask_whole(
                uids, lambda part: commands.uid_fetch(part, items), answers, octets=octets, settle=settle
            )
        except Refused as refused:
            without = self._without_what_is_refused(items, refused)
            if without is None:
                raise
            return await self.fetch(uids, without, octets=octets, settle=settle)
        lost = UidSet.from_uids(uid for uid, said in answers.merged.items() if _is_lost_behind_its_structure(said))
        if lost and _STRUCTURE in items:
            again = await self.fetch(lost, items.replace(_STRUCTURE, ""), octets=octets, settle=settle)
            return {**answers.merged, **again}
        return answers.merged

    def _without_what_is_refused(self, items: str, refused: Refused) -> str | None:
        """Do without what may be refused, rather than without any message; None where all of it is needed."""
        if _STRUCTURE in items:
            # A NO may be meant for one message of them, whose structure it cannot tell.
            if refused.is_bad:
                self._structure = ""
            return items.replace(_STRUCTURE, "")
        if refused.is_bad and self._identity and self._identity in items:
            without, self._identity = items.replace(self._identity, ""), ""
            return without
        return None

    async def changed_since(self, since: ModSeq, uids: UidSet) -> Changed:
        """UID FETCH CHANGEDSINCE: the flags of *uids* that changed, and with QRESYNC which are gone since.

        Raises:
            Refused: NO or BAD.
        """
        answers = ChangedSince(uids, since)
        vanished = self.uses_qresync
        await self._ask_whole(
            uids,
            lambda part: commands.uid_fetch(part, _FLAGS, changed_since=since, vanished=vanished),
            answers,
            octets=_MOST_CHANGES,
        )
        return answers.changed

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
            Ask(commands.fetch(UidSet.parse(spelled), _FLAGS), claim, tolerant=True) for spelled in wanted.spelled()
        ]
        completions = await self._connection.run(*asked)
        if self.view is not None and any(done.is_cut for done in completions):
            self.view.heard = replace(self.view.heard, any_flags=True)
        return found

    async def search(self, uids: UidSet) -> UidSet:
        """UID SEARCH: which of *uids* are there."""
        found = Found()
        esearch = "ESEARCH" in self.capabilities or "IMAP4REV2" in self.capabilities
        for window in [uids] if esearch else self._search_windows(uids):
            # One after the other: an untagged SEARCH does not say which command it answers.
            await self._ask_whole(
                window, lambda part: commands.uid_search(part, esearch=esearch), found, one_by_one=True
            )
        return found.answered & uids

    async def _ask_whole(
        self,
        uids: UidSet,
        spell: Callable[[str], commands.Command],
        collector: Collector,
        *,
        octets: int = 0,
        settle: bool = False,
        one_by_one: bool = False,
    ) -> None:
        uidnext = self.view.uidnext if self.view else None
        try:
            await ask_whole(
                self._connection,
                uids,
                spell,
                collector,
                octets=octets,
                settle=settle,
                one_by_one=one_by_one,
                uidnext=uidnext,
            )
        except Refused as refused:
            if refused.code == "NONEXISTENT" and self.view is not None:
                # It was deleted or renamed under the session (pymap): no message is to blame.
                raise _unavailable(self.view.mailbox, refused) from None
            raise

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


def _is_lost_behind_its_structure(said: Fetch) -> bool:
    return said.structure is not None and not said.structure.understood and not said.bodies


def _unavailable(mailbox: MailboxName, refused: Refused) -> MailboxUnavailable:
    return MailboxUnavailable(f"{mailbox}: {refused}", failure_class=refused.failure_class)


async def open_session(
    endpoint: Endpoint,
    login: Login,
    *,
    dial: Dial = dial_tcp,
    connect_timeout: float,
    command_timeout: float,
    without: Collection[Feature] = (),
) -> Session:
    """Dial, start TLS, log in, *without* features that the server was caught lying about.

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
        await session.open(login, without=without)
    except BaseException:
        await connection.aclose()
        raise
    session.connect_seconds = connected - begun
    session.login_seconds = anyio.current_time() - connected
    return session
