"""The stream of events: in order, resumed without a gap, and never a burden."""

import json
from collections.abc import AsyncIterator
from dataclasses import dataclass

import anyio
import httpx
import pytest

from idlepush.cli.printing import print_record
from idlepush.serve import events
from idlepush.store.base import Store
from tests.serve.serving import Served, watching
from tests.serve.test_api import filled, is_problem
from tests.store.making import begin, changes, message

STREAM = "/v1/events/stream"


@dataclass
class Sent:
    """One server-sent event, as its reader's browser would put it together."""

    id: str = ""
    event: str = ""
    data: str = ""


async def sent(answer: httpx.Response) -> AsyncIterator[Sent]:
    now = Sent()
    async for line in answer.aiter_lines():
        name, _, value = line.partition(": ")
        if name in ("id", "event", "data"):
            setattr(now, name, value)
        elif not line and now.data:
            yield now
            now = Sent()


async def take(
    client: httpx.AsyncClient, count: int, headers: dict[str, str] | None = None, **asked: int
) -> list[Sent]:
    """Open a stream, take so many events, and cut it off."""
    with anyio.fail_after(20):
        async with client.stream("GET", STREAM, params=asked, headers=headers) as answer:
            assert answer.status_code == 200
            assert answer.headers["content-type"].startswith("text/event-stream")
            found: list[Sent] = []
            async for one in sent(answer):
                found.append(one)
                if len(found) == count:
                    break
            return found


async def test_the_stream_is_the_log_then_what_comes(store: Store, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    served = await filled(store)
    async with served.listening() as client, client.stream("GET", STREAM) as answer:
        with anyio.fail_after(20):
            stream = sent(answer)
            known = [await anext(stream) for _ in range(await store.position())]
            generation = await begin(store, "carol")
            await store.commit(changes(generation, "carol", new=(message(5), message(6))))
            known += [await anext(stream) for _ in range(await store.position() - len(known))]
    listed = await store.events()
    assert [one.id for one in known] == [str(event.position) for event in listed]
    assert [one.event for one in known] == [event.type for event in listed]
    assert [json.loads(one.data) for one in known] == [event.record() for event in listed]
    capfdbinary.readouterr()
    for event in listed:
        print_record(event.record())
    printed = capfdbinary.readouterr().out.decode().splitlines()
    assert [one.data for one in known] == printed, "the very line that `events --json` prints"


async def test_a_stream_that_was_cut_off_resumes_without_a_gap_or_a_double(store: Store) -> None:
    served = await filled(store)
    whole = [str(event.position) for event in await store.events()]
    async with served.listening() as client:
        first = await take(client, 2)
        seen = [one.id for one in first]
        while len(seen) < len(whole):
            # A browser sends the address it was given first, `after` included, and the header beside it.
            again = await take(client, 1, {"Last-Event-ID": seen[-1]}, after=0)
            seen += [one.id for one in again]
        assert seen == whole
        behind = await take(client, 1, after=int(whole[-2]))
        assert [one.id for one in behind] == whole[-1:]


async def test_a_cursor_that_is_none_is_a_problem(memory: Store) -> None:
    async with (await filled(memory)).client() as client:
        for wrong in ("yesterday", "-1", "1e3", "٣", "9" * 40):
            is_problem(await client.get(STREAM, headers={b"Last-Event-ID": wrong.encode()}), 400)
        is_problem(await client.get(STREAM, params={"after": "-1"}), 422)


async def test_a_silent_stream_shows_that_it_lives(memory: Store) -> None:
    served = Served.of(memory, watching("alice"))
    served.keepalive = 0.05
    async with served.listening() as client, client.stream("GET", STREAM, params={"after": 2**60}) as answer:
        with anyio.fail_after(20):
            lines = answer.aiter_lines()
            assert await anext(lines) == "retry: 2000"
            comments = [line async for line in _some(lines, 6)]
    assert comments.count(": still here") == 3


async def _some(lines: AsyncIterator[str], count: int) -> AsyncIterator[str]:
    while count:
        yield await anext(lines)
        count -= 1


async def test_streams_end_when_the_service_does(memory: Store) -> None:
    served = await filled(memory)
    with anyio.fail_after(5):
        async with served.listening() as client, client.stream("GET", STREAM) as answer:
            stream = sent(answer)
            await anext(stream)
            served.stopping.set()
            assert [one async for one in stream]


async def test_more_streams_than_are_allowed_are_refused_and_a_closed_one_makes_room(
    memory: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(events, "MOST_STREAMS", 1)
    async with (await filled(memory)).listening() as client:
        async with client.stream("GET", STREAM) as answer:
            await anext(sent(answer))
            refused = await client.get(STREAM)
            is_problem(refused, 503)
            assert refused.headers["retry-after"] == "10"
        with anyio.fail_after(10):
            while (again := await _status_of_stream(client)) == 503:
                await anyio.sleep(0.01)
        assert again == 200


async def _status_of_stream(client: httpx.AsyncClient) -> int:
    async with client.stream("GET", STREAM) as answer:
        return answer.status_code


async def test_eighty_readers_of_a_long_log_hold_nobody_up(memory: Store) -> None:
    served = Served.of(memory, watching("alice"))
    generation = await begin(memory)
    for first in range(1, 10_001, 1000):
        await memory.commit(changes(generation, new=tuple(message(uid) for uid in range(first, first + 1000))))
    async with served.listening() as client, anyio.create_task_group() as tasks:
        began = [anyio.Event() for _ in range(80)]

        async def read(begun: anyio.Event) -> None:
            async with client.stream("GET", STREAM) as answer:
                async for _ in answer.aiter_raw():
                    begun.set()
                    await anyio.sleep_forever()

        for begun in began:
            tasks.start_soon(read, begun)
        with anyio.fail_after(60):
            for begun in began:
                await begun.wait()
            for _ in range(5):
                with anyio.fail_after(2):
                    assert (await client.get("/livez")).status_code == 200
        tasks.cancel_scope.cancel()
