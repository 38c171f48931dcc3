"""NOTIFY (RFC 5465) beside IDLE: hints about all mailboxes on the one connection.

It only adds hints: whatever it tells is held against the mirror, and whatever it keeps back the poll finds. What
Dovecot 2.3 was seen to do decides how it is used (2026-11):

    together with IDLE         without it each event is told when the next one comes
    up to 50 mailboxes         at 200 it says nothing until DONE
    renewed every 60 s         as NONE and SET STATUS in one write: a SET on top of another leaves it mute, every second
                               time; and what it was about to tell (half a second's worth) it forgets, so all numbers
                               are asked for in the same command
    off for hours after two    two renewals or polls in a row that find news, none told between them: the half second
      misses                   explains one
    off for a day              after two connections lost within an hour: its process crashes now and then

What was learned outlives a session: one of these serves an account for ever.
"""

from collections.abc import Collection, Mapping
from typing import Final

import anyio

from idlepush.engine.connection import Ask
from idlepush.engine.latches import AGES_OUT, Latches
from idlepush.engine.observations import Feature
from idlepush.engine.session import Session
from idlepush.errors import ConnectionLost, Refused, Trouble
from idlepush.imap import commands
from idlepush.imap.responses import StatusReply, Untagged
from idlepush.imap.types import MailboxName
from idlepush.sync.status import Elsewhere, MailboxStatus

MOST: Final = 50
RENEW: Final = 60.0
MISSES: Final = 2
MISTRUST: Final = 6 * 3600.0
OVERFLOWS: Final = 3
LOSSES: Final = 2
WITHIN: Final = 3600.0
_ALL_EVENTS: Final = ("MessageNew", "MessageExpunge", "FlagChange")
# All that RFC 5465 obliges a server to know of a mailbox that is not selected.
_FEW_EVENTS: Final = ("MessageNew", "MessageExpunge")


def suits_notify(session: Session, count: int) -> bool:
    """Tell whether *count* mailboxes are best watched by NOTIFY there: more than one that idles, and not too many."""
    return {"NOTIFY", "IDLE"} <= session.capabilities and 1 < count <= MOST


class Notify:
    """How one account is told of the mailboxes that are not selected."""

    def __init__(self, latches: Latches) -> None:
        self._latches = latches
        self._session: Session | None = None
        self._names: frozenset[MailboxName] = frozenset()
        self._renewed_at = 0.0
        self._knows_all = True
        self._misses = 0
        self._overflows: list[float] = []
        self._losses: list[float] = []

    @property
    def names(self) -> frozenset[MailboxName]:
        """Of which it tells now."""
        return frozenset() if self._session is None else self._names

    @property
    def due_at(self) -> float | None:
        """When it is to be renewed; None where it is off."""
        return None if self._session is None else self._renewed_at + RENEW

    async def keep(self, session: Session, names: Collection[MailboxName]) -> Mapping[MailboxName, MailboxStatus]:
        """Have *names* told of, where that suits and is trusted; return what the server said of them, if it was due.

        Raises:
            Trouble: the connection is gone.
        """
        trusted = self._latches.trusts(Feature.NOTIFY)
        wanted = frozenset(names) if trusted and suits_notify(session, len(names)) else frozenset()
        is_on = self._session is session and session.elsewhere is not None
        if not wanted:
            if is_on:
                await self._say(session, frozenset())
            self._off(session)
            return {}
        now = anyio.current_time()
        if is_on and wanted == self._names and now < self._renewed_at + RENEW / 2:
            return {}
        return await self._set(session, wanted)

    async def _set(self, session: Session, wanted: frozenset[MailboxName]) -> Mapping[MailboxName, MailboxStatus]:
        is_anew = session.elsewhere is not None
        session.elsewhere = session.elsewhere or Elsewhere()
        self._session, self._names, self._renewed_at = session, wanted, anyio.current_time()
        try:
            return await self._say(session, wanted, is_anew=is_anew)
        except Refused as refused:
            if not self._knows_all:
                self._off(session)
                self._latches.distrust(Feature.NOTIFY, f"the server refuses it: {refused}", seconds=AGES_OUT)
                return {}
            # BADEVENT names what it knows; what it must know is asked for from here on.
            self._knows_all = False
            return await self._set(session, wanted)

    async def _say(
        self, session: Session, names: frozenset[MailboxName], *, is_anew: bool = False
    ) -> Mapping[MailboxName, MailboxStatus]:
        told: dict[MailboxName, MailboxStatus] = {}

        def claim(said: Untagged) -> bool:
            if not isinstance(said, StatusReply):
                return False
            told[said.mailbox] = told.get(said.mailbox, MailboxStatus()).updated(MailboxStatus.of(said))
            return True

        events = _ALL_EVENTS if self._knows_all else _FEW_EVENTS
        asked = Ask(commands.notify(sorted(names), events, names=self._knows_all), claim)
        none = Ask(commands.notify((), (), names=False), tolerant=True)
        await session.run(*([none] if is_anew else []), asked)
        return told

    def _off(self, session: Session) -> None:
        self._session = session.elsewhere = None

    # What is learned

    def heard(self) -> None:
        """It told of something by itself."""
        self._misses = 0

    def missed(self, names: Collection[MailboxName]) -> None:
        """There is news in *names* of which nobody told."""
        if not names:
            return
        self._misses += 1
        if self._misses >= MISSES:
            self._misses = 0
            self._latches.distrust(Feature.NOTIFY, f"NOTIFY did not tell of news in {min(names)}", seconds=MISTRUST)

    def lost(self, trouble: Trouble) -> None:
        """The session ended for this reason."""
        was_on, self._session = self._session is not None, None
        if not was_on or not isinstance(trouble, ConnectionLost):
            return
        self._losses = _within(self._losses)
        if len(self._losses) >= LOSSES:
            self._losses.clear()
            reason = f"{LOSSES} connections were lost with it within an hour: {trouble}"
            self._latches.distrust(Feature.NOTIFY, reason, seconds=AGES_OUT)

    def overflowed(self) -> None:
        """The server had too much to tell, and switched it off (RFC 5465 section 5.8): it is set anew."""
        self._session = None
        self._overflows = _within(self._overflows)
        if len(self._overflows) >= OVERFLOWS:
            self._overflows.clear()
            self._latches.distrust(Feature.NOTIFY, "there is more to tell than the server can", seconds=WITHIN)


def _within(moments: list[float]) -> list[float]:
    """Return those of the last hour, and now."""
    now = anyio.current_time()
    return [*(at for at in moments if at > now - WITHIN), now]
