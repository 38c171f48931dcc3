"""The fuzzer, half a minute of it, from one seed; `python -m tests.fuzz --minutes 5` draws its own."""

import os

import pytest

from tests.fuzz.campaign import Target, TooMuchMemory, TooSlow, checked, run
from tests.fuzz.targets import TARGETS

ALTOGETHER = float(os.environ.get("IDLEPUSH_FUZZ_SECONDS", "27"))
SEED = 20261122


@pytest.mark.parametrize("name", TARGETS)
def test_fuzzing_finds_nothing(name: str) -> None:
    report = run(TARGETS[name], seed=SEED, seconds=ALTOGETHER / len(TARGETS))
    print(report)
    assert report.inputs > len(TARGETS[name].seeds)
    assert not report.findings, "\n".join(map(str, report.findings))


def broken(octets: bytes) -> str:
    """Break a promise of each kind."""
    if b"crash" in octets:
        raise ValueError(octets.decode("latin-1"))
    if b"slow" in octets:
        while True:
            pass
    if b"large" in octets:
        return f"{len([0] * 10_000_000)}"
    return octets[:2].hex()


def test_the_fuzzer_finds_what_is_planted_and_makes_it_small() -> None:
    report = run(Target("broken", broken, [b"cra", b"sh"], [b"crash"]), seed=1, seconds=1)
    assert [finding.octets for finding in report.findings] == [b"crash"]
    assert "pytest.param(\"broken\", b'crash'" in str(report.findings[0])


def test_the_same_seed_draws_the_same_inputs() -> None:
    drawn: list[list[bytes]] = []
    for _ in range(2):
        seen: list[bytes] = []
        drawn.append(seen)

        def remember(octets: bytes, seen: list[bytes] = seen) -> str:
            seen.append(octets)
            return octets[:1].hex()

        run(Target("remembering", remember, [b"* 1 EXISTS\r\n"], [b"("]), seed=7, seconds=0.2)
    count = min(map(len, drawn))
    assert count > 50
    assert drawn[0][:count] == drawn[1][:count]


def test_what_is_slow_or_large_is_a_finding() -> None:
    target = Target("broken", broken, [b""])
    with pytest.raises(TooSlow):
        checked(target, b"slow")
    with pytest.raises(TooMuchMemory):
        checked(target, b"large")
