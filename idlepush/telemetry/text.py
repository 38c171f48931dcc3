"""Words from outside, made fit for a line of ours: a log, an alert, a status line, an answer of the API."""

from typing import Final

LONGEST: Final = 2000


def printable(text: str, *, most: int = LONGEST) -> str:
    """Return *text* with everything that is not printable as a space, and bounded.

    Line breaks, NUL, escape sequences, zero-width and bidirectional controls all count as not printable: none of them
    reaches a terminal, begins a line of its own, or shows a name backwards.
    """
    cut = text if len(text) <= most else text[: most - 1] + "…"
    return "".join(letter if letter.isprintable() else " " for letter in cut)
