"""Dial: the one place where a socket is opened, tuned, and where its troubles are put into words."""

import asyncio
import contextlib
import socket
import ssl
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Final, Protocol, runtime_checkable

import anyio
import anyio.lowlevel
import anyio.to_thread

from idlepush.errors import ConnectionLost, IdlepushError, TimedOut, TlsFailed

NEXT_ADDRESS: Final = 5.0
MOST_ADDRESSES: Final = 8
"""Of one host: more are a mistake, or somebody's trick to keep us busy."""
_KEEPALIVE: Final = (("TCP_KEEPIDLE", 60), ("TCP_KEEPINTVL", 15), ("TCP_KEEPCNT", 4), ("TCP_USER_TIMEOUT", 120_000))


LOOKUPS: Final = 512
"""Names looked up at the same time."""
_lookups: anyio.lowlevel.RunVar[anyio.CapacityLimiter] = anyio.lowlevel.RunVar("idlepush.lookups")


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where to dial, and whom to trust there. `pin` is `sha256:…` or None; `context` None: no TLS at all.

    `compress`: COMPRESS=DEFLATE is worth its time there, where it is offered.
    """

    host: str
    port: int
    context: ssl.SSLContext | None
    starttls: bool = False
    pin: str | None = None
    compress: bool = True

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"


class Dial(Protocol):
    """How a connection is made: the one place where a socket is opened, a parameter for tests."""

    def __call__(
        self, protocol: Callable[[], asyncio.Protocol], endpoint: Endpoint
    ) -> Awaitable[tuple[asyncio.Transport, asyncio.Protocol]]:
        """Connect *protocol* to *endpoint*, with TLS unless it is to be started later."""
        ...


async def dial_tcp(
    protocol: Callable[[], asyncio.Protocol], endpoint: Endpoint
) -> tuple[asyncio.Transport, asyncio.Protocol]:
    """Dial over TCP: the host's addresses one after the other, none but the last for longer than `NEXT_ADDRESS`.

    uvloop knows no happy eyeballs (RFC 8305), so a dead IPv6 route costs that long, not the whole timeout.
    """
    loop = asyncio.get_running_loop()
    addresses = await resolve(endpoint.host)
    context = None if endpoint.starttls else endpoint.context
    for number, address in enumerate(addresses, start=1):
        with contextlib.suppress(*(() if number == len(addresses) else (OSError, TimeoutError))):
            async with asyncio.timeout(None if number == len(addresses) else NEXT_ADDRESS):
                return await loop.create_connection(
                    protocol, address, endpoint.port, ssl=context, server_hostname=endpoint.host if context else None
                )
    raise ConnectionLost(f"{endpoint}: the host has no address")


async def resolve(host: str) -> list[str]:
    """Return *host*'s addresses, at most `MOST_ADDRESSES`, in the order the system prefers.

    getaddrinfo blocks, for half a minute where name servers are dead: lookups have threads of their own, so many that
    hundreds of accounts with dead names leave some for the others, and who gives up does not wait for his.

    Raises:
        socket.gaierror: there is none.
    """
    lookup = partial(socket.getaddrinfo, host, None, type=socket.SOCK_STREAM)
    try:
        limiter = _lookups.get()
    except LookupError:
        limiter = anyio.CapacityLimiter(LOOKUPS)
        _lookups.set(limiter)
    found = await anyio.to_thread.run_sync(lookup, abandon_on_cancel=True, limiter=limiter)
    return list(dict.fromkeys(str(address[0]) for *_, address in found))[:MOST_ADDRESSES]


@runtime_checkable
class _HasSocket(Protocol):
    def setsockopt(self, level: int, option: int, value: int) -> None: ...


def tune(transport: asyncio.BaseTransport) -> None:
    """Have the system notice a dead peer, and send small writes at once."""
    sock = transport.get_extra_info("socket")
    if isinstance(sock, _HasSocket) and getattr(sock, "family", None) in (socket.AF_INET, socket.AF_INET6):
        with contextlib.suppress(OSError):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            for option, value in _KEEPALIVE:
                sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)


@contextlib.contextmanager
def translated(endpoint: Endpoint) -> Iterator[None]:
    """Turn what the system says while dialing into our errors, each one readable sentence."""
    try:
        yield
    except IdlepushError:
        raise
    except ssl.SSLCertVerificationError as error:
        raise TlsFailed(f"{endpoint}: the certificate is not trusted: {error.verify_message}") from None
    except ssl.SSLError as error:
        raise TlsFailed(f"{endpoint}: TLS failed: {error.reason or error.strerror or 'handshake failure'}") from None
    except TimeoutError:
        raise TimedOut(f"{endpoint}: no connection in time") from None
    except socket.gaierror as error:
        raise ConnectionLost(f"{endpoint}: the host name cannot be resolved: {error.strerror}") from None
    except OSError as error:
        raise ConnectionLost(f"{endpoint}: {_plainly(error)}") from None


def _plainly(error: OSError) -> str:
    if isinstance(error, ConnectionRefusedError):
        return "the connection was refused"
    if isinstance(error, ConnectionResetError):
        return "the connection was reset"
    return error.strerror or str(error) or type(error).__name__
