"""The framer: any split of the stream gives the same responses, and what broke the stream is final."""

import itertools
import sys
from collections.abc import Iterable
from types import FrameType

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from idlepush.errors import RemoteProtocolError
from idlepush.imap.framing import MAX_LITERALS, Frame, Framer

LIMITS = {"max_line": 60, "max_literal": 40}


def frames_of(reads: Iterable[bytes], framer: Framer | None = None) -> tuple[list[Frame], str | None]:
    """Feed *reads*; return the frames, and the error that ended them."""
    framer = framer or Framer(**LIMITS)
    frames: list[Frame] = []
    for read in reads:
        try:
            frames += framer.feed(read)
        except RemoteProtocolError as error:
            return frames, str(error)
    return frames, None if framer.error is None else str(framer.error)


def split(stream: bytes, cuts: list[int]) -> list[bytes]:
    at = sorted({0, len(stream), *(cut % (len(stream) + 1) for cut in cuts)})
    return [stream[begin:end] for begin, end in itertools.pairwise(at)]


pieces = st.sampled_from(
    [
        b"* 1 FETCH (BODY[] {5}\r\n",
        b"hello",
        b")\r\n",
        b"\r\n",
        b"\n",
        b"\r",
        b"* OK {5}\r\n",
        b"a1 OK x {3}\r\n",
        b"+ {1}\n",
        b"{0}\r\n",
        b"~{2}\r\n",
        b"{3+}\r\n",
        b"{-1}\r\n",
        b"{41}\r\n",
        b"{99999999999999999999}\r\n",
        b"x}\r\n",
        b"{",
        b"}",
        b"* 2 EXISTS\r\n",
        b"y" * 30,
        b'* LIST () "/" {3}\r\nabc\r\n',
    ]
)
streams = st.lists(pieces | st.binary(max_size=6), max_size=30).map(b"".join)


@given(streams, st.lists(st.integers(0, 10_000), max_size=12))
@settings(max_examples=300, deadline=None)
def test_any_split_of_the_stream_gives_the_same_responses_and_the_same_error(stream: bytes, cuts: list[int]) -> None:
    whole = frames_of([stream])
    assert frames_of(split(stream, cuts)) == whole
    assert frames_of(bytes([octet]) for octet in stream) == whole


@given(streams)
@settings(deadline=None)
def test_frames_and_what_is_pending_hold_every_octet_but_line_ends_and_announcements(stream: bytes) -> None:
    framer = Framer(**LIMITS)
    frames, error = frames_of([stream], framer)
    for frame in frames:
        assert len(frame.texts) == len(frame.literals) + 1
        assert not any(b"\n" in text for text in frame.texts)
    if error is None:
        framed = sum(len(text) for frame in frames for text in (*frame.texts, *frame.literals))
        assert framed + framer.discard() <= len(stream)


