"""How records reach the terminal: JSON Lines for programs, a table for people, nothing unprintable for either."""

import sys
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime

from idlepush.serve.lines import json_line
from idlepush.sync.events import Json
from idlepush.telemetry.text import printable


def complain(reason: str) -> None:
    """Write why a command failed as the last lines on stderr."""
    if sys.stdout is not None:
        sys.stdout.flush()
    print("\n".join(printable(line) for line in reason.splitlines()), file=sys.stderr)


def print_record(record: Mapping[str, Json]) -> None:
    """Print one JSON line."""
    sys.stdout.buffer.write(json_line(record) + b"\n")
    sys.stdout.buffer.flush()


def print_table(columns: Sequence[str], rows: Iterable[Sequence[object]], *, wrapped: Sequence[str] = ()) -> None:
    """Print a table as wide as the terminal; each cell is one line, save those of the *wrapped* columns."""
    # Rich is a tenth of a second, and --json does without.
    from rich import box  # noqa: PLC0415
    from rich.console import Console  # noqa: PLC0415
    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for column in columns:
        table.add_column(column, overflow="ellipsis", no_wrap=column not in wrapped)
    for row in rows:
        table.add_row(*(Text(printable(spelled(cell))) for cell in row))
    Console(file=sys.stdout, highlight=False).print(table)


def ago(moment: str | None, now: datetime) -> str | None:
    """Spell how long ago a record's moment is."""
    if moment is None:
        return None
    seconds = (now - datetime.fromisoformat(moment)).total_seconds()
    for unit, length in (("d", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit} ago"
    return f"{max(0.0, seconds):.0f} s ago"


def spelled(value: object) -> str:
    """Spell a value for a person."""
    match value:
        case None:
            return "–"
        case bool():
            return "yes" if value else "no"
        case list() | tuple():
            return " ".join(map(spelled, value))
        case _:
            return str(value)
