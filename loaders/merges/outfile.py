"""The file that a merge or an extraction makes: its size before anything is written, then its modules one by one."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import torch

from ...engine.merge.fold import Stored
from ...engine.merge.run import Entries
from ..disk.layout import layout
from ..loras.saving import LoRAWriter, Saved, adapter_metadata, entries, has_alphas, save_lora
from ..names.outgoing import Unit

OFFSETS = 14  # digits by which the places of a tensor in a large file are longer than in a small one


class OutFile:
    """A file of these units. ``told`` is known of it before a number was computed, ``room`` is for what comes later.

    ``sets`` are keys of units that are replaced.
    """

    def __init__(
        self,
        units: Mapping[str, Unit],
        dialect: str,
        dtype: torch.dtype,
        told: Mapping[str, str],
        room: Callable[[Entries], int],
        sets: frozenset[str] = frozenset(),
    ) -> None:
        self._units, self._dialect, self._dtype, self._sets = units, dialect, dtype, sets
        self._told, self._room = told, room
        self._around: int | None = None
        self._costs: dict[tuple[str, int | None], int] = {}

    def modules(self, chosen: Entries) -> dict[str, Saved]:
        """What is stored of each entry; one of rank 0 is left out."""
        there = ((key, entry.rank) for key, entry in chosen.items() if entry.rank != 0)
        return {key: Saved(self._units[key], rank or 0, key in self._sets) for key, rank in there}

    def size(self, chosen: Entries) -> int:
        """Bytes of the whole file with these entries; a few more than it will have, for it is asked for often."""
        if not has_alphas(self._dialect):  # ranks stand in the header too
            infos = entries(list(self.modules(chosen).values()), self._dialect, self._dtype)
            return len(layout(infos, self._metadata(chosen), self._room(chosen))[0]) + sum(i.nbytes for i in infos)
        if self._around is None:
            self._around = len(layout([], self._told, self._room(chosen))[0])
        return self._around + sum(self._cost(key, entry.rank) for key, entry in chosen.items() if entry.rank != 0)

    def _cost(self, key: str, rank: int | None) -> int:
        """What one module takes in header and data."""
        found = self._costs.get((key, rank))
        if found is None:
            infos = entries([Saved(self._units[key], rank or 0, key in self._sets)], self._dialect, self._dtype)
            header = len(layout(infos, {})[0]) + OFFSETS * len(infos)
            found = self._costs[key, rank] = header + sum(info.nbytes for info in infos)
        return found

    @contextmanager
    def open(self, path: Path, chosen: Entries) -> Iterator[OpenFile]:
        """Write it as a ``with`` block; see ``save_lora``."""
        modules, metadata = self.modules(chosen), self._metadata(chosen)
        listed, room = list(modules.values()), self._room(chosen)
        with save_lora(path, listed, self._dialect, self._dtype, metadata, room) as writer:
            yield OpenFile(writer, modules, metadata)

    def _metadata(self, chosen: Entries) -> dict[str, str]:
        return {**self._told, **adapter_metadata(list(self.modules(chosen).values()), self._dialect)}


class OpenFile:
    """Takes every module, those that are not stored too."""

    def __init__(self, writer: LoRAWriter, modules: Mapping[str, Saved], metadata: Mapping[str, str]) -> None:
        self._writer, self._modules, self._metadata = writer, modules, metadata

    def put(self, key: str, stored: Stored) -> None:
        """Store a finished module."""
        if key not in self._modules:
            return
        if stored.up is not None and stored.down is not None:
            self._writer.write(self._modules[key], stored.up, stored.down, alpha=stored.alpha)
        else:
            whole = (each for each in (stored.diff, stored.replaces) if each is not None)
            self._writer.write(self._modules[key], *whole)

    def tensor_id(self) -> str:
        """What the finished file is recognised by."""
        return self._writer.tensor_id()

    def complete(self, told: Mapping[str, str]) -> None:
        """What is known now goes into the header."""
        self._writer.restate({**self._metadata, **told})
