"""`/v1/messages`: the mirrored messages, a page, one, or the raw bytes of one."""

from collections.abc import AsyncIterator
from http import HTTPStatus
from typing import Annotated, Final

from fastapi import APIRouter, Path, Query
from starlette.responses import Response, StreamingResponse

from idlepush.errors import InvalidQuery
from idlepush.imap.types import MailboxName
from idlepush.serve.answers import Limit, answer, documented, documented_as, page
from idlepush.serve.behind import Behind
from idlepush.serve.problems import Problem
from idlepush.serve.records import MessagePage, WholeMessage
from idlepush.sync import query as search

_SEARCH: Final = (
    'Only what is found, the newest first: words, "phrases", `from:` `to:` `subject:` `filename:` `in:` '
    "`before:2026-01-31` `after:2026-01-31` `has:attachment` `is:unread` `is:flagged`, each with `-` before it for not."
)
Id = Annotated[str, Path(max_length=64, description="The message's `id`.")]


def routes(behind: Behind) -> APIRouter:
    """Make the routes."""
    router = APIRouter(tags=["messages"])
    control, reader = behind.control, behind.reader

    async def must_know(account: str) -> None:
        if account not in control.accounts and account not in {row.name for row in await reader.accounts()}:
            raise Problem(HTTPStatus.NOT_FOUND, "there is no such account")

    @router.get("/v1/messages", responses=documented(MessagePage, 400, 404))
    async def list_messages(
        account: Annotated[str | None, Query(max_length=128, description="Only this account's.")] = None,
        mailbox: Annotated[str | None, Query(max_length=1000, description="Only this mailbox's.")] = None,
        after: Annotated[str | None, Query(max_length=64, description="The last page's `next`: an `id`.")] = None,
        limit: Limit = 100,
        newest: Annotated[bool, Query(description="By internal date, the newest first.")] = False,  # noqa: FBT002
        expunged: Annotated[bool, Query(description="Those that are gone, instead.")] = False,  # noqa: FBT002
        q: Annotated[str | None, Query(max_length=2000, description=_SEARCH)] = None,
    ) -> Response:
        """List messages by account, mailbox and UID, or the newest first."""
        query = None if q is None else _read(q)
        if query is not None and expunged:
            raise Problem(HTTPStatus.BAD_REQUEST, "q: only live messages are searched")
        if account is not None:
            await must_know(account)
        name = None if mailbox is None else MailboxName.from_text(mailbox)
        # One more than is shown tells whether anything follows.
        rows = reader.messages(
            account, name, limit=limit + 1, newest=newest, expunged=expunged, after=after, query=query
        )
        try:
            found = [row async for row in rows]
        except KeyError:
            raise Problem(HTTPStatus.BAD_REQUEST, "after: there is no such message any more; begin anew") from None
        shown = found[:limit]
        return page([row.record() for row in shown], shown[-1].id if len(found) > limit else None)

    @router.get("/v1/messages/{id}", responses=documented(WholeMessage, 404))
    async def show_message(id: Id) -> Response:
        """Show one message, live or expunged."""
        row = await reader.message(id)
        if row is None:
            raise Problem(HTTPStatus.NOT_FOUND, "there is no such message")
        return answer({**row.record(), "references": list(await reader.references(id))})

    @router.get(
        "/v1/messages/{id}/raw",
        responses=documented_as("message/rfc822", "The message, byte for byte.", 404, binary=True),
    )
    async def raw_message(id: Id) -> Response:
        """Stream the raw message."""
        pieces = reader.raw(id)
        try:
            first = await anext(pieces, b"")
        except KeyError:
            raise Problem(HTTPStatus.NOT_FOUND, "there is no such message, or it is not mirrored whole") from None
        # Only a name that exists comes this far, so nothing but letters and digits stands in the header.
        headers = {"Content-Disposition": f'attachment; filename="{id}.eml"'}
        return StreamingResponse(_with_first(first, pieces), headers=headers, media_type="message/rfc822")

    return router


def _read(q: str) -> search.Query:
    try:
        return search.read_query(q)
    except InvalidQuery as error:
        raise Problem(HTTPStatus.BAD_REQUEST, f"q: {error}") from None


async def _with_first(first: bytes, others: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    yield first
    async for piece in others:
        yield piece
