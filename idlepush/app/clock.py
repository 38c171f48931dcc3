"""The one clock of the service; everything else is given the time."""

from datetime import UTC, datetime


def utc_now() -> datetime:
    """Return the moment."""
    return datetime.now(UTC)  # noqa: TID251 - the one place
