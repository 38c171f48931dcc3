r"""Spelling commands (RFC 9051 section 6): every argument as it must be, so that none can end a command early.

A command is sent in parts. A part that ends in `{n}⏎` announces a literal, and the next one may be sent only once
the server has answered `+`; where LITERAL+ or LITERAL- allows it (RFC 7888), `{n+}` needs no answer and no cut.

What cannot be spelled is refused here, before a byte is sent: ValueError for what a person may have configured (a
NUL in a password), LocalProtocolError for what only a bug of ours can ask for (a range that goes backwards).
"""

import base64
import re
from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from idlepush.errors import LocalProtocolError
from idlepush.imap.types import MAX_UID, MailboxName, ModSeq, UidValidity, encode_mutf7
from idlepush.imap.uidset import UidSet

# The strictest server seen closes the connection above this (`faults.md`, Servers differ); literals do not count.
MAX_COMMAND: Final = 8192
LITERAL_MINUS_LIMIT: Final = 4096

DONE: Final = b"DONE\r\n"
CANCEL: Final = b"*\r\n"
"""Ends an AUTHENTICATE (RFC 9051 section 6.2.2)."""
EMPTY_ANSWER: Final = b"\r\n"
"""What OAuth's error challenge is answered with, to be told the NO (RFC 7628 section 3.2.3, for XOAUTH2 alike)."""


class Literals(StrEnum):
    """Which literals the server takes without being asked."""

    SYNC = "sync"  # none
    MINUS = "minus"  # LITERAL-: up to 4096 octets
    PLUS = "plus"  # LITERAL+: all

    @classmethod
    def offered(cls, capabilities: Container[str]) -> "Literals":
        """Return what a server with these takes (RFC 7888; IMAP4rev2 holds LITERAL-)."""
        if "LITERAL+" in capabilities:
            return cls.PLUS
        return cls.MINUS if "LITERAL-" in capabilities or "IMAP4REV2" in capabilities else cls.SYNC


@dataclass(frozen=True, slots=True, repr=False)
class Command:
    """A command without its tag, cut where the server must be waited for. `name` may be logged, `parts` may not."""

    name: str
    parts: tuple[bytes, ...]
    secret: bool = False

    def wire(self, tag: str) -> tuple[bytes, ...]:
        """Return the parts to send: the first at once, each other one behind a `+`."""
        if not _TAG.fullmatch(tag):
            raise LocalProtocolError(f"{tag!r} is no tag")
        return (f"{tag} ".encode("ascii") + self.parts[0], *self.parts[1:])

    def __repr__(self) -> str:
        if self.secret:
            return f"Command({self.name!r}, ***)"
        shown = b"".join(self.parts)
        return f"Command({self.name!r}, {shown[:100]!r}{'…' if len(shown) > 100 else ''})"


@dataclass(frozen=True, slots=True)
class Secret:
    """A line that must never be shown: the answer to AUTHENTICATE's `+`."""

    line: bytes = field(repr=False)


_TAG: Final = re.compile(r"[A-Za-z0-9]{1,32}")
_ATOM: Final = re.compile(r"[A-Za-z0-9=.$_/+-]{1,100}")
_ITEMS: Final = re.compile(r"[ !#-'()*+,./0-9:;<=>?@A-Z\[\]^_`a-z|~-]+")
_QUOTABLE: Final = re.compile(rb"[\x01-\x09\x0b\x0c\x0e-\x7f]*")

_Argument = bytes | tuple[bytes]
"""What is spelled already, or (in a tuple of one) a string that is not."""


