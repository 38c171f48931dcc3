"""Alerts: tell people when an account is in trouble for longer than `grace`, and when it is back.

    health ─ transitions ─▶ desk ─ due ─▶ queue ─▶ Apprise ─ sent ─▶ store: `account.alert`, and what was told
                              ▲                        │
                              └────────settle──────────┘

The desk decides (`desk.py`), Apprise sends (`sending.py`), and this is the shell around both. What people were told
is stored once they were told it, so that a restart tells nothing twice; killed between the two, an alert may come a
second time, which is better than never. Whatever goes wrong in here is logged and counted, and ends nothing.
"""

from collections import deque
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Final, Protocol

import anyio
import structlog
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream

from idlepush.engine.observations import State
from idlepush.errors import FailureClass, StoreError
from idlepush.store.base import AlertRow, Store
from idlepush.telemetry.desk import Alert, Case, Desk, Kind
from idlepush.telemetry.health import AccountHealth, Health, Level
from idlepush.telemetry.settings import AlertSettings
from idlepush.telemetry.wording import body, title

LOOK_EVERY: Final = 1.0
"""Seconds between two looks at the desk while a trouble is open."""
QUEUE: Final = 16
MOST_UNWRITTEN: Final = 100_000
LAST_WRITE: Final = 2.0
"""Seconds the end of the service waits for what was just told to be written down."""

_AT_WORK: Final = frozenset({State.WATCHING, State.POLLING})


class Sender(Protocol):
    """Whoever hands an alert to people."""

    @property
    def has_services(self) -> bool:
        """Somebody is to be told at all."""
        ...

    async def send(self, title: str, body: str, *, resolved: bool) -> bool:
        """Return whether it was taken; takes a bounded time, and never raises."""
        ...


def _count_nothing(_kind: str, _outcome: str) -> None:
    pass


