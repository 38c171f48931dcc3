"""A whole account in one event loop: engine, in-memory store and a fake server, without sockets, in virtual time."""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import anyio

from idlepush.engine.dial import Endpoint
from idlepush.engine.limits import LoginLimit
from idlepush.engine.observations import Observation, StateChanged
from idlepush.engine.settings import AccountSettings
from idlepush.engine.supervise import Supervisor
from idlepush.engine.watch import Surroundings, Watch
from idlepush.imap.types import MailboxName
from idlepush.store.base import Store
from idlepush.store.memory import MemoryStore
from idlepush.sync.events import Event, EventType
from tests.peers.fake import PASSWORD, FakeImap
from tests.peers.memory import open_memory

EPOCH = datetime(2026, 11, 21, 20, 0, tzinfo=UTC)
Row = tuple[frozenset[str], int, str | None]


def virtual_now() -> datetime:
    """Return the moment, by the loop's clock."""
    return EPOCH + timedelta(seconds=asyncio.get_running_loop().time())


class Rig:
    """One account against *fake*; `dice` is what every pause is multiplied by.

    With `lane` every backlog, however small, goes to the second connection at once.
    """

    def __init__(
        self,
        fake: FakeImap,
        *,
        store: Store | None = None,
        dice: float = 0.5,
        environment: Any = None,
        lane: bool = False,
        **settings: Any,
    ) -> None:
        self.fake = fake
        self.now: Callable[[], datetime] = virtual_now
        self.store = store or MemoryStore(clock=self.now)
        self.seen: list[Observation] = []
        self.dials = 0
        keys: dict[str, Any] = {
            "name": "alice",
            "host": "127.0.0.1",
            "tls": "none",
            "username": "alice",
            "password": PASSWORD,
            "audit_interval": "5200w",
            **settings,
        }
        self.settings = AccountSettings.model_validate(keys)
        self._environment = environment or {}
        self.watch = self._watch()
        if lane:
            self.watch.lane.after = 0.0
        self.supervisor = Supervisor(self.watch, self.seen.append, lambda: dice, self._environment)

    def _watch(self) -> Watch:
        around = Surroundings(
            store=self.store,
            observe=self.seen.append,
            now=self.now,
            environment=self._environment,
            logins=LoginLimit(0, 1),
            dial=self.dial,
        )
        return Watch(self.settings, around)

    async def dial(
        self, protocol: Callable[[], asyncio.Protocol], endpoint: Endpoint
    ) -> tuple[asyncio.Transport, asyncio.Protocol]:
        self.dials += 1
        return await open_memory(protocol, self.fake)

    @asynccontextmanager
    async def running(self) -> AsyncIterator["Rig"]:
        """Run the account, supervised, until the block ends."""
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self.supervisor.run)
            yield self
            tasks.cancel_scope.cancel()

    # What is there, what is here

    def on_server(self, mailbox: str = "INBOX") -> dict[int, Row]:
        """Return what the server holds: flags, size and hash by UID."""
        return {
            message.uid: (
                frozenset(message.flags) - {"\\Recent"},
                len(message.raw),
                hashlib.sha256(message.raw).hexdigest(),
            )
            for message in self.fake.mailbox(mailbox).messages
        }

    async def in_mirror(self, mailbox: str = "INBOX") -> dict[int, Row]:
        """Return what the mirror holds, in the same words."""
        name = MailboxName.from_text(mailbox)
        rows = [row async for row in self.store.messages("alice", name)]
        uids = [row.uid for row in rows]
        assert len(set(uids)) == len(uids), f"a UID stands twice in the mirror: {uids}"
        return {row.uid: (frozenset(row.flags), row.size, row.sha256) for row in rows}

    async def becomes_equal(self, *mailboxes: str, within: float = 10) -> None:
        """Wait until mirror and server are equal; fail with what differs after *within* seconds (virtual)."""
        names = mailboxes or ("INBOX",)
        ends = anyio.current_time() + within
        while True:
            differing = [name for name in names if await self.in_mirror(name) != self.on_server(name)]
            if not differing:
                return
            if anyio.current_time() > ends:
                here, there = await self.in_mirror(differing[0]), self.on_server(differing[0])
                raise AssertionError(
                    f"{differing[0]}: missing {sorted(there.keys() - here.keys())}, "
                    f"extra {sorted(here.keys() - there.keys())}, "
                    f"other {[uid for uid in here.keys() & there.keys() if here[uid] != there[uid]]} after {within} s"
                )
            await anyio.sleep(max(0.02, within / 1000))

    async def comes_to(self, state: str, *, within: float = 60) -> StateChanged:
        """Wait until the account stands so; return the observation."""
        ends = anyio.current_time() + within
        while True:
            for seen in reversed(self.seen):
                if isinstance(seen, StateChanged):
                    if seen.state == state:
                        return seen
                    break
            assert anyio.current_time() <= ends, f"never came to {state}: {self.states}"
            await anyio.sleep(0.05)

    @property
    def states(self) -> list[str]:
        """The states the account went through."""
        return [seen.state.value for seen in self.seen if isinstance(seen, StateChanged)]

    def observed(self, kind: type[Observation]) -> list[Any]:
        """Return the observations of one kind."""
        return [seen for seen in self.seen if isinstance(seen, kind)]

    async def events(self) -> list[Event]:
        """Return the whole log; its positions are 1, 2, 3, …"""
        log: list[Event] = []
        while found := await self.store.events(log[-1].position if log else 0):
            log += found
        assert [event.position for event in log] == list(range(1, len(log) + 1))
        return log

    async def replays_exactly(self, *mailboxes: str) -> None:
        """Replaying the log gives the mirror, and no message is new twice."""
        live = replayed(await self.events())
        for name in mailboxes or ("INBOX",):
            here = {
                row.id: frozenset(row.flags) async for row in self.store.messages("alice", MailboxName.from_text(name))
            }
            assert {key: flags for key, (mailbox, flags) in live.items() if mailbox == name} == here


def replayed(log: list[Event]) -> Mapping[str, tuple[str, frozenset[str]]]:
    """Fold the log into (mailbox, flags) by message id."""
    live: dict[str, tuple[str, frozenset[str]]] = {}
    for event in log:
        flags = event.details.get("flags")
        now = frozenset(str(flag) for flag in flags) if isinstance(flags, list) else frozenset()
        match event.type:
            case EventType.MESSAGE_NEW:
                assert event.id not in live, f"{event.id} is new twice"
                live[str(event.id)] = (str(event.mailbox), now)
            case EventType.MESSAGE_FLAGS | EventType.MESSAGE_MOVED:
                assert event.id in live
                live[str(event.id)] = (str(event.mailbox), now)
            case EventType.MESSAGE_EXPUNGED:
                del live[str(event.id)]
            case EventType.MAILBOX_GONE:
                live = {key: at for key, at in live.items() if at[0] != event.mailbox}
            case EventType.MAILBOX_RENAMED:
                before, after = event.details["mailbox_before"], str(event.mailbox)
                assert all(at[0] != after for at in live.values()), f"{after} is taken"
                live = {key: (after, at[1]) if at[0] == before else at for key, at in live.items()}
            case _:
                pass
    return live


def mail(number: int, *, size: int = 0) -> bytes:
    """Make a message nobody else looks like."""
    head = f"From: a@x.example\r\nSubject: number {number}\r\nMessage-ID: <{number}@x.example>\r\n\r\nbody {number}\r\n"
    return head.encode() + b"x" * size
