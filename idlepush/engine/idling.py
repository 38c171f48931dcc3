"""What one account's IDLE has shown to be worth: how often it is renewed, and whether it is used at all.

A renewal that finds news which IDLE did not tell, an IDLE that the server ends at once, refuses or never confirms:
each is a failure, and after a few the account is polled for an hour instead.
"""

import math
from typing import Final

import anyio

from idlepush.engine.connection import IdleEnd
from idlepush.engine.observations import IdleDistrusted, IdleWasSilent, Observe
from idlepush.engine.session import Session
from idlepush.engine.settings import AccountSettings
from idlepush.errors import IdleTimedOut
from idlepush.imap.types import MailboxName

DISTRUST: Final = 3600.0
"""Seconds for which IDLE is not tried again after it failed."""
SHORT_IDLE: Final = 10.0
"""An IDLE that the server ends earlier than this, without a word, is a failure."""
FAILED_IDLES: Final = 3
SHORTEST_RENEW: Final = 60.0
"""Seconds: what `idle_renew` may be learned down to where connections are forgotten on the way (NAT)."""
MOST_SILENCES: Final = 2


class Idling:
    """What is known of IDLE at one account's server, across its sessions."""

    def __init__(self, settings: AccountSettings, observe: Observe) -> None:
        self.renew = min(settings.idle_renew, settings.proof_interval)  # a renewal is the proof
        self._account = settings.name
        self._observe = observe
        self._failures = 0
        self._silences = 0
        self._end = IdleEnd.WAKE
        self._again_at = -math.inf

    def is_used(self, session: Session) -> bool:
        """Tell whether to idle now."""
        return session.can_idle and anyio.current_time() >= self._again_at

    def began(self) -> None:
        """IDLE is about to be written; it has not ended well yet."""
        self._end = IdleEnd.WAKE

    def ended(self, end: IdleEnd, *, lasted: float, heard_new: bool) -> None:
        """Take note of how an IDLE ended after *lasted* seconds."""
        self._end = end
        if end is IdleEnd.HINT and heard_new:
            self._silences = 0
        elif end is IdleEnd.ENDED and lasted < SHORT_IDLE:
            self._fail("the server ends IDLE by itself", most=FAILED_IDLES)
        elif end is IdleEnd.REFUSED:
            self._fail("the server refuses IDLE", most=1)

    def renewed(self, mailbox: MailboxName, *, silent: bool) -> None:
        """A renewal that went well shows that IDLE can be ended; one that brings news, that it keeps them back."""
        if self._end is IdleEnd.DUE:
            self._failures = 0
        if silent:
            self._silences += 1
            self._observe(IdleWasSilent(account=self._account, mailbox=mailbox.text))
            if self._silences >= MOST_SILENCES:
                self._silences = 0
                self._fail("IDLE does not tell of new mail", most=1)

    def timed_out(self, failure: IdleTimedOut) -> None:
        """IDLE was not confirmed, or not ended: something on the way forgets silent connections, or IDLE is broken."""
        if self._end is IdleEnd.DUE:
            self.renew = max(SHORTEST_RENEW, self.renew / 2)
        self._fail(str(failure), most=FAILED_IDLES)

    def _fail(self, reason: str, *, most: int) -> None:
        self._failures += 1
        if self._failures >= most:
            self._failures = 0
            self._again_at = anyio.current_time() + DISTRUST
            self._observe(IdleDistrusted(account=self._account, reason=reason))
