"""The byte budget of one account: what it may receive a day before older messages have to wait for the next.

Providers suspend accounts that fetch more than so much a day (Gmail: 2,500 MB; `field.md`). Everything received counts,
on the wire and on both connections; but what is new is always fetched: only holes that the first mirror left, and the
rest of long bodies, wait. The day is that of UTC. What was received is written down now and then, so that a restart
begins no new day; what a kill loses is less than `SAVE_EVERY`.
"""

from collections.abc import Callable
from datetime import date, datetime
from typing import Final

from idlepush.engine.observations import BudgetSpent, Observe
from idlepush.store.base import Store

SAVE_EVERY: Final = 4 * 1024 * 1024
"""Octets received between two writes."""


class Budget:
    """What one account has received today, and what is left; `most` 0 is no bound, and nothing is counted."""

    def __init__(self, account: str, most: int, *, store: Store, now: Callable[[], datetime], observe: Observe) -> None:
        self._account = account
        self._most = most
        self._store = store
        self._now = now
        self._observe = observe
        self._day: date | None = None
        self._received = 0
        self._saved = 0

    async def load(self) -> None:
        """Go on where the process before this one stopped."""
        if self._most and self._day is None:
            self._day, self._received = await self._store.traffic(self._account) or (self._today(), 0)
            self._saved = self._received

    def spend(self, octets: int) -> None:
        """Count what was received."""
        if not self._most:
            return
        if self._day != self._today():
            self._day, self._received, self._saved = self._today(), 0, 0
        left_before = self._received < self._most
        self._received += octets
        if left_before and self._received >= self._most:
            self._observe(BudgetSpent(account=self._account, octets=self._received))

    @property
    def is_spent(self) -> bool:
        """Nothing is left today."""
        return bool(self._most) and self._day == self._today() and self._received >= self._most

    async def save(self) -> None:
        """Write down what was received, if it is worth a write."""
        if self._most and self._day is not None and self._received >= self._saved + SAVE_EVERY:
            self._saved = self._received
            await self._store.count_traffic(self._account, self._day, self._received)

    def _today(self) -> date:
        return self._now().date()