@pytest.mark.parametrize(
    ("stream", "frames"),
    [
        pytest.param(b"* 3 EXISTS\r\n* 1 RECENT\r\n", [Frame((b"* 3 EXISTS",)), Frame((b"* 1 RECENT",))], id="lines"),
        pytest.param(
            b'* 12 FETCH (BODY[HEADER] {6}\r\na: b\r\n X "}" {0}\r\n)\r\n',
            [Frame((b"* 12 FETCH (BODY[HEADER] ", b' X "}" ', b")"), (b"a: b\r\n", b""))],
            id="literals, one of them empty",
        ),
        pytest.param(
            b"* 1 FETCH (BINARY[1] ~{3}\r\n\0\r\n)\r\n",
            [Frame((b"* 1 FETCH (BINARY[1] ", b")"), (b"\0\r\n",))],
            id="literal8",
        ),
        pytest.param(b"* X {2+}\r\nab\r\n", [Frame((b"* X ", b""), (b"ab",))], id="a client's literal from a server"),
        pytest.param(
            b"* 3 EXISTS\n* X {2}\nab\n", [Frame((b"* 3 EXISTS",)), Frame((b"* X ", b""), (b"ab",))], id="bare LF"
        ),
        pytest.param(
            b"* OK see {5}\r\n* 1 EXISTS\r\n",
            [Frame((b"* OK see {5}",)), Frame((b"* 1 EXISTS",))],
            id="a greeting is for people",
        ),
        pytest.param(b"a1 no {5}\r\n", [Frame((b"a1 no {5}",))], id="a completion is for people"),
        pytest.param(b"* bye {-1}\r\n", [Frame((b"* bye {-1}",))], id="so is BYE, whatever it ends in"),
        pytest.param(b"+ {5}\r\n", [Frame((b"+ {5}",))], id="and a continuation request"),
        pytest.param(b"* OKAY {1}\r\nx\r\n", [Frame((b"* OKAY ", b""), (b"x",))], id="OKAY is not OK"),
        pytest.param(
            b"* X {a}\r\n* Y {}\r\n* Z }\r\n",
            [Frame((b"* X {a}",)), Frame((b"* Y {}",)), Frame((b"* Z }",))],
            id="braces that announce nothing",
        ),
        pytest.param(b"* X {1}\r\n}\r\n", [Frame((b"* X ", b""), (b"}",))], id="a brace as a literal"),
        pytest.param(
            b"* X {7}\r\n{5}\r\n..\r\n", [Frame((b"* X ", b""), (b"{5}\r\n..",))], id="an announcement inside a literal"
        ),
        pytest.param(b"\r\n", [Frame((b"",))], id="an empty line"),
        pytest.param(b"a\rb\r\r\n", [Frame((b"a\rb\r",))], id="a CR that ends nothing"),
    ],
)
def test_a_stream_is_cut_into_responses(stream: bytes, frames: list[Frame]) -> None:
    assert frames_of([stream]) == (frames, None)


@pytest.mark.parametrize(
    "stream",
    [
        pytest.param(b"* X {-1}\r\n", id="a negative literal"),
        pytest.param(b"* X {99999999999999999999}\r\n", id="2**63 and more"),
        pytest.param(b"* X {" + b"9" * 30 + b"}\r\n", id="more digits than any number has"),
        pytest.param(b"* X {41}\r\n", id="a literal above the limit"),
        pytest.param(
            b"* X {40}\r\n" + b"x" * 40 + b"{40}\r\n" + b"x" * 40 + b"{1}\r\n", id="literals above the limit together"
        ),
        pytest.param(b"* X " + b"x" * 60, id="a line above the limit, not yet ended"),
        pytest.param(b"* X " + b"x" * 60 + b"\r\n", id="a line above the limit"),
        pytest.param(b"* X xxxxxxxxxxxxxxxxxxxxxxxxxxxx {1}\r\nx" + b"y" * 40, id="texts above the limit together"),
    ],
)
def test_a_stream_that_broke_stays_broken(stream: bytes) -> None:
    framer = Framer(**LIMITS)
    with pytest.raises(RemoteProtocolError) as first:
        framer.feed(stream)
    with pytest.raises(RemoteProtocolError) as again:
        framer.feed(b"* 1 EXISTS\r\n")
    assert str(first.value) == str(again.value) == str(framer.error)
    assert len(str(first.value)) < 120
    assert framer.discard() == 0


def test_what_came_before_the_break_is_not_lost() -> None:
    framer = Framer()
    assert framer.feed(b"* 1 EXISTS\r\n* 1 FETCH (BODY[] {-1}\r\n") == [Frame((b"* 1 EXISTS",))]
    assert framer.error is not None
    with pytest.raises(RemoteProtocolError, match=r"announced a literal as “\{-1\}”"):
        framer.feed(b"")


def test_good_lines_before_one_that_is_too_long_are_kept_however_many_come_at_once() -> None:
    framer = Framer(max_line=20)
    good = b"* 1 EXISTS\r\n" * 50
    assert len(framer.feed(good + b"x" * 21 + b"\r\n" + good)) == 50
    assert framer.error is not None


