"""The plan: where the base is, which LoRAs go into it in which order. Frozen data; making one computes nothing.

A plan holds names, shapes and numbers. The live objects that can read tensors ride along (``source``, ``factors``)
but take no part in comparing, hashing or printing.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

from .findings import Finding
from .json_types import CoverageJSON
from .lineage import NOTHING_KNOWN, Claim, Contained, Lineage
from .tensors import TensorSource

FUSE, STACK = "fuse", "stack"
ONCE, MATCH_TRAINING = "once", "match training"


@dataclass(frozen=True)
class Adapter:
    """One LoRA's parts for one module: ``parts`` maps ``up``, ``down`` and ``alpha`` to their tensor names in the file.

    ``rank`` is ``down.shape[0]``; ``alpha`` is None when the file states none (the scale is then 1.0).
    ``delta_shape`` is the shape of the weight it was made for: ``(out, in)`` or ``(out, in, kh, kw)``.
    """

    module: str
    kind: str
    parts: tuple[tuple[str, str], ...]
    rank: int
    delta_shape: tuple[int, ...]
    alpha: float | None = None

    @property
    def scale(self) -> float:
        """alpha / rank, or 1.0 when the file states no alpha."""
        return 1.0 if self.alpha is None else self.alpha / self.rank


@dataclass(frozen=True)
class Target:
    """The base tensor an adapter goes to, or a slice ``(dim, start, length)`` of it, through a named transform.

    ``part`` is the ``(dim, start, length)`` of the adapter's delta that goes there: a LoRA on fused q, k and v over a
    base that has three weights has three targets, each for a third of its rows.
    """

    weight: str
    slice: tuple[int, int, int] | None = None
    transform: str | None = None
    part: tuple[int, int, int] | None = None


@dataclass(frozen=True)
class Patch:
    """One adapter on one target; ``factor`` multiplies the layer's strength here (block weights)."""

    adapter: Adapter
    target: Target
    factor: float = 1.0


@dataclass(frozen=True)
class Coverage:
    """How many of a file's modules found a weight of the right shape, and why the others did not.

    ``lost`` is the share of the LoRA's sum of squares that lies in the others.
    """

    modules: int
    matched: int
    unmatched: tuple[tuple[str, str], ...] = ()
    text_encoder: int = 0
    lost: float = 0.0

    def to_json(self) -> CoverageJSON:
        """Counts and every unmatched module with its reason."""
        return {
            "modules": self.modules,
            "matched": self.matched,
            "unmatched": [{"module": module, "reason": reason} for module, reason in self.unmatched],
            "text_encoder": self.text_encoder,
            "lost": self.lost,
        }


@dataclass(frozen=True)
class LoRAInfo:
    """What is known of a LoRA file without computing anything: ``sha256`` is the whole file's, lower-case hex."""

    name: str
    sha256: str
    dialect: str
    family: str | None = None


@dataclass(frozen=True)
class Layer:
    """One LoRA at one strength in one stage. ``factors`` reads the LoRA's tensors by their names in the file.

    ``path`` is the file as a document names it; it is for reports and no part of the recipe. ``blocks`` are the block
    weights of the row in one spelling, empty where there are none; the patches carry them as factors. ``lineage`` is
    what is known of its training; it decides findings, never a number.
    """

    stage: str
    lora: LoRAInfo
    strength: float
    patches: tuple[Patch, ...]
    coverage: Coverage
    rounding: str = ONCE
    findings: tuple[Finding, ...] = ()
    factors: TensorSource | None = field(default=None, compare=False, repr=False)
    path: str = ""
    blocks: str = ""
    lineage: Lineage = field(default=NOTHING_KNOWN, compare=False, repr=False)

    def alphas_beside(self) -> str:
        """A hash over the alphas no tensor of the file states, empty without: a file beside it may, and may change."""
        adapters = (patch.adapter for patch in self.patches)
        stated = {(a.module, a.alpha) for a in adapters if a.alpha is not None and "alpha" not in dict(a.parts)}
        return hashlib.sha256(json.dumps(sorted(stated)).encode()).hexdigest()[:16] if stated else ""

    def order_key(self) -> tuple[str, float]:
        """What the fp32 sum is sorted by, so that listing order changes no bit."""
        return (self.lora.sha256, self.strength)


@dataclass(frozen=True)
class Base:
    """The untouched weights: ``tensors`` of ``source`` carry bare names (no ``model.diffusion_model.``)."""

    name: str
    family: str | None
    source: TensorSource = field(compare=False, repr=False)
    quantized: str | None = None  # how it is stored when it is not plain floating point: "float8_e4m3fn", "scaled fp8"
    applied: tuple[str, ...] = ()  # LoRAs already inside, as far as the model itself tells
    dequantized: bool = False  # ``source`` gives a quantized base as plain weights, because the user asked for it
    contains: tuple[Contained, ...] = field(default=(), compare=False, repr=False)  # base LoRAs known to be inside


@dataclass(frozen=True)
class Plan:
    """Base and layers. ``vanilla`` records the explicit choice to fuse no base LoRA."""

    base: Base
    layers: tuple[Layer, ...] = ()
    vanilla: bool = False
    findings: tuple[Finding, ...] = ()

    def add(self, layer: Layer) -> Plan:
        """The plan with one more layer on top."""
        return replace(self, layers=(*self.layers, layer))

    def with_claims(self, claims: Mapping[int, tuple[Claim, ...]]) -> Plan:
        """The plan with more known of some layers, by their number in it."""
        layers = (
            replace(layer, lineage=replace(layer.lineage, claims=(*layer.lineage.claims, *claims.get(number, ()))))
            for number, layer in enumerate(self.layers)
        )
        return replace(self, layers=tuple(layers))

    def stage(self, name: str) -> tuple[Layer, ...]:
        """The layers of one stage, in listed order."""
        return tuple(layer for layer in self.layers if layer.stage == name)

    def patches(self) -> Iterator[tuple[Layer, Patch]]:
        """Every patch with the layer it belongs to."""
        return ((layer, patch) for layer in self.layers for patch in layer.patches)

    def by_weight(self) -> dict[str, tuple[tuple[Layer, Patch], ...]]:
        """Base tensor name -> its patches: the unit of work of a bake."""
        grouped: dict[str, list[tuple[Layer, Patch]]] = {}
        for layer, patch in self.patches():
            if layer.strength * patch.factor != 0.0:
                grouped.setdefault(patch.target.weight, []).append((layer, patch))
        return {weight: tuple(pairs) for weight, pairs in grouped.items()}
