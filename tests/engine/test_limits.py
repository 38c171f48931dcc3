"""How often one host is knocked at."""

from itertools import pairwise

import anyio

from idlepush.engine.limits import LoginLimit
from tests.peers.virtual import virtual_time


@virtual_time
async def test_a_burst_is_let_through_and_the_rest_is_spread() -> None:
    limit, times = LoginLimit(per_second=10, burst=5), []

    async def knock() -> None:
        await limit.admit("Imap.Example.org")
        times.append(anyio.current_time())

    async with anyio.create_task_group() as tasks:
        for _ in range(55):
            tasks.start_soon(knock)
    assert times[4] == 0
    assert 4.9 < times[-1] < 5.1
    assert all(later - earlier > 0.09 for earlier, later in pairwise(times[5:]))


@virtual_time
async def test_hosts_do_not_wait_for_each_other_and_zero_is_no_bound() -> None:
    limit = LoginLimit(per_second=0.001, burst=1)
    await limit.admit("a.example")
    await limit.admit("b.example")
    unbounded = LoginLimit(per_second=0, burst=1)
    for _ in range(100):
        await unbounded.admit("a.example")
    assert anyio.current_time() == 0
