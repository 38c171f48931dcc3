"""From what pydantic and tomllib find wrong to the one sentence a person can act on.

No sentence holds a value that the configuration gave: which of them is a secret is exactly what a mistake confuses.
Keys are named, except for an unknown one inside a secret's table, where the secret itself may have slipped to.
"""

import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from tomllib import TOMLDecodeError
from typing import Any, Final

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from idlepush.config import spelling
from idlepush.config.lines import Path
from idlepush.engine.credentials import SOURCES


@dataclass(frozen=True, slots=True)
class Mistake:
    """What is wrong at *path*; *sentence* is what stands behind the key."""

    path: Path
    sentence: str
    meant: str | None = None  # the key that an unknown one stands for
    is_missing: bool = False  # the last key of *path* is not there


# What other programs call these keys; a likeness of letters would not find them.
_SYNONYMS: Final = {
    "ca": "tls_ca",
    "certificate": "tls_ca",
    "cooloff": "cooldown",
    "fingerprint": "tls_fingerprint",
    "folder": "mailboxes",
    "folders": "mailboxes",
    "interval": "poll_interval",
    "login": "username",
    "passcmd": "password",
    "path": "url",
    "security": "tls",
    "server": "host",
    "servers": "hosts",
    "ssl": "tls",
    "timeout": "command_timeout",
    "token": "password",
}

_WANTED: Final = {
    "string_type": "expected text in quotes",
    "int_type": "expected a whole number",
    "int_from_float": "expected a whole number",
    "float_type": "expected a number",
    "finite_number": "expected a finite number",
    "bool_type": "expected true or false, without quotes",
    "tuple_type": "expected a list",
    "path_type": "expected the path of a file, in quotes",
}

# By the beginning of tomllib's sentence, whose end may hold a piece of the text: what it means, and what to do.
_SYNTAX: Final = {
    "Expected '='": "expected key = value",
    "Invalid statement": "expected key = value, or the [header] of a table",
    "Invalid value": "expected a value: text in quotes, a number, true, false, a [list] or an { inline = table }",
    "Invalid initial character": "expected a key",
    "Unclosed array": "a list is not closed with ]",
    "Unclosed inline table": "an inline table is not closed with }, or continues on another line",
    "Unterminated string": "a text is not closed with its quote",
    "Illegal character": "a text is not closed with its quote on its line, or holds a control character",
    "Found invalid character": "a text is not closed with its quote on its line, or holds a control character",
    "Expected newline": "expected the line's end; is a text without its quotes?",
    "Unescaped": "a backslash in double quotes begins an escape; write \\\\, or the text in 'single quotes'",
    "Invalid hex": "a \\u escape needs four hexadecimal digits, \\U eight",
    "Escaped character": "an escape stands for no character",
    "Invalid date": "there is no such date or time",
    "Cannot": "this key or table has been defined before",
    "Duplicate": "this key or table has been defined before",
    "Expected ']": "the header of a table is not closed with its bracket",
}


def syntax(error: TOMLDecodeError, text: str) -> tuple[int, str]:
    """Return the line that tomllib stopped at and a sentence that holds nothing of *text*."""
    said = str(error)
    place = re.search(r"\(at line ([0-9]+), column [0-9]+\)\Z", said)
    line = int(place[1]) if place else len(text.rstrip("\n").split("\n"))
    meant = next((sentence for beginning, sentence in _SYNTAX.items() if said.startswith(beginning)), None)
    return line, f"not valid TOML: {meant}" if meant else "not valid TOML"


def unknown_key(path: Path, known: Collection[str], elsewhere: Mapping[str, Collection[str]] | None = None) -> Mistake:
    """Say that the last key of *path* is none of *known*, and which one is nearest to it.

    *elsewhere* holds the keys of the other tables, by the tables' headers: a key is often right and in the wrong place.
    """
    key = str(path[-1])
    near = nearest(key, known)
    if near:
        return Mistake(path, f"unknown key; did you mean '{near}'?", meant=near)
    for header, keys in (elsewhere or {}).items():
        if key in keys:
            return Mistake(path, f"unknown key here; it belongs in [{header}]")
    return Mistake(path, f"unknown key; the keys here are {', '.join(sorted(known))}")


