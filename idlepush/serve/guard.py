"""The guard: what every request passes before a route sees it, and what every answer carries.

    Host      a name of this machine's loopback, or the address that is listened on: a web page that has its own name
              point here (DNS rebinding) still sends its own name
    Origin    none, or this very service: a web page may not make a browser wake or pause an account (CSRF)
    token     once one is set, on every path but /livez and /readyz; compared in constant time; never read from a URL
    body      no route needs one: a small one is passed over, a large one or one of unknown length refused
    answers   say that nothing may be run, framed, sniffed or kept; none lets another origin read it

Where others can reach the address a token is needed, and who bears it may call the service by any name: a container's,
say. No web page has the token.

A bug of ours is answered with 500 and nothing of it; its traceback, without values, is in the log.
"""

import hmac
import ipaddress
import re
from collections.abc import Callable, Mapping, MutableMapping
from hashlib import sha256
from typing import Any, Final

import structlog
from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from idlepush.engine.credentials import Secret
from idlepush.engine.observations import trace_of
from idlepush.engine.settings import is_loopback
from idlepush.serve.problems import problem
from idlepush.serve.settings import HttpSettings

OPEN_TO_ALL: Final = frozenset({"/livez", "/readyz"})
LONGEST_BODY: Final = 64 * 1024

_HOST: Final = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[^\s\[\]:/@]+)(:[0-9]{1,5})?")
_ANSWERED_WITH: Final[Mapping[bytes, bytes]] = {
    b"content-security-policy": b"default-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'",
    b"x-content-type-options": b"nosniff",
    b"x-frame-options": b"DENY",
    b"referrer-policy": b"no-referrer",
    b"cross-origin-resource-policy": b"same-origin",
    b"cross-origin-opener-policy": b"same-origin",
    b"cache-control": b"no-store",
}

CurrentToken = Callable[[], Secret | None]


class Guard:
    """Stands before *application*; `token` is asked at each request, so that one that was changed counts at once."""

    def __init__(self, application: ASGIApp, settings: HttpSettings, token: CurrentToken) -> None:
        self._application = application
        self._token = token
        address = settings.address
        self._is_local = address is None or is_loopback(address[0])
        self._own_name = address[0].casefold() if address else ""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Refuse, or let the application answer."""
        assert scope["type"] == "http", "nobody speaks WebSocket here, and there is no lifespan"
        answer = _Answer(send)
        refused = self._refusal(scope["path"], Headers(scope=scope))
        if refused is not None:
            await refused(scope, receive, answer)
            return
        try:
            await self._application(scope, receive, answer)
        except Exception as bug:
            structlog.get_logger().error("http.bug", path=scope["path"], trace=trace_of(bug))
            if not answer.has_begun:
                await problem(500, "a bug of idlepush; its log says more")(scope, receive, answer)
            # Otherwise uvicorn cuts the connection, and so the other side learns that this was not all.

    def _refusal(self, path: str, headers: Headers) -> Response | None:
        token = self._token()
        bears_it = token is not None and _bears(headers, token)
        if not self._is_called_rightly(headers, bears_it=bears_it):
            return problem(421, "the Host header names neither this machine's loopback nor the address listened on")
        if not _is_own_origin(headers):
            return problem(403, "the Origin header names another site, and none but this service's own may use it")
        if token is not None and not bears_it and path not in OPEN_TO_ALL:
            return _unauthorized(was_given="authorization" in headers)
        if "transfer-encoding" in headers:
            return problem(411, "a request's body needs a Content-Length", headers={"Connection": "close"})
        length = headers.get("content-length", "0")
        if not re.fullmatch("[0-9]{1,18}", length) or int(length) > LONGEST_BODY:
            detail = f"a request's body may have {LONGEST_BODY} octets at most"
            return problem(413, detail, headers={"Connection": "close"})
        return None

    def _is_called_rightly(self, headers: Headers, *, bears_it: bool) -> bool:
        hosts = headers.getlist("host")
        found = _HOST.fullmatch(hosts[0]) if len(hosts) == 1 else None
        if found is None:
            return False
        name = found[1].strip("[]").casefold()
        if is_loopback(name) or name == self._own_name:
            return True
        return not self._is_local and (bears_it or _is_address(name))


def _bears(headers: Headers, token: Secret) -> bool:
    given = headers.getlist("authorization")
    scheme, _, credentials = (given[0] if given else "").partition(" ")
    # Hashed first, for the time of a comparison tells the length.
    ours = sha256(token.reveal().encode("utf-8", "surrogatepass")).digest()
    theirs = sha256(credentials.strip().encode("latin-1")).digest()
    return hmac.compare_digest(ours, theirs) and scheme.casefold() == "bearer" and len(given) == 1


def _is_own_origin(headers: Headers) -> bool:
    """Tell whether the request is of no web page, or of one of this service."""
    origins = headers.getlist("origin")
    return not origins or {re.sub("^https?://", "", origin) for origin in origins} == {headers["host"]}


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _unauthorized(*, was_given: bool) -> Response:
    detail = "this is not the token" if was_given else "a token is needed: Authorization: Bearer …"
    challenge = 'Bearer realm="idlepush"' + (', error="invalid_token"' if was_given else "")
    return problem(401, detail, headers={"WWW-Authenticate": challenge})


class _Answer:
    """`send`, adding what every answer carries and the application did not say otherwise."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self.has_begun = False

    async def __call__(self, message: MutableMapping[str, Any]) -> None:
        if message["type"] == "http.response.start":
            self.has_begun = True
            said = {name.lower() for name, _ in message["headers"]}
            added = [(name, value) for name, value in _ANSWERED_WITH.items() if name not in said]
            message["headers"] = [*message["headers"], *added]
        await self._send(message)