def _compose(
    name: str,
    *arguments: _Argument,
    literals: Literals = Literals.SYNC,
    secret: bool = False,
) -> Command:
    parts: list[bytes] = []
    part = bytearray(name, "ascii")
    octets = 0  # of what was cut off, literals left out
    literal_octets = 0  # of the part at hand
    for argument in arguments:
        part += b" "
        if isinstance(argument, bytes):
            part += argument
            continue
        (string,) = argument
        if b"\0" in string:
            raise ValueError(f"an argument of {name} holds a NUL, which no IMAP string may")
        if _QUOTABLE.fullmatch(string):
            part += b'"' + string.replace(b"\\", b"\\\\").replace(b'"', b'\\"') + b'"'
            continue
        if literals is Literals.PLUS or (literals is Literals.MINUS and len(string) <= LITERAL_MINUS_LIMIT):
            part += b"{%d+}\r\n" % len(string)
        else:
            part += b"{%d}\r\n" % len(string)
            parts.append(bytes(part))
            octets += len(part) - literal_octets
            part, literal_octets = bytearray(), 0
        part += string
        literal_octets += len(string)
    part += b"\r\n"
    parts.append(bytes(part))
    octets += len(part) - literal_octets
    # The tag comes before it.
    if octets + 32 >= MAX_COMMAND:
        raise LocalProtocolError(f"a {name} of {octets} octets is longer than every server takes")
    return Command(name, tuple(parts), secret)


def _atom(word: str) -> bytes:
    if not _ATOM.fullmatch(word):
        raise LocalProtocolError(f"{word[:40]!r} is no atom")
    return word.encode("ascii")


def _list_of(words: Iterable[str]) -> bytes:
    return b"(" + b" ".join(map(_atom, words)) + b")"


# ---- any state


def capability() -> Command:
    """Ask what the server offers."""
    return _compose("CAPABILITY")


def noop() -> Command:
    """Ask for what is new; the only way to be told of expunges on some servers."""
    return _compose("NOOP")


def logout() -> Command:
    """Part in good terms."""
    return _compose("LOGOUT")


def id_(fields: Mapping[str, str] | None = None) -> Command:
    """Say who we are, and ask who the server is (RFC 2971); NIL where *fields* are none."""
    if not fields:
        return _compose("ID", b"NIL")
    spelled: list[bytes] = []
    for name, value in fields.items():
        for text, most in ((name, 30), (value, 1024)):
            octets = text.encode()
            if len(octets) > most or not (text.isascii() and text.isprintable()):
                raise ValueError(f"{text[:40]!r} cannot be said of ourselves by ID")
            spelled.append(b'"' + octets.replace(b"\\", b"\\\\").replace(b'"', b'\\"') + b'"')
    return _compose("ID", b"(" + b" ".join(spelled) + b")")


# ---- before login


def starttls() -> Command:
    """Ask for TLS; nothing may be sent behind it before the handshake, and nothing read behind its completion."""
    return _compose("STARTTLS")


def login(user: str, password: str, literals: Literals = Literals.SYNC) -> Command:
    """Log in with a password in clear text: under TLS only."""
    return _compose("LOGIN", (user.encode(),), (password.encode(),), literals=literals, secret=True)


def authenticate_plain(user: str, password: str, *, initial_response: bool) -> Command:
    """Log in by SASL PLAIN; without SASL-IR (RFC 4959) the answer to `+` is `plain_answer`."""
    return _authenticate("PLAIN", plain_answer(user, password) if initial_response else None)


def plain_answer(user: str, password: str) -> Secret:
    """Spell the message of RFC 4616."""
    if "\0" in user or "\0" in password:
        raise ValueError("a user name or password holds a NUL, which SASL PLAIN cannot say")
    return _encoded(f"\0{user}\0{password}")


def authenticate_xoauth2(user: str, token: str, *, initial_response: bool) -> Command:
    """Log in as Google and Microsoft do; without SASL-IR the answer to `+` is `xoauth2_answer`."""
    return _authenticate("XOAUTH2", xoauth2_answer(user, token) if initial_response else None)


def xoauth2_answer(user: str, token: str) -> Secret:
    """Spell Google's `user=…^Aauth=Bearer …^A^A`."""
    return _encoded(f"user={_oauth(user)}\1auth=Bearer {_oauth(token)}\1\1")


def authenticate_oauthbearer(user: str, host: str, port: int, token: str, *, initial_response: bool) -> Command:
    """Log in by RFC 7628; without SASL-IR the answer to `+` is `oauthbearer_answer`."""
    return _authenticate("OAUTHBEARER", oauthbearer_answer(user, host, port, token) if initial_response else None)


