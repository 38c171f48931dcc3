"""`/livez`, `/readyz`, `/metrics`: what orchestrators and Prometheus ask."""

from collections.abc import Mapping
from typing import Annotated, Final

import anyio.to_thread
from fastapi import APIRouter, Header
from prometheus_client.exposition import choose_encoder
from starlette.responses import Response

from idlepush.errors import StoreError
from idlepush.serve.answers import Documented, answer
from idlepush.serve.behind import Behind
from idlepush.serve.records import Probe

_METRICS: Final[Documented] = {
    200: {
        "description": "Every metric, in the format that Accept asks for.",
        "content": {
            "text/plain": {"schema": {"type": "string"}},
            "application/openmetrics-text": {"schema": {"type": "string"}},
        },
    }
}


def routes(behind: Behind) -> APIRouter:
    """Make the routes."""
    router = APIRouter(tags=["health"])

    @router.get("/livez", responses={200: {"model": Probe, "description": "It is alive."}})
    async def livez() -> Response:
        """Whether the service's loop turns. Needs no token."""
        return _probe(None)

    @router.get(
        "/readyz",
        responses={
            200: {"model": Probe, "description": "The store is open and every account's loop has started."},
            503: {"model": Probe, "description": "Not yet, or the store cannot be read."},
        },
    )
    async def readyz() -> Response:
        """Whether the service does its work, whatever the mail servers say. Needs no token."""
        lack = behind.control.unready()
        if lack is None:
            try:
                await behind.reader.position()
            except StoreError as error:
                lack = f"the store: {error}"
        return _probe(lack)

    router.add_api_route("/livez", livez, methods=["HEAD"], include_in_schema=False)
    router.add_api_route("/readyz", readyz, methods=["HEAD"], include_in_schema=False)

    @router.get("/metrics", responses=_METRICS)
    async def metrics(accept: Annotated[str, Header(include_in_schema=False)] = "") -> Response:
        """Everything that is measured, as Prometheus text or OpenMetrics."""
        encode, media_type = choose_encoder(accept)
        # With thousands of accounts this takes a while, and the loop has mail to look after.
        body = await anyio.to_thread.run_sync(encode, behind.metrics)
        return Response(body, headers={"Content-Type": media_type})

    return router


def _probe(lack: str | None) -> Response:
    record: Mapping[str, str] = {
        "status": "ok" if lack is None else "unavailable",
        "reason": "all is well" if lack is None else lack,
    }
    return answer(dict(record), 200 if lack is None else 503)
