"""Weights to a CUDA device and results back, through pinned buffers on streams of their own.

While one weight is computed the next one is on its way up and the last result on its way down; two weights and three
results are in device memory at most. Needs no CUDA to be imported.
"""

from __future__ import annotations

import itertools

import torch

from .tensors import RowSink, TensorSink

SLOTS = 2


class Pinned:
    """Page-locked host buffers used in turn; a buffer is filled again only after its last copy has ended."""

    def __init__(self) -> None:
        self._buffers = [torch.empty(0, dtype=torch.uint8) for _ in range(SLOTS)]
        self._done = [torch.cuda.Event() for _ in range(SLOTS)]  # type: ignore[no-untyped-call]
        self._turn = itertools.cycle(range(SLOTS))

    def take(self, like: torch.Tensor) -> tuple[torch.Tensor, torch.cuda.Event]:
        """(host memory of this dtype and shape, the event to record when the copy from or to it is queued)."""
        slot, size = next(self._turn), like.numel() * like.dtype.itemsize
        self._done[slot].synchronize()
        if self._buffers[slot].numel() < size:
            self._buffers[slot] = torch.empty(size, dtype=torch.uint8, pin_memory=True)
        return self._buffers[slot][:size].view(like.dtype).view(like.shape), self._done[slot]


class Upload:
    """Moves tensors to a device; made by the thread that computes, called by the one that reads ahead.

    The copy runs on a stream of its own, and the computing stream waits for it on the device, not on the host.
    """

    def __init__(self, device: torch.device) -> None:
        self._device, self._pinned = device, Pinned()
        self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        self._computing = torch.cuda.current_stream(device)

    def __call__(self, tensor: torch.Tensor) -> torch.Tensor:
        """The tensor on the device; one that is there already is returned as it is."""
        if tensor.device == self._device:
            return tensor
        host, done = self._pinned.take(tensor)
        host.copy_(tensor)
        with torch.cuda.stream(self._stream):
            there = host.to(self._device, non_blocking=True)
            done.record(self._stream)
        self._computing.wait_event(done)
        there.record_stream(self._computing)
        return there


class Download:
    """A sink before a sink: brings results from the device to the host; its ``write`` runs in the writing thread."""

    on_disk = True  # what it is given lies on the device, and is copied

    def __init__(self, sink: TensorSink, device: torch.device) -> None:
        self._sink, self._pinned = sink, Pinned()
        self._keeps = not sink.on_disk
        self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        self._computing = torch.cuda.current_stream(device)

    def write(self, name: str, tensor: torch.Tensor) -> None:
        """Copy down and pass on; a sink that keeps what it gets receives memory of its own."""
        self._sink.write(name, self.down(tensor))

    def down(self, tensor: torch.Tensor) -> torch.Tensor:
        """The tensor on the host, valid until the second next call where the sink does not keep it."""
        if not tensor.is_cuda:
            return tensor
        host, done = self._pinned.take(tensor)
        self._stream.wait_stream(self._computing)
        with torch.cuda.stream(self._stream):
            host.copy_(tensor, non_blocking=True)
            done.record(self._stream)
        done.synchronize()
        return host.clone() if self._keeps else host


class RowDownload(Download):
    """The same before a sink that also takes rows."""

    def __init__(self, sink: RowSink, device: torch.device) -> None:
        super().__init__(sink, device)
        self._rows = sink.write_rows

    def write_rows(self, name: str, first: int, rows: torch.Tensor) -> None:
        """Copy rows down and pass them on."""
        self._rows(name, first, self.down(rows))


def download(sink: TensorSink, device: torch.device) -> Download:
    """What stands before this sink."""
    return RowDownload(sink, device) if isinstance(sink, RowSink) else Download(sink, device)
