"""A giant message, and a small one right behind it: what the first costs in memory, and the second in time.

`python -m tests.benchmarks.bench_giant [--octets 200000000] [--rounds 3] [--connections 2] [--compressible]`

The engine runs with its real store in a process of its own, with `max_message_bytes = 0`, beside a real Dovecot. Small
messages are timed alone first; then, each round, one while the giant is on its way: from EXISTS heard to committed.
RSS is the process's peak, read from the kernel, above what it was before the giant came.
"""

import argparse
import json
import os
import queue
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import anyio

from idlepush.app.clock import utc_now
from idlepush.engine.limits import LoginLimit
from idlepush.engine.observations import Observation, StateChanged
from idlepush.engine.settings import AccountSettings
from idlepush.engine.supervise import Supervisor
from idlepush.engine.watch import Surroundings, Watch
from idlepush.imap.responses import Exists, Untagged
from idlepush.store.sqlite import open_store
from idlepush.sync.events import EventType
from idlepush.sync.view import View
from tests.peers.dovecot import PASSWORD, Dovecot


def say(**fact: object) -> None:
    """Report one fact to the parent."""
    print(json.dumps(fact), flush=True)


def engine(host: str, port: int, folder: Path, user: str, connections: int) -> None:
    """Mirror; report each EXISTS, and each commit of a message or of a body that is whole."""
    hear = View.hear
    idling: list[View] = []

    def heard(view: View, said: Untagged) -> bool:
        # The lane hears it as well, by its NOOPs: up to half a second before Dovecot tells the session that idles.
        if not idling:
            idling.append(view)
        if isinstance(said, Exists) and view is idling[0]:
            say(what="EXISTS", count=said.count, at=time.monotonic())
        return hear(view, said)

    View.hear = heard  # type: ignore[method-assign,assignment]

    def observe(seen: Observation) -> None:
        if isinstance(seen, StateChanged):
            say(what=seen.state.value, at=time.monotonic())

    settings = AccountSettings.model_validate(
        {
            "name": "bench",
            "host": host,
            "port": port,
            "tls": "none",
            "username": user,
            "password": PASSWORD,
            "max_message_bytes": 0,
            "connections": connections,
        }
    )

    async def main() -> None:
        async with open_store(folder / "mirror.db", clock=utc_now) as store, anyio.create_task_group() as tasks:
            tasks.start_soon(store.tend)

            async def tell() -> None:
                position = 0
                while True:
                    await store.wait_beyond(position)
                    for event in await store.events(position):
                        position = event.position
                        if event.type in (EventType.MESSAGE_NEW, EventType.MESSAGE_BODY):
                            whole = event.type is EventType.MESSAGE_BODY or event.details.get("complete")
                            say(what="whole" if whole else "begun", uid=event.uid, at=time.monotonic())

            tasks.start_soon(tell)
            around = Surroundings(store=store, observe=observe, now=utc_now, environment={}, logins=LoginLimit(0, 1))
            await Supervisor(Watch(settings, around), observe, lambda: 0.5, {}).run()

    anyio.run(main, backend_options={"use_uvloop": True})


class Engine:
    """The engine's process, and what it has told so far."""

    def __init__(self, server: Dovecot, folder: str, user: str, connections: int) -> None:
        self.user = user
        self.process = subprocess.Popen(
            [
                *(sys.executable, "-m", "tests.benchmarks.bench_giant", "engine"),
                *(server.host, str(server.port), folder, user, str(connections)),
            ],
            stdout=subprocess.PIPE,
            text=True,
        )
        self.facts: list[dict[str, float | str]] = []
        self._arrived: queue.Queue[dict[str, float | str] | None] = queue.Queue()
        self._listener = threading.Thread(target=self._listen, daemon=True)
        self._listener.start()

    def _listen(self) -> None:
        assert self.process.stdout is not None
        with self.process.stdout as lines:
            for line in lines:
                self._arrived.put(json.loads(line))
        self._arrived.put(None)

    def until(self, *, within: float = 120, **wanted: object) -> dict[str, float | str]:
        """Return the first fact, told already or to come, that says *wanted*."""
        told = 0
        ends = time.monotonic() + within
        while True:
            for fact in self.facts[told:]:
                if all(fact.get(key) == value for key, value in wanted.items()):
                    return fact
            told = len(self.facts)
            fact_ = self._arrived.get(timeout=max(0.1, ends - time.monotonic()))
            assert fact_ is not None, "the engine's process ended"
            self.facts.append(fact_)

    def memory(self, field: str) -> int:
        """Return VmRSS or VmHWM, in octets."""
        for line in Path(f"/proc/{self.process.pid}/status").read_text().splitlines():
            if line.startswith(field + ":"):
                return int(line.split()[1]) * 1024
        raise AssertionError(field)

    def forget_peak(self) -> int:
        """Let the peak begin anew; return what is resident now."""
        Path(f"/proc/{self.process.pid}/clear_refs").write_text("5")
        return self.memory("VmRSS")

    def close(self) -> None:
        """End it."""
        self.process.kill()
        self.process.wait()
        self._listener.join()


