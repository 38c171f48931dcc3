"""The loop between the log and a sink: in order, at least once, and nobody's trouble but its own. In virtual time."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import anyio

from idlepush.engine.deliver import Deliver
from idlepush.engine.observations import BugFound, Delivered, Observation, SinkReady, SinkTrouble
from idlepush.errors import SinkFailed
from idlepush.imap.types import Uid
from idlepush.store.memory import MemoryStore
from idlepush.sync.events import Event
from tests.engine.rig import virtual_now
from tests.peers.virtual import virtual_time
from tests.store.making import begin, changes, flags, message


class Recorder:
    """A sink that writes down what it is asked, and fails while it is told to."""

    name = "maildir"
    account = "alice"

    def __init__(self) -> None:
        self.begun: list[int | None] = []
        self.taken: list[int] = []
        self.trouble: Exception | None = None
        self.catches_up_to = 0

    async def first(self) -> int:
        self.begun.append(None)
        return 0

    async def begin(self, cursor: int) -> int:
        self.begun.append(cursor)
        return max(cursor, self.catches_up_to)

    async def take(self, events: Sequence[Event]) -> None:
        if self.trouble is not None:
            raise self.trouble
        self.taken += [event.position for event in events]


class Bench:
    """A store, a sink, and the loop between them."""

    def __init__(self, store: MemoryStore | None = None) -> None:
        self.store = store or MemoryStore(clock=virtual_now)
        self.sink = Recorder()
        self.seen: list[Observation] = []
        self.deliver = Deliver(self.sink, self.store, self.seen.append, lambda: 1.0)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self.deliver.run)
            await anyio.sleep(0.1)
            yield
            tasks.cancel_scope.cancel()

    def observed(self, kind: type[Observation]) -> list[Observation]:
        return [one for one in self.seen if isinstance(one, kind)]


@virtual_time
async def test_every_event_of_the_account_is_taken_once_in_order() -> None:
    bench = Bench()
    alice, bob = await begin(bench.store), await begin(bench.store, "bob")
    async with bench.running():
        for uid in range(1, 20):
            await bench.store.commit(changes(alice, new=(message(uid),)))
            await bench.store.commit(changes(bob, "bob", new=(message(uid),)))
        await anyio.sleep(0.1)
        assert bench.sink.taken == [event.position for event in await bench.store.events() if event.account == "alice"]
        assert bench.deliver.position == await bench.store.position()
    assert sum(one.count for one in bench.seen if isinstance(one, Delivered)) == 20
    assert len(bench.observed(SinkReady)) == 1


@virtual_time
async def test_the_cursor_is_written_when_the_log_is_quiet_and_a_new_start_goes_on_there() -> None:
    bench = Bench()
    generation = await begin(bench.store)
    async with bench.running():
        await bench.store.commit(changes(generation, new=(message(1),)))
        await anyio.sleep(0.5)
        assert await bench.store.cursor("maildir", "alice") == 0
        await anyio.sleep(1)
        assert await bench.store.cursor("maildir", "alice") == 2
    again = Bench(bench.store)
    await bench.store.commit(changes(generation, flags={Uid(1): flags("\\Seen")}))
    async with again.running():
        pass
    assert again.sink.begun == [2]
    assert again.sink.taken == [3]


@virtual_time
async def test_a_loop_that_is_stopped_writes_its_cursor_first() -> None:
    bench = Bench()
    await begin(bench.store)
    async with bench.running():
        assert bench.sink.taken == [1]
    assert await bench.store.cursor("maildir", "alice") == 1


@virtual_time
async def test_events_of_others_alone_write_nothing() -> None:
    bench = Bench()
    bob = await begin(bench.store, "bob")
    async with bench.running():
        for uid in range(1, 20):
            await bench.store.commit(changes(bob, "bob", new=(message(uid),)))
        await anyio.sleep(5)
        assert await bench.store.cursor("maildir", "alice") == 0
        assert bench.deliver.position == 20


@virtual_time
async def test_a_log_that_is_never_quiet_has_its_cursor_written_all_the_same() -> None:
    bench = Bench()
    bob = await begin(bench.store, "bob")
    await bench.store.commit(changes(bob, "bob", new=tuple(message(uid) for uid in range(1, 2500))))
    async with bench.running():
        assert (await bench.store.cursor("maildir", "alice") or 0) >= 2000


@virtual_time
async def test_a_sink_that_caught_up_by_itself_is_given_what_comes_after() -> None:
    bench = Bench()
    generation = await begin(bench.store)
    await bench.store.commit(changes(generation, new=(message(1), message(2))))
    bench.sink.catches_up_to = 3
    async with bench.running():
        await bench.store.commit(changes(generation, new=(message(3),)))
        await anyio.sleep(2)
        assert bench.sink.begun == [None, 0]
        assert bench.sink.taken == [4]
        assert await bench.store.cursor("maildir", "alice") == 4


@virtual_time
async def test_a_sink_that_fails_begins_again_from_its_cursor_and_loses_nothing() -> None:
    bench = Bench()
    generation = await begin(bench.store)
    async with bench.running():
        await bench.store.commit(changes(generation, new=(message(1),)))
        await anyio.sleep(2)
        bench.sink.trouble = SinkFailed("the disk is full")
        await bench.store.commit(changes(generation, new=(message(2),)))
        await anyio.sleep(600)
        troubles = bench.observed(SinkTrouble)
        assert 15 <= len(troubles) <= 30, "ever more seldom, up to every 31 s"
        assert {one.reason for one in bench.seen if isinstance(one, SinkTrouble)} == {"the disk is full"}
        await bench.store.commit(changes(generation, new=(message(3),)))
        bench.sink.trouble = None
        await anyio.sleep(60)
        assert bench.sink.taken == [1, 2, 3, 4]
        assert bench.sink.begun[-1] == 2
        assert bench.deliver.position == 4


@virtual_time
async def test_a_bug_in_a_sink_is_told_and_ends_nothing() -> None:
    bench = Bench()
    generation = await begin(bench.store)
    bench.sink.trouble = ZeroDivisionError("secret")
    async with bench.running():
        await anyio.sleep(0.5)
        assert len(bench.observed(BugFound)) == 1
        bench.sink.trouble = None
        await bench.store.commit(changes(generation, new=(message(1),)))
        await anyio.sleep(60)
        assert bench.sink.taken == [1, 2]
