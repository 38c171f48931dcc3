"""BODYSTRUCTURE: the RFC's examples, what servers send instead, and anything at all."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from idlepush.errors import RemoteProtocolError
from idlepush.imap.framing import Framer
from idlepush.imap.grammar import parse
from idlepush.imap.reader import MAX_NESTING, MAX_VALUES, Value
from idlepush.imap.responses import Fetch, Part, Structure
from idlepush.imap.structure import MAX_PARTS, structure_of

TEXT = b'("TEXT" "PLAIN" ("CHARSET" "UTF-8") NIL NIL "7BIT" 2279 48)'
PLAIN = Part(section="1", type="text/plain", parameters=(("charset", b"UTF-8"),), encoding="7bit", size=2279)


def read(stream: bytes) -> Fetch:
    (frame,) = Framer().feed(stream + b"\r\n")
    said = parse(frame)
    assert isinstance(said, Fetch)
    return said


def structure(spelled: bytes) -> Structure:
    said = read(b"* 1 FETCH (UID 7 BODYSTRUCTURE " + spelled + b" RFC822.SIZE 12)")
    assert said.uid == 7
    assert said.size == 12
    assert said.structure is not None
    return said.structure


def types(spelled: bytes) -> list[tuple[str, str]]:
    return [(part.section, part.type) for part in structure(spelled).parts]


WELL_FORMED = {
    "one text, as BODY says it": (TEXT, (PLAIN,)),
    "RFC 9051 section 7.5.2, with an attachment": (
        b'(("TEXT" "PLAIN" ("CHARSET" "US-ASCII") NIL NIL "7BIT" 1152 23)("TEXT" "PLAIN" ("CHARSET" "US-ASCII" "NAME"'
        b' "cc.diff") "<960723163407.20117h@cac.washington.edu>" "Compiler diff" "BASE64" 4554 73) "MIXED")',
        (
            Part(section="1", type="text/plain", parameters=(("charset", b"US-ASCII"),), encoding="7bit", size=1152),
            Part(
                section="2",
                type="text/plain",
                parameters=(("charset", b"US-ASCII"), ("name", b"cc.diff")),
                content_id=b"<960723163407.20117h@cac.washington.edu>",
                encoding="base64",
                size=4554,
            ),
        ),
    ),
    "extension data, a literal for a name": (
        b'("APPLICATION" "PDF" NIL NIL NIL "BASE64" 99 "md5" ("ATTACHMENT" ("FILENAME" {5}\r\na"b.c "SIZE" 72)) ("en"'
        b' "de") "loc" (1 (2)))',
        (
            Part(
                section="1",
                type="application/pdf",
                encoding="base64",
                size=99,
                disposition="attachment",
                disposition_parameters=(("filename", b'a"b.c'), ("size", b"72")),
            ),
        ),
    ),
}


@pytest.mark.parametrize(("spelled", "parts"), WELL_FORMED.values(), ids=WELL_FORMED.keys())
def test_structures_of_the_rfc_are_read(spelled: bytes, parts: tuple[Part, ...]) -> None:
    assert structure(spelled) == Structure(parts)


def test_parts_are_numbered_as_body_sections_are() -> None:
    inner = b'(("text" "plain" NIL NIL NIL "7bit" 1 1)("text" "html" NIL NIL NIL "7bit" 1 1) "alternative")'
    message = (
        b'("message" "rfc822" NIL NIL NIL "7bit" 5 (NIL NIL NIL NIL NIL NIL NIL NIL NIL NIL) %s 9 NIL ("inline" NIL))'
    )
    spelled = b"(" + inner + message % inner + message % TEXT + b' "mixed" ("boundary" "x") NIL NIL)'
    assert types(spelled) == [
        ("1.1", "text/plain"),
        ("1.2", "text/html"),
        ("2", "message/rfc822"),
        ("2.1", "text/plain"),
        ("2.2", "text/html"),
        ("3", "message/rfc822"),
        ("3.1", "text/plain"),
    ]
    assert structure(spelled).understood
    assert structure(spelled).parts[2].disposition == "inline"


MISTAKES = {
    "message/rfc822 without envelope, body and lines (Gmail, Exchange)": (
        b'("message" "rfc822" ("name" "a.eml") NIL NIL "base64" 99 NIL ("attachment" ("filename" "a.eml")) NIL NIL)',
        [("message/rfc822", "attachment")],
    ),
    "a text without its lines": (
        b'("text" "csv" NIL NIL NIL "7bit" 9 NIL ("attachment" NIL))',
        [("text/csv", "attachment")],
    ),
    "a disposition that is a word": (
        b'("image" "png" NIL NIL NIL "7bit" 9 NIL "INLINE" NIL)',
        [("image/png", "inline")],
    ),
    "a disposition without parameters": (
        b'("image" "png" NIL NIL NIL "7bit" 9 NIL ("x-own"))',
        [("image/png", "x-own")],
    ),
    "a disposition where MD5 belongs": (
        b'("image" "png" NIL NIL NIL "7bit" 9 ("attachment" ("filename" "b")))',
        [("image/png", "attachment")],
    ),
    "a language is none": (b'("image" "png" NIL NIL NIL "7bit" 9 NIL NIL ("en"))', [("image/png", "")]),
    "fields end early": (b'("image" "png")', [("image/png", "")]),
    "parameters out of step": (b'("image" "png" ("name" NIL NIL "x" "odd"))', [("image/png", "")]),
    "sizes that are none": (b'("image" "png" NIL NIL NIL NIL "nine")', [("image/png", "")]),
}


@pytest.mark.parametrize(("spelled", "expected"), MISTAKES.values(), ids=MISTAKES.keys())
def test_what_servers_forget_costs_only_itself(spelled: bytes, expected: list[tuple[str, str]]) -> None:
    read = structure(spelled)
    assert read.understood
    assert [(part.type, part.disposition) for part in read.parts] == expected


@pytest.mark.parametrize(
    "spelled", [b"NIL", b"()", b'"text"', b"7", b'("text")', b"(NIL NIL NIL)", b'(NIL "mixed")', b"(())"]
)
def test_what_is_no_structure_says_so(spelled: bytes) -> None:
    assert not structure(spelled).understood


def test_the_parts_around_one_that_makes_no_sense_are_kept() -> None:
    spelled = b"(" + TEXT + b"(7 8)" + TEXT + b' "mixed")'
    assert not structure(spelled).understood
    assert types(spelled) == [("1", "text/plain"), ("2", ""), ("3", "text/plain")]


BROKEN = {
    "quotes that are not escaped": b'("text" "plain" ("name" "a"b.txt") NIL NIL "7bit" 1 1)',
    "a parenthesis too few": b'(("text" "plain" NIL NIL NIL "7bit" 1 1) "mixed"',
    "a parenthesis too many": b"(1))",
    "a backslash at the end": b'("text" "plain" ("name" "a\\") NIL NIL "7bit" 1 1)',
    "deeper than any": b"(" * (MAX_NESTING + 1) + b")" * (MAX_NESTING + 1),
    "more than any": b"(" + b"()" * MAX_VALUES + b")",
    "200,000 parentheses": b"(" * 200_000 + b")" * 200_000,
}


@pytest.mark.parametrize("spelled", BROKEN.values(), ids=BROKEN.keys())
def test_a_structure_that_cannot_be_walked_loses_no_other_item(spelled: bytes) -> None:
    said = read(b"* 1 FETCH (UID 7 BODYSTRUCTURE " + spelled + b" FLAGS (\\Seen) RFC822.SIZE 12)")
    assert said.structure == Structure((), understood=False)
    assert (said.uid, said.flags, said.size) == (7, frozenset({"\\Seen"}), 12)


def test_a_name_cannot_pass_for_an_item() -> None:
    name = rb'x"y UID 666 FLAGS (\Deleted)'
    said = read(b'* 1 FETCH (UID 7 BODYSTRUCTURE ("text" "plain" ("name" "' + name + b'") NIL NIL "7bit" 1 1))')
    assert said.uid == 7
    assert said.flags is None


def test_a_frame_that_breaks_off_still_breaks_the_protocol() -> None:
    with pytest.raises(RemoteProtocolError):
        read(b'* 1 FETCH (UID 7 BODYSTRUCTURE ("text" "plain"')


def test_a_structure_of_more_parts_than_any_is_cut_quickly() -> None:
    spelled = b"(" + b'("a" "b")' * 20_000 + b' "mixed")'
    begin = time.process_time()
    read = structure(spelled)
    assert time.process_time() - begin < 2
    assert len(read.parts) == MAX_PARTS
    assert not read.understood


values: st.SearchStrategy[Value] = st.recursive(
    st.none()
    | st.integers(0, 2**64 - 1)
    | st.binary(max_size=8)
    | st.sampled_from([b"text", b"MIXED", b"message", b"rfc822", b"attachment", b"filename"]),
    lambda inside: st.lists(inside, max_size=12).map(tuple),
    max_leaves=60,
)


@given(values)
def test_any_value_gives_a_structure(value: Value) -> None:
    for part in structure_of(value).parts:
        assert (part.type + part.encoding + part.disposition).isprintable()
