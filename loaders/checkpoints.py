"""Base models on disk: one file, shards, or an all-in-one checkpoint, as one source of bare-named tensors.

Nothing is held open and nothing is mapped between two reads, except by a ``reader()`` for as long as a bake runs: a
plan may live for hours, and its files stay free to be moved, and the memory of a tensor goes away with the tensor.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Protocol, runtime_checkable

import torch

from ..engine.tensors import Reader, TensorInfo, TensorSource
from .dialects import adapter_parts
from .header import Header, disk_errors, file_error, read_header, shown
from .reading import Renamed, open_reader, read_into
from .shards import find_files

EDGE = 4096  # bytes of a tensor's start and of its end that the fingerprint looks at
# What a network is put under: beside other models in one file, or as the whole of a file.
SHARED_PREFIXES = ("model.diffusion_model.", "diffusion_model.")
WHOLE_PREFIXES = ("model.", "net.")
# Small tensors beside the network of an all-in-one checkpoint that tell ComfyUI how to sample it.
MARKERS = ("v_pred", "ztsnr", "edm_mean", "edm_std", "edm_vpred.sigma_max", "edm_vpred.sigma_min")


@runtime_checkable
class _Sampled(Protocol):
    """A source that can tell the edges of a tensor without reading all of it."""

    def edges(self, name: str) -> bytes:
        """The first and the last ``EDGE`` bytes, or all of a smaller tensor."""


class FileSource:
    """The tensors of one file or of several shards, under their names in the files and in file order.

    A file that is replaced or cut after its header was read is a FoundryError at the next read, never other weights.
    """

    on_disk = True

    def __init__(self, *paths: Path, label: str | None = None) -> None:
        self.label = label or paths[0].name
        self.headers = tuple(read_header(path) for path in paths)
        self._homes: dict[str, Header] = {}
        for header in self.headers:
            if twice := header.tensors.keys() & self._homes.keys():
                name = min(twice)
                other = self._homes[name].path.name
                raise file_error(header.path, f"holds the tensor '{shown(name)}', and so does {shown(other)}")
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

        ``mmap``: None maps the files where that is safe, False copies into reused buffers, True maps.
        """
        return open_reader(self._homes, mmap)

    def edges(self, name: str) -> bytes:
        """The first and the last 4 KiB of a tensor's bytes (together all of it when it is smaller than that)."""
        header = self._homes[name]
        begin, end = header.offsets[name]
        spans = ((begin, min(end, begin + EDGE)), (max(begin + EDGE, end - EDGE), end))
        return b"".join(_read(header, *span).numpy().tobytes() for span in spans if span[0] < span[1])

    def close(self) -> None:
        """Nothing to do: no file is open between two reads."""


class Checkpoint:
    """A base model: the tensors of its diffusion network under bare names, without text encoders and VAE.

    ``prefix`` is what was taken off the names; ``quantized`` says in words how the weights are stored when that is not
    plain floating point, as far as the header tells, else None.
    """

    on_disk = True

    def __init__(self, source: FileSource) -> None:
        self.source, self.label = source, source.label
        found = source.tensors
        _refuse_other_kinds(source.files[0], found)
        self.prefix = _prefix(found)
        kept = (name for name in found if name.startswith(self.prefix) or name in MARKERS)
        self._names = {name.removeprefix(self.prefix): name for name in kept}
        self.tensors: Mapping[str, TensorInfo] = {
            bare: replace(found[name], name=bare) for bare, name in self._names.items()
        }
        self.quantized = _quantized(self.tensors, source.metadata)

    @property
    def files(self) -> tuple[Path, ...]:
        """The files the model is in."""
        return self.source.files

    @property
    def metadata(self) -> Mapping[str, str]:
        """``__metadata__`` of the files."""
        return self.source.metadata

    def read(self, name: str) -> torch.Tensor:
        """One tensor by its bare name, contiguous, in its stored dtype."""
        return self.source.read(self._names[name])

    @contextmanager
    def reader(self, mmap: bool | None = None) -> Iterator[Reader]:
        """A reader by bare names, as ``FileSource.reader``."""
        with self.source.reader(mmap) as reader:
            yield Renamed(reader, self._names)

    def edges(self, name: str) -> bytes:
        """The first and the last 4 KiB of a tensor, by its bare name."""
        return self.source.edges(self._names[name])

    def close(self) -> None:
        """Let go of the files."""
        self.source.close()


