"""The listener: sockets that are opened before anything else starts, and uvicorn on them until the block ends.

uvicorn is told to leave signals, logs and sockets alone. What it lacks is in `Connection`: whoever takes nothing of an
answer for half a minute, or does not come to the end of a request, is dropped, so no memory and no descriptor waits
for the other side.
"""

import asyncio
import errno
import logging
import os
import socket
import stat
import struct
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import Final

import anyio
import structlog
import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol

from idlepush.errors import IdlepushError
from idlepush.serve.settings import HttpSettings

REQUEST_PATIENCE: Final = 10.0
"""Seconds from a request's first byte, or a connection's beginning, to the request's end."""
READER_PATIENCE: Final = 30.0
"""Seconds for which a reader may leave all that waits for it where it is."""
STOP_WITHIN: Final = 2
MOST_CONNECTIONS: Final = 1000
LONGEST_HEAD: Final = 64 * 1024
BACKLOG: Final = 128

_NO_LINGER: Final = struct.pack("ii", 1, 0)
_REQUEST_TIMED_OUT: Final = b"HTTP/1.1 408 Request Timeout\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"


class _Timer:
    """At most one call that is to come."""

    _handle: asyncio.TimerHandle | None = None

    @property
    def is_set(self) -> bool:
        return self._handle is not None

    def set(self, loop: asyncio.AbstractEventLoop, seconds: float, act: Callable[[], None]) -> None:
        self.clear()
        self._handle = loop.call_later(seconds, act)

    def clear(self) -> None:
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None


class Connection(H11Protocol):
    """uvicorn's connection, without endless patience."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override] # as uvicorn's
        """Begin to wait for a request."""
        self._to_be_asked, self._to_be_read = _Timer(), _Timer()
        super().connection_made(transport)
        self._to_be_asked.set(self.loop, REQUEST_PATIENCE, self._give_up)

    def data_received(self, data: bytes) -> None:
        """Go on waiting until the request is whole."""
        super().data_received(data)
        if self.cycle is not None and not self.cycle.response_complete and not self.cycle.more_body:
            self._to_be_asked.clear()
        elif not self._to_be_asked.is_set:
            self._to_be_asked.set(self.loop, REQUEST_PATIENCE, self._give_up)

    def pause_writing(self) -> None:
        """The other side does not keep up."""
        super().pause_writing()
        self._to_be_read.set(self.loop, READER_PATIENCE, self.drop)

    def resume_writing(self) -> None:
        """It has caught up."""
        super().resume_writing()
        self._to_be_read.clear()

    def connection_lost(self, exc: Exception | None) -> None:
        """It is over."""
        self._to_be_asked.clear()
        self._to_be_read.clear()
        super().connection_lost(exc)

    def drop(self) -> None:
        """End it at once; what the other side has not taken, in the kernel's buffers too, is thrown away."""
        opened = self.transport.get_extra_info("socket")
        if opened is not None and opened.fileno() >= 0:
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER)
        self.transport.abort()

    def _give_up(self) -> None:
        if self.transport.is_closing():
            return
        if self.cycle is None or self.cycle.response_complete:
            self.transport.write(_REQUEST_TIMED_OUT)
        self.transport.close()


class _Server(uvicorn.Server):
    """uvicorn's server; the signals are the service's."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Capture none."""
        yield

    def abort(self) -> None:
        """Drop whoever is still there."""
        for connection in [*self.server_state.connections]:
            assert isinstance(connection, Connection)
            connection.drop()


class _Remarks(logging.Handler):
    """What uvicorn has to say is of the other side's making, and nobody may fill our log with it."""

    def emit(self, record: logging.LogRecord) -> None:
        structlog.get_logger().debug("http.remark", text=record.getMessage())


