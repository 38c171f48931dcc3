"""Repair one mailbox where no service runs: a look that compares everything, and fetches anew what is damaged."""

from collections.abc import Callable
from datetime import datetime

from idlepush.engine.latches import Latches
from idlepush.engine.look import Look, Mailbox, Memory, body_rules
from idlepush.engine.observations import Observation
from idlepush.engine.session import Session
from idlepush.engine.settings import AccountSettings
from idlepush.engine.synchronize import synchronize
from idlepush.errors import MailboxUnavailable
from idlepush.imap.types import MailboxName
from idlepush.imap.uidset import UidSet
from idlepush.store.base import Store
from idlepush.sync.events import FoundBy


async def repair(
    session: Session,
    store: Store,
    settings: AccountSettings,
    mailbox: MailboxName,
    damaged: UidSet,
    now: Callable[[], datetime],
) -> None:
    """Bring the mirror of *mailbox* up to the server, whatever was believed of it before.

    Raises:
        StoreError: a commit failed.
        Trouble: the mailbox is there and cannot be examined, or the connection is gone.
    """
    try:
        await session.examine(mailbox)
    except MailboxUnavailable:
        if await session.lists(mailbox):
            raise
        await store.mailbox_gone(settings.name, mailbox)
        return
    look = Look(
        session=session,
        store=store,
        mailbox=Mailbox(
            account=settings.name,
            name=mailbox,
            rules=body_rules(settings),
        ),
        memory=Memory(),
        found_by=FoundBy.AUDIT,
        told_by=FoundBy.AUDIT,
        now=now,
        observe=_unheard,
        latches=Latches(settings.name, _unheard),
    )
    await synchronize(look, fresh=True, flags_due=True, audit_due=True, damaged=damaged)


def _unheard(_seen: Observation) -> None:
    """Nobody listens where there is no service; the caller compares once more."""