@contextmanager
def running(server: Dovecot, folder: str, user: str = "giant", connections: int = 2) -> Iterator[Engine]:
    """Run the engine until the block ends."""
    one = Engine(server, folder, user, connections)
    try:
        one.until(what="watching")
        yield one
    finally:
        one.close()


def giant(octets: int, *, compressible: bool) -> bytes:
    """Spell a message of about so many octets."""
    line = 76
    filler = (b"all work and no play makes jack a dull boy; " * 2)[: line - 2] + b"\r\n"
    if compressible:
        body = filler * (octets // line)
    else:
        digits = os.urandom(octets // line * (line - 2) // 2 + line).hex().encode()
        body = b"\r\n".join(digits[at : at + line - 2] for at in range(0, octets // line * (line - 2), line - 2))
    return b"Subject: giant\r\nMessage-ID: <" + os.urandom(8).hex().encode() + b"@x>\r\n\r\n" + body + b"\r\n"


def small(number: int) -> bytes:
    """Spell a message of 7 kB."""
    body = os.urandom(3500).hex().encode()
    return b"Subject: small\r\nMessage-ID: <%d@x>\r\n\r\n" % number + body + b"\r\n"


def small_delay(server: Dovecot, engine_: Engine, uid: int) -> float:
    """Deliver a small message as *uid*; return the seconds from its EXISTS to its commit."""
    server.deliver(engine_.user, small(uid))
    committed = float(engine_.until(what="whole", uid=uid)["at"])
    told = [float(fact["at"]) for fact in engine_.facts if fact["what"] == "EXISTS" and int(fact["count"]) >= uid]
    return max(0.0, committed - told[0]) if told else 0.0  # it came with an answer, before it was told of


def measure(server: Dovecot, engine_: Engine, first: int, octets: int, *, compressible: bool) -> dict[str, float]:
    """Deliver a giant as the message number *first* and small ones behind it until it is whole."""
    raw = giant(octets, compressible=compressible)
    resident = engine_.forget_peak()
    server.deliver(engine_.user, raw)
    begun = time.monotonic()
    uid, delays = first, []
    while True:
        uid += 1
        delays.append(small_delay(server, engine_, uid))
        whole = [fact for fact in engine_.facts if fact["what"] == "whole" and fact.get("uid") == first]
        if whole:
            break
    took = float(whole[0]["at"]) - begun
    return {
        "octets": len(raw),
        "rss": engine_.memory("VmHWM") - resident,
        "delay": delays[0],
        "worst": max(delays),
        "beside": len(delays),
        "seconds": took,
        "next": uid + 1,
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--octets", type=int, default=200_000_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--connections", type=int, default=2)
    parser.add_argument("--compressible", action="store_true", help="a line again and again, not noise")
    asked = parser.parse_args()
    with (
        tempfile.TemporaryDirectory() as folder,
        Dovecot() as server,
        running(server, folder, connections=asked.connections) as one,
    ):
        alone = [small_delay(server, one, uid) for uid in range(1, 11)]
        number = 11
        print(f"a small message alone: EXISTS → commit p50 {statistics.median(alone) * 1000:.1f} ms, ", end="")
        print(f"worst of {len(alone)} {max(alone) * 1000:.1f} ms")
        for _ in range(asked.rounds):
            seen = measure(server, one, number, asked.octets, compressible=asked.compressible)
            number = int(seen["next"])
            print(
                f"a giant of {seen['octets'] / 1e6:.0f} MB: whole after {seen['seconds']:.1f} s, RSS rises by "
                f"{seen['rss'] / 2**20:.1f} MiB; a small one right behind it: EXISTS → commit "
                f"{seen['delay'] * 1000:.1f} ms, worst of {seen['beside']:.0f} beside it {seen['worst'] * 1000:.1f} ms"
            )


if __name__ == "__main__":
    if sys.argv[1:2] == ["engine"]:
        engine(sys.argv[2], int(sys.argv[3]), Path(sys.argv[4]), sys.argv[5], int(sys.argv[6]))
    else:
        main()
