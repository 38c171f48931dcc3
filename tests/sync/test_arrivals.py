"""What a FETCH brought: the message, or the reason why not."""

from typing import Any

import pytest

from idlepush.imap.responses import BodySection, Fetch
from idlepush.imap.types import Uid
from idlepush.sync.arrivals import BodyRules, Unusable, judge
from idlepush.sync.changes import NewMessage
from idlepush.sync.events import FoundBy

RAW = b"Subject: x\r\n\r\nbody\r\n"
RULES = BodyRules(headers_only=False, longest=1000, slice=100)


def said(data: bytes | None = RAW, *, size: int | None = len(RAW), origin: int | None = 0, **more: Any) -> Fetch:
    keys: dict[str, Any] = {"uid": Uid(7), "flags": frozenset(), **more}
    return Fetch(1, size=size, bodies=(BodySection("", origin, data),), **keys)


def judged(fetch: Fetch | None, rules: BodyRules = RULES, **more: Any) -> NewMessage | Unusable:
    return judge(fetch, rules, found_by=FoundBy.PUSH, initial=False, **more)


def test_a_body_shorter_than_the_slice_is_whole() -> None:
    message = judged(said())
    assert isinstance(message, NewMessage)
    assert (message.body, message.complete, message.truncated) == (RAW, True, False)


def test_a_body_of_exactly_the_slice_is_a_part() -> None:
    message = judged(said(RAW + b"x" * (100 - len(RAW)), size=100))
    assert isinstance(message, NewMessage)
    assert not message.complete


def test_a_server_that_does_not_know_slices_sends_the_whole() -> None:
    message = judged(said(RAW + b"x" * 200, size=len(RAW) + 200, origin=None))
    assert isinstance(message, NewMessage)
    assert message.complete


@pytest.mark.parametrize(
    "fetch",
    [
        pytest.param(None, id="left out"),
        pytest.param(said(None), id="NIL"),
        pytest.param(said(b""), id="an empty literal"),
        pytest.param(said(size=0), id="size 0"),
        pytest.param(said(size=None), id="no size"),
        pytest.param(said(flags=None), id="no flags"),
        pytest.param(said(size=3), id="another size"),
        pytest.param(said(origin=50), id="another slice"),
        pytest.param(Fetch(1, uid=Uid(7), flags=frozenset(), size=5), id="no body at all"),
    ],
)
def test_what_is_not_the_message_is_not_taken_for_it(fetch: Fetch | None) -> None:
    assert isinstance(judged(fetch), Unusable)


def test_a_mail_that_is_empty_twice_is_an_empty_mail() -> None:
    first = judged(said(b"", size=0))
    assert isinstance(first, Unusable)
    second = judged(said(b"", size=0), doubt=first.doubt)
    assert isinstance(second, NewMessage)
    assert (second.body, second.complete) == (b"", True)


def test_a_size_that_disagrees_twice_alike_is_believed() -> None:
    first = judged(said(size=3))
    assert isinstance(first, Unusable)
    assert isinstance(judged(said(size=3), doubt=first.doubt), NewMessage)
    assert isinstance(judged(said(size=4), doubt=first.doubt), Unusable)


def test_too_large_a_message_is_truncated_to_its_header() -> None:
    message = judged(said(RAW + b"x" * (100 - len(RAW)), size=5000))
    assert isinstance(message, NewMessage)
    assert (message.body, message.complete, message.truncated) == (None, True, True)
    assert message.headers.subject == "x"


def test_where_only_headers_are_mirrored_nothing_is_truncated() -> None:
    rules = BodyRules(headers_only=True, longest=1000, slice=100)
    fetch = Fetch(1, uid=Uid(7), flags=frozenset(), size=50, bodies=(BodySection("HEADER", 0, RAW[:14]),))
    message = judged(fetch, rules)
    assert isinstance(message, NewMessage)
    assert (message.body, message.complete, message.truncated) == (None, True, False)
