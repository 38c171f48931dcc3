"""One session with `FakeImap`: carries out commands and keeps its own view of the mailbox it selected."""

import asyncio
import base64
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from tests.peers import fake_condstore as condstore
from tests.peers import fake_notify as notify
from tests.peers.fake_fetch import Item, parse_items, spell_flags, spell_item
from tests.peers.fake_wire import Wire
from tests.peers.model import (
    BadSyntax,
    Mailbox,
    Message,
    indices_of,
    matches_pattern,
    parse_numbers,
    quoted,
    spell_numbers,
    tokens,
)

if TYPE_CHECKING:
    from tests.peers.fake import FakeImap

Fault = Callable[["Session", str], bool]  # given the tag; returns whether the dialog goes on as if there were none

_COMMAND = re.compile(r"([^\s(){%*\"\\]+) +((?:UID +)?[A-Za-z][A-Za-z0-9]*)(?: +(.*))?", re.DOTALL)
_NO_EXPUNGES: Final = frozenset({"FETCH", "SEARCH"})  # RFC 9051 section 7.5.1
_TELLS_ALL: Final = frozenset({"NOOP", "CHECK", "IDLE"})
_FLAGS: Final = r"\Answered \Flagged \Deleted \Seen \Draft"
_SPECIAL_USES: Final = frozenset({r"\All", r"\Archive", r"\Drafts", r"\Flagged", r"\Junk", r"\Sent", r"\Trash"})
_SEARCH_FLAGS: Final = {
    prefix + flag.upper(): ("\\" + flag, not prefix)
    for flag in ("Answered", "Deleted", "Draft", "Flagged", "Seen")
    for prefix in ("", "UN")
}


@dataclass(frozen=True, slots=True)
class Command:
    """A command as it arrived; literals stand in it as quoted strings."""

    time: float
    session: int
    tag: str
    name: str  # in capitals; "UID FETCH" is one
    arguments: str
    octets: int  # how long its line was

    def __str__(self) -> str:
        return f"{self.session}: {self.tag} {self.name} {self.arguments}".rstrip()


@dataclass(slots=True)
class _Seen:
    """A message as this session knows it, and the flags it was told of."""

    message: Message
    flags: frozenset[str]


@dataclass(slots=True)
class _Idle:
    """An IDLE that is going on."""

    tag: str
    is_confirmed: bool = False
    timers: dict[str, asyncio.TimerHandle] = field(default_factory=dict)


class _Refusal(Exception):
    """The command is completed with this text."""


