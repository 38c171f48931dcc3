"""Running a target on inputs until a time or a number is reached, and saying what was found as a test case.

Theory of operation. A target's `check` takes any octets, raises on a bug, and returns what it saw as a short text: the
kinds of the results, the sentence of the error without its excerpts. An input that shows what no input showed before
is kept and becomes the parent of others. That is poor man's coverage: it costs nothing where tracing every line costs
a factor of ten, and it follows what the code says, not how it is written.

Each check has a budget of processor time that grows with the input's size (a timer that ends even a regular
expression that went astray) and, for a sample, of memory. Both are generous: they catch what is not linear, not what
is slow.
"""

import base64
import random
import signal
import time
import traceback
import tracemalloc
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import FrameType
from typing import Final

from tests.fuzz.mutation import LARGEST, Mutator

_SECONDS: Final = 0.5  # of processor time that any input may cost
_SECONDS_PER_OCTET: Final = 15e-6
_OCTETS: Final = 4 * 1024 * 1024  # of memory that any input may need at once
_OCTETS_PER_OCTET: Final = 250  # a list of values of one octet each: objects of Python's, in several places
_MEASURED: Final = 32 * 1024  # from this size on every input's memory is measured
_SAMPLE: Final = 200  # and of all others one in so many
_MOST_FINDINGS: Final = 5


class TooSlow(AssertionError):
    """The check took more processor time than any linear one."""


class TooMuchMemory(AssertionError):
    """The check needed more memory than any linear one."""


@dataclass(frozen=True, slots=True)
class Target:
    """What is fuzzed: `check` raises on a bug and returns a text that says what it saw."""

    name: str
    check: Callable[[bytes], str]
    seeds: Sequence[bytes]
    words: Sequence[bytes] = ()
    longest: int = LARGEST


@dataclass(frozen=True, slots=True)
class Finding:
    """An input that broke a promise."""

    target: str
    octets: bytes
    error: str

    def __str__(self) -> str:
        return (
            f"{self.target}: {self.error}\n"
            f"# a test case that shows it (tests/fuzz/test_found.py):\n"
            f'    pytest.param("{self.target}", {_spelled(self.octets)}, id="..."),'
        )


@dataclass(slots=True)
class Report:
    """What a campaign did."""

    target: str
    seed: int
    inputs: int = 0
    corpus: int = 0
    seconds: float = 0.0
    findings: list[Finding] = field(default_factory=list)

    def __str__(self) -> str:
        pace = self.inputs / self.seconds if self.seconds else 0
        return (
            f"{self.target:<10} seed {self.seed}: {self.inputs} inputs in {self.seconds:.1f} s ({pace:.0f}/s), "
            f"{self.corpus} kept, {len(self.findings)} found"
        )


def run(target: Target, *, seed: int, seconds: float) -> Report:
    """Check the seeds, then drawn inputs for *seconds*; findings are made as small as they get within a second."""
    dice = random.Random(f"{target.name}-{seed}")
    mutator = Mutator(dice, target.words)
    corpus: list[bytes] = []
    seen: set[str] = set()
    known: set[str] = set()
    report = Report(target.name, seed)
    began = time.monotonic()
    for octets in _inputs(target, mutator, corpus, until=began + seconds):
        report.inputs += 1
        try:
            said = checked(target, octets, measured=len(octets) >= _MEASURED or report.inputs % _SAMPLE == 0)
        except Exception as error:
            kind = _kind(error)
            if kind not in known:
                known.add(kind)
                small = _smaller(target, octets, kind)
                report.findings.append(Finding(target.name, small, kind))
                if len(report.findings) == _MOST_FINDINGS:
                    break
            continue
        if said not in seen or report.inputs <= len(target.seeds):
            seen.add(said)
            corpus.append(octets[:8192])
    report.corpus, report.seconds = len(corpus), time.monotonic() - began
    return report


def _inputs(target: Target, mutator: Mutator, corpus: Sequence[bytes], *, until: float) -> Iterator[bytes]:
    yield b""
    yield from target.seeds
    while time.monotonic() < until:
        yield mutator.next(corpus or target.seeds)[: target.longest]


def checked(target: Target, octets: bytes, *, measured: bool = True) -> str:
    """Check one input within its budgets; return what the check saw.

    Raises:
        TooSlow, TooMuchMemory: a budget was used up.
        Exception: whatever the check raises; a bug.
    """
    seconds = _SECONDS + _SECONDS_PER_OCTET * len(octets)
    with _within(seconds):
        said = target.check(octets)
    if measured:
        tracemalloc.start()
        try:
            with _within(10 * seconds):  # tracing has its own cost
                target.check(octets)
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        if peak > _OCTETS + _OCTETS_PER_OCTET * len(octets):
            raise TooMuchMemory(f"{peak} octets of memory for an input of {len(octets)}")
    return said


@contextmanager
def _within(seconds: float) -> Iterator[None]:
    """End what takes more than *seconds* of this process's own time; other processes do not count."""

    def end(_number: int, _frame: FrameType | None) -> None:
        raise TooSlow(f"more than {seconds:.1f} s of processor time")

    before = signal.signal(signal.SIGVTALRM, end)
    signal.setitimer(signal.ITIMER_VIRTUAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)


def _kind(error: Exception) -> str:
    """Say what broke and where, the same for the same bug."""
    frames = traceback.extract_tb(error.__traceback__)
    ours = [frame for frame in frames if "/fuzz/campaign" not in frame.filename]
    at = ours[-1] if ours and not isinstance(error, TooSlow | TooMuchMemory) else None
    where = f" in {at.name}, line {at.lineno}: {at.line}" if at else ""
    said = "" if isinstance(error, TooSlow | TooMuchMemory) else f": {str(error)[:100]}"
    return f"{type(error).__name__}{where}" if at else f"{type(error).__name__}{said}"


def _smaller(target: Target, octets: bytes, kind: str) -> bytes:
    """Cut off what is not needed for the same bug; within a second, or five inputs of a slow one."""
    until = time.monotonic() + 1
    size = len(octets) // 2
    while size and time.monotonic() < until:
        at = 0
        while at < len(octets) and time.monotonic() < until:
            shorter = octets[:at] + octets[at + size :]
            try:
                checked(target, shorter)
            except Exception as error:
                if _kind(error) == kind:
                    octets = shorter
                    continue
            at += size
        size //= 2
    return octets


def _spelled(octets: bytes) -> str:
    if len(octets) <= 2000:
        return repr(octets)
    packed = base64.b85encode(zlib.compress(octets, 9)).decode("ascii")
    return f'zlib.decompress(base64.b85decode("{packed}"))'
