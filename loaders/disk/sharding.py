"""A model written as several files and an index, for drives and hosts that limit the size of one file."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import torch

from ...engine.errors import FoundryError
from ...engine.tensors import Extent, RowSink, TensorInfo
from .header import file_error, shown
from .shards import INDEX, MAX_SHARDS
from .temps import hidden
from .writer import Draft, FileSink, check_target, sync_folder, write_safetensors, writing

_SIZE = re.compile(r"(\d{1,15}(?:\.\d{1,9})?) ?(?:([KMGT])(I?))?B?", re.IGNORECASE | re.ASCII)


def parse_size(text: str) -> int:
    """Bytes from "5GB", "1.5 GiB", "500MB" or plain bytes. Raises FoundryError ``usage``."""
    match = _SIZE.fullmatch(text.strip())
    unit = (1024 if match[3] else 1000) ** ("KMGT".index(match[2].upper()) + 1) if match and match[2] else 1
    size = round(float(match[1]) * unit) if match else 0
    if size < 1:
        what = f"'{shown(text)}' is not a size."
        raise FoundryError("usage", what, fix="Write a number of bytes, or one with KB, MB, GB, KiB, MiB or GiB: 5GB.")
    return size


@contextmanager
def write_sharded(
    path: Path, entries: Sequence[TensorInfo], metadata: Mapping[str, str], max_bytes: int
) -> Iterator[RowSink]:
    """Write ``model.safetensors`` as ``model-00001-of-0000N.safetensors`` ... and ``model.safetensors.index.json``.

    A ``with`` block as that of ``write_safetensors``, which does the work when one file is enough. The files appear
    when all are complete, the index last; ``max_bytes`` counts tensors, not headers. All tensors of a module (the last
    part of the name taken off) stay in one shard, so a shard is larger only where one module is. Every shard carries
    ``metadata``. The same shards of an earlier save are replaced; a set of another size is refused.

    No file system moves several files at once. The old files step aside first and come back on an error; a process
    killed between the first and the last move leaves an incomplete set, which readers refuse, never a mixed one.
    """
    parts = split(entries, max_bytes)
    paths = shard_paths(path, len(parts))
    _refuse_others(path, paths)
    if len(parts) == 1:
        with write_safetensors(path, entries, metadata) as sink:
            yield sink
        return
    drafts = [Draft(place, part, metadata) for place, part in zip(paths, parts, strict=True)]
    index = _index(paths, parts)
    size = sum(draft.size for draft in drafts) + len(index)
    for place in (path, *paths):
        check_target(place, size)
    with ExitStack() as opened:
        sinks = [opened.enter_context(draft.open()) for draft in drafts]
        yield _Shards(path, {info.name: sink for sink, part in zip(sinks, parts, strict=True) for info in part})
        for sink in sinks:
            sink.finish()
        with writing(path, size):
            _publish(drafts, index_of(path), index)


def split(entries: Sequence[TensorInfo], max_bytes: int) -> list[list[TensorInfo]]:
    """The entries of each shard, in order; modules stay whole, and a shard takes what fits into ``max_bytes``."""
    modules: dict[str, list[TensorInfo]] = {}
    for info in entries:
        modules.setdefault(info.name.rpartition(".")[0] or info.name, []).append(info)
    parts: list[list[TensorInfo]] = [[]]
    room = max_bytes
    for module in modules.values():
        size = sum(info.nbytes for info in module)
        if size > room and parts[-1]:
            parts.append([])
            room = max_bytes
        parts[-1] += module
        room -= size
    return parts


def shard_paths(path: Path, count: int) -> list[Path]:
    """The files of a set of ``count`` shards; of one, the plain file."""
    if count == 1:
        return [path]
    if count > MAX_SHARDS:
        raise file_error(path, f"would be {count} files", f"Allow larger ones: {MAX_SHARDS} are the limit.")
    return [path.with_name(f"{path.stem}-{i:05}-of-{count:05}{path.suffix}") for i in range(1, count + 1)]


def index_of(path: Path) -> Path:
    """The index of the shards that ``path`` is written as."""
    return path.with_name(path.name + INDEX)


def is_part(path: Path, name: str) -> bool:
    """Whether a file of this name is the index, or one of any number of shards, that ``path`` is written as."""
    shard = re.escape(path.stem) + r"-\d{5}-of-\d{5}" + re.escape(path.suffix)
    return name == index_of(path).name or re.fullmatch(shard, name) is not None


class _Shards:
    """One sink over those of all shards."""

    on_disk = True

    def __init__(self, path: Path, sinks: Mapping[str, FileSink]) -> None:
        self._path, self._sinks = path, sinks

    def write(self, name: str, tensor: torch.Tensor) -> None:
        self._sink(name).write(name, tensor)

    def write_rows(self, name: str, first: int, rows: torch.Tensor) -> None:
        self._sink(name).write_rows(name, first, rows)

    def copy(self, name: str, extent: Extent) -> None:
        self._sink(name).copy(name, extent)

    def _sink(self, name: str) -> FileSink:
        if name not in self._sinks:
            raise file_error(self._path, f"was given the tensor '{shown(name)}' unannounced")
        return self._sinks[name]


def _index(paths: Iterable[Path], parts: Sequence[Sequence[TensorInfo]]) -> bytes:
    """The index as the field writes it: the tensors' bytes in all, and the file of every tensor."""
    total = sum(info.nbytes for part in parts for info in part)
    weight_map = {info.name: path.name for path, part in zip(paths, parts, strict=True) for info in part}
    text = json.dumps({"metadata": {"total_size": total}, "weight_map": weight_map}, indent=2, ensure_ascii=False)
    return f"{text}\n".encode()


def _refuse_others(path: Path, paths: Sequence[Path]) -> None:
    """A file of another form under the same name would make the folder ambiguous, and is not ours to delete."""
    ours = {place.name for place in paths} | ({index_of(path).name} if len(paths) > 1 else set())
    there = sorted(entry.name for entry in path.parent.iterdir()) if path.parent.is_dir() else []
    same = [name for name in there if name == path.name or is_part(path, name)]
    if others := [name for name in same if name not in ours]:
        now = f"{len(paths)} files" if len(paths) > 1 else "one file"
        what = f"would be {now}, and {shown(others[0])} is there from another save"
        why = "Beside each other they would be two models under one name."
        raise file_error(path, what, "Choose another name, or delete the old files first, with their index.", why)


def _publish(drafts: Sequence[Draft], index: Path, content: bytes) -> None:
    """Old files aside, new ones in, the index last; what the system refuses half-way is undone."""
    aside: dict[Path, Path] = {}
    placed: list[Path] = []
    new_index = hidden(index.parent)
    try:
        with new_index.open("xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        for path in (*(draft.path for draft in drafts), index):
            if path.exists():
                aside[path] = hidden(path.parent)
                path.rename(aside[path])
        for temp, path in (*((draft.temp, draft.path) for draft in drafts), (new_index, index)):
            placed.append(path)
            temp.rename(path)
    except BaseException:
        _undo(placed, aside)
        raise
    finally:
        with suppress(OSError):
            new_index.unlink(missing_ok=True)
    sync_folder(index.parent)
    for old in aside.values():
        with suppress(OSError):
            old.unlink()


def _undo(placed: Iterable[Path], aside: Mapping[Path, Path]) -> None:
    """Put everything back, as far as the system lets us."""
    for path in placed:
        with suppress(OSError):
            path.unlink()
    for path, old in aside.items():
        with suppress(OSError):
            old.rename(path)
