"""A message far longer than a window costs neither memory nor the next push's time, and is stored byte for byte."""

import anyio
import pytest

from idlepush.imap.types import MailboxName
from idlepush.store.sqlite import open_reader
from tests.benchmarks.bench_giant import measure, running, small_delay
from tests.peers.dovecot import Dovecot

OCTETS = 30_000_000


@pytest.mark.parametrize("connections", [1, 2])
def test_a_giant_is_streamed_and_small_messages_pass_it(
    dovecot: Dovecot, tmp_path_factory: pytest.TempPathFactory, connections: int, user: str
) -> None:
    folder = tmp_path_factory.mktemp("giant")
    with running(dovecot, str(folder), user, connections) as engine:
        alone = max(small_delay(dovecot, engine, uid) for uid in range(1, 6))
        seen = measure(dovecot, engine, 6, OCTETS, compressible=False)
        assert seen["rss"] < OCTETS * 0.8
        assert seen["delay"] < 10 * alone + 1

    async def stored() -> tuple[int, int]:
        async with open_reader(folder / "mirror.db") as store:
            row = await store.find("bench", MailboxName(b"INBOX"), 6)
            assert row is not None and row.complete
            return row.size, sum([len(chunk) async for chunk in store.raw(row.id)])

    size, octets = anyio.run(stored)
    assert size == octets > OCTETS
