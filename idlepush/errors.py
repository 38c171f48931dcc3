"""Every exception idlepush raises, sorted by what the supervisor does about it.

IdlepushError
├── Trouble                  an account's session cannot go on: back off by its class, try again
│   ├── ConnectionLost         EOF, BYE, reset, refused, unknown host                      network
│   ├── TimedOut               a deadline passed                                           timeout
│   │   └── IdleTimedOut         … in the IDLE exchange: IDLE is distrusted, too
│   ├── TlsFailed              the certificate or the handshake was not good               tls
│   ├── RemoteProtocolError    the server broke the RFC; the connection is of no more use  protocol
│   ├── Refused                NO or BAD to a command                                      by its code
│   ├── AuthenticationFailed   the credentials are wrong: park after a few tries           authentication
│   ├── SecretUnreadable       the secret's source failed: park until it changes           authentication
│   └── MailboxUnavailable     this mailbox cannot be examined; the others can             permission
├── StoreError               the store cannot be opened, read or written; nobody's account is to blame
│   ├── StoreLocked            another service owns it
│   ├── StoreFull              the disk is full: stop fetching, try again until there is space
│   └── StaleGeneration        the mailbox was reset while its changes were on their way: look again
├── SinkFailed               a sink cannot take events now: it waits, and begins again; the mirror goes on
├── ConfigError              the configuration is missing, unreadable or wrong: exit 2
├── InvalidQuery             what somebody searches for makes no sense: exit 2, or 400
└── LocalProtocolError       we broke the RFC: a bug of ours

No message, argument or repr of these ever holds a secret or a whole command line.
"""

from enum import StrEnum
from typing import ClassVar


class FailureClass(StrEnum):
    """Why an account is in trouble, as `contract.md` names it to the outside."""

    AUTHENTICATION = "authentication"
    TIMEOUT = "timeout"
    NETWORK = "network"
    PERMISSION = "permission"
    RATE_LIMIT = "rate_limit"
    TLS = "tls"
    PROTOCOL = "protocol"
    CAPACITY = "capacity"
    OTHER = "other"


class IdlepushError(Exception):
    """The root; `str()` of it is one readable sentence."""


class Trouble(IdlepushError):
    """An account's session cannot go on; the supervisor backs off by the class."""

    default_class: ClassVar[FailureClass] = FailureClass.OTHER

    def __init__(self, sentence: str, *, failure_class: FailureClass | None = None) -> None:
        super().__init__(sentence)
        self.failure_class = failure_class or self.default_class


class ConnectionLost(Trouble):
    """The connection could not be made or is gone."""

    default_class = FailureClass.NETWORK


class TimedOut(Trouble):
    """The other side did not answer within its deadline."""

    default_class = FailureClass.TIMEOUT


class IdleTimedOut(TimedOut):
    """The server did not confirm IDLE, or its end."""


class TlsFailed(Trouble):
    """TLS could not be established or trusted; no secret was sent."""

    default_class = FailureClass.TLS


class RemoteProtocolError(Trouble):
    """The server broke the RFC in a way that leaves the stream without meaning."""

    default_class = FailureClass.PROTOCOL


class Refused(Trouble):
    """The server answered a command with NO or BAD.

    `command` is the command's name alone, `code` the response code's name in capitals or None; `is_bad`: it was BAD.
    """

    def __init__(
        self,
        sentence: str,
        *,
        command: str,
        code: str | None = None,
        is_bad: bool = False,
        failure_class: FailureClass | None = None,
    ) -> None:
        super().__init__(sentence, failure_class=failure_class)
        self.command = command
        self.code = code
        self.is_bad = is_bad


class AuthenticationFailed(Trouble):
    """The server does not take these credentials."""

    default_class = FailureClass.AUTHENTICATION


class SecretUnreadable(Trouble):
    """The secret's file, variable, command, credential or keyring entry gave nothing."""

    default_class = FailureClass.AUTHENTICATION


class MailboxUnavailable(Trouble):
    """EXAMINE or STATUS of one mailbox was refused; the connection and the others live on."""

    default_class = FailureClass.PERMISSION


class StoreError(IdlepushError):
    """The store cannot do what it was asked."""


class StoreLocked(StoreError):
    """Another service owns the store."""


class StoreFull(StoreError):
    """There is no space for a commit; nothing of it was written."""


class StaleGeneration(StoreError):
    """The commit was made for a generation that is not the mailbox's current one."""


class SinkFailed(IdlepushError):
    """A sink could not take what it was given."""


class InvalidQuery(IdlepushError):
    """What somebody searches for cannot be looked for; the sentence says what to write instead."""


class ConfigError(IdlepushError):
    """The configuration is missing, unreadable or wrong."""


class LocalProtocolError(IdlepushError):
    """We did what the RFC forbids here: a bug of ours."""
