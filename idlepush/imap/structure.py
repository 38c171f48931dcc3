"""Reading BODYSTRUCTURE and BODY (RFC 9051 section 7.5.2): which parts a message has, before any of them is fetched.

Servers get this wrong in more ways than anything else they say: missing line counts, `message/rfc822` without its
envelope (Gmail, Exchange), multiparts without parts, dispositions that are a word and not a list, NIL for a type. It
is never worth a message: whatever comes gives a `Structure`, and one that is not as it should be says so.
"""

from collections.abc import Sequence
from typing import Final

from idlepush.imap.reader import Value
from idlepush.imap.responses import Part, Structure
from idlepush.imap.types import printable

MAX_PARTS: Final = 1000
MAX_PARAMETERS: Final = 100
_PARAMETER_OCTETS: Final = 8000


def structure_of(value: Value) -> Structure:
    """Read what stands behind BODYSTRUCTURE: its leaves, and the messages inside it, in their order. Never raises."""
    parts: list[Part] = []
    understood = True
    is_multipart = _is_multipart(value)
    todo: list[tuple[Value, str]] = [(value, "" if is_multipart else "1")]
    while todo:
        one, section = todo.pop()
        if len(parts) == MAX_PARTS or not isinstance(one, tuple):
            understood = False
        elif _is_multipart(one):
            children = [child for child in one if isinstance(child, tuple)][: _leading(one)]
            todo += reversed([(child, _below(section, number)) for number, child in enumerate(children, 1)])
            understood = understood and bool(children) and _word(one, len(children)) != ""
        else:
            part, inside = _leaf(one, section)
            parts.append(part)
            understood = understood and "/" in part.type
            if inside is not None:
                todo.append((inside, section if _is_multipart(inside) else _below(section, 1)))
    return Structure(tuple(parts), understood)


def _is_multipart(value: Value) -> bool:
    # A multipart without parts has nothing, or NIL, where its parts should be.
    return isinstance(value, tuple) and (not value or isinstance(value[0], tuple) or _is_hollow(value))


def _is_hollow(value: Sequence[Value]) -> bool:
    return len(value) >= 2 and value[0] is None and _word(value, 1) in _MULTIPARTS


_MULTIPARTS: Final = frozenset(
    {"mixed", "alternative", "related", "signed", "encrypted", "report", "digest", "parallel", "form-data"}
)


def _leading(value: Sequence[Value]) -> int:
    return next((number for number, one in enumerate(value) if not isinstance(one, tuple)), len(value))


def _below(section: str, number: int) -> str:
    return f"{section}.{number}" if section else str(number)


def _leaf(value: Sequence[Value], section: str) -> tuple[Part, Value]:
    """Read one part, and return the message inside it, where it is one and the server shows that."""
    main, sub = _word(value, 0), _word(value, 1)
    fields = value[7:]
    inside: Value = None
    if main == "message" and len(fields) > 1 and _is_body(fields[1]):
        inside, fields = fields[1], fields[3:]
    elif main == "text" and fields and isinstance(fields[0], int):
        fields = fields[1:]
    disposition, more = _disposition(fields)
    size = _at(value, 6)
    return (
        Part(
            section=section,
            type=f"{main}/{sub}" if main and sub else "",
            parameters=_parameters(_at(value, 2)),
            content_id=_octets(_at(value, 3)),
            encoding=_word(value, 5),
            size=size if isinstance(size, int) else None,
            disposition=disposition,
            disposition_parameters=more,
        ),
        inside,
    )


def _is_body(value: Value) -> bool:
    # A disposition in its place has two elements, and no list comes first.
    return isinstance(value, tuple) and bool(value) and (isinstance(value[0], tuple) or len(value) >= 7)


def _disposition(fields: Sequence[Value]) -> tuple[str, tuple[tuple[str, bytes], ...]]:
    """Find `("attachment" ("filename" "x"))` among what stands behind the fixed fields: MD5 first, then this."""
    for place, one in enumerate(fields):
        if isinstance(one, tuple) and one and isinstance(one[0], bytes):
            word, more = _word(one, 0), _at(one, 1)
            if word in _DISPOSITIONS or (place <= 1 and (more is None or isinstance(more, tuple))):
                return word, _parameters(more)
        elif isinstance(one, bytes) and _word(fields, place) in _DISPOSITIONS:
            return _word(fields, place), _parameters(_at(fields, place + 1))
    return "", ()


_DISPOSITIONS: Final = frozenset({"attachment", "inline"})


def _parameters(value: Value) -> tuple[tuple[str, bytes], ...]:
    if not isinstance(value, tuple):
        return ()
    found: list[tuple[str, bytes]] = []
    for key, what in zip(value[::2], value[1::2], strict=False):
        octets = _octets(what)
        if isinstance(key, bytes) and octets is not None and len(found) < MAX_PARAMETERS:
            found.append((_word((key,), 0), octets[:_PARAMETER_OCTETS]))
    return tuple(found)


def _at(value: Sequence[Value], place: int) -> Value:
    return value[place] if place < len(value) else None


def _octets(value: Value) -> bytes | None:
    if isinstance(value, int):
        return b"%d" % value
    return value if isinstance(value, bytes) else None


def _word(value: Sequence[Value], place: int) -> str:
    """Return the word that stands there in lower case, the empty string where none does."""
    one = _at(value, place)
    return printable(one[:100].decode("ascii", "replace")).strip().lower() if isinstance(one, bytes) else ""
