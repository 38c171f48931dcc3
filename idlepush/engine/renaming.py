"""Prove that a mailbox is the one that had another name before, by messages of both."""

from typing import Final

from idlepush.engine.session import Session
from idlepush.errors import MailboxUnavailable, Refused
from idlepush.imap.types import MailboxName
from idlepush.store.base import Mirror, Store

SAMPLE: Final = 20


async def is_proven(session: Session, store: Store, mirror: Mirror, after: MailboxName) -> bool:
    """Tell whether *after* is what *mirror* mirrors: the newest messages have the UIDs, sizes and dates mirrored.

    A mailbox without a message is taken for it unless it has been given one since. *after* is selected then.
    """
    try:
        view = await session.examine(after)
        sample = (await store.uids(mirror.generation)).newest(SAMPLE)
        if view.uidvalidity != mirror.checkpoint.uidvalidity:
            return False
        if not sample:
            return view.uidnext == mirror.checkpoint.high
        known = await store.sizes(mirror.generation, sample.first, sample.last)
        listed = await session.fetch(sample, session.listing_items)
    except (MailboxUnavailable, Refused):
        return False
    # Some may have been expunged since; of those that are left each has to be the same.
    return bool(listed) and all(known.get(uid) == (said.size, said.internal_date) for uid, said in listed.items())
