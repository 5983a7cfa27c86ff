"""Where a plan's base comes from: a file named in the graph, or a MODEL that another node loaded."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import torch

from ..engine.grown import Grown
from ..engine.guard import already_quantized, raise_first
from ..engine.lineage import DERIVED, Contained, Ingredient
from ..engine.plan import STACK, Base, Plan, Target
from ..engine.tensors import InMemory, Over, Reader, TensorInfo, TensorSource
from ..engine.texts.say import refuse
from ..loaders.bases.checkpoint import Checkpoint, open_checkpoint, open_elsewhere
from ..loaders.bases.dequantize import REFUSE, Dequantized, opened
from ..loaders.bases.families import detect_base
from ..loaders.disk.reading import Renamed
from ..loaders.lineage.contents import contained_in
from ..loaders.names.lookup import BIAS, BaseNames, beside, host_spellings
from ..loaders.remote.names import is_remote
from ..loaders.remote.objects import Asking
from . import folders, host
from .facts import KeyMap, ModelFacts
from .guards import refuse_bypassed, refuse_compiled
from .remotes import allowed, transfers

LEDGER_SOURCE = "LoRA Foundry's record on the MODEL"


class HostSource(TensorSource, Protocol):
    """What the source of a plan made inside ComfyUI knows more.

    ``model`` is the MODEL whose wrappers and options go over to the result; a file has none.
    """

    facts: ModelFacts
    model: Any

    def load_model(self) -> Any:
        """The MODEL that patches go onto a clone of."""


class BaseFile(Over):
    """A checkpoint under the names the host's model has; read on demand, nothing held."""

    model: Any = None

    def __init__(self, checkpoint: Checkpoint | Dequantized, path: Path | None, kind: str) -> None:
        self.source: Checkpoint | Dequantized = checkpoint
        self.path, self.kind = path, kind
        self.label = checkpoint.label
        self.facts = host.file_facts(checkpoint)
        to_model = {file_name: model_name for model_name, file_name in self.facts.names.items()}
        self._files = {to_model.get(name, name): name for name in checkpoint.tensors}
        infos = checkpoint.tensors
        self.tensors = {name: replace(infos[file_name], name=name) for name, file_name in self._files.items()}

    def read(self, name: str) -> torch.Tensor:
        """One tensor in its stored dtype."""
        return self.source.read(self._files[name])

    @contextmanager
    def reader(self, mmap: bool | None = None) -> Iterator[Reader]:
        """A reader by the model's names, as ``FileSource.reader``."""
        with self.source.reader(mmap) as reader:
            yield Renamed(reader, self._files)

    def edges(self, name: str) -> bytes:
        """The first and the last bytes of a tensor, for the fingerprint."""
        return self.source.edges(self._files[name])

    def load_model(self) -> Any:
        """The MODEL as ComfyUI's own loader makes it; of shards, dequantized, or elsewhere: from the tensors."""
        if self.path is None or self.path.is_dir() or isinstance(self.source, Dequantized):
            tensors = {name: self.read(name).to(info.dtype) for name, info in self.tensors.items()}
            return host.build_model(tensors, {}, self.facts.dtype)
        return host.load_file(self.path, self.kind)


def host_source(plan: Plan) -> HostSource:
    """The source of a plan as this host knows it. FoundryError ``plan`` for a plan that was made elsewhere."""
    source = _ungrown(plan.base.source)
    if isinstance(source, BaseFile | host.ModelWeights):
        return source
    raise refuse("plan.not_ours")


def checkpoint_of(base: Base) -> Checkpoint | Dequantized | None:
    """The file of a base; None for a MODEL that another node loaded."""
    source = _ungrown(base.source)
    return source.source if isinstance(source, BaseFile) else None


def _ungrown(source: TensorSource) -> TensorSource:
    return source.source if isinstance(source, Grown) else source


