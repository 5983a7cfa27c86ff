"""A LoRA file: its tensors sorted into adapters, checked as far as names, shapes and alphas tell.

What is not understood is never dropped in silence: a file is refused (FoundryError LF304 that names the tensor) when
leaving it out would change what its author made, and told of in a finding when it stands for itself.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path

import torch

from ...engine.errors import FoundryError
from ...engine.findings import Finding
from ...engine.plan import Adapter, LoRAInfo
from ...engine.tensors import Over, TensorInfo, TensorSource
from ...engine.texts.say import refuse, say_of
from ..bases.families import detect_base, detect_lora
from ..disk.hashes import file_sha256
from ..disk.header import SHOWN, quoted, shown
from ..disk.source import FileSource
from ..names.dialects import ALPHA, ATTACHED, LORA, Part, identify, split
from ..names.lookup import bare, is_text_encoder
from .alphas import Alphas
from .building import BUILDERS, Builder, supported
from .configs import Config, read_configs
from .views import Views, dequantize, rejoin

WIDENED = ("img_in", "x_embedder")  # the input layer: a control LoRA reads the control image beside the latents


class LoRAFile(Over):
    """A checked LoRA and the source of its tensors.

    ``adapters`` are those of the diffusion model, ``text_adapters`` the others and ``text_encoder`` their modules.
    ``unused`` are tensors that belong to nothing. ``alpha_sources`` counts where the scales came from: "tensor",
    "lora_adapter_metadata", "adapter_config.json" or "none". ``configs`` are PEFT's own settings, if there are any.
    """

    source: Views

    def __init__(
        self,
        source: TensorSource,
        name: str,
        sha256: str,
        metadata: Mapping[str, str] | None = None,
        path: Path | None = None,
    ) -> None:
        self.label, self.metadata, self.source, self.path = shown(name), dict(metadata or {}), Views(source), path
        configs, told = read_configs(self.label, self.metadata, path)
        self.scales = dequantize(self.label, self.source)
        parts = self._sorted()
        alphas = Alphas(self.label, self.source, configs)
        adapters = alphas.resolve(_widened(Builder(self.label, self.source).build(parts)))
        adapters, repairs = rejoin(self.label, self.source, adapters)
        self.configs: list[Config] = alphas.configs
        self.alpha_sources = alphas.sources
        self.adapters = tuple(a for a in adapters if not is_text_encoder(a.module))
        _refuse_what_the_engine_lacks(self.label, self.adapters)
        self.text_adapters = tuple(a for a in adapters if is_text_encoder(a.module))
        self.text_encoder = tuple(dict.fromkeys(adapter.module for adapter in self.text_adapters))
        self._pass_alphas_on(adapters)
        family = detect_lora(self.shapes)
        self.info = LoRAInfo(name, sha256, identify(source.tensors), family)
        stated = alphas.findings(adapters, self.metadata, self.info.dialect)
        self.findings = (*told, *repairs, *stated, *self._lost_magnitudes(adapters), *self._unused())

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

    def read(self, name: str) -> torch.Tensor:
        """One tensor in its stored dtype."""
        return self.source.read(name)

    def text_encoder_tensors(self) -> tuple[str, ...]:
        """Names of the tensors that belong to text encoders, for the host to apply to a CLIP."""
        return tuple(name for name in self.tensors if (part := split(name)) and is_text_encoder(part.module))

    def _sorted(self) -> list[Part]:
        """Every tensor as a part of an adapter; what belongs to none is kept in ``unused``."""
        parts = {tensor: split(tensor) for tensor in self.tensors}
        known = [part for part in parts.values() if part]
        if not any(part.kind for part in known):
            raise _not_a_lora(self.label, self.tensors)
        foreign = [part for part in known if part.kind and part.kind not in (*BUILDERS, ATTACHED)]
        if foreign:
            kinds = ", ".join(dict.fromkeys(part.kind for part in foreign))
            names = [part.name for part in foreign]
            raise refuse("LF304.foreign", lora=self.label, kinds=kinds, tensors=quoted(names, 1))
        self.unused = tuple(tensor for tensor, part in parts.items() if part is None)
        adapted = {part.module for part in known if part.kind not in ("", ATTACHED) and part.suffix.tensor == "weight"}
        beside = [tensor for tensor in self.unused if not adapted.isdisjoint(_parents(tensor))]
        if beside:
            raise refuse("LF304.beside", lora=self.label, tensors=quoted(beside, 1))
        return known

    def _pass_alphas_on(self, adapters: Iterable[Adapter]) -> None:
        """The host applies text-encoder parts and knows alpha tensors only: a scale from a config becomes one."""
        for adapter in adapters:
            name = f"{adapter.module}.{ALPHA}"
            if is_text_encoder(adapter.module) and adapter.alpha is not None and ALPHA not in dict(adapter.parts):
                alpha = torch.tensor(adapter.alpha)
                self.source.put(name, (), lambda alpha=alpha: alpha)  # type: ignore[misc]

    def _lost_magnitudes(self, adapters: Iterable[Adapter]) -> Iterable[Finding]:
        dora = any(config.entries.get("use_dora") is True for config in self.configs)
        if dora and not any("magnitude" in dict(adapter.parts) for adapter in adapters):
            yield say_of(self.label, "LF305.no_magnitudes")

    def _unused(self) -> Iterable[Finding]:
        if self.unused:
            values = {"unused": len(self.unused), "all": len(self.tensors), "tensors": quoted(self.unused)}
            yield say_of(self.label, "LF302.unused", **values)

    def verify(self) -> None:
        """Read every tensor once; a NaN or Inf is a FoundryError LF304 naming the tensor and how many there are."""
        for name in self.tensors:
            tensor = self.read(name)
            tensor = tensor.float() if tensor.dtype.itemsize == 1 else tensor  # fp8 knows no arithmetic
            # The sum is one fast pass; only when it overflows or is poisoned are the elements looked at.
            if not torch.isfinite(tensor.sum(dtype=torch.float32)) and (bad := int((~torch.isfinite(tensor)).sum())):
                raise refuse("LF304.nan", lora=self.label, tensor=shown(name), bad=bad, all=tensor.numel())


def open_lora(path: Path, name: str | None = None) -> LoRAFile:
    """Open and check a LoRA file: the header and the alphas are read, the factors are not.

    ``adapter_config.json`` beside the file is read for the scale. Raises FoundryError: ``file`` for a damaged file,
    LF304 for anything in it that cannot be applied as a whole.
    """
    source = FileSource(path)
    return LoRAFile(source, name or path.name, file_sha256(path), source.metadata, path)


def _parents(tensor: str) -> tuple[str, str]:
    """What a tensor may be a part of: its name without the last word, and without the last two."""
    layer = tensor.rpartition(".")[0]
    return layer, layer.rpartition(".")[0]


def _widened(adapters: Iterable[Adapter]) -> list[Adapter]:
    """Control LoRAs of BFL (told by the norms in them) widen the input layer of the base without saying so."""
    adapters = list(adapters)
    if not any(adapter.module.endswith("_norm.scale") for adapter in adapters):
        return adapters
    return [
        replace(adapter, parts=(*adapter.parts, ("reshape", dict(adapter.parts)["down"])))
        if adapter.kind == LORA and bare(adapter.module) in WIDENED and "reshape" not in dict(adapter.parts)
        else adapter
        for adapter in adapters
    ]


def _refuse_what_the_engine_lacks(label: str, adapters: Iterable[Adapter]) -> None:
    foreign = [adapter for adapter in adapters if not supported(adapter)]
    if foreign:
        kinds = ", ".join(dict.fromkeys(adapter.kind for adapter in foreign))
        tensors = [name for adapter in foreign for part, name in adapter.parts]
        raise refuse("LF304.unsupported", lora=label, kinds=kinds, tensors=quoted(tensors, 1))


def _not_a_lora(name: str, tensors: Mapping[str, TensorInfo]) -> FoundryError:
    if not tensors:
        return refuse("LF304.empty", lora=name)
    first = quoted(list(tensors)[:SHOWN])
    if family := detect_base({bare(tensor): info for tensor, info in tensors.items()}):
        return refuse("LF304.model_of_family", lora=name, family=family, all=len(tensors), tensors=first)
    if any(tensor.endswith((".weight", ".bias")) for tensor in tensors):
        return refuse("LF304.model", lora=name, all=len(tensors), tensors=first)
    return refuse("LF304.no_lora", lora=name, tensors=first)