def oauthbearer_answer(user: str, host: str, port: int, token: str) -> Secret:
    """Spell the message of RFC 7628 section 3.1; `,` and `=` of a user name are escaped (RFC 5801 section 4)."""
    authzid = _oauth(user).replace("=", "=3D").replace(",", "=2C")
    return _encoded(f"n,a={authzid},\1host={_oauth(host)}\1port={port}\1auth=Bearer {_oauth(token)}\1\1")


def _oauth(text: str) -> str:
    if any(character < " " for character in text):
        raise ValueError("a user name, host or token holds a control character, which OAuth's message cannot")
    return text


def _encoded(message: str) -> Secret:
    return Secret(base64.b64encode(message.encode()) + b"\r\n")


def _authenticate(mechanism: str, initial: Secret | None) -> Command:
    if initial is None:
        return _compose("AUTHENTICATE", mechanism.encode("ascii"))
    return _compose("AUTHENTICATE", mechanism.encode("ascii"), initial.line.removesuffix(b"\r\n"), secret=True)


# ---- after login


def enable(*names: str) -> Command:
    """Switch extensions on (RFC 5161); only what ENABLED then names is on."""
    if not names:
        raise LocalProtocolError("ENABLE needs a name")
    return _compose("ENABLE", *map(_atom, names))


def compress() -> Command:
    """Compress both directions from the completion on (RFC 4978)."""
    return _compose("COMPRESS", b"DEFLATE")


def examine(
    mailbox: MailboxName,
    *,
    condstore: bool = False,
    qresync: tuple[UidValidity, ModSeq] | None = None,
    literals: Literals = Literals.SYNC,
) -> Command:
    """Select *mailbox* without changing it; with *qresync*, be told at once what changed since (RFC 7162)."""
    parameters: list[_Argument] = []
    if qresync is not None:
        uidvalidity, modseq = qresync
        if not 1 <= uidvalidity <= MAX_UID:
            raise LocalProtocolError(f"{uidvalidity} is no UIDVALIDITY")
        # CONDSTORE is implied.
        parameters.append(b"(QRESYNC (%d %d))" % (uidvalidity, _since(modseq)))
    elif condstore:
        parameters.append(b"(CONDSTORE)")
    return _compose("EXAMINE", (mailbox.raw,), *parameters, literals=literals)


def status(mailbox: MailboxName, items: Iterable[str], *, literals: Literals = Literals.SYNC) -> Command:
    """Ask for numbers of a mailbox that is not selected."""
    return _compose("STATUS", (mailbox.raw,), _list_of(items), literals=literals)


def list_(
    reference: str | bytes,
    *patterns: str | bytes,
    status_items: Iterable[str] = (),
    special_use: bool = False,
    literals: Literals = Literals.SYNC,
) -> Command:
    """Ask which mailboxes there are; with *status_items* also for their numbers (LIST-STATUS, RFC 5819).

    With *special_use* also for what each is for (RFC 6154): servers with LIST-EXTENDED need not say so unasked.

    Text is spelled in modified UTF-7, octets are taken as they are. More than one pattern needs LIST-EXTENDED.
    """
    if not patterns:
        raise LocalProtocolError("LIST needs a pattern")
    arguments: list[_Argument] = [(_in_mutf7(reference),)]
    if len(patterns) == 1:
        arguments.append((_in_mutf7(patterns[0]),))
    else:
        arguments.append(_quoted_list(map(_in_mutf7, patterns)))
    asked = tuple(status_items)
    options = [b"SPECIAL-USE"] * special_use + ([b"STATUS " + _list_of(asked)] if asked else [])
    if options:
        arguments.append(b"RETURN (" + b" ".join(options) + b")")
    return _compose("LIST", *arguments, literals=literals)


def notify(mailboxes: Iterable[MailboxName], events: Iterable[str], *, names: bool) -> Command:
    """Be told of *events* in *mailboxes*, and of their numbers now (NOTIFY SET STATUS, RFC 5465); of none: no more.

    *names*: also of mailboxes that are made, renamed or deleted. A name that cannot be quoted is left out; where the
    rest is longer than a command may be, all personal mailboxes are meant. The selected one is told of as always.
    """
    told = [mailbox.raw for mailbox in mailboxes if _QUOTABLE.fullmatch(mailbox.raw)]
    if not told:
        return _compose("NOTIFY", b"NONE")
    asked = _list_of(events)
    # Delayed: what is expunged is told where RFC 9051 allows it, and shifts no number that a command in flight names.
    groups = [b"(SELECTED-DELAYED " + asked + b")"]
    listed = _quoted_list(told)
    if len(listed) < MAX_COMMAND - 500:
        groups.append(b"(MAILBOXES " + listed + b" " + asked + b")")
        groups += [b"(PERSONAL (MailboxName))"] * names
    else:
        groups.append(b"(PERSONAL " + (asked[:-1] + b" MailboxName)" if names else asked) + b")")
    return _compose("NOTIFY", b"SET STATUS", *groups)


