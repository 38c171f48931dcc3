"""What somebody searches for: the language of `--search` and `?q=`, and what a message is held against.

    invoice paid          both words, anywhere: subject, names and addresses, names of attachments, text
    invo                  a word of three letters or more is also the beginning of one; shorter ones are whole
    "final report"        these words in a row, each whole
    from: to: subject: filename:       a word or "a phrase" there; to: looks at Cc, too
    before:2026-01-31 after:2026-01-31 internal date in UTC; the day itself belongs to after:
    has:attachment  is:unread is:read is:flagged is:answered is:draft  in:Archive in:"Sent Items"
    -word -from:bob -has:attachment    not that

Whatever else is typed is text: there is no such thing as a syntax error, and only a date that is none is an error.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from enum import StrEnum
from typing import Final

from idlepush.errors import InvalidQuery
from idlepush.imap.types import printable
from idlepush.sync.content import Attachment
from idlepush.sync.message import Address, Headers
from idlepush.sync.words import is_open_ended, words_in

MOST_WORDS: Final = 100
SHORTEST_BEGINNING: Final = 3


class Place(StrEnum):
    """Where in a message a word stands."""

    SUBJECT = "subject"
    SENDER = "sender"
    RECIPIENTS = "recipients"
    NAMES = "names"
    TEXT = "text"


@dataclass(frozen=True, slots=True)
class Phrase:
    """Words in a row, in one place or in any; with `is_begun` the last of them may go on. Without words: nothing."""

    words: tuple[str, ...]
    place: Place | None = None
    is_begun: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Query:
    """What a message must have and must not have. Mailbox names are as they are shown."""

    wanted: tuple[Phrase, ...] = ()
    unwanted: tuple[Phrase, ...] = ()
    attached: bool | None = None
    before: datetime | None = None
    since: datetime | None = None
    flags: Mapping[str, bool] = field(default_factory=dict)
    """Which flags it has, and which it has not."""
    mailboxes: frozenset[str] = frozenset()
    """It is in one of these, where there are any."""
    other_mailboxes: frozenset[str] = frozenset()
    """It is in none of these."""

    @property
    def needs_words(self) -> bool:
        """Whether it asks for more than what stands in a message's row."""
        return bool(self.wanted or self.unwanted or self.attached is not None)


@dataclass(frozen=True, slots=True)
class Document:
    """A message as it is searched: the words of each place, and whether something is attached."""

    words: Mapping[Place, tuple[str, ...]]
    attached: bool

    def has(self, phrase: Phrase) -> bool:
        """Tell whether the words of *phrase* stand in a row there."""
        places = Place if phrase.place is None else (phrase.place,)
        # Spaces around each word, so that one is found whole; the last one may go on.
        wanted = f" {' '.join(phrase.words)}" + ("" if phrase.is_begun else " ")
        return bool(phrase.words) and any(wanted in f" {' '.join(self.words.get(place, ()))} " for place in places)

    def answers(self, query: Query) -> bool:
        """Tell whether it has the words that *query* asks for; what stands in the row is not looked at."""
        return (
            all(self.has(phrase) for phrase in query.wanted)
            and not any(self.has(phrase) for phrase in query.unwanted)
            and query.attached in (None, self.attached)
        )


def document_of(headers: Headers, cc: Iterable[Address], attachments: Sequence[Attachment], text: str) -> Document:
    """Make the document of a message."""
    return document(
        {
            Place.SUBJECT: [headers.subject or ""],
            Place.SENDER: _spelled(headers.sender),
            Place.RECIPIENTS: _spelled([*headers.to, *cc]),
            Place.NAMES: [one.name for one in attachments if one.name],
            Place.TEXT: [text],
        },
        attached=any(not one.inline for one in attachments),
    )


def _spelled(addresses: Iterable[Address]) -> Iterator[str]:
    for one in addresses:
        yield one.name or ""
        yield one.address or ""


def document(places: Mapping[Place, Iterable[str]], *, attached: bool) -> Document:
    """Cut the texts of each place into words. Two texts of one place are no phrase together."""
    return Document({place: tuple(_apart(texts)) for place, texts in places.items()}, attached)


BETWEEN: Final = "\ue000"
"""Stands between two texts; no word is like it."""


def _apart(texts: Iterable[str]) -> list[str]:
    words: list[str] = []
    for text in texts:
        if words:
            words.append(BETWEEN)
        words += words_in(text)
    return words


# ---- reading