def open_checkpoint(path: Path) -> Checkpoint:
    """Open a base model: a file, a ``*.index.json``, one shard of several, or a folder of them. Only headers are read.

    Raises FoundryError ``file`` for a damaged or missing file, an index that does not fit, a pickle, a GGUF or a LoRA.
    """
    files, weight_map = find_files(path)
    source = FileSource(*files, label=path.name)
    found = source.tensors
    for name, file in weight_map.items():
        if name not in found or source.home(name) != file:
            what = f"does not hold the tensor '{shown(name)}', which the index says it does"
            raise file_error(file, what, "Download the shards and the index again, from one place.")
    return Checkpoint(source)


def fingerprint(source: TensorSource) -> str:
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


def _read(header: Header, begin: int, end: int) -> torch.Tensor:
    """Bytes ``begin`` to ``end`` of a file as uint8, in memory of their own."""
    data = torch.empty(end - begin, dtype=torch.uint8)
    with disk_errors(header.path), header.path.open("rb", buffering=0) as file:
        read_into(file, header, begin, data)
    return data


def _edges(source: TensorSource, name: str) -> bytes:
    if isinstance(source, _Sampled):
        return source.edges(name)
    data = source.read(name).detach().cpu().contiguous().reshape(-1).view(torch.uint8)
    return b"".join(part.numpy().tobytes() for part in (data[:EDGE], data[max(EDGE, len(data) - EDGE) :]))


def _refuse_other_kinds(path: Path, tensors: Mapping[str, TensorInfo]) -> None:
    if not tensors:
        raise file_error(path, "contains no tensors", "Download or copy it again.")
    if parts := adapter_parts(tensors):
        what = f"is a LoRA, not a model: it holds '{shown(parts[0])}' and {len(parts) - 1} more LoRA parts"
        raise file_error(path, what, "Name the model as base and this file in fuse or stack.")


def _prefix(names: Mapping[str, TensorInfo]) -> str:
    """What stands before the bare names; empty when they are bare already."""
    shared = (prefix for prefix in SHARED_PREFIXES if any(name.startswith(prefix) for name in names))
    whole = (prefix for prefix in WHOLE_PREFIXES if all(name.startswith(prefix) for name in names))
    return next(shared, None) or next(whole, "")


def _quantized(tensors: Mapping[str, TensorInfo], metadata: Mapping[str, str]) -> str | None:
    """How quantized weights are stored, in a few words (the forms that ComfyUI 0.3.75 to 0.38 knows, and others)."""
    endings = {name.rpartition(".")[2] for name in tensors}
    dtypes = {info.dtype for info in tensors.values() if _is_low(info)}
    fp8 = all(dtype.is_floating_point for dtype in dtypes)
    stored = ", ".join(sorted(str(dtype).removeprefix("torch.") for dtype in dtypes)) or "weights"
    forms = (
        ("comfy_quant" in endings, "comfy_quant"),
        (not endings.isdisjoint(("scaled_fp8", "scale_weight")), "scaled fp8 (scale_weight)"),
        ("weight_scale" in endings and "_quantization_metadata" in metadata,
         f"{stored} with weight_scale (_quantization_metadata)"),
        ("weight_scale" in endings, f"{stored} with weight_scale"),
        (bool(dtypes) and fp8, f"{stored} without scales"),
        (bool(dtypes), f"{stored} weights"),
    )  # fmt: skip
    return next((text for seen, text in forms if seen), None)


def _is_low(info: TensorInfo) -> bool:
    """An fp8 tensor, or a weight matrix of integers."""
    if info.dtype.is_floating_point:
        return info.dtype.itemsize == 1
    return info.name.endswith("weight") and len(info.shape) >= 2 and not info.dtype.is_complex
