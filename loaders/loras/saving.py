"""A LoRA file written in one dialect: module by module, so that no more than one is held.

Names come from ``names/outgoing.py``; here is how their tensors are called, which scale stands where, and the file.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch

from ...engine.lineage import TENSORS_ID
from ...engine.tensors import TensorInfo
from ...engine.texts.say import refuse
from ..disk.writer import FileSink, write_safetensors
from ..names.dialects import ALPHA
from ..names.outgoing import DIFFUSERS, Unit

PAIRS = {"A/B": (".lora_B.weight", ".lora_A.weight"), "down/up": (".lora_up.weight", ".lora_down.weight")}
DIFF, SET = {"weight": ".diff", "bias": ".diff_b", "": ".diff"}, ".set_weight"
METADATA = "lora_adapter_metadata"
# Components that diffusers tells apart in its metadata, by the first word of a module's name.
COMPONENTS = ("transformer", "unet", "text_encoder", "text_encoder_2", "text_encoder_3")


@dataclass(frozen=True)
class Saved:
    """One module of the file: ``rank`` is that of its two factors; 0: its one tensor is stored as it is.

    ``sets``: that tensor takes the place of the base's own.
    """

    unit: Unit
    rank: int
    sets: bool = False

    @property
    def shapes(self) -> tuple[tuple[int, ...], ...]:
        """Of up [out, rank] and down [rank, in] with the kernel of a convolution, or of the one tensor."""
        out, *rest = self.unit.shape
        if not self.rank:
            return (self.unit.shape,)
        return (out, self.rank, *(1 for _ in rest[1:])), (self.rank, *rest)


def has_alphas(dialect: str) -> bool:
    """Whether every reader of a dialect finds its scales: those of diffusers stand where ComfyUI does not look."""
    return dialect != DIFFUSERS


class LoRAWriter:
    """Takes the modules of an open file, in any order."""

    def __init__(self, sink: FileSink, dialect: str, dtype: torch.dtype) -> None:
        self._sink, self._dialect, self._dtype = sink, dialect, dtype

    def write(self, module: Saved, *tensors: torch.Tensor, alpha: float | None = None) -> None:
        """The factors of a module, up [out, rank] and down [rank, columns], or its one tensor; rounded to the dtype.

        ``alpha`` / rank is the scale of the factors, None: 1, which is all that a dialect without alphas can hold.
        """
        for name, shape, tensor in zip(_names(module, self._dialect), module.shapes, tensors, strict=True):
            self._sink.write(name, tensor.reshape(shape).to(self._dtype))
        if module.rank and has_alphas(self._dialect):
            self._sink.write(_alpha(module), torch.tensor(float(module.rank) if alpha is None else alpha))
        elif alpha not in (None, module.rank):
            raise ValueError(f"{module.unit.name}: {self._dialect} has no place for alpha {alpha}")

    def tensor_id(self) -> str:
        """What the finished file is recognised by (``tensors:...``); every module must have been written."""
        return TENSORS_ID + self._sink.sha256()

    def restate(self, metadata: Mapping[str, str]) -> None:
        """Metadata that is known now, in the place of that the file was begun with."""
        self._sink.restate(metadata)


@contextmanager
def save_lora(
    path: Path, modules: Sequence[Saved], dialect: str, dtype: torch.dtype, metadata: Mapping[str, str], room: int = 0
) -> Iterator[LoRAWriter]:
    """Write a LoRA file as a ``with`` block that hands over every module; nothing is there unless the block ends well.

    ``metadata`` is all of it, with what ``adapter_metadata`` says; ``room`` are bytes by which ``restate`` may let it
    grow. Raises FoundryError ``file``, and ``LF505`` for what the dialect cannot hold.
    """
    with write_safetensors(path, entries(modules, dialect, dtype), metadata, room, hashed=True) as sink:
        yield LoRAWriter(sink, dialect, dtype)


def entries(modules: Sequence[Saved], dialect: str, dtype: torch.dtype) -> list[TensorInfo]:
    """Every tensor of the file: alphas are fp32. Raises FoundryError ``LF505`` for what the dialect cannot hold."""
    found: list[TensorInfo] = []
    for module in modules:
        named = zip(_names(module, dialect), module.shapes, strict=True)
        found += [TensorInfo(name, dtype, shape) for name, shape in named]
        if module.rank and has_alphas(dialect):
            found.append(TensorInfo(_alpha(module), torch.float32, ()))
    return found


def adapter_metadata(modules: Sequence[Saved], dialect: str) -> dict[str, str]:
    """What diffusers reads ranks and scales from; for other dialects nothing."""
    if has_alphas(dialect):
        return {}
    told: dict[str, object] = {}
    for component in COMPONENTS:
        prefix = f"{component}."
        named = [(module.unit.name, module.rank) for module in modules]
        ranks = {name.removeprefix(prefix): rank for name, rank in named if name.startswith(prefix)}
        if ranks:
            most = max(ranks.values(), key=list(ranks.values()).count)
            others = {_pattern(name, ranks): rank for name, rank in ranks.items() if rank != most}
            settings = {"r": most, "lora_alpha": most, "rank_pattern": others, "alpha_pattern": others}
            settings |= {"target_modules": list(ranks), "peft_type": "LORA", "use_rslora": False, "use_dora": False}
            told |= {f"{component}.{key}": value for key, value in settings.items()}
    return {METADATA: json.dumps(told, separators=(",", ":"))}


def _pattern(name: str, names: Iterable[str]) -> str:
    """A name as PEFT's pattern, which also fits every longer name that ends in it, unless it is tied to the start."""
    return f"^{name}" if any(other.endswith(f".{name}") for other in names) else name


def _alpha(module: Saved) -> str:
    return f"{module.unit.name}.{ALPHA}"


def _names(module: Saved, dialect: str) -> tuple[str, ...]:
    name, tensor = module.unit.name, module.unit.tensor
    if module.rank:
        return tuple(name + suffix for suffix in PAIRS["A/B" if dialect == DIFFUSERS else "down/up"])
    if dialect == DIFFUSERS:
        raise refuse("LF505.full", module=name)
    return (name + (SET if module.sets else DIFF[tensor]),)
