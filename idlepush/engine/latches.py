"""What a server was caught lying about, and is therefore not asked for again until the latch ages out.

A capability is a promise; some servers break it (iCloud's QRESYNC tells of messages as vanished that are there, others
show a HIGHESTMODSEQ that stands still). Whoever sees the contradiction latches the feature off, and the next best way
is gone (slower, and right). A latch ages out, as servers are mended.
"""

from typing import Final

import anyio

from idlepush.engine.observations import Feature, FeatureDistrusted, Observe

AGES_OUT: Final = 24 * 3600.0
"""Seconds for which a feature is not used again."""


class Latches:
    """The latches of one account; times are the loop's."""

    def __init__(self, account: str, observe: Observe) -> None:
        self._account = account
        self._observe = observe
        self._until: dict[Feature, float] = {}

    def trusts(self, feature: Feature) -> bool:
        """Tell whether *feature* may be used now."""
        return anyio.current_time() >= self._until.get(feature, 0.0)

    @property
    def forgone(self) -> frozenset[Feature]:
        """What is not to be used now."""
        return frozenset(feature for feature in self._until if not self.trusts(feature))

    def distrust(self, feature: Feature, reason: str, *, seconds: float = AGES_OUT) -> None:
        """Latch *feature* off and tell why."""
        self._until[feature] = anyio.current_time() + seconds
        self._observe(FeatureDistrusted(account=self._account, feature=feature, reason=reason))
