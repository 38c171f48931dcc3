"""Durations and sizes as people write them: `"1h30m"` is 5400.0 seconds, `"64KiB"` is 65536 bytes.

They live this low in the house because the store's settings are the lowest that use them.
"""

import re
from typing import Annotated, Final

from pydantic import BeforeValidator, PlainSerializer, WithJsonSchema

_SECONDS: Final = {"w": 604_800, "d": 86_400, "h": 3_600, "m": 60, "s": 1}
# Descending and each unit once, as systemd and Prometheus write them; nine digits keep every product exact in a float.
_DURATION: Final = "".join(rf"(?:([0-9]{{1,9}}){unit})?" for unit in _SECONDS)
_LONGEST: Final = 36_500 * 86_400  # a hundred years: nothing that is computed from it leaves the calendar
_DURATION_WANTED: Final = 'expected a duration from 1s up, like "90s", "5m", "1h30m" or "30d"'

_BYTES: Final = {
    "": 1,
    "B": 1,
    **{f"{prefix}B": 1000**power for power, prefix in enumerate("kMGT", start=1)},
    **{f"{prefix}iB": 1024**power for power, prefix in enumerate("KMGT", start=1)},
    "KB": 1000,
}
_SIZE: Final = re.compile(r"([0-9]{1,19})([kKMGT]?i?B)?")
_LARGEST: Final = 2**63 - 1  # what a 64-bit column and every counter hold
_SIZE_WANTED: Final = 'expected a size, like "64KiB", "50MiB" or "10MB", or a whole number of bytes'


def parse_duration(text: object) -> float:
    """Return the seconds that *text* means.

    Raises:
        ValueError: it is no duration from one second to a hundred years; the sentence never holds *text*.
    """
    if isinstance(text, int | float) and not isinstance(text, bool):
        # A bare number has no unit, and guessing seconds is how a poll of 5 "minutes" becomes one each 5 s.
        raise ValueError(f"{_DURATION_WANTED}: a number needs its unit, in quotes")  # noqa: TRY004 - pydantic's
    found = re.fullmatch(_DURATION, text) if isinstance(text, str) else None
    if found is None or found.lastindex is None:
        raise ValueError(_DURATION_WANTED)
    seconds = sum(int(count) * unit for count, unit in zip(found.groups("0"), _SECONDS.values(), strict=True))
    if seconds < 1:
        raise ValueError(_DURATION_WANTED)
    if seconds > _LONGEST:
        raise ValueError('expected a duration of at most a hundred years, like "30d"')
    return float(seconds)


def spell_duration(seconds: float) -> str:
    """Write whole *seconds* the shortest way that `parse_duration` reads back; fractions are cut off."""
    rest, parts = int(seconds), []
    for unit, worth in _SECONDS.items():
        count, rest = divmod(rest, worth)
        if count and unit == "w" and rest:
            count, rest = 0, rest + count * worth  # "30d" is what people say, not "4w2d"
        if count:
            parts.append(f"{count}{unit}")
    return "".join(parts) or "0s"


def parse_size(text: object) -> int:
    """Return the bytes that *text* means: digits with or without a unit, or a whole number of TOML itself.

    Raises:
        ValueError: it is no size, or more than 64 bits hold; the sentence never holds *text*.
    """
    if isinstance(text, int) and not isinstance(text, bool):
        size = text
    else:
        found = _SIZE.fullmatch(text) if isinstance(text, str) else None
        unit = _BYTES.get(found[2] or "") if found else None
        if found is None or unit is None:
            raise ValueError(_SIZE_WANTED)
        size = int(found[1]) * unit
    if not 0 <= size <= _LARGEST:
        raise ValueError(_SIZE_WANTED)
    return size


def spell_size(size: int) -> str:
    """Write *size* bytes exactly, in the largest binary unit that divides it."""
    for power, prefix in reversed(list(enumerate("KMGT", start=1))):
        if size and size % 1024**power == 0:
            return f"{size // 1024**power}{prefix}iB"
    return str(size)


Duration = Annotated[
    float,
    BeforeValidator(parse_duration),
    PlainSerializer(spell_duration, return_type=str, when_used="json"),
    WithJsonSchema({"type": "string", "pattern": f"^(?=.){_DURATION}$", "examples": ["90s", "5m", "1h30m"]}),
]
"""Seconds, validated from text; a model's default and `model_copy` hold the float itself."""

Size = Annotated[
    int,
    BeforeValidator(parse_size),
    PlainSerializer(spell_size, return_type=str, when_used="json"),
    WithJsonSchema(
        {
            "anyOf": [{"type": "string", "pattern": f"^{_SIZE.pattern}$"}, {"type": "integer", "minimum": 0}],
            "examples": ["64KiB", "50MiB", "10MB"],
        }
    ),
]
"""Bytes, validated from text or a whole number."""
