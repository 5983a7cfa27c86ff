"""Streams and events of a CUDA device that is none: a stream is a thread, and who may touch what is kept as clocks.

Every use of memory has a time on its stream. A stream may touch what another one used only when it has waited for it:
so a missing wait is found by what was said, not by luck. Kernels run at once, copies late.
"""

from __future__ import annotations

import queue
import threading
import weakref
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

Clock = dict[int, int]  # number of a stream -> how much of its work is known to be done


@dataclass
class Use:
    """Who used some memory last: the stream that wrote it, those that read it, each with its time."""

    home: int  # the stream it was allocated on
    wrote: tuple[int, int] | None = None
    read: Clock = field(default_factory=dict)
    recorded: set[int] = field(default_factory=set)


class Board:
    """What all streams share: the time on each, what the host has waited for, what was done wrong."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.host: Clock = {}
        self.uses: dict[int, Use] = {}
        self.faults: list[str] = []
        self.waits: Counter[str] = Counter()

    def touch(self, stream: Stream, memory: int, write: bool, what: str) -> None:
        """Note a use of the memory at this address, and whether it may collide with an earlier one."""
        with self.lock:
            merge(stream.clock, self.host)
            use = self.uses.get(memory)
            if use is None:
                return
            earlier = [] if use.wrote is None else [use.wrote]
            for number, time in [*earlier, *(use.read.items() if write else ())]:
                if number != stream.number and stream.clock.get(number, 0) < time:
                    self.faults.append(f"{what} on stream {stream.number} does not wait for stream {number}")
            now = (stream.number, stream.tick())
            if write:
                use.wrote, use.read = now, {}
            else:
                use.read[now[0]] = now[1]

    def free(self, memory: int, home: Stream | None) -> None:
        """Memory goes back to the allocator: its home stream may be given it again at once."""
        with self.lock:
            use = self.uses.pop(memory, None)
            known: Clock = dict(self.host)
            if use is None or home is None:
                return
            merge(known, home.clock)
            for number, time in [*use.read.items(), *([use.wrote] if use.wrote else [])]:
                if number != use.home and number not in use.recorded and known.get(number, 0) < time:
                    self.faults.append(f"memory of stream {use.home} is freed while stream {number} may use it")


def merge(known: Clock, more: Clock) -> None:
    """Add what another one knows."""
    for number, time in more.items():
        known[number] = max(known.get(number, 0), time)


BOARD = Board()
NUMBERS = iter(range(1, 1 << 30))


def _work_off(work: queue.SimpleQueue[Callable[[], object] | None]) -> None:
    """What the thread of a stream does until None comes."""
    while (piece := work.get()) is not None:
        piece()


class Stream:
    """A stream; the default one runs its work in the calling thread, after what it was told to wait for."""

    def __init__(self, device: Any = None, priority: int = 0, default: bool = False) -> None:
        self.number, self.default = next(NUMBERS), default
        self.clock: Clock = {}
        self._pending: list[threading.Event] = []
        self._work: queue.SimpleQueue[Callable[[], object] | None] = queue.SimpleQueue()
        if not default:
            threading.Thread(target=_work_off, args=(self._work,), daemon=True).start()
            weakref.finalize(self, self._work.put, None)  # its thread ends with it, not with the session

    def tick(self) -> int:
        """The time of one more piece of work."""
        self.clock[self.number] = self.clock.get(self.number, 0) + 1
        return self.clock[self.number]

    def submit(self, work: Callable[[], object]) -> None:
        """Run it after all that came before."""
        if self.default:
            self.drain()
            work()
        else:
            self._work.put(work)

    def drain(self) -> None:
        """Return when all that came before is done."""
        if self.default:
            waiting = list(self._pending)  # another thread may wait for the same
            for flag in waiting:
                flag.wait()
            with BOARD.lock:
                self._pending = [flag for flag in self._pending if flag not in waiting]
            return
        done = threading.Event()
        self._work.put(done.set)
        done.wait()

    def wait_event(self, event: Event) -> None:
        """What comes after waits for the event; the host does not."""
        with BOARD.lock:
            merge(self.clock, event.seen)
            if self.default:
                self._pending.append(event.flag)
        if not self.default:
            self._work.put(event.flag.wait)

    def wait_stream(self, other: Stream) -> None:
        """What comes after waits for all that the other stream was given until now."""
        event = Event()
        event.record(other)
        self.wait_event(event)

    def synchronize(self) -> None:
        """The host waits."""
        BOARD.waits["stream"] += 1
        self.drain()
        with BOARD.lock:
            merge(BOARD.host, self.clock)


class Event:
    """A point in the work of a stream; one that was never recorded has happened."""

    def __init__(self, enable_timing: bool = False, blocking: bool = False) -> None:
        self.flag, self.seen = threading.Event(), Clock()
        self.flag.set()

    def record(self, stream: Stream | None = None) -> None:
        """It happens when all that the stream was given until now is done."""
        stream = stream or current_stream()
        self.flag = threading.Event()
        with BOARD.lock:
            self.seen = dict(stream.clock)
        stream.submit(self.flag.set)

    def query(self) -> bool:
        """Whether it has happened."""
        return self.flag.is_set()

    def synchronize(self) -> None:
        """The host waits for it."""
        BOARD.waits[threading.current_thread().name.rsplit("_", 1)[0]] += not self.flag.is_set()
        self.flag.wait()
        with BOARD.lock:
            merge(BOARD.host, self.seen)

    def elapsed_time(self, later: Event) -> float:
        """No time passes here."""
        return 0.0


DEFAULT = Stream(default=True)
_here = threading.local()


def current_stream(device: Any = None) -> Stream:
    """The stream of this thread."""
    return getattr(_here, "stream", DEFAULT)


class on_stream:
    """``with`` block whose work goes to a stream."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream

    def __enter__(self) -> None:
        self._before, _here.stream = current_stream(), self._stream

    def __exit__(self, *_: object) -> None:
        _here.stream = self._before
