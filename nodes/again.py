"""The last result kept in memory: while it is small, a changed strength redoes only the tensors that it touches.

What is kept is a copy: ComfyUI may patch the weights of a MODEL in place. There is one, and it is dropped for the next.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch

from ..engine.bake import BakeReport
from ..engine.blueprint import Blueprint
from ..engine.memory import available_bytes
from ..engine.pipeline import Direct
from ..engine.reuse import Previous
from ..engine.tensors import InMemory, Reader, TensorInfo
from .session import SESSION

SHARE = 8  # of the free memory: what a copy may take


class Copies(InMemory):
    """A TensorSource over copies; what a bake takes over from it is copied once more."""

    label = "the last result"

    def __init__(self, tensors: Mapping[str, torch.Tensor]) -> None:
        self._values = {name: tensor.clone() for name, tensor in tensors.items()}
        self.tensors = {name: TensorInfo(name, t.dtype, tuple(t.shape)) for name, t in self._values.items()}

    def read(self, name: str) -> torch.Tensor:
        """The copy itself."""
        return self._values[name]

    @contextmanager
    def reader(self, mmap: bool | None = None) -> Iterator[Reader]:
        """A reader whose tensors a bake must not hand on."""
        reader = Direct(self)
        reader.transient = True
        yield reader


def identity_of_model(model: Any) -> str:
    """What stands for the weights of a MODEL while this process runs: its module, and the patches it carries."""
    module = model.model
    if module not in SESSION.tokens:
        SESSION.tokens[module] = uuid.uuid4().hex
    return f"{SESSION.tokens[module]}:{model.patches_uuid}"


def previous(identity: str) -> Previous | None:
    """The last result, when it was made on this base."""
    last = SESSION.last
    return last[1] if last is not None and last[0] == identity else None


def remember(made: Blueprint, report: BakeReport, tensors: Mapping[str, torch.Tensor]) -> None:
    """Keep a copy of a result where there is plenty of memory for it; forget the one before in any case."""
    SESSION.last = None
    size, free = sum(tensor.nbytes for tensor in tensors.values()), available_bytes()
    if free is not None and size * SHARE < free:
        SESSION.last = (
            made.base_identity,
            Previous(made.keys, report.measures_json(), Copies(tensors), report.arithmetic),
        )
