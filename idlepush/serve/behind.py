"""What stands behind the HTTP interface: a store to read, the health of the accounts, and what may be done to them."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

import anyio
from prometheus_client import CollectorRegistry

from idlepush.imap.types import MailboxName
from idlepush.imap.uidset import UidSet
from idlepush.store.base import Reader
from idlepush.telemetry.health import AccountHealth


class Control(Protocol):
    """The service, as far as others may reach into it. An `account` is always one of `accounts`."""

    @property
    def accounts(self) -> Mapping[str, AccountHealth]:
        """How each account of the service stands, the paused ones too."""
        ...

    def unready(self) -> str | None:
        """Say what has not started yet; None where every account's loop has, whatever the servers say."""
        ...

    def wake(self, account: str) -> None:
        """Have the account look at once."""
        ...

    def repair(self, account: str, mailbox: MailboxName, damaged: UidSet) -> bool:
        """Have one mailbox compared in full, at once, and *damaged* fetched anew; False where the account is paused."""
        ...

    async def pause(self, account: str) -> None:
        """End the account's session and begin none until `resume`, a restart of the service included."""
        ...

    async def resume(self, account: str) -> None:
        """Watch a paused account again; one that is not paused is left alone."""
        ...

    async def reload(self) -> None:
        """Read the configuration again.

        Raises:
            ConfigError: it is wrong, and nothing was changed.
        """
        ...

    async def purge(self, account: str) -> bool:
        """Read the configuration again and delete all data of an account that is not in it; False where it still is.

        Raises:
            ConfigError: the configuration is wrong, and nothing was changed.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Behind:
    """Everything a route may use."""

    reader: Reader
    control: Control
    metrics: CollectorRegistry
    stopping: anyio.Event = field(default_factory=anyio.Event)
    """Set when the service ends: streams end by it."""
    keepalive: float = 15.0
    """Seconds after which a silent stream shows that it lives."""