class HostMatcher:
    """Module names of a LoRA file -> targets: by the host's own key map, and by our rules where it knows no name."""

    def __init__(self, key_map: KeyMap, tensors: Mapping[str, TensorInfo], family: str | None = None) -> None:
        self._key_map, self._tensors, self._family = key_map, tensors, family

    @cached_property
    def _names(self) -> BaseNames:
        return BaseNames(self._tensors, self._family)

    def find(self, module: str) -> tuple[Target, ...]:
        """The targets of a module, trying every spelling the host might know."""
        known = (host.target_of(self._key_map[name]) for name in host_spellings(module) if name in self._key_map)
        target = next(known, None)
        found = (target,) if target and self._inside(target) else self._names.find(module)
        return found or beside(self.find(module.removesuffix(BIAS)) if module.endswith(BIAS) else (), self._tensors)

    def second(self, module: str) -> tuple[Target, ...]:
        """The targets by our rules alone: the host's map has wrong rows for some modules, of FLUX.2 for one."""
        return self._names.find(module)

    def _inside(self, target: Target) -> bool:
        """Whether the weight is there and has these rows: for k and v of Lumina 2 the host's map names too many."""
        if target.weight not in self._tensors or target.slice is None:
            return target.weight in self._tensors
        dim, start, length = target.slice
        return start + length <= self._tensors[target.weight].shape[dim]


def open_base(name: str, *kinds: str, on_quantized_base: str = REFUSE, no_mmap: bool = False) -> Plan:
    """A plan on a file of ComfyUI's model folders (of these kinds only); just its headers, and scales, are read.

    ``no_mmap``: it is read plainly, never mapped.
    """
    path: Path | None = None
    if is_remote(name):
        remote, kind = allowed(name, *(kinds or folders.BASE_KINDS)), ""
        called, stored = remote.file, open_elsewhere(remote, Asking(strict=True, on_bytes=transfers()))
    else:
        path, kind = folders.find_base(name, *kinds)
        called, stored = name, open_checkpoint(path, mapped=False if no_mmap else None)
    checkpoint = opened(stored, on_quantized_base)
    dequantized = isinstance(checkpoint, Dequantized)
    base = Base(called, None, checkpoint, checkpoint.quantized, dequantized=dequantized)
    raise_first(already_quantized(Plan(base)))
    source = BaseFile(checkpoint, path, kind)
    return Plan(replace(base, family=detect_base(source.tensors), source=source, contains=contained_in(checkpoint)))


def plan_of(value: Any) -> Plan:
    """The plan on a stage socket, or a fresh one on a MODEL; a quantized or foreign MODEL is refused."""
    if isinstance(value, Plan):
        return value
    host.require_native(value)
    refuse_compiled(value)
    refuse_bypassed(value)
    name = f"MODEL ({type(value.model).__name__})"
    quantized = host.quantized_as(value)
    raise_first(already_quantized(Plan(Base(name, None, _Nothing(), quantized))))
    source = host.ModelWeights(value)
    contains = inside(value)
    return Plan(Base(name, detect_base(source.tensors), source, None, applied_to(value, source), contains=contains))


class _Nothing(InMemory):
    """The source of a plan that is refused before anything is read."""

    label = ""
    tensors: Mapping[str, TensorInfo] = {}

    def read(self, name: str) -> torch.Tensor:
        raise KeyError(name)


def applied_to(model: Any, weights: host.ModelWeights) -> tuple[str, ...]:
    """LoRAs on top of the base in a MODEL: by our own record, and by the patches that another node left on it."""
    record = host.ledger(model)
    stacked = tuple(record.get(STACK, ()))
    if weights.patched and record.get("patches") != str(model.patches_uuid):
        return (*stacked, f"A LoRA or merge (patches on {weights.patched} weights)")
    return stacked


def inside(model: Any) -> tuple[Contained, ...]:
    """The LoRAs inside a MODEL that this pack made, by the record on it: fused and stacked ones, as in a file."""
    ingredients = host.ledger(model).get("ingredients", ())
    return tuple(Contained(Ingredient.from_json(each), DERIVED, LEDGER_SOURCE) for each in ingredients)
