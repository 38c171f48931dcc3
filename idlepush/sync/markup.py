"""HTML into the words it shows: tags, comments, scripts and styles dropped, entities decoded. Total and linear.

No tree is built and nothing is rendered: what is wanted is the text that somebody may look for. What is hidden by a
style is found as well; what is never text (a script, a style) is not.
"""

import html
import re
from typing import Final

# A tag ends at its ">" and holds no "<", so that text full of "<" is not searched to its end from each of them.
_TAG: Final = re.compile(
    r"""(?P<comment><!--)
      | <(?P<raw>script|style|noscript|template|svg)\b[^<>]*+>
      | <(?P<name>/?[a-z][a-z0-9]{0,20})[^<>]*+>
      | <[!?/][^<>]*+>""",
    re.IGNORECASE | re.VERBOSE,
)
# Within a word these may stand; all others end it.
_INLINE: Final = frozenset(
    "a abbr acronym b bdi bdo big cite code del dfn em font i ins kbd mark q s samp small span strike strong sub sup "  # noqa: SIM905
    "tt u var wbr".split()
)


def text_of_html(markup: str) -> str:
    """Return the text that *markup* shows."""
    folded = markup.lower() if markup.isascii() else None
    pieces: list[str] = []
    at = 0
    while True:
        tag = _TAG.search(markup, at)
        if tag is None:
            pieces.append(markup[at:])
            break
        pieces.append(markup[at : tag.start()])
        at = tag.end()
        if tag["comment"]:
            # RFC-less mailers write "<!-->": the end may share its dashes with the beginning.
            end = markup.find("-->", tag.start() + 2)
            at = len(markup) if end < 0 else end + 3
        elif tag["raw"]:
            at = _end_of(markup, folded, tag["raw"].lower(), at)
        name = (tag["name"] or "/p").lower().lstrip("/")
        if name not in _INLINE:
            pieces.append(" ")
    return html.unescape("".join(pieces))


def _end_of(markup: str, folded: str | None, name: str, at: int) -> int:
    if folded is not None:
        end = folded.find(f"</{name}", at)
    else:
        found = re.compile(f"</{name}", re.IGNORECASE).search(markup, at)
        end = -1 if found is None else found.start()
    return len(markup) if end < 0 else end
