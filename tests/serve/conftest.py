"""Each store that the interface may stand before."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from idlepush.store.base import Store
from idlepush.store.memory import MemoryStore
from idlepush.store.sqlite import open_store
from tests.store.making import Clock


@pytest.fixture(params=["memory", "sqlite"])
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Store]:
    clock = Clock()
    if request.param == "memory":
        yield MemoryStore(clock=clock)
        return
    async with open_store(tmp_path / "mirror.db", clock=clock) as opened:
        yield opened


@pytest.fixture
def memory() -> Store:
    return MemoryStore(clock=Clock())
