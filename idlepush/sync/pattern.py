r"""Tell whether a mailbox's name matches a LIST pattern (RFC 9051 section 6.3.9), in time that is linear in the name.

Names are the server's to choose. A regular expression with five stars needs the fifth power of a name's length where
it does not match, and one such name would hold the loop that all accounts share.

Theory of operation. All places of the pattern where the match may stand are bits of one number; a character of the
name moves them all at once (Baeza-Yates and Gonnet's shift-and). At a wildcard a bit may stay where it is, or go on
without a character.
"""

import re
from collections.abc import Callable
from functools import lru_cache
from typing import Final


def matches(pattern: str, name: str, delimiter: str | None) -> bool:
    """Tell whether all of *name* is what *pattern* says: `*` any characters, `%` any but *delimiter*, `/` it."""
    return _matcher(pattern, delimiter)(name)


@lru_cache(maxsize=1000)
def _matcher(pattern: str, delimiter: str | None) -> Callable[[str], bool]:
    stars = wild = 0  # the places of `*`, and of `*` or `%`
    moves: dict[str, int] = {}  # the places of each character
    place = 1
    # Neighbouring wildcards are one, the wider of them: so that from each there is one step to what follows.
    for part in _PARTS.findall(pattern):
        if part[0] in "*%":
            wild |= place
            stars |= place if "*" in part else 0
        else:
            character = delimiter if part == "/" and delimiter else part
            moves[character] = moves.get(character, 0) | place
        place <<= 1

    def matches_all(name: str) -> bool:
        places = 1
        for character in name:
            places |= (places & wild) << 1
            stays = places & (stars if character == delimiter else wild)
            places = (places & moves.get(character, 0)) << 1 | stays
        places |= (places & wild) << 1
        return bool(places & place)

    return matches_all


_PARTS: Final = re.compile(r"[*%]+|.", re.DOTALL)
