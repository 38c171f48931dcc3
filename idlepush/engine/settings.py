"""What the engine is told: each account's settings, and the limits all accounts share."""

import ipaddress
import re
from difflib import get_close_matches
from typing import Annotated, Final, Literal

from pydantic import (
    AfterValidator,
    Field,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic.config import JsonDict
from pydantic_core import PydanticCustomError

from idlepush.engine.credentials import SecretSource
from idlepush.store.quantities import Duration, Size
from idlepush.store.settings import Bodies, FilePath, Settings

Tls = Literal["implicit", "starttls", "none"]
Auth = Literal["password", "xoauth2", "oauthbearer"]

ACCOUNT_NAME: Final = re.compile(r"[A-Za-z0-9_@+][A-Za-z0-9._@+-]{0,127}")
LONGEST_IDLE: Final = 29 * 60.0  # RFC 2177: a server may log out a client that is silent for 30 minutes

# RFC 6154 and 8457, and what else the IANA registry calls a special use.
_SPECIAL_USES: Final = {
    f"\\{use}".casefold(): f"\\{use}"
    for use in (
        *("All", "Archive", "Drafts", "Flagged", "Important", "Inbox"),
        *("Junk", "Memos", "Scheduled", "Sent", "Snoozed", "Trash"),
    )
}


def is_loopback(host: str) -> bool:
    """Tell whether what is sent to *host* stays on this machine, without asking the resolver."""
    if host.rstrip(".").casefold() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def parse_host(text: str) -> str:
    """Return the host name or address alone, an IPv6 address without its brackets.

    Raises:
        ValueError: it is neither; the sentence says what to write instead.
    """
    if "://" in text:
        raise ValueError('expected the host alone, without a scheme, like "imap.example.org"')
    host = text[1:-1] if ":" in text and text.startswith("[") and text.endswith("]") else text
    if ":" in host:
        try:
            return str(ipaddress.IPv6Address(host))
        except ValueError:
            raise ValueError('expected the host alone, like "imap.example.org"; the port is a key of its own') from None
    # Whitespace and controls would reach a log line or a command line; the others never occur in a name or an address.
    if not host or len(host) > 253 or not host.isprintable() or any(letter in ' /\\@"<>[]' for letter in host):
        raise ValueError('expected a host name or address, like "imap.example.org"')
    return host


def parse_endpoint(text: str, default_port: int) -> tuple[str, int]:
    """Split `host`, `host:port`, `[v6]:port` or a bare IPv6 address.

    Raises:
        ValueError: it is none of them.
    """
    host, colon, port = text.rpartition(":")
    bracketed = text.startswith("[") and text.endswith("]")
    if not colon or bracketed or (":" in host and not host.startswith("[")):
        return parse_host(text), default_port
    if not re.fullmatch("[0-9]{1,5}", port) or not 1 <= int(port) <= 65535:
        raise ValueError('expected host:port with a port from 1 to 65535, like "imap.example.org:993"')
    return parse_host(host), int(port)


def _endpoint(text: str) -> str:
    parse_endpoint(text, 993)
    return text


def _account_name(name: str) -> str:
    if not ACCOUNT_NAME.fullmatch(name):
        raise ValueError("an account's name has 1 to 128 of A-Z a-z 0-9 . _ @ + - and begins with neither . nor -")
    return name


def _wire_text(text: str) -> str:
    """Accept what fits into one IMAP argument: RFC 9051 has no way to quote NUL, and no one means a line break."""
    if not text:
        raise ValueError("must not be empty")
    if any(ord(letter) < 32 or ord(letter) == 127 for letter in text):
        raise ValueError("must not hold line breaks or other control characters")
    return text


def _pattern(pattern: str) -> str:
    wanted = _wire_text(pattern).removeprefix("!")
    if not wanted:
        raise ValueError('"!" excludes the pattern behind it, like "!Archive/*"')
    if wanted.startswith("\\") and wanted.casefold() not in _SPECIAL_USES:
        near = get_close_matches(wanted.casefold(), _SPECIAL_USES, n=1)
        meant = f"; did you mean '{_SPECIAL_USES[near[0]]}'?" if near else ""
        raise ValueError(f"no special use of RFC 6154 has this name{meant}")
    return pattern


def _patterns(patterns: tuple[str, ...]) -> tuple[str, ...]:
    if not patterns:
        raise ValueError('must not be empty; all mailboxes are ["*"]')
    if all(pattern.startswith("!") for pattern in patterns):
        raise ValueError('only excludes, so nothing would be mirrored; begin with what is wanted, like ["*", "!Junk"]')
    return patterns


def _fingerprint(text: str) -> str:
    kind, colon, digits = text.partition(":")
    digits = digits.replace(":", "").lower()
    if kind.lower() != "sha256" or not colon or not re.fullmatch("[0-9a-f]{64}", digits):
        raise ValueError('expected "sha256:" and the 64 hexadecimal digits of the certificate\'s SHA-256')
    return f"sha256:{digits}"


def _idle_renew(seconds: float) -> float:
    if seconds > LONGEST_IDLE:
        raise ValueError('must be at most "29m": servers log out who is silent for 30 minutes (RFC 2177)')
    return seconds


def _without_default(schema: JsonDict) -> None:
    schema.pop("default", None)  # TOML has no null, and what None stands for depends on tls


class AccountSettings(Settings):
    """`[accounts.NAME]`, with `[defaults]` beneath it: one login at one server, and what to mirror of it.

    Durations are seconds. `port` is always set, and `endpoints` is what to dial. Two are equal when nothing in them
    differs, plain secrets included, so a reload knows which accounts to leave alone; what a referenced secret holds is
    no part of it.
    """

    name: Annotated[str, AfterValidator(_account_name)]
    enabled: bool = Field(default=True, description="Whether the account is mirrored at all.", examples=[True])
    host: Annotated[str, AfterValidator(parse_host)] | None = Field(
        default=None, description="The IMAP server.", examples=["imap.example.org"]
    )
    hosts: Annotated[tuple[Annotated[str, AfterValidator(_endpoint)], ...], Field(strict=False)] | None = Field(
        default=None,
        description="Several addresses of one server, in place of host: raced, the winner remembered.",
        examples=[["a.example.org:993", "b.example.org:993"]],
    )
    tls: Tls = Field(
        default="implicit",
        description='"none" is refused off loopback unless allow_plaintext = true.',
        examples=["implicit"],
    )
    port: Annotated[int, Field(ge=1, le=65535)] = Field(
        default=None,
        validate_default=True,
        description='993 for tls = "implicit", 143 otherwise.',
        examples=[993],
        json_schema_extra=_without_default,
    )
    tls_ca: FilePath | None = Field(
        default=None, description="A PEM file of extra trust for this account.", examples=["ca.pem"]
    )
    tls_fingerprint: Annotated[str, AfterValidator(_fingerprint)] | None = Field(
        default=None, description="Pins one certificate by its SHA-256.", examples=["sha256:" + 32 * "ab"]
    )
    allow_plaintext: bool = Field(
        default=False, description="Let the password cross the network unprotected.", examples=[False]
    )
    auth: Auth = Field(default="password", description="How to log in.", examples=["password"])
    username: Annotated[str, AfterValidator(_wire_text)] = Field(
        description="The login's name.", examples=["alice@example.org"]
    )
    password: SecretSource = Field(
        description="The password, or the token of xoauth2 and oauthbearer.", examples=[{"file": "alice.password"}]
    )
    mailboxes: Annotated[
        tuple[Annotated[str, AfterValidator(_pattern)], ...], Field(strict=False), AfterValidator(_patterns)
    ] = Field(
        default=("INBOX",),
        description='IMAP LIST patterns: "*" all levels, "%" one; special-use "\\\\Sent"; "!" excludes; '
        "the last match wins.",
        examples=[["INBOX"]],
    )
    connections: Annotated[int, Field(ge=1, le=100)] = Field(
        default=2, description="At most, for this account.", examples=[2]
    )
    idle_renew: Annotated[Duration, AfterValidator(_idle_renew)] = Field(
        default=240.0, description="IDLE is issued anew this often; never above 29m.", examples=["4m"]
    )
    proof_interval: Duration = Field(
        default=900.0, description="A silent push is noticed within this time.", examples=["15m"]
    )
    flags_interval: Duration = Field(
        default=900.0, description="Flags are compared this often where there is no CONDSTORE.", examples=["15m"]
    )
    audit_interval: Duration = Field(
        default=86_400.0,
        description="Everything in a mailbox is compared this often, whatever push and poll have told.",
        examples=["1d"],
    )
    poll_interval: Duration = Field(
        default=300.0, description="How often to look where nothing pushes.", examples=["5m"]
    )
    connect_timeout: Duration = Field(
        default=30.0, description="From dialing to the server's greeting.", examples=["30s"]
    )
    command_timeout: Duration = Field(
        default=60.0, description="How long a command may go without a byte.", examples=["60s"]
    )
    daily_bytes: Size = Field(
        default=0,
        description="After so much received in a day (UTC) older mail waits for the next, new mail never; 0: no bound.",
        examples=["2500MB"],
    )
    compress: bool | None = Field(
        default=None,
        description="COMPRESS=DEFLATE where the server offers it; unless said otherwise, on but for loopback.",
        examples=[True],
    )
    bodies: Bodies = Field(
        default="full", description="Mirror whole messages, or headers and structure.", examples=["full"]
    )
    max_message_bytes: Size = Field(
        default=50 * 1024**2,
        description="A larger message is mirrored by its headers and structure; 0 is no bound.",
        examples=["50MiB"],
    )

    maildir: FilePath | None = Field(
        default=None,
        description="A folder that is kept as a Maildir++ of this account, beside the mirror.",
        examples=["mail/alice"],
    )

    @field_validator("port", mode="before")
    @classmethod
    def _port_by_tls(cls, port: object, info: ValidationInfo) -> object:
        if port is not None:
            return port
        return 993 if info.data.get("tls", "implicit") == "implicit" else 143

    @model_validator(mode="after")
    def _reaches_a_server_safely(self) -> "AccountSettings":
        """Judge the keys together; an error names the key to change in `key`."""
        if self.host is not None and self.hosts is not None:
            raise _together("hosts", "either host or hosts, not both")
        if not self.host and not self.hosts:
            raise PydanticCustomError("together_missing", "either host or hosts is needed", {"key": "host"})
        in_clear = self.tls == "none" and not self.allow_plaintext
        if in_clear and any(not is_loopback(host) for host, _ in self.endpoints):
            raise _together(
                "tls",
                '"none" would send the password unprotected over the network; use "implicit" or "starttls", '
                "or say allow_plaintext = true",
            )
        return self

    @property
    def endpoints(self) -> tuple[tuple[str, int], ...]:
        """What to dial: one (host, port), or several to race."""
        if self.hosts is not None:
            return tuple(parse_endpoint(each, self.port) for each in self.hosts)
        assert self.host is not None
        return ((self.host, self.port),)


def _together(key: str, sentence: str) -> PydanticCustomError:
    return PydanticCustomError("together", "{sentence}", {"sentence": sentence, "key": key})


class LimitSettings(Settings):
    """`[limits]`: how hard all accounts together may knock at one host."""

    logins_per_second: Annotated[float, Field(ge=0, allow_inf_nan=False)] = Field(
        default=20.0, description="Per host; 0 is no bound.", examples=[20]
    )
    login_burst: Annotated[int, Field(ge=1)] = Field(
        default=20, description="Logins that need not wait after a quiet time.", examples=[20]
    )
