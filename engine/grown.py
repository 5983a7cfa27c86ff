"""A base with room for LoRAs that make a weight larger, as FLUX control LoRAs do with the inputs of ``img_in``.

The new rows and columns are zeros: without the LoRA the network computes what it did before.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace

import torch

from .adapters import RESHAPE
from .pipeline import reader_of
from .plan import Base, Patch
from .tensors import Over, Reader, SampledSource, TensorInfo, TensorSource
from .texts.say import refuse

Shape = tuple[int, ...]


class Grown(Over):
    """A TensorSource with some weights padded to ``shapes``; all else is that of ``source``.

    Its fingerprint, of which the shapes are a part, is another one than that of ``source``.
    """

    def __init__(self, source: TensorSource, shapes: Mapping[str, Shape]) -> None:
        self.source, self.label, self.shapes = source, source.label, dict(shapes)
        self.tensors: Mapping[str, TensorInfo] = {
            name: replace(info, shape=self.shapes.get(name, info.shape)) for name, info in source.tensors.items()
        }
        if isinstance(source, SampledSource):  # Python 3.12 looks for it on the object itself
            self.edges = source.edges

    def read(self, name: str) -> torch.Tensor:
        """One tensor in its stored dtype, padded with zeros where it has grown."""
        tensor = self.source.read(name)
        return padded(tensor, self.shapes[name]) if name in self.shapes else tensor

    @contextmanager
    def reader(self, mmap: bool | None = None) -> Iterator[Reader]:
        """A Reader by the source's own one, if it has one."""
        with reader_of(self.source, mmap) as inner:
            yield _Growing(self, inner)


class _Growing:
    """A Reader of the source as a Reader of what it has grown to."""

    def __init__(self, grown: Grown, inner: Reader) -> None:
        self._grown, self._inner, self.transient = grown, inner, inner.transient

    def read(self, name: str) -> torch.Tensor:
        tensor = self._inner.read(name)
        return padded(tensor, self._grown.shapes[name]) if name in self._grown.shapes else tensor

    def read_rows(self, name: str, first: int, stop: int) -> torch.Tensor:
        if name not in self._grown.shapes:
            return self._inner.read_rows(name, first, stop)
        shape, height = self._grown.shapes[name], self._grown.source.tensors[name].shape[0]
        start = min(first, height)
        rows = self._inner.read_rows(name, start, max(start, min(stop, height)))
        return padded(rows, (stop - first, *shape[1:]))

    def forget(self) -> None:
        self._inner.forget()


def padded(tensor: torch.Tensor, shape: Shape) -> torch.Tensor:
    """The tensor in the first corner of zeros of a larger shape."""
    result = torch.zeros(shape, dtype=tensor.dtype, device=tensor.device)
    result[tuple(slice(0, size) for size in tensor.shape)] = tensor
    return result


def grown_base(base: Base, patches: Iterable[Patch]) -> Base:
    """The base with every weight as large as the adapters with a ``reshape`` part want it; itself when none does.

    Raises FoundryError LF304 for a wanted shape that is smaller somewhere, or when two adapters want different ones.
    """
    shapes: dict[str, Shape] = dict(base.source.shapes) if isinstance(base.source, Grown) else {}
    source = base.source.source if isinstance(base.source, Grown) else base.source
    for patch in patches:
        if RESHAPE in dict(patch.adapter.parts) and patch.target.slice is None:
            name, wanted = patch.target.weight, patch.adapter.delta_shape
            if patch.target.part is not None:
                wanted = (patch.target.part[2], *wanted[1:])
            _check(name, source.tensors[name].shape, wanted, shapes.get(name))
            if wanted != source.tensors[name].shape:
                shapes[name] = wanted
    return replace(base, source=Grown(source, shapes)) if shapes else base


def _check(name: str, stored: Shape, wanted: Shape, other: Shape | None) -> None:
    if other not in (None, wanted):
        raise refuse("LF304.two_shapes", weight=name, one=list(wanted), other=list(other or ()))
    if len(stored) != len(wanted) or any(new < old for new, old in zip(wanted, stored, strict=True)):
        raise refuse("LF304.shrinks", weight=name, wanted=list(wanted), stored=list(stored))