class Alerts:
    """Listens to *health* from the start; `run` does the rest.

    `host_of` names the group of an account, its server; `now` is the wall clock; `count` takes each alert's kind and
    outcome, as `Metrics.alerted` does.
    """

    def __init__(
        self,
        settings: AlertSettings,
        *,
        health: Health,
        store: Store,
        host_of: Callable[[str], str],
        now: Callable[[], datetime],
        sender: Sender,
        count: Callable[[str, str], None] = _count_nothing,
    ) -> None:
        self._desk = Desk(grace=settings.grace, cooldown=settings.cooldown)
        self._health = health
        self._store = store
        self._host_of = host_of
        self._now = now
        self._sender = sender
        self._count = count
        self._stirred = anyio.Event()
        self._unwritten: deque[AlertRow] = deque()
        self._turn = anyio.Lock()
        self._is_failing = False
        health.on_transition(self._changed)

    async def run(self) -> None:
        """Decide and send. For ever; begin it once every account is expected by the health."""
        await self._restore()
        outgoing, incoming = anyio.create_memory_object_stream[Alert](QUEUE)
        async with anyio.create_task_group() as tasks, outgoing, incoming:
            tasks.start_soon(self._send_all, incoming)
            await self._decide_all(outgoing)

    # What happens

    def _changed(self, account: str, _before: Level, after: Level, stands: AccountHealth) -> None:
        if after is Level.HEALTHY:
            self._became_well(stands)
        else:
            self._is_unwell(account, stands)
        self._stirred.set()

    def _is_unwell(self, account: str, stands: AccountHealth) -> None:
        reason = stands.reasons[0] if stands.reasons else ""
        self._desk.unwell(account, self._host_of(account), anyio.current_time(), stands.failure_class, reason)

    def _became_well(self, stands: AccountHealth) -> None:
        # An account that is only starting is not known to be well, whatever it was before a restart.
        if stands.state in _AT_WORK:
            self._desk.well(stands.account, anyio.current_time())

    async def _look_after(self) -> None:
        """Bring the open troubles up to date: reasons change without a transition, accounts are paused and removed."""
        for account in self._desk.open:
            stands = self._health.accounts.get(account)
            if stands is None or stands.state is State.PAUSED:
                if self._desk.forget(account):
                    await self._forget(account)
            elif stands.health is Level.HEALTHY:
                self._became_well(stands)
            else:
                self._is_unwell(account, stands)

    # Deciding

    async def _decide_all(self, outgoing: MemoryObjectSendStream[Alert]) -> None:
        while True:
            await self._look_after()
            await self._write()
            for alert in self._desk.due(anyio.current_time()):
                try:
                    outgoing.send_nowait(alert)
                except anyio.WouldBlock:
                    self._settle(alert, sent=False)
            with anyio.move_on_after(LOOK_EVERY if self._desk.open or self._unwritten else None):
                await self._stirred.wait()
            self._stirred = anyio.Event()

    # Sending

    async def _send_all(self, incoming: MemoryObjectReceiveStream[Alert]) -> None:
        async for alert in incoming:
            is_resolved = alert.kind is Kind.RESOLVED
            sent = True
            if self._sender.has_services:
                sent = await self._sender.send(title(alert), body(alert), resolved=is_resolved)
            self._settle(alert, sent=sent)
            with anyio.move_on_after(LAST_WRITE, shield=True):
                await self._write()
            self._stirred.set()

    def _settle(self, alert: Alert, *, sent: bool) -> None:
        self._desk.settle(alert, anyio.current_time(), sent=sent)
        if sent:
            room = MOST_UNWRITTEN - len(self._unwritten)
            self._unwritten.extend(self._row(alert, case) for case in alert.cases[: max(0, room)])
        if self._sender.has_services:
            self._count(alert.kind.value, "sent" if sent else "failed")
            names = [case.account for case in alert.cases[:10]]
            log = structlog.get_logger().info if sent else structlog.get_logger().warning
            log("alert.sent" if sent else "alert.unsent", kind=alert.kind.value, count=len(alert.cases), accounts=names)

    # Remembering

    def _row(self, alert: Alert, case: Case) -> AlertRow:
        now = self._now()
        return AlertRow(
            account=case.account,
            resolved=alert.kind is Kind.RESOLVED,
            since=now - timedelta(seconds=case.seconds),
            told=now,
            failure_class=case.failure_class.value if case.failure_class else None,
            reason=case.reason,
        )

    async def _write(self) -> None:
        """Write down what people were told; what cannot be written is tried again."""
        async with self._turn:
            rows = list(self._unwritten)
            if not rows:
                return
            try:
                await self._store.add_alerts(rows)
            except StoreError as error:
                if not self._is_failing:  # it is tried again every second
                    structlog.get_logger().error("store.trouble", reason=str(error))
                self._is_failing = True
                return
            self._is_failing = False
            for _ in rows:
                self._unwritten.popleft()

    async def _forget(self, account: str) -> None:
        try:
            await self._store.forget_alert(account)
        except StoreError as error:
            structlog.get_logger().error("store.trouble", reason=str(error))

    async def _restore(self) -> None:
        """Know what people were told before this process began."""
        try:
            rows = await self._store.alerts()
        except StoreError as error:
            structlog.get_logger().error("store.trouble", reason=str(error))
            return
        now, at = self._now(), anyio.current_time()
        for number, told in enumerate(sorted({row.told for row in rows}), start=1):
            # Those that were told at one moment were told in one alert, and their end is told in one.
            cases = tuple(self._case(row) for row in rows if row.told == told)
            alert = Alert(number=number, kind=Kind.TROUBLE, cases=cases)
            self._desk.restore(alert, at - (now - told).total_seconds())

    def _case(self, row: AlertRow) -> Case:
        return Case(
            account=row.account,
            host=self._host_of(row.account) if row.account in self._health.accounts else "",
            seconds=(row.told - row.since).total_seconds(),
            failure_class=FailureClass(row.failure_class) if row.failure_class else None,
            reason=row.reason or "",
        )
