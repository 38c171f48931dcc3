import pytest

from idlepush.store.base import Store
from idlepush.store.memory import MemoryStore
from tests.store.conformance import StoreConformance
from tests.store.making import Clock


@pytest.fixture
def clock() -> Clock:
    return Clock()


class TestMemoryStore(StoreConformance):
    @pytest.fixture
    def store(self, clock: Clock) -> Store:
        return MemoryStore(clock=clock)
