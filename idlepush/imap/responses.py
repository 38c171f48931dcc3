"""What a server says, as values: one class for each kind of response (RFC 9051 section 7)."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from idlepush.imap.types import Flags, MailboxName, ModSeq, Uid
from idlepush.imap.uidset import UidSet


class Status(StrEnum):
    """The first word of a status response."""

    OK = "OK"
    NO = "NO"
    BAD = "BAD"
    BYE = "BYE"
    PREAUTH = "PREAUTH"


@dataclass(frozen=True, slots=True)
class Code:
    """A response code: its name in capitals and what stands behind it, in its own type where it has one.

    UIDVALIDITY, UIDNEXT, UNSEEN, HIGHESTMODSEQ, MESSAGELIMIT: int. CAPABILITY, PERMANENTFLAGS: frozenset of str.
    All others: the text as it stands, or None where there is none. A value that is not what its name
    promises is kept as text, so that a broken code never costs the line it stands in.
    """

    name: str
    value: int | str | frozenset[str] | None = None


@dataclass(frozen=True, slots=True)
class Completion:
    """The tagged response: the end of a command."""

    tag: str
    status: Status
    code: Code | None
    text: str

    @property
    def is_cut(self) -> bool:
        """The command was not carried out for all messages it named (RFC 9738), whether it ends in OK or NO."""
        return self.code is not None and self.code.name == "MESSAGELIMIT"


@dataclass(frozen=True, slots=True)
class Continuation:
    """`+`: the server waits for more of the command."""

    text: bytes


@dataclass(frozen=True, slots=True)
class Condition:
    """An untagged OK, NO, BAD, BYE or PREAUTH."""

    status: Status
    code: Code | None
    text: str


@dataclass(frozen=True, slots=True)
class Capabilities:
    """CAPABILITY, in capitals."""

    names: frozenset[str]


@dataclass(frozen=True, slots=True)
class Enabled:
    """ENABLED (RFC 5161), in capitals."""

    names: frozenset[str]


@dataclass(frozen=True, slots=True)
class Exists:
    """The number of messages in the selected mailbox."""

    count: int


@dataclass(frozen=True, slots=True)
class Recent:
    """RECENT; read and ignored."""

    count: int


@dataclass(frozen=True, slots=True)
class Expunge:
    """A message is gone, by its sequence number; those above it count one less from here on."""

    number: int


@dataclass(frozen=True, slots=True)
class Vanished:
    """Messages are gone, by UID (RFC 7162 section 3.2.10)."""

    uids: UidSet
    earlier: bool


@dataclass(frozen=True, slots=True)
class BodySection:
    """One `BODY[section]<origin>` of a FETCH; `data` is None for NIL."""

    section: str
    origin: int | None
    data: bytes | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One part of a message that holds no parts itself, or a message inside one: what BODYSTRUCTURE says of it.

    `section` is what BODY[section] fetches it by; `type`, `encoding` and `disposition` are in lower case, the empty
    string where the server did not say. `size` is of the part as it is encoded. Parameters are octets under names in
    lower case: neither RFC 2231 nor RFC 2047 is decoded in them.
    """

    section: str
    type: str
    parameters: tuple[tuple[str, bytes], ...] = ()
    content_id: bytes | None = None
    encoding: str = ""
    size: int | None = None
    disposition: str = ""
    disposition_parameters: tuple[tuple[str, bytes], ...] = ()


@dataclass(frozen=True, slots=True)
class Structure:
    """BODYSTRUCTURE; where it is not `understood`, what the server sent is no structure, or not all of it is one."""

    parts: tuple[Part, ...]
    understood: bool = True


@dataclass(frozen=True, slots=True)
class Fetch:
    """FETCH: what the server says of one message; None where it said nothing.

    `flags` is None where FLAGS was not said, `bodies` is keyed by nothing: a section may come twice.
    `others` holds every item without a field of its own, by its name in capitals, as nested tuples of
    bytes, int and None.
    """

    number: int
    uid: Uid | None = None
    flags: Flags | None = None
    internal_date: datetime | None = None
    size: int | None = None
    modseq: ModSeq | None = None
    email_id: str | None = None
    thread_id: str | None = None
    save_date: datetime | None = None
    structure: Structure | None = None
    bodies: tuple[BodySection, ...] = ()
    others: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Search:
    """SEARCH or ESEARCH: what was found. A set of UIDs or of sequence numbers, as the command asked."""

    found: UidSet
    tag: str | None = None
    modseq: ModSeq | None = None
    count: int | None = None


@dataclass(frozen=True, slots=True)
class ListEntry:
    """LIST, LSUB or XLIST: one mailbox. Attributes are in lower case with their backslash."""

    attributes: frozenset[str]
    delimiter: str | None
    name: MailboxName
    old_name: MailboxName | None = None


@dataclass(frozen=True, slots=True)
class StatusReply:
    """STATUS: what was said of a mailbox that need not be selected; items by their name in capitals."""

    mailbox: MailboxName
    items: Mapping[str, int | str]


@dataclass(frozen=True, slots=True)
class MailboxFlags:
    """FLAGS: the flags defined in the selected mailbox; read and ignored."""

    flags: Flags


@dataclass(frozen=True, slots=True)
class ServerId:
    """ID (RFC 2971): field names in lower case."""

    fields: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Namespace:
    """NAMESPACE (RFC 2342): prefix and delimiter of the personal, other users' and shared namespaces."""

    personal: tuple[tuple[str, str | None], ...]
    others: tuple[tuple[str, str | None], ...]
    shared: tuple[tuple[str, str | None], ...]


@dataclass(frozen=True, slots=True)
class Unknown:
    """A well-formed untagged response that no part of idlepush reads; `name` in capitals."""

    name: str


Untagged = (
    Condition
    | Capabilities
    | Enabled
    | Exists
    | Recent
    | Expunge
    | Vanished
    | Fetch
    | Search
    | ListEntry
    | StatusReply
    | MailboxFlags
    | ServerId
    | Namespace
    | Unknown
)
Response = Completion | Continuation | Untagged
