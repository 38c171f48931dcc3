"""`top`: how the accounts stand, kept on the screen, those in trouble first."""

import select
import sys
import termios
import tty
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import Annotated, Final

import typer
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from idlepush.app.clock import utc_now
from idlepush.cli.options import ConfigOption, JsonOption, configuration
from idlepush.cli.printing import ago, print_record, spelled
from idlepush.cli.standing import Record, standing
from idlepush.config import Config
from idlepush.errors import IdlepushError
from idlepush.telemetry.text import printable

app = typer.Typer()

# What is left out first where the terminal is narrow stands last; the width from which each is shown.
_COLUMNS: Final = (
    ("account", "account", 0),
    ("state", "state", 0),
    ("health_score", "score", 36),
    ("messages", "messages", 48),
    ("backfill_remaining", "to come", 60),
    ("last_commit", "changed", 72),
    ("reason", "reason", 96),
)
_STYLES: Final = {"healthy": "green", "warning": "yellow", "critical": "red"}


@app.command(epilog="Examples:\n\nidlepush top\n\nidlepush top --every 5\n\nEnd it with q or Ctrl-C.")
def top(
    every: Annotated[float, typer.Option("--every", min=0.2, help="Seconds between two looks.")] = 1.0,
    as_json: JsonOption = False,
    config: ConfigOption = None,
) -> None:
    """Keep on the screen how every account stands, those in trouble first."""
    settings = configuration(config)
    try:
        if as_json:
            _print_for_ever(settings, every)
        elif sys.stdout.isatty():
            _show_for_ever(settings, every)
        else:
            raise IdlepushError("top needs a terminal; use `idlepush status`, or `idlepush top --json`")
    except KeyboardInterrupt:
        return


def _print_for_ever(settings: Config, every: float) -> None:
    while True:
        for line in standing(settings):
            print_record(line)
        _pause(every)


def _show_for_ever(settings: Config, every: float) -> None:
    console = Console(highlight=False)
    with _keys(), Live(console=console, screen=True, auto_refresh=False, vertical_overflow="crop") as live:
        while True:
            live.update(picture(standing(settings), utc_now(), console.width, console.height), refresh=True)
            if _pause(every) == "q":
                return


def picture(lines: Sequence[Record], now: datetime, width: int, height: int) -> Group:
    """Draw the screen: a line that sums up, then as many accounts as there is room for."""
    worst_first = sorted(lines, key=lambda line: (_score(line), str(line["account"])))
    columns = [(key, title) for key, title, least in _COLUMNS if width >= least]
    table = Table(box=None, pad_edge=False, expand=False)
    for _, title in columns:
        table.add_column(title, no_wrap=True, overflow="ellipsis", header_style="bold")
    room = max(1, height - 4)
    for shown in worst_first[:room]:
        style = _STYLES.get(str(shown["health"]), "")
        line = {**shown, "last_commit": ago(shown["last_commit"], now)}
        table.add_row(*(Text(printable(spelled(line[key]))) for key, _ in columns), style=style)
    hidden = len(worst_first) - room
    more = [Text(f"… and {hidden} more", style="dim")] if hidden > 0 else []
    return Group(Text(_summary(lines), no_wrap=True, overflow="ellipsis"), Text(""), table, *more)


def _score(line: Record) -> int:
    score = line["health_score"]
    return score if isinstance(score, int) else 101


def _summary(lines: Sequence[Record]) -> str:
    states = Counter(str(line["state"]) for line in lines)
    counted = ", ".join(f"{count} {state.replace('_', ' ')}" for state, count in states.most_common())
    running = "" if any(line["running"] for line in lines) else "  no service answers: as last stored"
    return f"{len(lines)} accounts: {counted or 'none'}{running}"


@contextmanager
def _keys() -> Iterator[None]:
    """Take keys as they are pressed, unseen."""
    if not sys.stdin.isatty():
        yield
        return
    before = termios.tcgetattr(sys.stdin)
    tty.setcbreak(sys.stdin)
    try:
        yield
    finally:
        termios.tcsetattr(sys.stdin, termios.TCSADRAIN, before)


def _pause(seconds: float) -> str:
    """Wait for a key, or so long; return the key."""
    sources = [sys.stdin] if sys.stdin.isatty() else []
    ready, _, _ = select.select(sources, [], [], seconds)
    return sys.stdin.read(1) if ready else ""
