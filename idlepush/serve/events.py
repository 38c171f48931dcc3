"""`/v1/events`: the event log, a page at a time or as a stream of server-sent events.

A stream is one more reader of the log after its own cursor: it holds nothing but a position, so a client that is slow
costs no memory, and one that was cut off resumes by `Last-Event-ID` without losing an event.
"""

from collections.abc import AsyncIterator
from http import HTTPStatus
from typing import Annotated, Final

import anyio
from fastapi import APIRouter, Header, Query
from starlette.responses import Response, StreamingResponse

from idlepush.serve.answers import Limit, documented, documented_as, page
from idlepush.serve.behind import Behind
from idlepush.serve.lines import json_line
from idlepush.serve.problems import Problem
from idlepush.serve.records import EventPage
from idlepush.store.base import Reader
from idlepush.sync.events import Event

MOST_STREAMS: Final = 250
PAGE: Final = 100
_HIGHEST: Final = 2**63 - 1
_STREAM: Final = (
    "Events as they are committed: `id:` is the position, `event:` the type, `data:` the line that "
    "`idlepush events --json` prints."
)
_BEGINNING: Final = b"retry: 2000\n\n"
_STILL_HERE: Final = b": still here\n\n"

Position = Annotated[int, Query(ge=0, le=_HIGHEST, description="Only what came after this position.")]


def routes(behind: Behind) -> APIRouter:
    """Make the routes."""
    router = APIRouter(tags=["events"])
    streams = _Streams(behind)

    @router.get("/v1/events", responses=documented(EventPage))
    async def list_events(after: Position = 0, limit: Limit = 100) -> Response:
        """List the event log in order; `next` is the position to go on after."""
        found = await behind.reader.events(after, limit=limit + 1)
        shown = found[:limit]
        return page([event.record() for event in shown], shown[-1].position if len(found) > limit else None)

    @router.get("/v1/events/stream", responses=documented_as("text/event-stream", _STREAM, 400, 503))
    async def stream_events(
        after: Position = 0,
        last_event_id: Annotated[
            str | None, Header(description="The last position seen; it outweighs `after`, as a browser resends both.")
        ] = None,
    ) -> Response:
        """Follow the event log; it begins after the given position, or with the first event there is."""
        if streams.open >= MOST_STREAMS:
            detail = f"{MOST_STREAMS} streams are open; try again later"
            raise Problem(HTTPStatus.SERVICE_UNAVAILABLE, detail, {"Retry-After": "10"})
        return StreamingResponse(streams.follow(_resumed(last_event_id, after)), media_type="text/event-stream")

    return router


def _resumed(last_event_id: str | None, after: int) -> int:
    if not last_event_id:
        return after
    if not (last_event_id.isascii() and last_event_id.isdecimal()) or len(last_event_id) > len(str(_HIGHEST)):
        raise Problem(HTTPStatus.BAD_REQUEST, "Last-Event-ID: not a position of the event log")
    return min(int(last_event_id), _HIGHEST)


class _Streams:
    """The streams that are open."""

    def __init__(self, behind: Behind) -> None:
        self._behind = behind
        self._turn = anyio.Lock()
        self.open = 0

    async def follow(self, after: int) -> AsyncIterator[bytes]:
        """Yield what stands behind *after*, and what is coming, until the service ends."""
        reader, stopping = self._behind.reader, self._behind.stopping
        self.open += 1
        try:
            yield _BEGINNING
            while not stopping.is_set():
                # One at a time: a hundred readers of a long log at once would hold up all that goes on besides.
                async with self._turn:
                    found = await reader.events(after, limit=PAGE)
                    lines = b"".join(map(spelled, found))
                if found:
                    after = found[-1].position
                    yield lines
                elif not await _moved(reader, after, stopping, at_most=self._behind.keepalive):
                    yield _STILL_HERE
        finally:
            self.open -= 1


async def _moved(reader: Reader, position: int, stopping: anyio.Event, *, at_most: float) -> bool:
    """Wait until there is news beyond *position* or the service ends; False where there was neither in time."""
    async with anyio.create_task_group() as tasks:

        async def until_stopping() -> None:
            await stopping.wait()
            tasks.cancel_scope.cancel()

        tasks.start_soon(until_stopping)
        with anyio.move_on_after(at_most) as patience:
            await reader.wait_beyond(position)
        tasks.cancel_scope.cancel()
    return not patience.cancelled_caught or stopping.is_set()


def spelled(event: Event) -> bytes:
    """Write *event* as server-sent events are written."""
    return b"id: %d\nevent: %s\ndata: %s\n\n" % (event.position, event.type.encode(), json_line(event.record()))
