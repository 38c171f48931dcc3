"""The language of searches: what is typed, what it means, and that anything may be typed."""

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from idlepush.errors import InvalidQuery
from idlepush.sync.query import MOST_WORDS, Document, Phrase, Place, Query, document, read_query
from idlepush.sync.words import LONGEST, words_in

MAIL = document(
    {
        Place.SUBJECT: ["Re: Invoice 2026/17 for the Café"],
        Place.SENDER: ["Jörg Müller", "joerg@example.org"],
        Place.RECIPIENTS: ["bob@example.com", "Carol <carol@example.com>"],
        Place.NAMES: ["Rechnung_März.pdf", "photo.jpg"],
        Place.TEXT: ["Dear Bob,\nthe final report is attached. 東京都へ行きます"],
    },
    attached=True,
)


def phrase(*words: str, place: Place | None = None, begun: bool = False) -> Phrase:
    return Phrase(words, place, begun)


def found(typed: str, mail: Document = MAIL) -> bool:
    return mail.answers(read_query(typed))


READ = {
    "": Query(),
    "  ": Query(),
    "invoice to": Query(wanted=(phrase("invoice", begun=True), phrase("to"))),
    '"final report"': Query(wanted=(phrase("final", "report"),)),
    "bob@exam": Query(wanted=(phrase("bob", "exam", begun=True),)),
    "FROM:Jörg": Query(wanted=(phrase("jorg", place=Place.SENDER, begun=True),)),
    'subject:"a b': Query(wanted=(phrase("a", "b", place=Place.SUBJECT),)),
    "-to:x": Query(unwanted=(phrase("x", place=Place.RECIPIENTS),)),
    "東京": Query(wanted=(phrase("東", "京"),)),
    "has:attachment": Query(attached=True),
    "-has:attachments": Query(attached=False),
    "has:cheese": Query(wanted=(phrase("has", "cheese", begun=True),)),
    "http://x.org": Query(wanted=(phrase("http", "x", "org", begun=True),)),
    "from:": Query(wanted=(phrase("from", begun=True),)),
    'from:""': Query(wanted=(phrase("from"),)),
    "is:unread -is:flagged": Query(flags={"\\Seen": False, "\\Flagged": False}),
    "is:nice": Query(wanted=(phrase("is", "nice", begun=True),)),
    "is:read is:unread": Query(flags={"\\Seen": False}, wanted=(phrase(),)),
    "has:attachment -has:attachment": Query(attached=False, wanted=(phrase(),)),
    'in:inbox in:"Sent Items" -in:Trash': Query(
        mailboxes=frozenset({"INBOX", "Sent Items"}), other_mailboxes=frozenset({"Trash"})
    ),
    "before:2026-02-01 -after:2026-01-15 after:2020-02-29": Query(
        before=datetime(2026, 1, 15, tzinfo=UTC), since=datetime(2020, 2, 29, tzinfo=UTC)
    ),
    "?!*": Query(wanted=(phrase(),)),
    "- a": Query(wanted=(phrase("a"),)),
    'NEAR(a b) AND "x" OR * ^y {c}: \x00': Query(
        wanted=(
            phrase("near", "a"),
            phrase("b"),
            phrase("and", begun=True),
            phrase("x"),
            phrase("or"),
            phrase("y"),
            phrase("c"),
        )
    ),
}


@pytest.mark.parametrize(("typed", "query"), READ.items(), ids=READ.keys())
def test_what_is_typed_means(typed: str, query: Query) -> None:
    assert read_query(typed) == query


@pytest.mark.parametrize(
    "typed", ["before:yesterday", "after:2026-02-30", "before:2026-1-1", "after:20260101", "-before:x"]
)
def test_a_day_that_is_none_is_said_in_one_sentence(typed: str) -> None:
    with pytest.raises(InvalidQuery, match=r"names no day; write it as (before|after):2026-01-31$"):
        read_query(typed)


def test_more_words_than_anybody_types_are_refused() -> None:
    read_query("a " * MOST_WORDS)
    with pytest.raises(InvalidQuery, match="more than 100 words"):
        read_query("a " * (MOST_WORDS + 1))


@pytest.mark.parametrize(
    "typed",
    [
        "invoice bob",
        "invo",
        "cafe",
        "CAFÉ",
        '"invoice 2026/17"',
        "müller",
        "from:joerg@example.org",
        "to:carol subject:invoice filename:rechnung filename:jpg",
        "filename:Rechnung_März.pdf",
        "京都",
        "東",
        "京",
        "-from:bob -subject:report",
        "has:attachment final",
        '"final report"',
    ],
)
def test_it_is_found_by(typed: str) -> None:
    assert found(typed)


@pytest.mark.parametrize(
    "typed",
    [
        "invoice alice",
        "in",  # no word of two letters is a beginning
        '"final rep"',
        '"report final"',
        "from:bob",
        "subject:report",
        "東都",
        "-invoice",
        "-has:attachment",
        '"org bob"',  # one address and the next are no phrase
        '"pdf photo"',
        "!!!",
    ],
)
def test_it_is_not_found_by(typed: str) -> None:
    assert not found(typed)


WORDS = {
    "Grüße aus Łódź": ["grusse", "aus", "lodz"],
    "Ｆｕｌｌ ﬁne ①": ["full", "fine", "1"],
    "ΕΛΛΆΣ ελλάς": ["ελλασ", "ελλασ"],
    "İstanbul ISTANBUL ırmak": ["istanbul", "istanbul", "irmak"],
    "Ёлка й": ["елка", "и"],
    "in\u00advoice zero\u200bwidth": ["invoice", "zerowidth"],
    "東京タワー2026年": ["東", "京", "タ", "ワ", "ー", "2026", "年"],
    "한국어": ["한", "국", "어"],
    "a_b-c.d/e": ["a", "b", "c", "d", "e"],
    "": [],
}


@pytest.mark.parametrize(("text", "words"), WORDS.items(), ids=WORDS.keys())
def test_words_are_folded_and_cut(text: str, words: list[str]) -> None:
    assert words_in(text) == words


@given(st.text())
def test_words_hold_nothing_that_a_database_could_take_for_syntax(text: str) -> None:
    for word in words_in(text):
        assert 0 < len(word) <= LONGEST
        assert word.isalnum() or not word.isascii()
        word.encode()


@given(st.text())
def test_anything_may_be_typed(typed: str) -> None:
    try:
        query = read_query(typed)
    except InvalidQuery as wrong:
        sentence = str(wrong)
    else:
        assert MAIL.answers(query) in {True, False}
        return
    assert len(sentence) < 200
    assert "\n" not in sentence


@given(st.text(st.characters(codec="utf-8"), min_size=1))
def test_a_text_is_found_by_itself_in_quotes(text: str) -> None:
    mail = document({Place.TEXT: [text]}, attached=False)
    assert found(f'"{text.replace(chr(34), " ")}"', mail) == bool(words_in(text)) or not text.strip()