_TERM: Final = re.compile(r'(-?)(?:([A-Za-z]{1,20}):)?(?:"([^"]*+)(?:"|\Z)|([^\s"]+))')
_PLACES: Final[Mapping[str, Place]] = {
    "from": Place.SENDER,
    "to": Place.RECIPIENTS,
    "subject": Place.SUBJECT,
    "filename": Place.NAMES,
}
_STATES: Final[Mapping[str, tuple[str, bool]]] = {
    "unread": ("\\Seen", False),
    "read": ("\\Seen", True),
    "flagged": ("\\Flagged", True),
    "answered": ("\\Answered", True),
    "draft": ("\\Draft", True),
}
_DATE: Final = re.compile(r"([0-9]{4})-([0-9]{2})-([0-9]{2})")


@dataclass(frozen=True, slots=True)
class _Term:
    key: str
    value: str
    wanted: bool
    is_quoted: bool

    def phrase(self, text: str, place: Place | None = None) -> Phrase:
        words = tuple(words_in(text))
        may_go_on = bool(words) and len(words[-1]) >= SHORTEST_BEGINNING and is_open_ended(words[-1])
        return Phrase(words, place, may_go_on and not self.is_quoted)


def read_query(typed: str) -> Query:
    """Read what somebody typed.

    Raises:
        InvalidQuery: a date is none, or there are too many words; the sentence says so.
    """
    query = Query()
    for found in _TERM.finditer(typed):
        minus, key, quoted, plain = found.groups()
        term = _Term((key or "").lower(), quoted if plain is None else plain, not minus, plain is None)
        read = _KEYS.get(term.key)
        after = None if read is None else read(query, term)
        # Whatever has no meaning of its own is text, the word before its colon included.
        query = after or _with(query, term.phrase(f"{key} {term.value}" if key else term.value), term)
    if sum(len(phrase.words) for phrase in query.wanted + query.unwanted) > MOST_WORDS:
        raise InvalidQuery(f"the search is for more than {MOST_WORDS} words")
    # Nothing but signs that no word has were asked for: nothing has them.
    return replace(query, wanted=_NOTHING) if query == Query() and typed.strip() else query


_NOTHING: Final = (Phrase(()),)


def _with(query: Query, phrase: Phrase, term: _Term) -> Query:
    if not phrase.words:
        return query
    if term.wanted:
        return replace(query, wanted=(*query.wanted, phrase))
    return replace(query, unwanted=(*query.unwanted, phrase))


def _read_place(query: Query, term: _Term) -> Query | None:
    phrase = term.phrase(term.value, _PLACES[term.key])
    return _with(query, phrase, term) if phrase.words else None


def _read_date(query: Query, term: _Term) -> Query | None:
    day = _day(term.value)
    if day is None:
        raise InvalidQuery(f"{term.key}:{printable(term.value, 40)} names no day; write it as {term.key}:2026-01-31")
    # What is not before a day is on it or after it.
    if (term.key == "before") == term.wanted:
        return replace(query, before=day if query.before is None else min(day, query.before))
    return replace(query, since=day if query.since is None else max(day, query.since))


def _day(spelled: str) -> datetime | None:
    found = _DATE.fullmatch(spelled)
    if found is None:
        return None
    year, month, day = map(int, found.groups())
    try:
        return datetime(year, month, day, tzinfo=UTC)
    except ValueError:
        return None


def _read_has(query: Query, term: _Term) -> Query | None:
    if term.value.lower() not in {"attachment", "attachments"}:
        return None
    is_contradiction = query.attached not in (None, term.wanted)
    return replace(query, attached=term.wanted, wanted=query.wanted + _NOTHING * is_contradiction)


def _read_is(query: Query, term: _Term) -> Query | None:
    if term.value.lower() not in _STATES:
        return None
    flag, is_set = _STATES[term.value.lower()]
    is_set = is_set == term.wanted
    is_contradiction = query.flags.get(flag, is_set) != is_set
    return replace(query, flags={**query.flags, flag: is_set}, wanted=query.wanted + _NOTHING * is_contradiction)


def _read_in(query: Query, term: _Term) -> Query | None:
    if not term.value:
        return None
    name = "INBOX" if term.value.upper() == "INBOX" else term.value
    if term.wanted:
        return replace(query, mailboxes=query.mailboxes | {name})
    return replace(query, other_mailboxes=query.other_mailboxes | {name})


_KEYS: Final[Mapping[str, Callable[[Query, _Term], Query | None]]] = {
    **dict.fromkeys(_PLACES, _read_place),
    **dict.fromkeys(("before", "after"), _read_date),
    "has": _read_has,
    "is": _read_is,
    "in": _read_in,
}
