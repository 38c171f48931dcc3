"""Know messages again after a UIDVALIDITY change, a window at a time and without their bodies (`sync.md`, Reset).

Where the server has a name of its own for a message, that decides; else the header is fetched, and its hash together
with size and date must be that of one row alone. The store looks the rows up through an index, so that the memory this
takes does not grow with the mailbox. Whatever is not known again is fetched like any other message.
"""

from typing import Final

from idlepush.engine.look import Look
from idlepush.engine.observations import Phase
from idlepush.errors import Refused
from idlepush.imap.types import Uid
from idlepush.imap.uidset import UidSet
from idlepush.store.base import Mirror
from idlepush.sync.arrivals import told_apart

WINDOW: Final = 500
HEADERS_WINDOW: Final = 100
_HEADER: Final = 8 * 1024
"""Octets that a header may well have."""


async def recognize(look: Look, mirror: Mirror, existing: UidSet) -> tuple[UidSet, UidSet]:
    """Take over what is known again among the newest of *existing*; return these, and which of them were known."""
    session = look.session
    window = existing.newest(WINDOW if session.names_messages else HEADERS_WINDOW)
    items = session.listing_items if session.names_messages else session.header_items
    try:
        answers = await look.timed(Phase.FETCH, session.fetch(window, items, octets=len(window) * _HEADER, settle=True))
    except Refused:
        return window, UidSet()  # it is fetched in the usual way, which finds the one that is to blame
    present = await session.search(window)
    candidates = told_apart(said for uid, said in answers.items() if Uid(uid) in present)
    if not candidates:
        return window, UidSet()
    return window, (await look.commit(mirror, known_again=candidates)).known
