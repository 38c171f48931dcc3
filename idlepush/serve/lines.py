"""A record as one line of JSON: the same bytes on stdout, in an HTTP answer and in the stream of events."""

import json
from collections.abc import Mapping

from idlepush.sync.events import Json


def json_line(record: Mapping[str, Json]) -> bytes:
    """Spell *record* without a line's end. JSON escapes C0; C1 and what reorders text is escaped here as well."""
    text = json.dumps(record, ensure_ascii=False, separators=(",", ":"))
    if not text.isprintable():
        text = "".join(letter if letter.isprintable() else json.dumps(letter)[1:-1] for letter in text)
    # Half a surrogate pair is no UTF-8; its escape is JSON all the same.
    return text.encode("utf-8", "backslashreplace")
