"""How records reach the terminal: JSON Lines for programs, a table for people, nothing unprintable for either."""

import json
import sys
from collections.abc import Iterable, Mapping, Sequence

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from idlepush.sync.events import Json
from idlepush.telemetry.text import printable


def complain(reason: str) -> None:
    """Write why a command failed as the last lines on stderr."""
    sys.stdout.flush()
    print("\n".join(printable(line) for line in reason.splitlines()), file=sys.stderr)


def print_record(record: Mapping[str, Json]) -> None:
    """Print one JSON line. JSON escapes C0; C1 and what reorders text is escaped here as well."""
    text = json.dumps(record, ensure_ascii=False, separators=(",", ":"))
    if not text.isprintable():
        text = "".join(letter if letter.isprintable() else _escaped(letter) for letter in text)
    # A name in some other encoding than the terminal's must not end the listing.
    sys.stdout.buffer.write(text.encode("utf-8", "backslashreplace") + b"\n")
    sys.stdout.buffer.flush()


def _escaped(letter: str) -> str:
    return json.dumps(letter)[1:-1]


def print_table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Print a table as wide as the terminal; each cell is one line."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for column in columns:
        table.add_column(column, overflow="ellipsis", no_wrap=column not in ("problems", "reason"))
    for row in rows:
        table.add_row(*(Text(printable(spelled(cell))) for cell in row))
    Console(file=sys.stdout, highlight=False).print(table)


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
