"""Logs: one line for each observation that a person may want, structured, on stderr.

Human on a terminal, JSON Lines otherwise (`event`, `level`, `time`, then the observation's own fields). There is no
prose and no text of a message in them, and every value is made printable: a server's words never reach a terminal raw.

What is told again and again (a state after each try, an ALERT at each login) is a line once, and DEBUG from then on.
A line that cannot be written, for the disk is full or nobody reads the pipe any more, is lost and ends nothing.
"""

import dataclasses
import logging
import sys
from collections.abc import Mapping, MutableMapping
from contextlib import suppress
from typing import Any, Final, TextIO

import structlog

from idlepush.engine.observations import (
    Audited,
    Backfilling,
    BugFound,
    ConnectFailed,
    Connecting,
    Delivered,
    Disconnected,
    FeatureDistrusted,
    IdleDistrusted,
    IdleRenewed,
    IdleWasSilent,
    LaneWorked,
    Looked,
    MailboxesDoubted,
    MailboxReset,
    MailboxTrouble,
    Mirrored,
    Observation,
    Quarantined,
    Restarting,
    ServerAlert,
    SinkReady,
    SinkTrouble,
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
    LaneWorked: logging.DEBUG,
    Delivered: logging.DEBUG,
    Restarting: logging.DEBUG,
    ConnectFailed: logging.WARNING,
    FeatureDistrusted: logging.WARNING,
    IdleDistrusted: logging.WARNING,
    IdleWasSilent: logging.WARNING,
    MailboxesDoubted: logging.WARNING,
    MailboxReset: logging.WARNING,
    MailboxTrouble: logging.WARNING,
    Quarantined: logging.WARNING,
    ServerAlert: logging.WARNING,
    StoreTrouble: logging.ERROR,
    SinkTrouble: logging.ERROR,
    BugFound: logging.ERROR,
}
"""All others are INFO."""

LONGEST_ALERT: Final = 1000
"""Octets of a server's ALERT."""
MOST_LINES: Final = 60
"""Lines of a traceback."""

_NAMES: Final = {"failure_class": "class"}
"""What a field is called outside."""
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
        logger_factory=lambda *_: _Lines(stream),
        cache_logger_on_first_use=False,
    )


class _Lines:
    """Writes lines to a stream for as long as that can be done."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def msg(self, message: str) -> None:
        """Write one line."""
        with suppress(OSError, ValueError):  # ValueError: the stream is closed
            try:
                self._stream.write(message + "\n")
            except UnicodeEncodeError:  # a terminal of old
                self._stream.write(message.encode("ascii", "backslashreplace").decode() + "\n")
            self._stream.flush()

    debug = info = warning = error = critical = msg


class Logs:
    """A reader of observations that writes them down."""

    def __init__(self) -> None:
        self._log = structlog.get_logger()
        self._backfilling: dict[tuple[str, str], int] = {}
        self._told: dict[tuple[str, type[Observation]], Observation] = {}

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
            case Audited():
                return logging.WARNING if seen.missing or seen.extra or seen.flags else logging.DEBUG
            case SinkReady():
                self._told.pop((seen.account, SinkTrouble), None)
                return logging.INFO
            case StateChanged() | ServerAlert() | SinkTrouble() if self._is_told_again(seen):
                return logging.DEBUG
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
        before = self._backfilling.pop(key, None)
        if seen.remaining:
            self._backfilling[key] = tenth
        return tenth != before

    def _is_told_again(self, seen: Observation) -> bool:
        key = seen.account, type(seen)
        before, self._told[key] = self._told.get(key), seen
        return before == seen


def _fields(seen: Observation) -> dict[str, Any]:
    fields = {
        _NAMES.get(field.name, field.name): value
        for field in dataclasses.fields(seen)
        if (value := getattr(seen, field.name)) is not None and (value != 0 or field.name == "remaining")
    }
    if isinstance(seen, ServerAlert):
        fields["text"] = printable(seen.text.encode("utf-8", "replace")[:LONGEST_ALERT].decode("utf-8", "ignore"))
    if isinstance(seen, BugFound):
        # The end of a traceback says most.
        fields["trace"] = seen.trace.splitlines()[-MOST_LINES:]
    return fields


def _printable(_: Any, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    for key, value in event.items():
        event[key] = _clean(value)
    return event


def _clean(value: Any) -> Any:
    match value:
        case bool() | int() | None:
            return value
        case float():
            return round(value, 6)
        case list() | tuple():
            return [_clean(each) for each in value]
        case _:
            return printable(str(value))
