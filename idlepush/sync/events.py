"""The durable events: what the log holds, and how each is spelled for the outside (`contract.md`, Events).

An event says what changed in the mirror, is committed with that change, and is enough to replay it. How a reader of
the log folds it, to have the mirror:

    message.new, .flags, .moved   the message `id` is in `mailbox` now, with these flags (and, if moved, nowhere else)
    message.body                  it is whole now; or, `complete` being false, what was here of it was wrong and is
                                  fetched again: it is whole with the next one
    message.expunged              it is no more
    mailbox.new                   there is a mailbox of this name, with nothing in it
    mailbox.gone                  there is none; every message that was in it is no more, without events of their own
    mailbox.renamed               all that is in `mailbox_before` is in `mailbox` from here on; the messages keep their
                                  `id`, UID and flags, and nothing is in `mailbox_before` any more. Whatever else was
                                  in `mailbox` had its `mailbox.gone` just before
    mailbox.reset                 its UIDs mean something else now; the messages known of follow as `message.moved`,
                                  `message.expunged` or stay until then as they were

Two mailboxes that swapped their names are renamed one after the other, over a name that neither of them has.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from typing import Final

Json = str | int | bool | None | list["Json"] | dict[str, "Json"]


class FoundBy(StrEnum):
    """What led to a message: the measure of how well push works."""

    PUSH = "push"
    POLL = "poll"
    RECONNECT = "reconnect"
    BACKFILL = "backfill"
    AUDIT = "audit"


class EventType(StrEnum):
    """What happened."""

    MESSAGE_NEW = "message.new"
    MESSAGE_BODY = "message.body"
    MESSAGE_FLAGS = "message.flags"
    MESSAGE_MOVED = "message.moved"
    MESSAGE_EXPUNGED = "message.expunged"
    MAILBOX_NEW = "mailbox.new"
    MAILBOX_GONE = "mailbox.gone"
    MAILBOX_RENAMED = "mailbox.renamed"
    MAILBOX_RESET = "mailbox.reset"
    ACCOUNT_STATE = "account.state"
    ACCOUNT_ALERT = "account.alert"


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """One line of the log. `id`, `mailbox`, `uidvalidity` and `uid` are None where the type has none."""

    position: int
    time: datetime
    type: EventType
    account: str
    id: str | None = None
    mailbox: str | None = None
    uidvalidity: int | None = None
    uid: int | None = None
    details: Mapping[str, Json] = field(default_factory=dict)

    def record(self) -> dict[str, Json]:
        """The line as `events --json`, SSE and the sinks show it."""
        return {
            "position": self.position,
            "time": rfc3339(self.time),
            "type": self.type.value,
            "id": self.id,
            "account": self.account,
            "mailbox": self.mailbox,
            "uidvalidity": self.uidvalidity,
            "uid": self.uid,
            **self.details,
        }


# The keys that stand in `details`, by type; a test holds the stores to it.
DETAILS: Final[Mapping[EventType, frozenset[str]]] = {
    EventType.MESSAGE_NEW: frozenset(
        {"flags", "size", "internal_date", "message_id", "found_by", "initial", "complete"}
    ),
    EventType.MESSAGE_BODY: frozenset({"sha256", "complete"}),
    EventType.MESSAGE_FLAGS: frozenset({"flags"}),
    EventType.MESSAGE_MOVED: frozenset({"flags", "mailbox_before", "uidvalidity_before", "uid_before"}),
    EventType.MESSAGE_EXPUNGED: frozenset(),
    EventType.MAILBOX_NEW: frozenset(),
    EventType.MAILBOX_GONE: frozenset(),
    EventType.MAILBOX_RENAMED: frozenset({"mailbox_before"}),
    EventType.MAILBOX_RESET: frozenset({"uidvalidity_before"}),
    EventType.ACCOUNT_STATE: frozenset({"state", "state_before", "class", "reason"}),
    EventType.ACCOUNT_ALERT: frozenset({"kind", "class", "reason"}),
}


def rfc3339(moment: datetime | None) -> str | None:
    """Spell an aware moment in UTC with `Z`; microseconds only where there are any."""
    if moment is None:
        return None
    return moment.astimezone(UTC).isoformat().replace("+00:00", "Z")