class Session(Wire):
    """One connection's dialog."""

    def __init__(self, server: "FakeImap", number: int, *, over_tls: bool) -> None:
        super().__init__(server, number, over_tls=over_tls)
        self.user: str | None = None
        self.mailbox: Mailbox | None = None
        self.is_read_only = True
        self._view: list[_Seen] = []
        self._idle: _Idle | None = None
        self._is_mailbox_lost = False
        self._tells_modseq = False  # CONDSTORE was enabled
        self._tells_vanished = False  # QRESYNC was
        self._notified: notify.Wanted | None = None

    @property
    def is_idling(self) -> bool:
        """Tell whether the client was told that it idles."""
        return self._idle is not None and self._idle.is_confirmed and not self.is_deaf

    @property
    def capabilities(self) -> str:
        server = self.server
        if self.user is not None and server.capabilities_after_login is not None:
            return server.capabilities_after_login
        offers_tls = server.tls is not None and not self.over_tls and server.starttls != "stripped"
        return server.capabilities + (" STARTTLS" if offers_tls else "")

    def push(self) -> None:
        """Tell an idling session at once, if this server does so."""
        if self.is_idling and self.server.pushes == "at once":
            self._tell()

    def hint(self, mailbox: Mailbox) -> None:
        """Tell what NOTIFY asks for of a mailbox that is not selected."""
        if self._notified is None or not self._notified.covers(mailbox.name):
            return
        if self.server.notify == "overflow":
            self.say("* OK [NOTIFICATIONOVERFLOW] too much to tell")
            self._notified = None
        elif self.server.notify != "mute":
            self._say_status(mailbox, self._notified_items)

    def hint_name(self, mailbox: Mailbox, attributes: Sequence[str]) -> None:
        """Tell that a mailbox was made, renamed or deleted."""
        if self._notified is not None and self._notified.names and self.server.notify != "mute":
            spelled = " ".join(attributes)
            self.say(f"* LIST ({spelled}) {self._spelled_delimiter()} {self.server.spell_name(mailbox)}")

    @property
    def _notified_items(self) -> Sequence[str]:
        return ("MESSAGES", "UIDNEXT", "UIDVALIDITY", *(["HIGHESTMODSEQ"] if self._tells_modseq else []))

    def _notify(self, command: Command) -> None:
        if "NOTIFY" not in self.capabilities.split():
            raise BadSyntax("NOTIFY is unknown here")
        wanted, events = notify.wanted(command.arguments)
        if self.server.notify == "NO":
            raise _Refusal("NO [NOPERM] not for you")
        if self.server.notify == "BADEVENT" and events - {"MESSAGENEW", "MESSAGEEXPUNGE"}:
            raise _Refusal("NO [BADEVENT (MessageNew MessageExpunge)] I know these")
        if self.server.notify == "once" and self._notified is not None and wanted is not None:
            self._notified = notify.Wanted(frozenset(), names=False, status=wanted.status)
        else:
            self._notified = wanted
        if wanted is not None and wanted.status:
            for mailbox in self.server.mailboxes(self.user or "").values():
                if wanted.covers(mailbox.name) and mailbox is not self.mailbox:
                    self._say_status(mailbox, self._notified_items)
        self._finish(command)

    def lose_mailbox(self) -> None:
        """Take note that the selected mailbox was deleted."""
        match self.server.when_deleted:
            case "bye":
                self.say("* BYE the mailbox was deleted")
                self.end("close")
            case "close":
                self.end("close")
            case "nonexistent":
                self._is_mailbox_lost = True
            case "unnoticed":
                pass

    # Lines and commands

    @property
    def _reads_bare_lines(self) -> bool:
        return self._idle is not None or self._on_line is not None

    def _take_line(self, line: bytes) -> None:
        text = line.decode("utf-8", "surrogateescape")
        if self._on_line is not None:
            taker, self._on_line = self._on_line, None
            taker(text)
        elif self._idle is not None:
            self._take_done(self._idle, text)
        else:
            self._take_command(text, octets=len(line) + 2)

    def _take_command(self, line: str, *, octets: int) -> None:
        match = _COMMAND.fullmatch(line)
        if match is None:
            self.complete(line.partition(" ")[0] or "*", "BAD no command")
            return
        name = " ".join(match[2].upper().split())
        command = Command(self._loop.time(), self.number, match[1], name, match[3] or "", octets)
        if not self._begin(command):
            return
        try:
            self._carry_out(command)
        except BadSyntax as bad:
            self.complete(command.tag, f"BAD {bad}")
        except _Refusal as refusal:
            self.complete(command.tag, str(refusal))
        self.server.pass_point(f"after {name}", self, command.tag)

    def _begin(self, command: Command) -> bool:
        """Write a command down; tell whether it is to be carried out."""
        self.server.commands.append(command)
        if self.server.on_command:
            self.server.on_command(self, command)
        return not self.is_deaf and self.server.pass_point(command.name, self, command.tag)

    def _carry_out(self, command: Command) -> None:
        state, method = _COMMANDS.get(command.name, ("", None))
        if method is None:
            raise BadSyntax(f"{command.name} is unknown here")
        if state == "out" and self.user is not None:
            raise BadSyntax("already logged in")
        if state in {"in", "selected"} and self.user is None:
            raise BadSyntax("log in first")
        if state == "selected" and self._is_mailbox_lost:
            raise _Refusal("NO [NONEXISTENT] the mailbox was deleted")
        if state == "selected" and self.mailbox is None:
            raise BadSyntax("no mailbox is selected")
        method(self, command)

    def _finish(self, command: Command, code: str = "") -> None:
        """Tell what may be told now, and complete the command."""
        may_expunge = command.name not in _NO_EXPUNGES and not self.server.silent_expunges
        self._tell(expunges=may_expunge or command.name in _TELLS_ALL)
        self.complete(command.tag, f"OK {code}done")

    # What changed in the mailbox

    def _tell(self, *, expunges: bool = True) -> None:
        """Bring the client's view up to the mailbox, as far as allowed."""
        if self.mailbox is None or self._is_mailbox_lost:
            return
        if expunges:
            self._tell_expunges()
        self._tell_arrivals(self.mailbox)
        self._tell_flags()

    def _tell_expunges(self) -> None:
        if self._tells_vanished:
            gone = [seen.message.uid for seen in self._view if seen.message.is_expunged]
            if gone:
                self._view = [seen for seen in self._view if not seen.message.is_expunged]
                self.say(f"* VANISHED {spell_numbers(gone)}")
            return
        for index in range(len(self._view) - 1, -1, -1):
            if self._view[index].message.is_expunged:
                del self._view[index]
                self.say(f"* {index + 1} EXPUNGE")

    def _tell_arrivals(self, mailbox: Mailbox) -> None:
        known = self._view[-1].message.uid if self._view else 0
        arrived = mailbox.above(known)
        if arrived:
            self._view += [_Seen(message, message.flags) for message in arrived]
            self._say_exists(mailbox)

    def _tell_flags(self) -> None:
        for number, seen in enumerate(self._view, 1):
            if seen.flags != seen.message.flags and not seen.message.is_expunged:
                seen.flags = seen.message.flags
                uid = f"UID {seen.message.uid} " if self.server.push_uids or self._tells_vanished else ""
                modseq = f" MODSEQ ({seen.message.modseq})" if self._tells_modseq else ""
                self.say(f"* {number} FETCH ({uid}FLAGS {spell_flags(seen.flags)}{modseq})")

    def _say_exists(self, mailbox: Mailbox) -> None:
        for count in self.server.exists(len(self._view), mailbox):
            self.say(f"* {count} EXISTS")

    # Greeting, login, farewell

    def _begin_session(self) -> None:
        if self.server.welcome(self):
            self._greet()

    def _end_session(self) -> None:
        self.server.see_off(self)

    def _greet(self) -> None:
        greeting = self.server.greeting or f"* OK {self._capability_code()}ready\r\n".encode()
        if greeting.startswith(b"* PREAUTH"):
            self.user = "preauth"
        self.send(greeting)

    def _capability_code(self) -> str:
        return f"[CAPABILITY {self.capabilities}] " if self.server.says_capabilities else ""

    def _capability(self, command: Command) -> None:
        self.say(f"* CAPABILITY {self.capabilities}")
        self._finish(command)

    def _noop(self, command: Command) -> None:
        self._finish(command)

    def _id(self, command: Command) -> None:
        self.say('* ID ("name" "fake")')
        self._finish(command)

    def _logout(self, command: Command) -> None:
        self.say("* BYE see you")
        self.complete(command.tag, "OK bye")
        self._release_held()
        self.end("close")

    def _starttls(self, command: Command) -> None:
        context = self.server.tls
        if context is None or self.over_tls or self.server.starttls == "stripped":
            raise BadSyntax("no TLS here")
        if self.server.starttls == "NO":
            raise _Refusal("NO not today")
        self.send(f"{command.tag} OK begin\r\n".encode() + self.server.inject_behind_starttls)
        self._upgrade_to(context)

    def _login(self, command: Command) -> None:
        words = tokens(command.arguments)
        if len(words) != 2:
            raise BadSyntax("LOGIN takes a user and a password")
        if "LOGINDISABLED" in self.capabilities.split():
            raise _Refusal("NO [PRIVACYREQUIRED] not in clear")
        self._judge(command.tag, words[0], words[1], is_let_in=self.server.lets_in(words[0], words[1]))

    def _judge(self, tag: str, user: str, secret: str, *, is_let_in: bool) -> None:
        self.server.logins.append((self._loop.time(), user, is_let_in))
        if is_let_in:
            self.user = user
            self.complete(tag, f"OK {self._capability_code()}logged in")
        else:
            self.complete(tag, self.server.login_refusal.replace("{user}", user).replace("{password}", secret))

    def _authenticate(self, command: Command) -> None:
        mechanism, *initial = command.arguments.split()
        judges = {
            "PLAIN": self._judge_plain,
            "XOAUTH2": self._judge_token,
            "OAUTHBEARER": self._judge_token,
        }
        if mechanism.upper() not in judges:
            raise _Refusal("NO [CANNOT] unknown mechanism")
        judge, rounds = judges[mechanism.upper()], self.server.empty_challenges
        if initial:
            self._challenge(command.tag, judge, initial[0], rounds)
        else:
            self._ask(command.tag, "", lambda line: self._challenge(command.tag, judge, line, rounds))

    def _ask(self, tag: str, challenge: str, then: Callable[[str], None]) -> None:
        """Send a challenge and go on with the client's answer to it."""

        def take(line: str) -> None:
            if line == "*":
                self.complete(tag, "BAD cancelled")
            else:
                then(line)

        self.say("+ " + challenge)
        self._on_line = take

    def _challenge(self, tag: str, judge: Callable[[str, str], None], response: str, rounds: int) -> None:
        """Judge the response after so many more rounds of nothing."""
        if rounds > 0:
            self._ask(tag, "", lambda _line: self._challenge(tag, judge, response, rounds - 1))
            return
        try:
            decoded = base64.b64decode(response, validate=True).decode("utf-8", "surrogateescape")
        except ValueError:
            self.complete(tag, "BAD not base64")
        else:
            judge(tag, decoded)

    def _judge_plain(self, tag: str, response: str) -> None:
        parts = response.split("\0")
        if len(parts) == 3:
            self._judge(tag, parts[1], parts[2], is_let_in=self.server.lets_in(parts[1], parts[2]))
        else:
            self.complete(tag, "BAD not a PLAIN response")

    def _judge_token(self, tag: str, response: str) -> None:
        named = re.search(r"(?:user=|a=)([^\x01,]*)", response)
        bearer = re.search(r"auth=Bearer ([^\x01]*)", response)
        user, token = named[1] if named else "", bearer[1] if bearer else ""
        if token in self.server.access_tokens:
            self._judge(tag, user, token, is_let_in=True)
        else:
            challenge = base64.b64encode(self.server.token_challenge.encode()).decode()
            self._ask(tag, challenge, lambda _line: self._judge(tag, user, token, is_let_in=False))

    # Mailboxes

    def _namespace(self, command: Command) -> None:
        self.say(f'* NAMESPACE (("" {self._spelled_delimiter()})) NIL NIL')
        self._finish(command)

    def _enable(self, command: Command) -> None:
        offered = self.capabilities.split()
        wanted = [name for name in command.arguments.upper().split() if name in offered]
        match self.server.enables:
            case "yes":
                self._tells_vanished |= "QRESYNC" in wanted
                self._tells_modseq |= "CONDSTORE" in wanted or "QRESYNC" in wanted
                self.say(" ".join(["* ENABLED", *wanted]))
            case "nothing":
                self.say("* ENABLED")
            case "BAD":
                raise _Refusal("BAD unknown command")
            case "mute":
                pass
        self._finish(command)

    def _compress(self, command: Command) -> None:
        if self._deflating is not None:
            raise _Refusal("NO [COMPRESSIONACTIVE] already")
        if self.server.compress != "yes":
            raise _Refusal(f"{self.server.compress} not compressed")
        self._compress_from_here(f"{command.tag} OK compressed\r\n".encode(), self.server.behind_compress)

    def _mailbox_named(self, name: str) -> Mailbox:
        mailbox = self.server.mailboxes(self.user or "").get("INBOX" if name.upper() == "INBOX" else name)
        if mailbox is None:
            raise _Refusal("NO [NONEXISTENT] no such mailbox")
        return mailbox

    def _select(self, command: Command) -> None:
        named, wants_modseq, since = condstore.selection(command.arguments)
        words = tokens(named)
        if len(words) != 1:
            raise BadSyntax(f"{command.name} takes a mailbox")
        if (wants_modseq and "CONDSTORE" not in self.capabilities.split()) or (since and not self._tells_vanished):
            raise BadSyntax("not without CONDSTORE")
        if self.mailbox is not None:
            self.say("* OK [CLOSED] the former one")
        self._deselect()
        mailbox = self._mailbox_named(words[0])
        if r"\Noselect" in mailbox.attributes:
            raise _Refusal("NO [CANNOT] not selectable")
        self.mailbox, self.is_read_only = mailbox, command.name == "EXAMINE"
        self._view = [_Seen(message, message.flags) for message in mailbox.messages]
        self._tells_modseq |= wants_modseq
        self._describe(mailbox)
        if since is not None and since[0] == self.server.uidvalidity(mailbox, "SELECT"):
            self._resynchronize(mailbox, since[1])
        self.complete(command.tag, "OK [READ-ONLY] done" if self.is_read_only else "OK [READ-WRITE] done")

    def _describe(self, mailbox: Mailbox) -> None:
        permanent = "" if self.is_read_only else _FLAGS + r" \*"
        self.say(f"* FLAGS ({_FLAGS})")
        self.say(f"* OK [PERMANENTFLAGS ({permanent})] flags")
        self._say_exists(mailbox)
        self.say("* 0 RECENT")
        for code, value in (
            ("UIDVALIDITY", self.server.uidvalidity(mailbox, "SELECT")),
            ("UIDNEXT", self.server.uidnext(mailbox, "SELECT")),
        ):
            if value is not None:
                self.say(f"* OK [{code} {value}] said")

        if self._tells_modseq:
            self._say_modseq(mailbox)

    def _say_modseq(self, mailbox: Mailbox) -> None:
        modseq = self.server.modseq(mailbox)
        if modseq is not None:
            self.say(f"* OK [HIGHESTMODSEQ {modseq}] highest")
        elif self.server.highestmodseq == "NOMODSEQ":
            self.say("* OK [NOMODSEQ] not here")

    def _resynchronize(self, mailbox: Mailbox, since: int) -> None:
        if told := condstore.vanished(self.server, mailbox, since, range(1, mailbox.uidnext)):
            self.say(told)
        for number, seen in enumerate(self._view, 1):
            message = seen.message
            if message.modseq > since and message.uid not in self.server.lost_changes:
                flags = spell_flags(message.flags)
                self.say(f"* {number} FETCH (UID {message.uid} FLAGS {flags} MODSEQ ({message.modseq}))")

    def _deselect(self) -> None:
        self.mailbox = None
        self._view = []
        self._is_mailbox_lost = False

    def _close(self, command: Command) -> None:
        self._deselect()
        self.complete(command.tag, "OK done")

    def _status(self, command: Command) -> None:
        words = tokens(command.arguments)
        if len(words) < 4 or words[1] != "(" or words[-1] != ")":
            raise BadSyntax("STATUS takes a mailbox and a list")
        self._say_status(self._mailbox_named(words[0]), words[2:-1])
        self._finish(command)

    def _say_status(self, mailbox: Mailbox, items: Iterable[str]) -> None:
        server, messages = self.server, mailbox.messages
        known = {
            "MESSAGES": len(messages),
            "UIDNEXT": server.uidnext(mailbox, "STATUS"),
            "UIDVALIDITY": server.uidvalidity(mailbox, "STATUS"),
            "RECENT": 0,
            "HIGHESTMODSEQ": server.modseq(mailbox),
            "MAILBOXID": f"({mailbox.object_id})" if "OBJECTID" in self.capabilities.split() else None,
            "UNSEEN": sum(r"\Seen" not in message.flags for message in messages),
            "SIZE": sum(len(message.raw) for message in messages),
        }
        wanted = [item.upper() for item in items]
        if unknown := set(wanted) - set(known):
            raise BadSyntax(f"unknown STATUS items {sorted(unknown)}")
        told = " ".join(f"{item} {known[item]}" for item in wanted if known[item] is not None)
        self.say(f"* STATUS {server.spell_name(mailbox)} ({told})")

    def _list(self, command: Command) -> None:
        body, *options = re.split(r" RETURN ", command.arguments, maxsplit=1, flags=re.IGNORECASE)
        words = tokens(body)
        selection: list[str] = []
        if words[:1] == ["("] and ")" in words:
            end = words.index(")")
            selection, words = words[1:end], words[end + 1 :]
        if len(words) < 2:
            raise BadSyntax("LIST takes a reference and a pattern")
        if words == ["", ""]:
            self.say(rf'* LIST (\Noselect) {self._spelled_delimiter()} ""')
        status = re.search(r"STATUS \(([^)]*)\)", "".join(options), re.IGNORECASE)
        only_special = "SPECIAL-USE" in map(str.upper, selection)
        patterns = [words[0] + word for word in words[1:] if word not in {"(", ")"}]
        for mailbox in self._listed(patterns, only_special=only_special):
            self._say_list(mailbox)
            if status and r"\Noselect" not in mailbox.attributes:
                self._say_status(mailbox, status[1].split())
        self._finish(command)

    def _listed(self, patterns: Sequence[str], *, only_special: bool) -> list[Mailbox]:
        delimiter = self.server.delimiter
        return [
            mailbox
            for mailbox in self.server.mailboxes(self.user or "").values()
            if any(matches_pattern(mailbox.name, pattern, delimiter) for pattern in patterns)
            and (not only_special or _SPECIAL_USES.intersection(mailbox.attributes))
        ]

    def _say_list(self, mailbox: Mailbox) -> None:
        attributes = " ".join(mailbox.attributes)
        self.say(f"* LIST ({attributes}) {self._spelled_delimiter()} {self.server.spell_name(mailbox)}")

    def _spelled_delimiter(self) -> str:
        return quoted(self.server.delimiter) if self.server.delimiter else "NIL"

    # IDLE

    def _begin_idle(self, command: Command) -> None:
        server = self.server
        if server.idle in {"NO", "BAD"}:
            raise _Refusal(f"{server.idle} IDLE is not for you")
        self._idle = _Idle(command.tag)
        if server.idle == "mute":
            return
        if server.pushes_before_confirming and server.pushes == "at once":
            self._tell()
        self.say("+ idling")
        self._idle.is_confirmed = True
        if server.pass_point("in IDLE", self, command.tag):
            self.push()
            self._start_idle_timers(self._idle)

    def _start_idle_timers(self, idle: _Idle) -> None:
        server = self.server
        if server.keepalive is not None:
            self._keep_alive(idle, server.keepalive)
        if server.idle_ends_after is not None:
            idle.timers["end"] = self._loop.call_later(server.idle_ends_after, self._end_idle, "OK enough")
        if server.idle_cut_after is not None:
            idle.timers["cut"] = self._loop.call_later(server.idle_cut_after, self.end, server.idle_cut_how)

    def _keep_alive(self, idle: _Idle, seconds: float) -> None:
        def still_here() -> None:
            self.say("* OK Still here")
            self._keep_alive(idle, seconds)

        idle.timers["keepalive"] = self._loop.call_later(seconds, still_here)

    def _take_done(self, idle: _Idle, line: str) -> None:
        if line.upper() != "DONE":
            self._end_idle("BAD expected DONE")
            return
        if not self._begin(Command(self._loop.time(), self.number, idle.tag, "DONE", "", len(line) + 2)):
            return
        if self.server.pushes != "never":
            self._tell()
        self._end_idle("OK idle over")

    def _end_idle(self, text: str) -> None:
        idle = self._idle
        if idle is None:
            return
        self._stop_timers()
        self._idle = None
        if self.server.done != "mute":
            self.complete(idle.tag, text)
        self.server.stir()

    def _stop_timers(self) -> None:
        if self._idle:
            for timer in self._idle.timers.values():
                timer.cancel()

    # FETCH and SEARCH

    def _named(self, spelled: str, *, by_uid: bool) -> list[int]:
        """Return the indices in the view that a sequence-set names."""
        numbers = [seen.message.uid for seen in self._view] if by_uid else list(range(1, len(self._view) + 1))
        return indices_of(parse_numbers(spelled, numbers[-1] if numbers else 0), numbers)

    def _fetch(self, command: Command) -> None:
        by_uid = command.name == "UID FETCH"
        spelled, _, wanted = command.arguments.partition(" ")
        wanted, since, wants_vanished = condstore.modifiers(wanted)
        items = parse_items(wanted)
        if self.server.structure != "yes" and any(item.name == "BODYSTRUCTURE" for item in items):
            self.complete(command.tag, f"{self.server.structure} there is no BODYSTRUCTURE here")
            return
        if wants_vanished and not (by_uid and self._tells_vanished):
            raise BadSyntax("VANISHED needs UID FETCH and QRESYNC")
        if since is not None or any(item.name == "MODSEQ" for item in items):
            if "CONDSTORE" not in self.capabilities.split():
                raise BadSyntax("there are no mod-sequences here")
            self._tells_modseq = True
        if since is not None and not any(item.name == "MODSEQ" for item in items):
            items = [*items, Item("MODSEQ")]
        if by_uid and not any(item.name == "UID" for item in items):
            items = [Item("UID"), *items]
        if self.server.structure_early:
            items = sorted(items, key=lambda item: (item.name != "UID", item.name != "BODYSTRUCTURE"))
        indices = self._named(spelled, by_uid=by_uid)
        if since is not None:
            lost = self.server.lost_changes
            messages = [(index, self._view[index].message) for index in indices]
            indices = [index for index, one in messages if one.modseq > since and one.uid not in lost]
        indices, limited = self._limited(indices)
        if self.server.fetch_order == "down":
            indices.reverse()
        self.send(self.server.fetch_noise)
        if since is not None and wants_vanished and self.mailbox is not None:
            first, last = parse_numbers(spelled, self.mailbox.uidnext)[0]
            if told := condstore.vanished(self.server, self.mailbox, since, range(first, last + 1)):
                self.say(told)
        code = ""
        for index in indices:
            code = self._answer_fetch(index, items) or code
            if self.is_deaf or (index == indices[0] and not self.server.pass_point("in FETCH", self, command.tag)):
                return
        self._finish(command, code or limited)

    def _limited(self, indices: list[int]) -> tuple[list[int], str]:
        """Return the messages that one command is carried out for, and the code that says so (RFC 9738)."""
        server, limit = self.server, self.server.message_limit
        if limit is None or len(indices) <= limit:
            return indices, ""
        if server.over_limit == "NO":
            raise _Refusal(f"NO [MESSAGELIMIT {limit}] too many messages")
        kept = indices[-limit:] if server.over_limit == "newest" else indices[:limit]
        last = kept[0] if server.over_limit == "newest" else kept[-1]
        return kept, f"[MESSAGELIMIT {limit} {self._view[last].message.uid}] "

    def _answer_fetch(self, index: int, items: Sequence[Item]) -> str:
        """Send one message's answer, and return the response code that the completion must carry for it."""
        server, seen = self.server, self._view[index]
        message = seen.message
        has_body = any(item.section is not None for item in items)
        if has_body:
            self._swallow(message)
        if message.uid in server.omitted_uids or (message.is_expunged and server.expunged_body == "omitted"):
            return ""
        if not self.is_read_only and any(item.sets_seen for item in items):
            self._mark_seen(message)
        if any(item.name == "FLAGS" for item in items):
            seen.flags = message.flags
        spelled = b" ".join(spell_item(server, item, message) for item in items)
        word = b"fetch" if server.lower_case else b"FETCH"
        for _ in range(2 if server.fetch_twice else 1):
            self.send(b"* %d %s (%s)\r\n" % (index + 1, word, spelled))
        is_told = message.is_expunged and has_body and server.expunged_body in {"nil", "empty"}
        return "[EXPUNGEISSUED] " if is_told else ""

    def _swallow(self, message: Message) -> None:
        """Do what asking for the body of a poison message does."""
        effect = self.server.poison.get(message.uid)
        if effect == "cut":
            self.end("reset")
        elif effect:
            raise _Refusal(f"{effect} [SERVERBUG] cannot read a message")

    def _mark_seen(self, message: Message) -> None:
        if r"\Seen" not in message.flags:
            message.flags |= {r"\Seen"}
            self.server.changes_by_clients.append(f"UID {message.uid} became \\Seen by a FETCH without PEEK")

    def _search(self, command: Command) -> None:
        words = tokens(command.arguments)
        options: list[str] | None = None
        if len(words) > 2 and words[0].upper() == "RETURN" and ")" in words:
            end = words.index(")")
            options, words = [word.upper() for word in words[2:end]] or ["ALL"], words[end + 1 :]
        if words and words[0].upper() == "CHARSET":
            words = words[2:]
        by_uid = command.name == "UID SEARCH"
        indices, limited = self._limited(self._matching(words))
        numbers = [self._view[index].message.uid if by_uid else index + 1 for index in indices]
        if options is None:
            self.say("* SEARCH" + "".join(f" {number}" for number in numbers))
        else:
            self.say(_spell_esearch(command, options, numbers))
        self._finish(command, limited)

    def _matching(self, words: Sequence[str]) -> list[int]:
        """Return the indices in the view that all search keys match."""
        found = set(range(len(self._view)))
        rest = iter(words)
        for key in map(str.upper, rest):
            if key == "UID":
                found &= set(self._named(next(rest, ""), by_uid=True))
            elif key in _SEARCH_FLAGS:
                flag, has = _SEARCH_FLAGS[key]
                found = {index for index in found if (flag in self._view[index].message.flags) is has}
            elif key[:1].isdigit() or key[:1] == "*":
                found &= set(self._named(key, by_uid=False))
            elif key != "ALL":
                raise BadSyntax(f"unknown search key {key}")
        return sorted(found)


