"""What may be done to the accounts: wake, pause, resume; read the configuration again; purge what is in it no more.

Nothing here writes a configuration or reaches a mail server: an order is a hint to the service, as a signal is.
"""

from http import HTTPStatus
from typing import Annotated

from fastapi import APIRouter, Query
from starlette.responses import Response

from idlepush.errors import ConfigError, RemoteProtocolError
from idlepush.imap.types import MailboxName
from idlepush.imap.uidset import UidSet
from idlepush.serve.accounts import Name, known, status
from idlepush.serve.answers import Documented, answer, documented
from idlepush.serve.behind import Behind
from idlepush.serve.problems import Problem
from idlepush.serve.records import Account, Reloaded

Mailbox = Annotated[str, Query(max_length=1000, description="The mailbox's name.")]
Damaged = Annotated[str, Query(max_length=8000, description="UIDs to fetch anew, like 1:3,7.")]


def routes(behind: Behind) -> APIRouter:
    """Make the routes; each answers 202 once it is done, or on its way."""
    router = APIRouter(tags=["orders"])
    control = behind.control

    @router.post("/v1/accounts/{name}/wake", status_code=202, responses=_told_of("Told."))
    async def wake_account(name: Name) -> Response:
        """Have the account look at its server at once."""
        known(control, name)
        control.wake(name)
        return answer(await status(behind, name), 202)

    @router.post("/v1/accounts/{name}/repair", status_code=202, responses=_may_not("Told."))
    async def repair_mailbox(name: Name, mailbox: Mailbox, damaged: Damaged = "") -> Response:
        """Have a mailbox compared with its server in full, and what differs repaired; give UIDs to fetch anew."""
        known(control, name)
        try:
            uids = UidSet.parse(damaged) if damaged else UidSet()
        except RemoteProtocolError:
            raise Problem(HTTPStatus.BAD_REQUEST, "damaged is no set of UIDs, like 1:3,7") from None
        if not control.repair(name, MailboxName.from_text(mailbox), uids):
            raise Problem(HTTPStatus.CONFLICT, "the account is paused; resume it first")
        return answer(await status(behind, name), 202)

    @router.post("/v1/accounts/{name}/pause", status_code=202, responses=_told_of("Paused."))
    async def pause_account(name: Name) -> Response:
        """End the account's session, and begin none until it is resumed, whatever restarts there are."""
        known(control, name)
        await control.pause(name)
        return answer(await status(behind, name), 202)

    @router.post("/v1/accounts/{name}/resume", status_code=202, responses=_told_of("Resumed."))
    async def resume_account(name: Name) -> Response:
        """Watch a paused account again."""
        known(control, name)
        await control.resume(name)
        return answer(await status(behind, name), 202)

    @router.post("/v1/accounts/{name}/purge", status_code=202, responses=_read_again("Deleted."))
    async def purge_account(name: Name) -> Response:
        """Delete all data of an account that was taken out of the configuration, which is read again for it."""
        try:
            is_gone = await control.purge(name)
        except ConfigError as error:
            raise _wrong(error) from None
        if not is_gone:
            raise Problem(HTTPStatus.CONFLICT, "the account is still in the configuration; take it out first")
        return answer({"accounts": len(control.accounts)}, 202)

    @router.post("/v1/reload", status_code=202, responses=_read_again("Read again."))
    async def reload_configuration() -> Response:
        """Read the configuration again, as SIGHUP does; accounts that did not change keep their sessions."""
        try:
            await control.reload()
        except ConfigError as error:
            raise _wrong(error) from None
        return answer({"accounts": len(control.accounts)}, 202)

    return router


def _wrong(error: ConfigError) -> Problem:
    # Its sentences name files, lines and keys, and never hold a value.
    return Problem(HTTPStatus.CONFLICT, f"the configuration is wrong, and nothing was changed: {error}")


def _told_of(description: str) -> Documented:
    return documented(Account, 404, status=202, description=description)


def _may_not(description: str) -> Documented:
    return documented(Account, 400, 404, 409, status=202, description=description)


def _read_again(description: str) -> Documented:
    return documented(Reloaded, 409, status=202, description=description)
