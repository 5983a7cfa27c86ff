"""A LoRA file: its tensors sorted into adapters, checked as far as names, shapes and alphas tell.

A file is read whole or refused: whatever is not understood is a FoundryError LF304 that names the tensor.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import torch

from ..engine.errors import FoundryError
from ..engine.findings import Finding
from ..engine.plan import Adapter, LoRAInfo
from ..engine.tensors import TensorInfo, TensorSource
from .checkpoints import FileSource
from .dialects import ALPHA, LORA, Part, identify, split
from .families import detect_base, detect_lora
from .hashes import file_sha256
from .header import shown
from .names import bare, is_text_encoder

OWN_LOADER = "Load this file with ComfyUI's own LoRA loader for now."
AGAIN = "The file is damaged or was converted wrongly: download it again, or export it again from the trainer."


class LoRAFile:
    """A checked LoRA and the source of its tensors.

    ``adapters`` are those of the diffusion model, ``text_encoder`` names the other modules.
    """

    def __init__(self, source: TensorSource, name: str, sha256: str, metadata: Mapping[str, str] | None = None) -> None:
        self.source, self.label, self.metadata = source, shown(name), dict(metadata or {})
        parts = _sort_out(self.label, source.tensors)
        adapters = _adapters(self.label, source, parts)
        self.adapters = tuple(a for a in adapters if not is_text_encoder(a.module))
        self.text_encoder = tuple(dict.fromkeys(a.module for a in adapters if is_text_encoder(a.module)))
        family = detect_lora({a.module: a.delta_shape for a in self.adapters})
        self.info = LoRAInfo(name, sha256, identify(source.tensors), family)
        self.findings = tuple(_alpha_findings(self.label, self.info.dialect, adapters))

    @property
    def tensors(self) -> Mapping[str, TensorInfo]:
        """Every tensor of the file, in file order."""
        return self.source.tensors

    @property
    def modules(self) -> tuple[str, ...]:
        """The diffusion model's module names, each once, in file order."""
        return tuple(dict.fromkeys(adapter.module for adapter in self.adapters))

    def read(self, name: str) -> torch.Tensor:
        """One tensor in its stored dtype."""
        return self.source.read(name)

    def text_encoder_tensors(self) -> tuple[str, ...]:
        """Names of the tensors that belong to text encoders, for the host to apply to a CLIP."""
        return tuple(name for name in self.tensors if (part := split(name)) and is_text_encoder(part.module))

    def verify(self) -> None:
        """Read every tensor once; a NaN or Inf is a FoundryError LF304 naming the tensor and how many there are."""
        for name in self.tensors:
            tensor = self.read(name)
            tensor = tensor.float() if tensor.dtype.itemsize == 1 else tensor  # fp8 knows no arithmetic
            # The sum is one fast pass; only when it overflows or is poisoned are the elements looked at.
            if not torch.isfinite(tensor.sum(dtype=torch.float32)) and (bad := int((~torch.isfinite(tensor)).sum())):
                seen = f"'{shown(name)}' holds {bad} NaN or Inf of {tensor.numel()} numbers."
                raise _broken(self.label, seen, "Added to a model they would turn every picture black.")


def open_lora(path: Path, name: str | None = None) -> LoRAFile:
    """Open and check a LoRA file: the header and the alphas are read, the factors are not.

    Raises FoundryError: ``file`` for a damaged file, LF304 for anything in it that cannot be applied as a whole.
    """
    source = FileSource(path)
    return LoRAFile(source, name or path.name, file_sha256(path), source.metadata)


Group = tuple[str, str, str]  # module, dialect, adapter name: one adapter


def _sort_out(name: str, tensors: Mapping[str, TensorInfo]) -> list[Part]:
    """Every tensor as a part of an adapter, or one error about the first thing that is not."""
    parts = {tensor: split(tensor) for tensor in tensors}
    known = [part for part in parts.values() if part]
    if not any(part.kind for part in known):
        raise _not_a_lora(name, tensors)
    foreign = [part for part in known if part.kind and part.kind not in BUILDERS]
    if foreign:
        kinds = ", ".join(dict.fromkeys(part.kind for part in foreign))
        raise _unsupported(name, f"parts of another kind of adapter ({kinds})", [part.name for part in foreign])
    unknown = [tensor for tensor, part in parts.items() if part is None]
    if unknown:
        raise _unsupported(name, "parts of no known adapter", unknown)
    return known


