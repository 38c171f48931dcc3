"""The login limit: how often this service knocks at one host, however many accounts live there.

Providers ban addresses that log in in storms (Delta Chat was; `field.md`). A token bucket per host, first come, first
served, spreads what a server's restart or a network's return would otherwise send at once.
"""

from dataclasses import dataclass, field

import anyio


@dataclass(slots=True)
class _Bucket:
    tokens: float
    filled_at: float
    turn: anyio.Lock = field(default_factory=anyio.Lock)


class LoginLimit:
    """`per_second` logins for each host, `burst` at once; 0 per second is no bound."""

    def __init__(self, per_second: float, burst: int) -> None:
        self._per_second = per_second
        self._burst = max(1, burst)
        self._buckets: dict[str, _Bucket] = {}

    async def admit(self, host: str) -> None:
        """Return when *host* may be logged in to once more."""
        if self._per_second <= 0:
            return
        bucket = self._buckets.setdefault(host.casefold(), _Bucket(float(self._burst), anyio.current_time()))
        async with bucket.turn:
            now = anyio.current_time()
            bucket.tokens = min(self._burst, bucket.tokens + (now - bucket.filled_at) * self._per_second)
            bucket.filled_at = now
            if bucket.tokens < 1:
                pause = (1 - bucket.tokens) / self._per_second
                await anyio.sleep(pause)
                bucket.tokens, bucket.filled_at = 1.0, anyio.current_time()
            bucket.tokens -= 1
