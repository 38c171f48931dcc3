"""The one ASGI application: routes by noun behind a guard, and the OpenAPI document it writes of itself.

    listener ─▶ guard ─▶ routes: probes accounts orders messages events ─▶ store, health, control
                         every error ─▶ a problem document

It reads; what it may change is to wake, pause, resume, reload, and to purge what is configured no more.
"""

from collections.abc import Callable
from typing import Any, Final

from fastapi import FastAPI
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.types import ASGIApp

import idlepush
from idlepush.serve import accounts, docs, events, messages, orders, probes, problems
from idlepush.serve.behind import Behind
from idlepush.serve.guard import OPEN_TO_ALL, CurrentToken, Guard
from idlepush.serve.settings import HttpSettings

_ABOUT: Final = (
    "Mirrors of IMAP mailboxes, seconds behind their servers. Lists come as pages: send a page's `next` as `after` "
    "for the one behind it. Errors are problem documents (RFC 9457)."
)


def application(behind: Behind, settings: HttpSettings, token: CurrentToken) -> ASGIApp:
    """Make the application; *token* is asked at each request, and where it gives None no token is needed."""
    return Guard(routed(behind), settings, token)


def routed(behind: Behind) -> FastAPI:
    """Make the application without its guard."""
    app = FastAPI(
        title="idlepush",
        version=idlepush.__version__,
        description=_ABOUT,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
    )
    problems.install(app)
    for part in (probes, accounts, orders, messages, events):
        app.include_router(part.routes(behind))

    @app.get("/docs", include_in_schema=False)
    async def show_docs() -> Response:
        policy = {"Content-Security-Policy": docs.CONTENT_SECURITY_POLICY}
        return HTMLResponse(docs.page(app.openapi()), headers=policy)

    @app.get("/", include_in_schema=False)
    async def front() -> Response:
        return RedirectResponse("/docs")

    app.openapi = _with_token(app.openapi)  # type: ignore[method-assign] # as FastAPI's manual has it
    return app


def _with_token(write: Callable[[], dict[str, Any]]) -> Callable[[], dict[str, Any]]:
    """Tell of the guard's token, which FastAPI does not know of."""

    def written() -> dict[str, Any]:
        document = write()
        document["components"]["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
        document["security"] = [{"token": []}, {}]
        for path in OPEN_TO_ALL:
            document["paths"][path]["get"]["security"] = []
        return document

    return written
