"""Who repairs: the service where one runs, as it alone writes to the store; else this process, which takes the lock."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from urllib.parse import urlencode

import anyio

from idlepush.app.clock import utc_now
from idlepush.cli.asking import NotRunning, ServiceAt, account_path
from idlepush.cli.options import environment
from idlepush.config import Config
from idlepush.engine.repair import repair
from idlepush.engine.session import Session
from idlepush.engine.settings import AccountSettings
from idlepush.engine.verify import Repair
from idlepush.imap.types import MailboxName
from idlepush.imap.uidset import UidSet
from idlepush.store.base import Reader, Store
from idlepush.store.sqlite import open_reader, open_store

_LONGEST = 4000
"""Octets of UIDs in one order: it goes in the request's first line."""

RepairOf = Callable[[AccountSettings], Repair]


@asynccontextmanager
async def repairing(settings: Config) -> AsyncIterator[tuple[Reader, RepairOf]]:
    """Yield what is to be read, and what repairs an account's mailboxes.

    Raises:
        StoreLocked: a service runs that cannot be asked.
    """
    service = ServiceAt(settings.http, environment())
    try:
        await anyio.to_thread.run_sync(service.get, "/v1/accounts")
    except NotRunning:
        async with open_store(settings.store.path, clock=utc_now) as store:
            yield store, lambda account: _here(store, account)
    else:
        async with open_reader(settings.store.path) as reader:
            yield reader, lambda account: _there(service, account)


def _here(store: Store, account: AccountSettings) -> Repair:
    async def order(session: Session, mailbox: MailboxName, damaged: UidSet) -> None:
        await repair(session, store, account, mailbox, damaged, utc_now)

    return order


def _there(service: ServiceAt, account: AccountSettings) -> Repair:
    async def order(_session: Session, mailbox: MailboxName, damaged: UidSet) -> None:
        for uids in [*damaged.spelled(_LONGEST)] or [""]:
            path = f"{account_path(account.name, 'repair')}?{urlencode({'mailbox': mailbox.text, 'damaged': uids})}"
            await anyio.to_thread.run_sync(service.post, path)

    return order
