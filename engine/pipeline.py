"""Reading ahead and writing behind: the disk works while the sums are computed.

At most one tensor is read ahead and one waits to be written, so memory stays that of a few tensors.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType

import torch

from .tensors import TensorSink, TensorSource


def read_in_order(source: TensorSource, names: Sequence[str]) -> Generator[torch.Tensor, None, None]:
    """The tensors of these names, in order; from a disk, the next one is read while this one is used.

    Closing the iterator ends the reading. A source in memory is read on demand, in the caller's own thread.
    """
    if not getattr(source, "on_disk", False):
        yield from map(source.read, names)
        return
    with ThreadPoolExecutor(1, "lora-foundry-read") as reader:
        coming: deque[Future[torch.Tensor]] = deque()
        try:
            for name in names:
                coming.append(reader.submit(source.read, name))
                if len(coming) > 1:
                    yield coming.popleft().result()
            while coming:
                yield coming.popleft().result()
        finally:
            reader.shutdown(cancel_futures=True)


class WriteBehind:
    """A sink that hands tensors to a slower one in another thread, in order; leaving the block waits for the last.

    An error of the slower sink is raised by one of the next two writes, or on leaving.
    """

    def __init__(self, sink: TensorSink) -> None:
        self._write: Callable[[str, torch.Tensor], None] = sink.write
        self._writer = ThreadPoolExecutor(1, "lora-foundry-write")
        self._waiting: deque[Future[None]] = deque()

    def write(self, name: str, tensor: torch.Tensor) -> None:
        """Queue one tensor; waits while two are on their way. The caller must not change it any more."""
        while len(self._waiting) > 1:
            self._waiting.popleft().result()
        self._waiting.append(self._writer.submit(self._write, name, tensor))

    def __enter__(self) -> WriteBehind:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._writer.shutdown(wait=True, cancel_futures=error is not None)
        while error is None and self._waiting:
            self._waiting.popleft().result()
