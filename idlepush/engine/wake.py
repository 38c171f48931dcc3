"""Wake: an empty hint that something may have changed. Wakes carry nothing and coalesce."""

from collections.abc import Callable

import anyio


class Wake:
    """Set by anyone, waited for by one; a wake set while its waiter works is found at the next wait."""

    def __init__(self) -> None:
        self._event = anyio.Event()
        self._told: Callable[[], None] | None = None

    def set(self) -> None:
        """Hint. Never blocks, never fails; twice is once."""
        self._event.set()
        if self._told is not None:
            self._told()

    @property
    def is_set(self) -> bool:
        """A hint waits to be taken."""
        return self._event.is_set()

    def take(self) -> bool:
        """Return whether a hint was there, and forget it: the caller looks now."""
        was_set = self._event.is_set()
        if was_set:
            self._event = anyio.Event()
        return was_set

    def tell(self, told: Callable[[], None] | None) -> None:
        """Call *told* at each hint from now on (one teller at a time; None: nobody): how IDLE is interrupted."""
        self._told = told

    async def wait(self, *, at_most: float) -> bool:
        """Wait for a hint or for *at_most* seconds; True if a hint came. It is taken."""
        with anyio.move_on_after(at_most):
            await self._event.wait()
        # Re-armed before the caller looks: a hint that lands while it works must start another look, not vanish.
        return self.take()
