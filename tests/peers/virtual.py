"""Virtual time: an event loop whose clock jumps to the next timer, so that half an hour passes in milliseconds.

It jumps only when there is nothing else to wait for:

* no callback is ready and no file descriptor is;
* nothing runs in an executor, and nobody holds `busy()`;
* every thread that was started since the loop was made waits for work that has not come.

Threads older than the loop are strangers (pytest-xdist has some) and are not looked at. Peers in other processes
cannot be seen either: with them, let time be real.
"""

import asyncio
import functools
import linecache
import queue
import selectors
import sys
import threading
import time
from collections.abc import Callable, Coroutine, Generator, Mapping
from concurrent.futures import Executor
from contextlib import contextmanager
from types import FrameType
from typing import Any, Final, ParamSpec, TypeVar, cast

P = ParamSpec("P")
T = TypeVar("T")

_REAL_LIMIT: Final = 30.0
_GLANCE: Final = 0.001  # real seconds a socket or a thread is given to make itself heard before the clock jumps


def virtual_time(test: Callable[P, Coroutine[Any, Any, None]]) -> Callable[P, None]:
    """Turn a coroutine test into an ordinary one that runs in virtual time.

    Its fixtures must be ordinary ones: an async fixture would live in another loop.
    """

    @functools.wraps(test)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        run_virtually(test(*args, **kwargs))

    return run


def run_virtually(main: Coroutine[Any, Any, T], *, real_limit: float = _REAL_LIMIT) -> T:
    """Run *main* in virtual time on a loop of its own.

    Raises:
        VirtualTimeError: *real_limit* real seconds were not enough, because something hangs.
        AssertionError: a task or callback failed and nobody took note of it.
    """
    troubles: list[str] = []

    def take_note(_loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        troubles.append(f"{context.get('message')}: {context.get('exception')!r}")

    with asyncio.Runner(loop_factory=lambda: VirtualLoop(real_limit=real_limit)) as runner:
        runner.get_loop().set_exception_handler(take_note)
        outcome = runner.run(main)
    assert not troubles, "nobody took note of: " + "; ".join(troubles)
    return outcome


class VirtualTimeError(Exception):
    """Virtual time came to a stop in real time."""


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop with a clock of its own."""

    def __init__(self, *, real_limit: float = _REAL_LIMIT) -> None:
        self._now = 0.0
        self._outstanding = 0
        self._strangers = {thread.ident for thread in threading.enumerate()}
        self._real_limit = real_limit
        self._begun = (time.process_time(), time.monotonic())
        super().__init__(_JumpingSelector(self._wait))

    def time(self) -> float:
        """Return the virtual time, in seconds since the loop was made."""
        return self._now

    @contextmanager
    def busy(self) -> Generator[None]:
        """Hold the clock while something outside of the loop is at work."""
        self._outstanding += 1
        try:
            yield
        finally:
            self._outstanding -= 1

    def run_in_executor(  # type: ignore[override] # typeshed spells the signature with TypeVarTuple
        self, executor: Executor | None, func: Callable[..., T], *args: Any
    ) -> asyncio.Future[T]:
        future = cast("asyncio.Future[T]", super().run_in_executor(executor, func, *args))
        self._outstanding += 1
        future.add_done_callback(self._came_back)
        return future

    def _came_back(self, _future: asyncio.Future[Any]) -> None:
        self._outstanding -= 1

    def _wait(self, real: selectors.BaseSelector, timeout: float | None) -> list[tuple[selectors.SelectorKey, int]]:
        """Do what `select` does, in virtual time."""
        self._check_limit(timeout)
        ready = real.select(0)
        if ready or (timeout is not None and timeout <= 0):
            return ready
        while timeout is None or self._is_awaited(real):
            ready = real.select(0.05 if timeout is None else _GLANCE)
            if ready:
                return ready
            self._check_limit(timeout)
            if timeout is not None and self._threads_at_work() is None and not self._outstanding:
                # A thread that came to rest after the select above has left its result by now.
                ready = real.select(0)
                if ready:
                    return ready
                break
        self._now += timeout or 0
        return []

    def _is_awaited(self, real: selectors.BaseSelector) -> bool:
        """Tell whether anything but a timer might still speak up."""
        has_sockets = len(real.get_map()) > 1  # the first is the loop's own, by which threads wake it
        has_threads = any(thread.ident not in self._strangers for thread in threading.enumerate())
        return has_sockets or has_threads or bool(self._outstanding)

    def _threads_at_work(self) -> str | None:
        """Describe a thread of ours that is doing something; None when all wait."""
        names = {thread.ident: thread.name for thread in threading.enumerate() if thread.ident not in self._strangers}
        for ident, frame in sys._current_frames().items():
            if ident in names and not _waits_for_work(frame):
                return f"{names[ident]} in {frame.f_code.co_filename}:{frame.f_lineno}"
        return None

    def _check_limit(self, timeout: float | None) -> None:
        # On a busy machine a test may be long without being at work: only its own work counts, or a very long wait.
        worked, waited = time.process_time() - self._begun[0], time.monotonic() - self._begun[1]
        if worked < self._real_limit and waited < 4 * self._real_limit:
            return
        self._begun = (time.process_time(), time.monotonic())  # cleaning up gets a span of its own
        cause = self._threads_at_work() or (f"{self._outstanding} outstanding" if self._outstanding else "")
        if not cause:
            cause = "nothing is scheduled" if timeout is None else "the loop never rests"
        raise VirtualTimeError(f"{self._real_limit:g} real seconds passed at virtual {self._now:g}: {cause}")


class _JumpingSelector(selectors.BaseSelector):
    """The system's selector, but for the waiting."""

    def __init__(
        self,
        wait: Callable[[selectors.BaseSelector, float | None], list[tuple[selectors.SelectorKey, int]]],
    ) -> None:
        self._real = selectors.DefaultSelector()
        self._wait = wait

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        return self._wait(self._real, timeout)

    def register(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        return self._real.register(fileobj, events, data)

    def unregister(self, fileobj: Any) -> selectors.SelectorKey:
        return self._real.unregister(fileobj)

    def modify(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        return self._real.modify(fileobj, events, data)

    def get_map(self) -> Mapping[Any, selectors.SelectorKey]:
        return self._real.get_map()

    def close(self) -> None:
        self._real.close()


def _waits_for_work(frame: FrameType) -> bool:
    """Tell whether a thread is waiting at a queue or a condition, and nothing lies there for it."""
    code = frame.f_code
    at_condition = code.co_filename == threading.__file__ and code.co_name in {"wait", "_wait_for_tstate_lock"}
    at_queue = ".get(" in linecache.getline(code.co_filename, frame.f_lineno or 0)  # None between two lines
    if not at_condition and not at_queue:
        return False
    return not any(_holds_work(outer) for outer in _frames_above(frame, 3))


def _frames_above(frame: FrameType | None, count: int) -> list[FrameType]:
    found: list[FrameType] = []
    while frame is not None and len(found) < count:
        found.append(frame)
        frame = frame.f_back
    return found


def _holds_work(frame: FrameType) -> bool:
    values = list(frame.f_locals.values())
    owner = frame.f_locals.get("self")
    values += vars(owner).values() if hasattr(owner, "__dict__") else ()
    return any(isinstance(value, queue.Queue | queue.SimpleQueue) and not value.empty() for value in values)