def _unsupported(name: str, what: str, tensors: list[str]) -> FoundryError:
    more = f" and {len(tensors) - 1} more" if len(tensors) > 1 else ""
    return FoundryError(
        "LF304",
        f"{name} holds {what}: '{shown(tensors[0])}'{more}.",
        "This is not supported yet, and the rest of the file without it would not be what its author made.",
        OWN_LOADER,
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


def _adapters(name: str, source: TensorSource, parts: Iterable[Part]) -> list[Adapter]:
    """One adapter per module, dialect and adapter name, in file order."""
    groups: dict[Group, list[Part]] = {}
    alphas: dict[str, str] = {}
    for part in parts:
        if part.part == ALPHA:
            alphas[part.module] = part.name
        else:
            groups.setdefault((part.module, part.dialect, part.adapter), []).append(part)
    orphans = alphas.keys() - {module for module, _, _ in groups}
    if orphans:
        module = min(orphans)
        raise _broken(name, f"'{shown(alphas[module])}' has no factors beside it.", "An alpha alone changes nothing.")
    read = {module: _read_alpha(name, source, tensor) for module, tensor in alphas.items()}
    return [
        BUILDERS[group[0].kind](name, source.tensors, group, alphas.get(module), read.get(module))
        for (module, _, _), group in groups.items()
    ]


def _lora(
    name: str, tensors: Mapping[str, TensorInfo], group: list[Part], alpha_name: str | None, alpha: float | None
) -> Adapter:
    """A LoRA of two factors: down [rank, in, *kernel] and up [out, rank], or up with a kernel of ones."""
    names = {part.part: part.name for part in group}
    for missing, there in (("up", "down"), ("down", "up")):
        if missing not in names:
            seen = f"'{shown(names[there])}' has no '{missing}' factor beside it."
            raise _broken(name, seen, "Half a LoRA has no meaning.")
    up, down = tensors[names["up"]], tensors[names["down"]]
    for factor in (up, down):
        if not factor.dtype.is_floating_point:
            seen = f"'{shown(factor.name)}' is stored as {_plain(factor.dtype)}."
            raise _broken(name, seen, "Its scale is not known.")
        if len(factor.shape) < 2 or 0 in factor.shape:
            seen = f"'{shown(factor.name)}' has the shape {list(factor.shape)}."
            raise _broken(name, seen, "That is no factor of a LoRA.")
    rank = down.shape[0]
    if up.shape[1] != rank or math.prod(up.shape[2:]) != 1:
        seen = f"'{shown(up.name)}' {list(up.shape)} and '{shown(down.name)}' {list(down.shape)} do not fit together."
        raise _broken(name, seen, f"The second size of up must be the rank, {rank}.")
    places = [(part, names[part]) for part in ("up", "down")]
    if alpha_name is not None:
        places.append((ALPHA, alpha_name))
    return Adapter(group[0].module, LORA, tuple(places), rank, (up.shape[0], *down.shape[1:]), alpha)


Builder = Callable[[str, Mapping[str, TensorInfo], list[Part], str | None, float | None], Adapter]
BUILDERS: Mapping[str, Builder] = {LORA: _lora}  # how each kind of adapter is put together; other kinds are refused


def _read_alpha(name: str, source: TensorSource, tensor: str) -> float:
    info = source.tensors[tensor]
    if math.prod(info.shape) != 1 or info.dtype in (torch.bool, torch.complex64):
        seen = f"'{shown(tensor)}' is {_plain(info.dtype)} of shape {list(info.shape)}."
        raise _broken(name, seen, "An alpha is one real number.")
    alpha = float(source.read(tensor).reshape(()).item())
    if not math.isfinite(alpha):
        raise _broken(name, f"'{shown(tensor)}' is {alpha}.", "No scale can be computed from it.")
    return alpha


def _alpha_findings(name: str, dialect: str, adapters: list[Adapter]) -> Iterable[Finding]:
    """LF305: alphas of zero, missing in a dialect that writes them, or in a part of the modules only."""
    without = [adapter.module for adapter in adapters if adapter.alpha is None]
    zero = [adapter.module for adapter in adapters if adapter.alpha == 0.0]
    if zero:
        seen = f"{name}: alpha is 0 in {len(zero)} of {len(adapters)} modules, first '{shown(zero[0])}'."
        yield Finding("LF305", "warning", seen, "These modules have no effect.", subject=name)
    if without and len(without) < len(adapters):
        seen = f"{name}: {len(without)} of {len(adapters)} modules state no alpha, first '{shown(without[0])}'."
        why = "Scale 1.0 is used for them, and alpha/rank for the others."
        yield Finding("LF305", "warning", seen, why, "Ask the author which is meant.", subject=name)
    elif without and not dialect.startswith("A/B"):
        seen = f"{name}: no alpha: scale 1.0 used for all {len(adapters)} modules."
        why = "Most trainers that write these names write an alpha too; extracted LoRAs are made for 1.0."
        yield Finding("LF305", "note", seen, why, subject=name)


def _broken(name: str, seen: str, why: str) -> FoundryError:
    return FoundryError("LF304", f"{name}: {seen}", why, AGAIN)


def _plain(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
