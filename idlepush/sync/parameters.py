"""Fields that hold a value and parameters: Content-Type and Content-Disposition (RFC 2045, RFC 2183, RFC 2231).

A name comes in four spellings: a quoted string, RFC 2231 with a charset, RFC 2231 in pieces, and, though forbidden,
an encoded word of RFC 2047 or raw octets. All are read; the result is data, and never a path.
"""

import re
from collections.abc import Iterable, Mapping
from typing import Final
from urllib.parse import unquote_to_bytes

from idlepush.sync.encoding import in_charset, shown

NAME_LIMIT: Final = 500
_MOST: Final = 100
_LONGEST: Final = 20_000

# A value without quotes may hold spaces, though it must not: `name=my holiday.jpg`.
_PARAMETER: Final = re.compile(
    r"""; \s*+ ([^\s=;"]{1,100}+) \s*+ = \s*+
        (?: "((?:[^"\\]++|\\.?)*+)(?:"|\Z)
          | ([^;"\s]*+(?:[ \t]++[^;"=\s]++(?=[;\s]|\Z))*+) )""",
    re.VERBOSE | re.DOTALL,
)
_QUOTED_PAIR: Final = re.compile(r'\\([\\"])')
_PIECE: Final = re.compile(r"([^*]+)(?:\*([0-9]{1,3}))?(\*)?")


def value_and_parameters(field: str) -> tuple[str, Mapping[str, str]]:
    """Read such a field's unfolded body: the value in lower case, and its parameters, decoded, by lower-case name."""
    field = field[:_LONGEST]
    value = field.partition(";")[0]
    pairs = []
    for found in _PARAMETER.finditer(field, len(value)):
        name, quoted, plain = found.groups()
        # Windows paths stand in quoted strings as they are: only what has to be escaped is unescaped.
        pairs.append((name.lower(), plain if quoted is None else _QUOTED_PAIR.sub(r"\1", quoted)))
        if len(pairs) == _MOST:
            break
    return shown(value, 200).lower(), parameters_of(pairs)


def parameters_of(pairs: Iterable[tuple[str, str]]) -> Mapping[str, str]:
    """Decode parameters, joining those that come in pieces. The first of a name counts; RFC 2231 before the rest."""
    plain: dict[str, str] = {}
    pieces: dict[str, dict[int, tuple[str, bool]]] = {}
    for spelled, value in pairs:
        found = _PIECE.fullmatch(spelled)
        if found is None or (found[2] is None and found[3] is None):
            plain.setdefault(spelled, shown(value, NAME_LIMIT))
        else:
            # A name that is not in pieces is its own first one.
            pieces.setdefault(found[1], {}).setdefault(int(found[2] or 0), (value, found[3] is not None))
    return plain | {name: _joined(parts) for name, parts in pieces.items()}


def _joined(parts: Mapping[int, tuple[str, bool]]) -> str:
    octets = bytearray()
    charset = ""
    for number in sorted(parts):
        value, is_encoded = parts[number]
        if is_encoded and number == 0 and value.count("'") >= 2:
            charset, _, value = value.split("'", 2)
        octets += unquote_to_bytes(value) if is_encoded else value.encode("utf-8", "replace")
    # Some mailers put encoded words into the pieces, too.
    return shown(in_charset(bytes(octets), charset or "utf-8"), NAME_LIMIT)
