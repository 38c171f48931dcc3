"""Logs: one line for each observation that a person may want, structured, on stderr.

Human on a terminal, JSON Lines otherwise (`event`, `level`, `time`, then the observation's own fields). There is no
prose and no text of a message in them, and every value is made printable: a server's words never reach a terminal raw.
"""

import dataclasses
import logging
import sys
from collections.abc import Mapping, MutableMapping
from typing import Any, Final, TextIO

import structlog

from idlepush.engine.observations import (
    Backfilling,
    BugFound,
    ConnectFailed,
    Connecting,
    Disconnected,
    IdleDistrusted,
    IdleRenewed,
    IdleWasSilent,
    Looked,
    MailboxReset,
    MailboxTrouble,
    Mirrored,
    Observation,
    Quarantined,
    Restarting,
    ServerAlert,
    StateChanged,
    StoreTrouble,
    Timed,
    Waiting,
    Woken,
)
from idlepush.telemetry.text import printable

LEVELS: Final[Mapping[type[Observation], int]] = {
    Timed: logging.DEBUG,
    Woken: logging.DEBUG,
    Waiting: logging.DEBUG,
    Connecting: logging.DEBUG,
    IdleRenewed: logging.DEBUG,
    Mirrored: logging.DEBUG,
    Disconnected: logging.DEBUG,
    Restarting: logging.DEBUG,
    ConnectFailed: logging.WARNING,
    IdleDistrusted: logging.WARNING,
    IdleWasSilent: logging.WARNING,
    MailboxReset: logging.WARNING,
    MailboxTrouble: logging.WARNING,
    Quarantined: logging.WARNING,
    ServerAlert: logging.WARNING,
    StoreTrouble: logging.ERROR,
    BugFound: logging.ERROR,
}
"""All others are INFO."""

_TROUBLED: Final = frozenset({"throttled", "backing_off", "parked"})


def configure(level: int, stream: TextIO = sys.stderr) -> None:
    """Set up logging for the process: *level* is one of `logging`'s."""
    # aioimaplib logs every byte it receives, and the LOGIN line, at DEBUG.
    logging.getLogger("aioimaplib.aioimaplib").setLevel(logging.CRITICAL)
    human = stream.isatty()
    renderer: Any = structlog.dev.ConsoleRenderer(colors=human) if human else structlog.processors.JSONRenderer()
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True, key="time" if not human else "timestamp"),
            _printable,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.PrintLoggerFactory(file=stream),
        cache_logger_on_first_use=False,
    )


class Logs:
    """A reader of observations that writes them down."""

    def __init__(self) -> None:
        self._log = structlog.get_logger()
        self._backfilling: dict[tuple[str, str], int] = {}

    def __call__(self, seen: Observation) -> None:
        """Write *seen* down, at its level."""
        level = self._level(seen)
        if level is not None:
            self._log.log(level, seen.event, **_fields(seen))

    def _level(self, seen: Observation) -> int | None:
        match seen:
            case Looked():
                told = seen.new or seen.moved or seen.flags or seen.expunged
                return logging.INFO if told else logging.DEBUG
            case StateChanged():
                return logging.WARNING if seen.state in _TROUBLED else logging.INFO
            case Backfilling():
                return logging.INFO if self._is_a_tenth_on(seen) else logging.DEBUG
            case _:
                return LEVELS.get(type(seen), logging.INFO)

    def _is_a_tenth_on(self, seen: Backfilling) -> bool:
        """A long backlog is told of ten times, not once a window."""
        tenth = 10 * seen.remaining // max(1, seen.total)
        key = (seen.account, seen.mailbox)
        before = self._backfilling.get(key)
        self._backfilling[key] = tenth
        return tenth != before


def _fields(seen: Observation) -> dict[str, Any]:
    return {
        field.name: value
        for field in dataclasses.fields(seen)
        if (value := getattr(seen, field.name)) is not None and (value != 0 or field.name == "remaining")
    }


def _printable(_: Any, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    for key, value in event.items():
        if isinstance(value, float):
            event[key] = round(value, 6)
        elif isinstance(value, str):
            event[key] = printable(value)
    return event
