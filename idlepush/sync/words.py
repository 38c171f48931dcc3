"""Text into the words it is found by: `words_in`, the same for a mail and for what somebody types.

    case, accents and width are folded       Grüße, GRUESSE-like ß and ﬁ, Ｆｕｌｌ width, Ελλάς
    a word is a run of letters and digits    bob@example.org is three of them, next to each other
    where writing has no spaces              each character is a word: 東京都 is found by 東京, and by 京 alone

So words need nothing from the database but that they are separated by spaces, and a phrase is words in a row. VERSION
changes with every change to what comes out here: an index that was made by another one is made anew.
"""

import re
import unicodedata
from typing import Final

VERSION: Final = 1

LONGEST: Final = 64
"""Characters of a word; a longer run of letters is several of them in a row."""

# Chinese, Japanese, Korean; Thai, Lao, Burmese, Khmer.
_NO_SPACES: Final = (
    "\u0e00-\u0eff\u1000-\u109f\u1100-\u11ff\u1780-\u17ff\u2e80-\u2fdf\u3005-\u3007\u3021-\u3029\u3031-\u3035"
    "\u3038-\u303c\u3040-\u318f\u31a0-\u31bf\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\ua960-\ua97f\uac00-\ud7ff"
    "\uf900-\ufaff\U00020000-\U0003ffff"
)
_WORD: Final = re.compile(rf"[{_NO_SPACES}]|[^\W_{_NO_SPACES}]{{1,{LONGEST}}}")
_ASCII_WORD: Final = re.compile(f"[a-z0-9]{{1,{LONGEST}}}")

# Accents, and what stands in a word without being seen: soft hyphens, joiners, zero-width spaces.
_DROPPED: Final = re.compile("[\u0300-\u036f\u00ad\u200b-\u200f\u2060-\u2064\ufe00-\ufe0f\ufeff]")
# Letters with a stroke, and letters in one, have no accent that could be taken off.
_ALSO: Final = str.maketrans({"ł": "l", "ø": "o", "đ": "d", "æ": "ae", "œ": "oe", "ı": "i", "ħ": "h", "ŧ": "t"})


def words_in(text: str) -> list[str]:
    """Return the words of *text*, in order."""
    if text.isascii():
        return _ASCII_WORD.findall(text.lower())
    folded = _DROPPED.sub("", unicodedata.normalize("NFKD", text)).casefold()
    return _WORD.findall(unicodedata.normalize("NFKC", folded).translate(_ALSO))


def is_open_ended(word: str) -> bool:
    """Tell whether more of *word* may follow: one character of a writing without spaces is always whole."""
    return re.fullmatch(f"[{_NO_SPACES}]", word) is None