@asynccontextmanager
async def listening(
    application: ASGIApp, settings: HttpSettings, *, stopping: anyio.Event
) -> AsyncIterator[str | None]:
    """Answer until the block ends; yield the URL that was listened on, None where none is to be.

    `stopping` is set when the block ends, and streams end by it; whoever is still there 2 s later is dropped.

    Raises:
        IdlepushError: nobody can listen there; the sentence says why.
    """
    sockets = await _sockets(settings)
    if not sockets:
        yield None
        return
    server = _Server(_configuration(application))
    url = _url(settings, sockets[0])
    error: Exception | None = None
    try:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(server.serve, sockets)
            structlog.get_logger().info("http.listening", url=url)
            try:
                yield url
            except Exception as raised:  # leaves as itself below, not as a group of one
                error = raised
            finally:
                stopping.set()
                server.should_exit = True
        if error is not None:
            raise error
    finally:
        server.abort()
        for each in sockets:
            each.close()
        if settings.unix_path is not None:
            settings.unix_path.unlink(missing_ok=True)


def _configuration(application: ASGIApp) -> uvicorn.Config:
    remarks = logging.getLogger("uvicorn.error")
    remarks.handlers, remarks.propagate = [_Remarks(logging.WARNING)], False
    return uvicorn.Config(
        application,
        http=Connection,
        ws="none",
        loop="none",
        lifespan="off",
        interface="asgi3",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        limit_concurrency=MOST_CONNECTIONS,
        h11_max_incomplete_event_size=LONGEST_HEAD,
        backlog=BACKLOG,
        timeout_graceful_shutdown=STOP_WITHIN,
    )


# Sockets


async def _sockets(settings: HttpSettings) -> list[socket.socket]:
    try:
        if settings.unix_path is not None:
            return [_unix_socket(settings.unix_path)]
        return await _tcp_sockets(*settings.address) if settings.address else []
    except OSError as error:
        raise IdlepushError(f"cannot listen on {settings.listen}: {_why(error)}") from error


def _why(error: OSError) -> str:
    if error.errno == errno.EADDRINUSE:
        return "it is in use by another program; end that one, or set another listen in [http]"
    return (error.strerror or type(error).__name__).lower()


async def _tcp_sockets(host: str, port: int) -> list[socket.socket]:
    """Bind every address that *host* has, all to one port; at least the first of them has to be free."""
    found = await anyio.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    bound: list[socket.socket] = []
    for family, kind, protocol, _, address in dict.fromkeys(found):
        try:
            bound.append(_bound(socket.socket(family, kind, protocol), (address[0], port, *address[2:])))
        except OSError as error:
            # A machine without IPv6 has names for it all the same.
            if error.errno not in (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL) or len(found) == 1:
                for each in bound:
                    each.close()
                raise
            continue
        port = bound[0].getsockname()[1]
    if not bound:
        raise OSError(errno.EADDRNOTAVAIL, os.strerror(errno.EADDRNOTAVAIL))
    return bound


def _bound(opened: socket.socket, address: tuple[str | int, ...]) -> socket.socket:
    try:
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if opened.family == socket.AF_INET6:
            opened.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        opened.bind(address)
        opened.listen(BACKLOG)
        opened.settimeout(0)
    except OSError:
        opened.close()
        raise
    return opened


def _unix_socket(path: Path) -> socket.socket:
    """Bind a socket that its owner and group may use; one that a killed service left behind is taken away."""
    opened = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        if _is_left_behind(path):
            path.unlink()
        before = os.umask(0o117)
        try:
            opened.bind(os.fspath(path))
        finally:
            os.umask(before)
        opened.listen(BACKLOG)
        opened.settimeout(0)
    except OSError:
        opened.close()
        raise
    return opened


def _is_left_behind(path: Path) -> bool:
    try:
        is_socket = stat.S_ISSOCK(path.stat().st_mode)
    except FileNotFoundError:
        return False
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe, suppress(ConnectionRefusedError):
        if is_socket:
            probe.connect(os.fspath(path))
        raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE))
    return True


def _url(settings: HttpSettings, first: socket.socket) -> str:
    if settings.unix_path is not None:
        return settings.listen
    host, port = first.getsockname()[:2]
    return f"http://[{host}]:{port}/" if ":" in host else f"http://{host}:{port}/"
