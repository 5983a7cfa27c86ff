"""A LoRA file: its tensors sorted into adapters, checked as far as names, shapes and alphas tell.

What is not understood is never dropped in silence: a file is refused (FoundryError LF304 that names the tensor) when
leaving it out would change what its author made, and told of in a finding when it stands for itself.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import torch

from ...engine.adapters import DIFF, LORA, MAGNITUDE, NOT_READ
from ...engine.findings import Finding
from ...engine.plan import Adapter, LoRAInfo
from ...engine.tensors import Over, TensorInfo, TensorSource
from ...engine.texts.say import refuse, say_of
from ..bases.families import detect_lora
from ..disk.hashes import file_sha256
from ..disk.header import quoted, shown
from ..disk.source import FileSource
from ..names.dialects import EMBEDDINGS, FROZEN, LOHA, LOKR, identify, split
from ..names.lookup import is_text_encoder
from .alphas import alpha_findings, resolve
from .building import build
from .configs import Config, read_configs
from .groups import group_parts, sort_names
from .views import dequantize, rejoin, state_alphas

PRODUCTS = (LORA, LOHA, LOKR, DIFF)  # kinds whose delta is nothing where one of their factors is


class LoRAFile(Over):
    """A checked LoRA and the source of its tensors.

    ``adapters`` are those of the diffusion model, ``text_adapters`` the others and ``text_encoder`` their modules.
    ``unused`` are tensors that belong to nothing. ``scales``: scale of a factor -> factor. ``alpha_sources`` counts
    where the alphas came from: "tensor", "lora_adapter_metadata", "adapter_config.json" or "none".
    """

    def __init__(
        self,
        source: TensorSource,
        name: str,
        sha256: str,
        metadata: Mapping[str, str] | None = None,
        path: Path | None = None,
        notes: Sequence[Finding] = (),
    ) -> None:
        self.label = label = shown(name)
        self.metadata = header = dict(metadata or {})
        self.path = path
        configs, told = read_configs(label, header, path)
        numbers, self.scales = dequantize(label, source)
        parts, self.unused = sort_names(label, numbers.tensors)
        groups = group_parts(label, parts)
        alphas = resolve(label, numbers, configs, build(label, numbers, groups))
        whole, adapters, repairs = rejoin(label, numbers, alphas.adapters)
        self.source = state_alphas(whole, adapters)
        self.alpha_sources = alphas.sources
        self.adapters = tuple(a for a in adapters if not is_text_encoder(a.module))
        self.text_adapters = tuple(a for a in adapters if is_text_encoder(a.module))
        self.text_encoder = tuple(dict.fromkeys(adapter.module for adapter in self.text_adapters))
        self.info = LoRAInfo(name, sha256, identify(source.tensors), detect_lora(self.shapes))
        stated = alpha_findings(label, alphas, header, self.info.dialect)
        lost = _lost_magnitudes(label, alphas.configs, adapters)
        self._stated = (*notes, *told, *repairs, *stated, *lost)
        self.findings = self.told()

    @property
    def tensors(self) -> Mapping[str, TensorInfo]:
        """Every tensor of the file, in file order."""
        return self.source.tensors

    @property
    def modules(self) -> tuple[str, ...]:
        """The diffusion model's module names, each once, in file order."""
        return tuple(dict.fromkeys(adapter.module for adapter in self.adapters))

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Module -> shape of the weight it was made for, without biases and other single tensors."""
        return {a.module: a.delta_shape for a in self.adapters if len(a.delta_shape) > 1}

    def told(self, used: Container[str] = ()) -> tuple[Finding, ...]:
        """What is to be said of the file where these of its ``unused`` tensors are put to use after all."""
        unused = tuple(name for name in self.unused if name not in used)
        return (*self._stated, *_unused(self.label, unused, len(self.tensors)))

    def read(self, name: str) -> torch.Tensor:
        """One tensor in its stored dtype."""
        return self.source.read(name)

    def text_encoder_tensors(self) -> tuple[str, ...]:
        """Names of the tensors that belong to text encoders, for the host to apply to a CLIP."""
        return tuple(name for name in self.tensors if (part := split(name)) and is_text_encoder(part.module))

    def verify(self) -> bool:
        """Read every tensor once; a NaN or Inf is a FoundryError LF304 naming the tensor and how many there are.

        Whether any of its adapters does something: some files are zeros all through.
        """
        zeros = set[str]()
        for name in self.tensors:
            tensor = self.read(name)
            tensor = tensor.float() if tensor.dtype.itemsize == 1 else tensor  # fp8 knows no arithmetic
            # The sum is one fast pass; only when it overflows or is poisoned are the elements looked at.
            total = tensor.sum(dtype=torch.float32)
            if not torch.isfinite(total) and (bad := int((~torch.isfinite(tensor)).sum())):
                raise refuse("LF304.nan", lora=self.label, tensor=shown(name), bad=bad, all=tensor.numel())
            if total == 0 and not tensor.any():
                zeros.add(name)
        return not self.adapters or not all(_is_silent(adapter, zeros) for adapter in self.adapters)


def _is_silent(adapter: Adapter, zeros: Container[str]) -> bool:
    """Whether a delta is nothing because a factor of it holds zeros only."""
    parts = dict(adapter.parts)
    factors = [name for part, name in parts.items() if part not in NOT_READ]
    return adapter.kind in PRODUCTS and MAGNITUDE not in parts and any(name in zeros for name in factors)


def open_lora(path: Path, name: str | None = None, notes: Sequence[Finding] = ()) -> LoRAFile:
    """Open and check a LoRA file: the header and the alphas are read, the factors are not.

    ``adapter_config.json`` beside the file is read for the scale; ``notes`` are what was found before. Raises
    FoundryError: ``file`` for a damaged file,
    LF304 for anything in it that cannot be applied as a whole.
    """
    source = FileSource(path)
    return LoRAFile(source, name or path.name, file_sha256(path), source.metadata, path, notes)


def _lost_magnitudes(label: str, configs: Iterable[Config], adapters: Iterable[Adapter]) -> Iterator[Finding]:
    dora = any(config.entries.get("use_dora") is True for config in configs)
    if dora and not any("magnitude" in dict(adapter.parts) for adapter in adapters):
        yield say_of(label, "LF305.no_magnitudes")


def _unused(label: str, tensors: tuple[str, ...], count: int) -> Iterator[Finding]:
    bundled = [name for name in tensors if name.startswith(EMBEDDINGS)]
    frozen = [name for name in tensors if name.endswith(FROZEN)]
    unused = [name for name in tensors if not name.startswith(EMBEDDINGS) and not name.endswith(FROZEN)]
    words = dict.fromkeys(name.removeprefix(EMBEDDINGS).rpartition(".")[0] for name in bundled)
    if words:
        yield say_of(label, "LF302.embeddings", count=len(words), names=quoted(list(words)))
    if frozen:
        yield say_of(label, "LF302.frozen", count=len(frozen), names=quoted(frozen))
    if unused:
        yield say_of(label, "LF302.unused", unused=len(unused), all=count, tensors=quoted(unused))
