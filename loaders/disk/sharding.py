"""A model written as several files and an index, for drives and hosts that limit the size of one file."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import torch

from ...engine.errors import FoundryError
from ...engine.tensors import Extent, RowSink, TensorInfo
from ...engine.texts.say import refuse
from .header import file_error, shown
from .shards import INDEX, MAX_SHARDS, find_files
from .temps import sync_file, sync_folder, temporary
from .writer import Draft, FileSink, check_target, write_safetensors, writing

MARKS = ("", ".b")  # after the stem of a shard's name: the two sets of names that take turns
_SIZE = re.compile(r"(\d{1,15}(?:\.\d{1,9})?) ?(?:([KMGT])(I?))?B?", re.IGNORECASE | re.ASCII)


def parse_size(text: str) -> int:
    """Bytes from "5GB", "1.5 GiB", "500MB" or plain bytes. Raises FoundryError ``usage``."""
    match = _SIZE.fullmatch(text.strip())
    unit = (1024 if match[3] else 1000) ** ("KMGT".index(match[2].upper()) + 1) if match and match[2] else 1
    size = round(float(match[1]) * unit) if match else 0
    if size < 1:
        raise refuse("usage.size", text=shown(text))
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

    No file system moves several files at once, so new shards never take the names of those in use: where an earlier
    set has the usual names they are called ``model.b-00001-of-...``, and the next time the usual names again. The index
    is the one switch, and the old set goes after it. Killed anywhere, one of the two is whole, and the next save
    removes what is left of the other.
    """
    parts = split(entries, max_bytes)
    _refuse_others(path, len(parts))
    paths = _free_paths(path, len(parts))
    if len(parts) == 1:
        with write_safetensors(path, entries, metadata) as sink:
            yield sink
        return
    drafts = [Draft(place, part, metadata) for place, part in zip(paths, parts, strict=True)]
    index = _index(paths, parts)
    size = sum(draft.size for draft in drafts) + len(index)
    for place in (path, *paths):
        check_target(place, size)
    _remove_unused(path, len(parts))
    with ExitStack() as opened:
        sinks = [opened.enter_context(draft.open()) for draft in drafts]
        yield _Shards(path, {info.name: sink for sink, part in zip(sinks, parts, strict=True) for info in part})
        for sink in sinks:
            sink.finish()
        with writing(path, size):
            _publish(drafts, index_of(path), index)
            _remove_unused(path, len(parts))


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
    """The files of a set of ``count`` shards as it is there now, by the usual names where none is; of one, the file."""
    if count == 1:
        return [path]
    if count > MAX_SHARDS:
        raise file_error(path, "file.many_shards", count=count, most=MAX_SHARDS)
    spelled = [_spelled(path, count, mark) for mark in MARKS]
    return next((paths for paths in spelled if _is_used(path, paths)), spelled[0])


def _spelled(path: Path, count: int, mark: str) -> list[Path]:
    return [path.with_name(f"{path.stem}{mark}-{i:05}-of-{count:05}{path.suffix}") for i in range(1, count + 1)]


def _is_used(path: Path, paths: Sequence[Path]) -> bool:
    """Whether these shards are the model: the index names them, or there is none and they are all there."""
    if (named := _named(index_of(path))) is not None:
        return set(named) == set(paths)
    return all(place.exists() for place in paths)


def _named(index: Path) -> tuple[Path, ...] | None:
    """The files that an index names; None where there is none to be read."""
    try:
        return find_files(index)[0] if index.exists() else None
    except FoundryError:
        return None


def _free_paths(path: Path, count: int) -> list[Path]:
    """Names for a new set that the one in use does not have."""
    used = shard_paths(path, count)
    if count == 1 or not _is_used(path, used):
        return used
    return next(paths for mark in MARKS if (paths := _spelled(path, count, mark)) != used)


def _remove_unused(path: Path, count: int) -> None:
    """Remove the shards of a replaced set of this size, once an index says which one is in use and it is whole."""
    if _named(index_of(path)) is None:
        return
    spelled = [_spelled(path, count, mark) for mark in MARKS]
    if any(_is_used(path, paths) for paths in spelled):
        for place in (place for paths in spelled if not _is_used(path, paths) for place in paths):
            with suppress(OSError):  # Windows: while somebody reads it; then the next save does it
                place.unlink(missing_ok=True)


def index_of(path: Path) -> Path:
    """The index of the shards that ``path`` is written as."""
    return path.with_name(path.name + INDEX)


def is_part(path: Path, name: str) -> bool:
    """Whether a file of this name is the index, or one of any number of shards, that ``path`` is written as."""
    marks = "|".join(map(re.escape, MARKS))
    shard = re.escape(path.stem) + rf"({marks})-\d{{5}}-of-\d{{5}}" + re.escape(path.suffix)
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
            raise file_error(self._path, "file.given_unknown", tensor=shown(name))
        return self._sinks[name]


def _index(paths: Iterable[Path], parts: Sequence[Sequence[TensorInfo]]) -> bytes:
    """The index as the field writes it: the tensors' bytes in all, and the file of every tensor."""
    total = sum(info.nbytes for part in parts for info in part)
    weight_map = {info.name: path.name for path, part in zip(paths, parts, strict=True) for info in part}
    text = json.dumps({"metadata": {"total_size": total}, "weight_map": weight_map}, indent=2, ensure_ascii=False)
    return f"{text}\n".encode()


def _refuse_others(path: Path, count: int) -> None:
    """A file of another form under the same name would make the folder ambiguous, and is not ours to delete."""
    paths = shard_paths(path, count) if count == 1 else [each for mark in MARKS for each in _spelled(path, count, mark)]
    ours = {place.name for place in paths} | ({index_of(path).name} if count > 1 else set())
    there = sorted(entry.name for entry in path.parent.iterdir()) if path.parent.is_dir() else []
    same = [name for name in there if name == path.name or is_part(path, name)]
    if others := [name for name in same if name not in ours]:
        key = "file.other_save" if count > 1 else "file.other_shards"
        raise file_error(path, key, count=count, other=shown(others[0]))


def _publish(drafts: Sequence[Draft], index: Path, content: bytes) -> None:
    """New shards in, under names that nobody uses, and then the index, which is the switch."""
    placed: list[Path] = []
    with temporary(index.parent) as new_index:
        with new_index.open("xb") as file:
            file.write(content)
            file.flush()
            sync_file(file.fileno())
        with ExitStack() as failed:
            failed.callback(_take_back, placed, index)
            for draft in drafts:
                draft.temp.replace(draft.path)
                placed.append(draft.path)
            sync_folder(index.parent)
            new_index.replace(index)
            failed.pop_all()
    sync_folder(index.parent)


def _take_back(placed: Sequence[Path], index: Path) -> None:
    """Remove what was placed, but for what the index names: an interrupt may come when all is done."""
    in_use = set(_named(index) or ())
    for path in placed:
        with suppress(OSError):
            if path not in in_use:
                path.unlink()
