"""What went wrong, as a problem document (RFC 9457): one shape for every error of the HTTP interface.

`title` is the status's own phrase, `detail` one readable sentence. Neither ever repeats a value that was sent.
"""

from collections.abc import Mapping
from http import HTTPStatus
from typing import Final

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response

from idlepush.errors import StoreError
from idlepush.serve.lines import json_line
from idlepush.sync.events import Json

MEDIA_TYPE: Final = "application/problem+json"


class Problem(HTTPException):
    """Raised by a route: the request ends with this status and sentence."""

    def __init__(self, status: HTTPStatus, detail: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(status.value, detail, dict(headers) if headers else None)


def problem(
    status: int, detail: str, *, headers: Mapping[str, str] | None = None, errors: list[Json] | None = None
) -> Response:
    """Write a problem document; `errors` names the parameters that were wrong."""
    record: dict[str, Json] = {
        "type": "about:blank",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "detail": detail,
    }
    if errors is not None:
        record["errors"] = errors
    return Response(json_line(record), status, headers, media_type=MEDIA_TYPE)


def install(app: FastAPI) -> None:
    """Have every error that reaches *app* answered by a problem document."""
    app.add_exception_handler(HTTPException, _refused)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(StoreError, _unreadable)
    app.add_exception_handler(Exception, _bug)


async def _refused(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    detail = str(error.detail)
    if detail == HTTPStatus(error.status_code).phrase:
        detail = _UNSAID.get(error.status_code, detail)
    return problem(error.status_code, detail, headers=error.headers)


_UNSAID: Final[Mapping[int, str]] = {
    404: "there is nothing at this path; /docs lists what there is",
    405: "this path does not take this method; the Allow header names those that it does",
}


async def _invalid(_: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    errors: list[Json] = []
    for each in error.errors():
        where, *name = (str(part) for part in each["loc"])
        errors.append({"in": where, "name": ".".join(name), "detail": str(each["msg"])})
    named = ", ".join(sorted({str(each["name"]) for each in errors if isinstance(each, dict)}))
    return problem(422, f"a parameter is not valid: {named}", errors=errors)


async def _unreadable(_: Request, error: Exception) -> Response:
    return problem(503, f"the store: {error}")


async def _bug(_: Request, __: Exception) -> Response:
    # It is raised again behind this answer, and the guard writes it into the log.
    return problem(500, "a bug of idlepush; its log says more")