def nearest(word: str, known: Collection[str]) -> str | None:
    """Return the one of *known* that *word* was most likely meant to be."""
    folded = word.casefold().replace("-", "_").strip()
    if _SYNONYMS.get(folded) in known:
        return _SYNONYMS[folded]
    by_folded = {each.casefold(): each for each in known}
    found = get_close_matches(folded[:100], by_folded, n=1)
    return by_folded[found[0]] if found else None


def mistakes(
    error: ValidationError,
    *,
    table: object,
    at: Path,
    model: type[BaseModel],
    elsewhere: Mapping[str, Collection[str]] | None = None,
) -> list[Mistake]:
    """Translate what *model* found wrong with *table*, which stands at *at*."""
    found: list[Mistake] = []
    # The inputs stay out of the report from the start, so no later line can let one slip.
    for each in error.errors(include_url=False, include_input=False):
        found += _translate(each, table=table, at=at, model=model, elsewhere=elsewhere)
    meant = {mistake.meant for mistake in found}
    # A key that is written wrong is not missing as well.
    return [mistake for mistake in found if not (mistake.is_missing and mistake.path[-1] in meant)]


def _translate(
    error: ErrorDetails,
    *,
    table: object,
    at: Path,
    model: type[BaseModel],
    elsewhere: Mapping[str, Collection[str]] | None,
) -> Iterator[Mistake]:
    found, value = _descend(table, error["loc"])
    context: Mapping[str, Any] = error.get("ctx", {})
    match error["type"]:
        case "model_type" | "model_attributes_type":
            yield Mistake(at, f"expected a table, headed [{spelling.dotted(at)}]")
        case "extra_forbidden":
            yield unknown_key((*at, *found), model.model_fields.keys() - {"name"}, elsewhere)
        case "missing":
            yield missing((*at, *error["loc"]), model)
        case "together":
            yield Mistake((*at, context["key"]), error["msg"])
        case "together_missing":
            yield missing((*at, context["key"]), model)
        case "secret_key":
            yield from _unknown_source((*at, *found), context["unknown"], error["msg"])
        case "literal_error":
            yield Mistake((*at, *found), _choice(value, re.findall("'([^']*)'", str(context["expected"]))))
        case "greater_than_equal":
            yield Mistake((*at, *found), f"must be at least {context['ge']:g}")
        case "less_than_equal":
            yield Mistake((*at, *found), f"must be at most {context['le']:g}")
        case "value_error":
            yield Mistake((*at, *found), str(context["error"]))
        case "secret":
            yield Mistake((*at, *found), error["msg"])
        case kind:
            wanted = _WANTED.get(kind, "not a value of this key; expected something")
            yield Mistake((*at, *found), f"{wanted}, like {_example(found, model)}")


def missing(path: Path, model: type[BaseModel]) -> Mistake:
    """Say that the last key of *path* is needed and not there."""
    return Mistake(path, f"missing; expected {_example(path[-1:], model)}", is_missing=True)


def _descend(value: object, loc: Iterable[str | int]) -> tuple[Path, object]:
    """Follow pydantic's *loc* as far as the table goes: it also names the branches of unions."""
    path: Path = ()
    for part in loc:
        inside = dict(enumerate(value)) if isinstance(value, list) else value
        if isinstance(inside, dict) and part in inside:
            path, value = (*path, part), inside[part]
    return path, value


def _example(path: Path, model: type[BaseModel]) -> str:
    keys = [part for part in path if isinstance(part, str)]
    field = model.model_fields.get(keys[0]) if keys else None
    if field is None or not field.examples:
        return "text"
    example = field.examples[0]
    if len(keys) > 1 and keys[1] in SOURCES:
        source = {keys[1]: (SOURCES[keys[1]].model_fields[keys[1]].examples or [""])[0]}
        example = [source] if isinstance(example, list) else source
    return f"{keys[0]} = {spelling.value(example)}"


def _choice(value: object, choices: list[str]) -> str:
    wanted = f"expected {', '.join(spelling.text(each) for each in choices[:-1])} or {spelling.text(choices[-1])}"
    near = nearest(value, choices) if isinstance(value, str) else None
    return f"{wanted}; did you mean '{near}'?" if near else wanted


def _unknown_source(at: Path, keys: Iterable[object], shapes: str) -> Iterator[Mistake]:
    for key in keys:
        near = nearest(str(key), SOURCES)
        if near is None:
            yield Mistake(at, shapes)
            return
        yield Mistake((*at, str(key)), f"unknown key; did you mean '{near}'?", meant=near)