def _spell_esearch(command: Command, options: Iterable[str], numbers: Sequence[int]) -> str:
    """Spell RFC 4731's answer: what is empty is left out, but for the count."""
    told = [f'* ESEARCH (TAG "{command.tag}")']
    if command.name == "UID SEARCH":
        told.append("UID")
    for option in options:
        match option:
            case "COUNT":
                told.append(f"COUNT {len(numbers)}")
            case "ALL" if numbers:
                told.append(f"ALL {spell_numbers(numbers)}")
            case "MIN" | "MAX" if numbers:
                told.append(f"{option} {numbers[0 if option == 'MIN' else -1]}")
    return " ".join(told)


_COMMANDS: Final[Mapping[str, tuple[str, Callable[[Session, Command], None]]]] = {
    "CAPABILITY": ("any", Session._capability),
    "NOOP": ("any", Session._noop),
    "ID": ("any", Session._id),
    "LOGOUT": ("any", Session._logout),
    "STARTTLS": ("out", Session._starttls),
    "LOGIN": ("out", Session._login),
    "AUTHENTICATE": ("out", Session._authenticate),
    "ENABLE": ("in", Session._enable),
    "COMPRESS": ("in", Session._compress),
    "NAMESPACE": ("in", Session._namespace),
    "SELECT": ("in", Session._select),
    "EXAMINE": ("in", Session._select),
    "STATUS": ("in", Session._status),
    "NOTIFY": ("in", Session._notify),
    "LIST": ("in", Session._list),
    "IDLE": ("in", Session._begin_idle),
    "CHECK": ("selected", Session._noop),
    "CLOSE": ("selected", Session._close),
    "UNSELECT": ("selected", Session._close),
    "FETCH": ("selected", Session._fetch),
    "UID FETCH": ("selected", Session._fetch),
    "SEARCH": ("selected", Session._search),
    "UID SEARCH": ("selected", Session._search),
}
