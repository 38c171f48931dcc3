"""Ctrl-C and SIGTERM before and after the service takes them itself: an end as clean, and exit status 0."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any


@contextmanager
def ending_cleanly() -> Iterator[None]:
    """Take both as a request to end: whatever is open within the block is closed, and nothing is raised behind it."""
    # As SIGINT, for that is the one that an event loop turns into a cancellation of what runs in it.
    signal.signal(signal.SIGTERM, _as_ctrl_c)
    with suppress(KeyboardInterrupt):
        yield


def _as_ctrl_c(_number: int, _frame: Any) -> None:
    signal.raise_signal(signal.SIGINT)
