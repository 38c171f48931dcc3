"""Chores: what the service does now and then beside its accounts, each for as long as it runs."""

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Final

import anyio
import structlog

from idlepush.app.clock import utc_now
from idlepush.errors import StoreError
from idlepush.store.base import Store, Sweep
from idlepush.store.settings import StoreSettings
from idlepush.telemetry.health import Health

SWEEP_EVERY: Final = 300.0
INDEX_BEHIND: Final = 0.1
"""Seconds after a commit: many in a row are looked at together, and the sinks come first."""
AFTER_TROUBLE: Final = 30.0
JUDGE_EVERY: Final = 15.0
"""Seconds after which time alone may have changed how well an account is."""
BODIES_OUTLIVE_ROWS: Final = 900.0


async def sweep(store: Store, settings: Callable[[], StoreSettings]) -> None:
    """Take away what retention no longer keeps. For ever; *settings* are asked each time."""
    while True:
        try:
            await store.sweep(retention(settings(), utc_now()))
        except StoreError as error:
            structlog.get_logger().error("store.trouble", reason=str(error))
        await anyio.sleep(SWEEP_EVERY)


async def index(store: Store) -> None:
    """Keep what searches go by up to the mirror, a moment behind it. For ever."""
    while True:
        try:
            position = await store.position()
            # As long at rest as at work: a first mirror of a million messages needs the processor, too.
            await store.index(rest=1.0)
            # A sweep takes something out and writes no event.
            with anyio.move_on_after(SWEEP_EVERY):
                await store.wait_beyond(position)
        except StoreError as error:
            structlog.get_logger().error("store.trouble", reason=str(error))
            await anyio.sleep(AFTER_TROUBLE)
        await anyio.sleep(INDEX_BEHIND)


def retention(settings: StoreSettings, now: datetime) -> Sweep:
    """Return what may be taken away at *now*."""
    rows_before = now - timedelta(seconds=settings.retain_expunged)
    bodies_before = rows_before if settings.keep_expunged_bodies else now - timedelta(seconds=BODIES_OUTLIVE_ROWS)
    return Sweep(bodies_before=bodies_before, rows_before=rows_before)


async def judge(health: Health) -> None:
    """Find out who has been silent for too long. For ever."""
    while True:
        await anyio.sleep(JUDGE_EVERY)
        health.tick()
