"""Answers: pages and records as JSON, and how each kind of answer is told of in the OpenAPI document."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Final

from fastapi import Query
from pydantic import BaseModel
from starlette.responses import Response

from idlepush.serve.lines import json_line
from idlepush.serve.problems import MEDIA_TYPE
from idlepush.serve.records import ProblemDocument
from idlepush.sync.events import Json

MOST_ITEMS: Final = 1000

Limit = Annotated[int, Query(ge=1, le=MOST_ITEMS, description="At most so many items.")]
Documented = dict[int | str, dict[str, Any]]


def answer(record: Mapping[str, Json], status: int = 200) -> Response:
    """Answer with one record."""
    return Response(json_line(record), status, media_type="application/json")


def page(items: Sequence[Mapping[str, Json]], next: str | int | None, **more: Json) -> Response:
    """Answer with a list; *next* is what to send as `after` for what follows, None where nothing does."""
    return answer({**more, "items": [dict(item) for item in items], "next": next})


def documented_as(media_type: str, description: str, *problems: int, binary: bool = False) -> Documented:
    """Tell of an answer that is no JSON."""
    schema = {"type": "string"} | ({"format": "binary"} if binary else {})
    return {200: {"description": description, "content": {media_type: {"schema": schema}}}} | told_problems(*problems)


def documented(model: type[BaseModel], *problems: int, status: int = 200, description: str = "Done.") -> Documented:
    """Tell of an answer, and of the problems there may be beside 422."""
    return {status: {"model": model, "description": description}} | told_problems(*problems)


def told_problems(*statuses: int) -> Documented:
    """Tell of problem documents."""
    return {status: {"description": _WHY[status], "content": _PROBLEM} for status in (*statuses, 422)}


_PROBLEM: Final = {MEDIA_TYPE: {"schema": ProblemDocument.model_json_schema()}}
_WHY: Final = {
    400: "A cursor that is none.",
    404: "There is no such thing.",
    409: "The configuration does not allow it.",
    422: "A parameter is not valid.",
    503: "Too many streams are open.",
}
