"""Sources and sinks that behave as files do: tensors that are spoilt by later reads, results that come in rows."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import torch
from fakes import Collected, Tensors
from lora_foundry.engine.plan import Plan
from lora_foundry.engine.tensors import Reader


class OnDisk(Tensors):
    """A source whose reader gives tensors that are spoilt by the second next read, as the contract allows."""

    on_disk = True

    @contextmanager
    def reader(self, mmap: bool | None = None) -> Iterator[Reader]:
        source = self

        class Spoiling:
            transient = True

            def __init__(self) -> None:
                self.given: list[torch.Tensor] = []

            def read(self, name: str) -> torch.Tensor:
                source.reads.append(name)
                return self.give(source.values[name])

            def read_rows(self, name: str, first: int, stop: int) -> torch.Tensor:
                assert stop - first < len(source.values[name]) or len(source.values[name]) * 256 <= 3 << 18
                return self.give(source.values[name][first:stop])

            def forget(self) -> None:
                for tensor in self.given[:-1]:
                    tensor.view(torch.uint8).fill_(7) if tensor.ndim else None

            def give(self, tensor: torch.Tensor) -> torch.Tensor:
                self.given.append(tensor.clone())
                if len(self.given) > 2 and self.given[-3].ndim:
                    self.given[-3].view(torch.uint8).fill_(7)
                return self.given[-1]

        yield Spoiling()


class File(Collected):
    """A sink that copies what it gets, whole or in rows, as a file does."""

    on_disk = True

    def write(self, name: str, tensor: torch.Tensor) -> None:
        super().write(name, tensor.clone())

    def write_rows(self, name: str, first: int, rows: torch.Tensor) -> None:
        before = self.values.get(name, rows[:0])
        assert first == len(before)
        self.values[name] = torch.cat([before.view(torch.uint8), rows.view(torch.uint8)]).view(rows.dtype)


def on_disk(plan: Plan) -> Plan:
    """The plan with its base, which is in memory, as on a disk."""
    assert isinstance(plan.base.source, Tensors)
    return replace(plan, base=replace(plan.base, source=OnDisk(plan.base.source.values)))
