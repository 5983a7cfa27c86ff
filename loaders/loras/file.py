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
from ..bases.families import detect_base, detect_lora
from ..disk.hashes import file_sha256
from ..disk.header import shown
from ..disk.source import FileSource
from ..names.dialects import ALPHA, ATTACHED, LORA, Part, identify, split
from ..names.lookup import bare, is_text_encoder
from .alphas import Alphas
from .building import AGAIN, BUILDERS, OWN_LOADER, Builder, broken, supported
from .configs import Config, read_configs
from .views import Views, dequantize, rejoin

WIDENED = ("img_in", "x_embedder")  # the input layer: a control LoRA reads the control image beside the latents
SHOWN = 3


class LoRAFile(Over):
    """A checked LoRA and the source of its tensors.

    ``adapters`` are those of the diffusion model, ``text_encoder`` names the other modules. ``unused`` are tensors
    that belong to nothing. ``alpha_sources`` counts where the scales came from: "tensor", "lora_adapter_metadata",
    "adapter_config.json" or "none". ``configs`` are PEFT's own settings, if there are any.
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
        self.text_encoder = tuple(dict.fromkeys(a.module for a in adapters if is_text_encoder(a.module)))
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
            fix = "ComfyUI cannot load it either: ask its author for a LoRA extracted from it, or for the merged model."
            raise _unsupported(self.label, f"parts of another kind of adapter ({kinds})", names, fix)
        self.unused = tuple(tensor for tensor, part in parts.items() if part is None)
        adapted = {part.module for part in known if part.kind not in ("", ATTACHED) and part.suffix.tensor == "weight"}
        beside = [tensor for tensor in self.unused if not adapted.isdisjoint(_parents(tensor))]
        if beside:
            raise _unsupported(self.label, "a part of no known adapter beside those of one", beside)
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
            seen = f"{self.label}: it was trained as DoRA, but holds no magnitudes."
            why = "Someone took them out or a conversion lost them: what is left is another LoRA than was trained."
            yield Finding("LF305", "warning", seen, why, "Look for the original file.", subject=self.label)

    def _unused(self) -> Iterable[Finding]:
        if self.unused:
            names = ", ".join(f"'{shown(name)}'" for name in self.unused[:SHOWN])
            more = f" and {len(self.unused) - SHOWN} more" if len(self.unused) > SHOWN else ""
            seen = f"{self.label}: {len(self.unused)} of {len(self.tensors)} tensors belong to no known adapter"
            why = "They are not used; everything else is."
            fix = "If the result lacks something, load the file with ComfyUI's own LoRA loader."
            yield Finding("LF302", "warning", f"{seen}: {names}{more}.", why, fix, subject=self.label)

    def verify(self) -> None:
        """Read every tensor once; a NaN or Inf is a FoundryError LF304 naming the tensor and how many there are."""
        for name in self.tensors:
            tensor = self.read(name)
            tensor = tensor.float() if tensor.dtype.itemsize == 1 else tensor  # fp8 knows no arithmetic
            # The sum is one fast pass; only when it overflows or is poisoned are the elements looked at.
            if not torch.isfinite(tensor.sum(dtype=torch.float32)) and (bad := int((~torch.isfinite(tensor)).sum())):
                seen = f"'{shown(name)}' holds {bad} NaN or Inf of {tensor.numel()} numbers."
                raise broken(self.label, seen, "Added to a model they would turn every picture black.")


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
        raise _unsupported(label, f"parts of another kind of adapter ({kinds})", tensors)


def _unsupported(name: str, what: str, tensors: list[str], fix: str = OWN_LOADER) -> FoundryError:
    more = f" and {len(tensors) - 1} more" if len(tensors) > 1 else ""
    return FoundryError(
        "LF304",
        f"{name} holds {what}: '{shown(tensors[0])}'{more}.",
        "This is not supported yet, and the rest of the file without it would not be what its author made.",
        fix,
    )


def _not_a_lora(name: str, tensors: Mapping[str, TensorInfo]) -> FoundryError:
    if not tensors:
        return FoundryError("LF304", f"{name} contains no tensors.", "There is nothing in it to apply.", AGAIN)
    first = ", ".join(f"'{shown(tensor)}'" for tensor in list(tensors)[:3])
    family = detect_base({bare(tensor): info for tensor, info in tensors.items()})
    if family or any(tensor.endswith((".weight", ".bias")) for tensor in tensors):
        what = f"a whole {family} model" if family else "a whole model or a part of one"
        seen = f"{name} looks like {what}: none of its {len(tensors)} tensors ({first}, ...) is a LoRA part."
        return FoundryError("LF304", seen, fix="Load it as the base, and choose a LoRA here.")
    return FoundryError("LF304", f"{name} contains no LoRA tensors: it starts with {first}.", fix="Choose a LoRA file.")