def test_a_literal_at_its_limit_is_taken() -> None:
    assert frames_of([b"* X {40}\r\n", b"x" * 40, b"\r\n"]) == ([Frame((b"* X ", b""), (b"x" * 40,))], None)
    assert frames_of([b"x" * 60 + b"\n"]) == ([Frame((b"x" * 60,))], None)


def test_a_response_has_no_more_literals_than_the_limit() -> None:
    assert len(Framer().feed(b"* X" + b" {0}\r\n" * MAX_LITERALS + b"\r\n")[0].literals) == MAX_LITERALS
    with pytest.raises(RemoteProtocolError, match="more than 10000 literals"):
        Framer().feed(b"* X" + b" {0}\r\n" * (MAX_LITERALS + 1))


def test_nothing_is_allocated_for_what_was_only_announced() -> None:
    framer = Framer(max_literal=2**50)
    assert framer.feed(b"* X {1000000000000}\r\nabc") == []
    assert framer.discard() == len(b"* X {1000000000000}\r\nabc")


@pytest.mark.parametrize(
    "begun", [b"*", b"* 1 EXISTS\r", b"* X {5}\r\n", b"* X {5}\r\nab", b"* X {1}\r\na", b"* X {1}\r\na)"]
)
def test_what_is_begun_is_pending_until_it_is_discarded(begun: bytes) -> None:
    framer = Framer()
    assert not framer.pending
    assert framer.feed(b"* OK ready\r\n" + begun) == [Frame((b"* OK ready",))]
    assert framer.pending
    assert framer.discard() == len(begun)
    assert not framer.pending
    assert framer.discard() == 0
    assert framer.feed(b"* 2 EXISTS\r\n") == [Frame((b"* 2 EXISTS",))]


def calls_made(reads: list[bytes]) -> int:
    """Count the calls, of Python and of C, that *reads* cost."""
    calls = 0

    def count(_frame: FrameType, event: str, _arg: object) -> None:
        nonlocal calls
        calls += event in {"call", "c_call"}

    framer = Framer()
    sys.setprofile(count)
    try:
        for read in reads:
            framer.feed(read)
    finally:
        sys.setprofile(None)
    return calls


@pytest.mark.parametrize("size", [1, 7, 1000])
def test_twice_the_stream_costs_twice_the_calls(size: int) -> None:
    one = b"* 1 FETCH (BODY[] {300}\r\n" + b"}\r\n" * 100 + b" FLAGS ())\r\n* 2 EXISTS\r\n* OK {5}\r\n" * 3
    few, many = (
        calls_made([stream[at : at + size] for at in range(0, len(stream), size)]) for stream in (one * 20, one * 40)
    )
    assert many <= 2.1 * few


def test_a_thousand_lines_at_once_cost_no_call_for_each() -> None:
    assert calls_made([b"* 1 FETCH (FLAGS ())\r\n" * 1000]) < 50


def test_a_literal_that_drips_is_not_copied_for_each_drop() -> None:
    # Copied each time, these would be 4 TB.
    framer = Framer()
    framer.feed(b"* X {16777216}\r\n")
    drop = b"x" * 32
    for _ in range(16777216 // 32):
        framer.feed(drop)
    assert framer.feed(b"\r\n") == [Frame((b"* X ", b""), (drop * (16777216 // 32),))]


@pytest.mark.parametrize("size", [100, 4095, 4096, 70_000])
def test_a_literal_is_put_together_from_pieces_of_any_size(size: int) -> None:
    body = bytes(range(256)) * 1200
    stream = b"* X {%d}\r\n%b\r\n" % (len(body), body)
    reads = [stream[at : at + size] for at in range(0, len(stream), size)]
    assert frames_of(reads, Framer()) == ([Frame((b"* X ", b""), (body,))], None)


def test_a_line_that_drips_is_not_searched_again_for_each_drop() -> None:
    framer = Framer()
    drop = b"x" * 32
    for _ in range(2**18):
        framer.feed(drop)
    assert framer.feed(b"\r\n") == [Frame((drop * 2**18,))]
