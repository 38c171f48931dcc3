"""How keys and values are written for people: as TOML, on one line, with nothing a terminal would obey."""

import json
import re
from collections.abc import Mapping, Sequence

from idlepush.config.lines import Path

_BARE = re.compile("[A-Za-z0-9_-]+")
_LONGEST_KEY = 64  # characters of a key that a sentence shows


def dotted(path: Path) -> str:
    """Write *path* as TOML does: `accounts."a b".hosts[0]`."""
    written = ""
    for part in path:
        if isinstance(part, int):
            written += f"[{part}]"
        else:
            written += f".{_key(part)}" if written else _key(part)
    return written


def _key(key: str) -> str:
    shown = key if len(key) <= _LONGEST_KEY else f"{key[:_LONGEST_KEY]}…"
    return shown if _BARE.fullmatch(shown) else text(shown)


def text(value: str) -> str:
    """Write a basic string of TOML, everything that does not print escaped."""
    # JSON's escapes are all TOML's; what JSON leaves alone is DEL, C1, bidi marks and such.
    return "".join(
        letter if letter.isprintable() else _escape(letter) for letter in json.dumps(value, ensure_ascii=False)
    )


def _escape(letter: str) -> str:
    return f"\\u{ord(letter):04x}" if ord(letter) < 0x10000 else f"\\U{ord(letter):08x}"


def printable(value: str) -> str:
    """Return *value* as it is, save for what does not print, which is escaped; for paths and reasons."""
    return "".join(letter if letter.isprintable() else _escape(letter) for letter in value)


def value(of: object) -> str:
    """Write text, a number, a truth, a list or an inline table."""
    match of:
        case bool():
            return "true" if of else "false"
        case int() | float():
            return f"{of:g}" if isinstance(of, float) and of.is_integer() and abs(of) < 1e6 else repr(of)
        case Mapping():
            pairs = ", ".join(f"{_key(str(key))} = {value(each)}" for key, each in of.items())
            return f"{{ {pairs} }}" if pairs else "{}"
        case Sequence() if not isinstance(of, str | bytes):
            return f"[{', '.join(value(each) for each in of)}]"
        case _:
            return text(str(of))