def _in_mutf7(name: str | bytes) -> bytes:
    return encode_mutf7(name) if isinstance(name, str) else name


def _quoted_list(strings: Iterable[bytes]) -> bytes:
    quoted: list[bytes] = []
    for string in strings:
        if not _QUOTABLE.fullmatch(string):
            raise ValueError("a mailbox pattern beside others holds octets that cannot be quoted")
        quoted.append(b'"' + string.replace(b"\\", b"\\\\").replace(b'"', b'\\"') + b'"')
    return b"(" + b" ".join(quoted) + b")"


# ---- with a mailbox selected


def uid_fetch(
    uids: UidSet | str,
    items: str,
    *,
    changed_since: ModSeq | None = None,
    vanished: bool = False,
) -> Command:
    """Ask for *items* of *uids* (a set, or a spelling of `UidSet.spelled`).

    With *changed_since* only for those changed since (CONDSTORE), with *vanished* also for those gone (QRESYNC).
    """
    modifiers: list[bytes] = []
    if changed_since is not None:
        modifiers.append(b"(CHANGEDSINCE %d%s)" % (_since(changed_since), b" VANISHED" if vanished else b""))
    elif vanished:
        raise LocalProtocolError("VANISHED needs CHANGEDSINCE (RFC 7162 section 3.2.6)")
    return _compose("UID FETCH", _sequence(uids), _fetch_items(items), *modifiers)


def fetch(numbers: UidSet | str, items: str) -> Command:
    """Ask for *items* by sequence numbers: only for what a push named so."""
    return _compose("FETCH", _sequence(numbers), _fetch_items(items))


def uid_search(uids: UidSet | str | None = None, *, esearch: bool) -> Command:
    """Ask which of *uids* are there, or which are there at all; as ranges where ESEARCH (RFC 4731) is offered."""
    arguments: list[bytes] = [b"RETURN (ALL)"] if esearch else []
    arguments += [b"ALL"] if uids is None else [b"UID", _sequence(uids)]
    return _compose("UID SEARCH", *arguments)


def idle() -> Command:
    """Wait for news (RFC 2177); ended by DONE alone."""
    return _compose("IDLE")


def _since(modseq: ModSeq) -> int:
    # `CHANGEDSINCE 0` is BAD (`sync.md`, Plan).
    if not 1 <= modseq < 2**63:
        raise LocalProtocolError(f"{modseq} is no mod-sequence to ask from")
    return modseq


_SPELLED_SET: Final = re.compile(r"[1-9][0-9]{0,9}(?::[1-9][0-9]{0,9})?(?:,[1-9][0-9]{0,9}(?::[1-9][0-9]{0,9})?)*+")


def _sequence(numbers: UidSet | str) -> bytes:
    """Spell a set. Checked once more: `4:3` means 3:4 to a server, and `1:0` or `4294967296:…` everything."""
    spelled = str(numbers)
    if not _SPELLED_SET.fullmatch(spelled):
        raise LocalProtocolError(f"{spelled[:40]!r} is no set to ask for")
    for part in spelled.split(","):
        first, colon, last = part.partition(":")
        if int(first) > int(last or first) or int(last or first) > MAX_UID or (colon and not last):
            raise LocalProtocolError(f"the range {part} cannot be asked for")
    return spelled.encode("ascii")


def _fetch_items(items: str) -> bytes:
    # No line end, no quote and no brace: items cannot end the command, nor announce a literal.
    if not _ITEMS.fullmatch(items):
        raise LocalProtocolError(f"{items[:40]!r} are no items to ask for")
    return (items if items.startswith("(") else f"({items})").encode("ascii")
