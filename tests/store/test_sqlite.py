from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from idlepush.store.sqlite import SqliteStore, open_store
from tests.store.conformance import StoreConformance
from tests.store.making import Clock


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def store(tmp_path: Path, clock: Clock) -> AsyncIterator[SqliteStore]:
    async with open_store(tmp_path / "mirror.db", clock=clock) as store:
        yield store


class TestSqliteStore(StoreConformance):
    pass
