"""The token of the HTTP interface: read before anybody is answered, and again now and then."""

from collections.abc import Mapping
from typing import Final

import anyio
import structlog

from idlepush.engine.credentials import Secret, SecretSource, read_secret
from idlepush.engine.supervise import is_cheap
from idlepush.errors import SecretUnreadable

CHECK_EVERY: Final = 4.0


class Token:
    """What a request must bear; call it for what it is now, None where none is needed."""

    def __init__(self, source: SecretSource | None, environment: Mapping[str, str]) -> None:
        self._source = source
        self._environment = environment
        self._now: Secret | None = None

    def __call__(self) -> Secret | None:
        """Return the token as it was read last."""
        return self._now

    async def read(self) -> None:
        """Read it.

        Raises:
            SecretUnreadable: its place gave nothing; what was read before stays.
        """
        if self._source is not None:
            self._now = await read_secret(self._source, self._environment)

    async def keep_fresh(self) -> None:
        """Read it every few seconds, where that costs nothing. For ever."""
        if self._source is None or not is_cheap(self._source):
            return
        is_failing = False
        while True:
            await anyio.sleep(CHECK_EVERY)
            try:
                await self.read()
            except SecretUnreadable as error:
                if not is_failing:
                    structlog.get_logger().warning("http.token", reason=str(error))
                is_failing = True
            else:
                is_failing = False
