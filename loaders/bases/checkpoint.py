"""Base models on disk: one file, shards, or an all-in-one checkpoint, as one source of bare-named tensors.

Nothing is held open and nothing is mapped between two reads, except by a ``reader()`` for as long as a bake runs: a
plan may live for hours, and its files stay free to be moved, and the memory of a tensor goes away with the tensor.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import torch

from ...engine.smoothed import PRE_QUANT_SCALE
from ...engine.tensors import Over, Reader, TensorInfo
from ..disk.header import file_error, shown
from ..disk.reading import Renamed
from ..disk.shards import INDEX, find_files
from ..disk.source import FileSource
from ..names.dialects import adapter_parts
from ..names.lookup import uncompiled
from ..remote.fetching import cached, fetch
from ..remote.names import Remote, Where
from ..remote.objects import ANYTHING, Asking
from ..remote.source import RemoteSource, shards_of

# What a network is put under: beside other models in one file, or as the whole of a file.
SHARED_PREFIXES = ("model.diffusion_model.", "diffusion_model.")
WHOLE_PREFIXES = ("model.", "net.", "module.")
# Small tensors beside the network of an all-in-one checkpoint that tell ComfyUI how to sample it.
MARKERS = ("v_pred", "ztsnr", "edm_mean", "edm_std", "edm_vpred.sigma_max", "edm_vpred.sigma_min")


class Checkpoint(Over):
    """A base model: the tensors of its diffusion network under bare names, without text encoders and VAE.

    ``prefix`` is what was taken off the names; ``quantized`` says in words how the weights are stored when that is not
    plain floating point, as far as the header tells, else None.
    """

    def __init__(self, source: FileSource | RemoteSource) -> None:
        self.source: FileSource | RemoteSource = source
        self.label = source.label
        found = source.tensors
        _refuse_other_kinds(source.files[0] if source.files else Path(source.label), found)
        plain = {uncompiled(name): name for name in found}
        self.prefix = _prefix(plain)
        kept = (name for name in plain if name.startswith(self.prefix) or name in MARKERS)
        self._names = {name.removeprefix(self.prefix): plain[name] for name in kept}
        self.tensors: Mapping[str, TensorInfo] = {
            bare: replace(found[name], name=bare) for bare, name in self._names.items()
        }
        self.quantized = _quantized(self.tensors, source.metadata)

    @property
    def stored_names(self) -> tuple[str, ...]:
        """What its tensors are called where they are stored, in file order."""
        return tuple(self._names.values())

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


def open_checkpoint(path: Path, mapped: bool | None = None) -> Checkpoint:
    """Open a base model: a file, a ``*.index.json``, one shard of several, or a folder of them. Only headers are read.

    ``mapped``: None maps it for a bake where that is safe, False never (a mapped file that is cut ends the process).
    Raises FoundryError ``file`` for a damaged or missing file, an index that does not fit, a pickle, a GGUF or a LoRA.
    """
    files, weight_map = find_files(path)
    source = FileSource(*files, label=path.name, mapped=mapped)
    found = source.tensors
    for name, file in weight_map.items():
        if name not in found or source.home(name) != file:
            raise file_error(file, "file.shard", tensor=shown(name))
    return Checkpoint(source)


def open_elsewhere(remote: Remote, asking: Asking) -> Checkpoint:
    """Open a base of a bucket or the Hub: its weights are read by ranges when they are wanted. One shard names all.

    One whose name says by a hash what it must be, as of every web server, is loaded whole first: ranges cannot tell.
    Raises FoundryError ``remote`` or ``file``.
    """
    if remote.sha256:
        return Checkpoint(FileSource(fetch(remote, asking).path, label=remote.file))
    source = RemoteSource(shards_of(remote), asking, remote.file)
    checkpoint = Checkpoint(source)
    source.want(checkpoint.stored_names)
    return checkpoint


def open_model(where: Where, asking: Asking = ANYTHING) -> Checkpoint:
    """A base of this machine or from elsewhere, as the two above."""
    return open_elsewhere(where, asking) if isinstance(where, Remote) else open_checkpoint(where)


def is_lora(where: Where, asking: Asking = ANYTHING) -> bool:
    """Whether this is one file with parts of adapters; all else is taken for a base.

    Of one from elsewhere a copy in the cache tells, else its header. Raises FoundryError ``file`` or ``remote``.
    """
    if isinstance(where, Remote):
        copy = cached(where)
        return bool(adapter_parts((FileSource(copy) if copy else _headers(where, asking)).tensors))
    return not where.is_dir() and not where.name.endswith(INDEX) and bool(adapter_parts(FileSource(where).tensors))


def _headers(remote: Remote, asking: Asking) -> FileSource | RemoteSource:
    return FileSource(fetch(remote, asking).path) if remote.sha256 else RemoteSource([remote], asking)


def _refuse_other_kinds(path: Path, tensors: Mapping[str, TensorInfo]) -> None:
    if not tensors:
        raise file_error(path, "file.no_tensors")
    if parts := adapter_parts(tensors):
        raise file_error(path, "file.is_lora", tensor=shown(parts[0]), more=len(parts) - 1)


def _prefix(names: Collection[str]) -> str:
    """What stands before the bare names; empty when they are bare already."""
    shared = (prefix for prefix in SHARED_PREFIXES if any(name.startswith(prefix) for name in names))
    whole = (prefix for prefix in WHOLE_PREFIXES if all(name.startswith(prefix) for name in names))
    return next(shared, None) or next(whole, "")


def _quantized(tensors: Mapping[str, TensorInfo], metadata: Mapping[str, str]) -> str | None:
    """How quantized weights are stored, in a few words (the forms that ComfyUI 0.3.75 to 0.38 knows, and others)."""
    endings = {name.rpartition(".")[2] for name in tensors}
    dtypes = {info.dtype for info in tensors.values() if is_code(info)}
    fp8 = all(dtype.is_floating_point for dtype in dtypes)
    stored = ", ".join(sorted(str(dtype).removeprefix("torch.") for dtype in dtypes)) or "weights"
    forms = (
        ({"weight_scale_2", PRE_QUANT_SCALE} <= endings, f"nvfp4 (weight_scale_2, {PRE_QUANT_SCALE})"),
        ("weight_scale_2" in endings, "nvfp4 (weight_scale_2)"),
        ("weight_codebook" in endings, "w4a8 (weight_codebook)"),
        ("comfy_quant" in endings, "comfy_quant"),
        (not endings.isdisjoint(("scaled_fp8", "scale_weight")), "scaled fp8 (scale_weight)"),
        ("weight_scale" in endings and "_quantization_metadata" in metadata,
         f"{stored} with weight_scale (_quantization_metadata)"),
        ("weight_scale" in endings, f"{stored} with weight_scale"),
        (bool(dtypes) and fp8, f"{stored} without scales"),
        (bool(dtypes), f"{stored} weights"),
    )  # fmt: skip
    return next((text for seen, text in forms if seen), None)


def is_code(info: TensorInfo) -> bool:
    """An fp8 tensor, or a weight of integers."""
    if info.dtype.is_floating_point:
        return info.dtype.itemsize == 1
    return info.name.endswith("weight") and len(info.shape) >= 2 and not info.dtype.is_complex
