"""The tensors of safetensors files as one source, and a fingerprint of any source that needs no whole reading.

Nothing is held open and nothing is mapped between two reads, except by a ``reader()`` for as long as a bake runs.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import torch

from ...engine.tensors import Reader, SampledSource, TensorInfo, TensorSource
from .header import Header, disk_errors, file_error, read_header, regular_file, shown
from .reading import open_reader, read_into

EDGE = 4096  # bytes of a tensor's start and of its end that the fingerprint looks at


class FileSource:
    """The tensors of one file or of several shards, under their names in the files and in file order.

    A file that is replaced or cut after its header was read is a FoundryError at the next read, never other weights.
    """

    on_disk = True
    identity = None  # its files vouch for it

    def __init__(self, *paths: Path, label: str | None = None, mapped: bool | None = None) -> None:
        self.label, self._mapped = label or paths[0].name, mapped
        self.headers = tuple(read_header(path) for path in paths)
        self._homes: dict[str, Header] = {}
        for header in self.headers:
            if twice := header.tensors.keys() & self._homes.keys():
                name = min(twice)
                other = self._homes[name].path.name
                raise file_error(header.path, "file.in_two", tensor=shown(name), other=shown(other))
            self._homes.update(dict.fromkeys(header.tensors, header))
        self.tensors: Mapping[str, TensorInfo] = {name: home.tensors[name] for name, home in self._homes.items()}

    @property
    def files(self) -> tuple[Path, ...]:
        """The files, in the order they were named."""
        return tuple(header.path for header in self.headers)

    @property
    def metadata(self) -> Mapping[str, str]:
        """``__metadata__`` of all files; where they disagree the first one counts."""
        return {key: text for header in reversed(self.headers) for key, text in header.metadata.items()}

    def home(self, name: str) -> Path:
        """The file a tensor is in."""
        return self._homes[name].path

    def read(self, name: str) -> torch.Tensor:
        """One tensor, contiguous, in its stored dtype and in memory of its own."""
        header = self._homes[name]
        info, (begin, end) = header.tensors[name], header.offsets[name]
        return _read(header, begin, end).view(info.dtype).reshape(info.shape)

    def reader(self, mmap: bool | None = None) -> AbstractContextManager[Reader]:
        """A reader of these tensors for one ``with`` block (see ``reading.FileReader`` for how long they live).

        ``mmap``: None maps the files where that is safe, False copies into reused buffers, True maps. Where it is None
        what was said when they were opened (``mapped``) counts.
        """
        return open_reader(self._homes, self._mapped if mmap is None else mmap)

    def edges(self, name: str) -> bytes:
        """The first and the last 4 KiB of a tensor's bytes (together all of it when it is smaller than that)."""
        header = self._homes[name]
        begin, end = header.offsets[name]
        spans = ((begin, min(end, begin + EDGE)), (max(begin + EDGE, end - EDGE), end))
        return b"".join(_read(header, *span).numpy().tobytes() for span in spans if span[0] < span[1])


def base_fingerprint(source: TensorSource) -> str:
    """A hash (sha256, hex) that tells two models apart without reading them whole.

    It is a sample: names, dtypes, shapes, and the first and last 4 KiB of every tensor. The same weights give the same
    fingerprint from one file, from shards, or out of an all-in-one checkpoint; a change in the middle of a large tensor
    alone goes unseen.
    """
    digest = hashlib.sha256()
    for name in sorted(source.tensors):
        info = source.tensors[name]
        digest.update(repr((name, str(info.dtype), info.shape)).encode())
        digest.update(_edges(source, name))
    return digest.hexdigest()


def file_state(path: Path, folder: Path) -> dict[str, Any]:
    """Name (as seen from ``folder``), size, mtime_ns and inode of a file. Raises FoundryError ``file``."""
    state = regular_file(path)
    name = path.relative_to(folder).as_posix()
    return {"name": name, "size": state.st_size, "mtime_ns": state.st_mtime_ns, "inode": state.st_ino}


def states_of(source: TensorSource) -> list[Any]:
    """What tells a stored model from any other: the states of its files, or the identity of one elsewhere.

    Empty for a model in memory, which nothing outlives. Raises FoundryError ``file`` for a missing file.
    """
    if not source.files and source.on_disk:
        return [source.identity] if source.identity else []
    return [file_state(path, path.parent) for path in source.files]


def _read(header: Header, begin: int, end: int) -> torch.Tensor:
    """Bytes ``begin`` to ``end`` of a file as uint8, in memory of their own."""
    data = torch.empty(end - begin, dtype=torch.uint8)
    with disk_errors(header.path), header.path.open("rb", buffering=0) as file:
        read_into(file, header, begin, data)
    return data


def _edges(source: TensorSource, name: str) -> bytes:
    if isinstance(source, SampledSource):
        return source.edges(name)
    data = source.read(name).detach().cpu().contiguous().reshape(-1).view(torch.uint8)
    return b"".join(part.numpy().tobytes() for part in (data[:EDGE], data[max(EDGE, len(data) - EDGE) :]))
