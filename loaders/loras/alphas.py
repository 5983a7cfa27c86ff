"""Which alpha each adapter has: what is nearest to its factors counts.

That is an alpha tensor, then ``lora_adapter_metadata`` in the header (diffusers), then ``adapter_config.json`` beside
the file (PEFT), then nothing, which means a scale of 1. Where two of them disagree a finding says so. What trainers
only note down (``ss_network_alpha``) is told, never applied.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace

import torch

from ...engine.findings import Finding
from ...engine.plan import Adapter
from ...engine.tensors import TensorSource
from ..disk.header import shown
from ..names.dialects import ALPHA, LOKR
from .building import SCALED, broken, plain
from .configs import CONFIG_FILE, Config

WRITE_ALPHA = ("down/up", "loha", "lokr", "glora")  # dialects whose trainers write alpha tensors
CLOSE = 0.005  # an alpha stored in bf16 is off by up to 0.4%


def read_alpha(label: str, source: TensorSource, name: str) -> float:
    """An alpha tensor, of shape [] or [1]; FoundryError LF304 for anything but one real, finite number."""
    info = source.tensors[name]
    if math.prod(info.shape) != 1 or info.dtype == torch.bool or info.dtype.is_complex:
        seen = f"'{shown(name)}' is {plain(info.dtype)} of shape {list(info.shape)}."
        raise broken(label, seen, "An alpha is one real number.")
    alpha = float(source.read(name).reshape(()).item())
    if not math.isfinite(alpha):
        raise broken(label, f"'{shown(name)}' is {alpha}.", "No scale can be computed from it.")
    return alpha


def is_dense(adapter: Adapter) -> bool:
    """Whether this is a LoKr of two whole factors, which has no rank that an alpha could refer to."""
    return adapter.kind == LOKR and not any(part.endswith("_a") for part, _ in adapter.parts)


def is_scaled(adapter: Adapter) -> bool:
    """Whether alpha / rank is a factor of it; so also for the bias of a LoRA's up, which is a difference."""
    return adapter.kind in SCALED or _is_up_bias(adapter)


def _is_up_bias(adapter: Adapter) -> bool:
    return dict(adapter.parts).get("diff", "").endswith(".bias")


class Alphas:
    """Gives the adapters of one file their alphas and remembers where these came from.

    ``sources``: "tensor", a config's origin or "none" -> how many adapters. ``configs``: those that were used.
    """

    def __init__(self, label: str, source: TensorSource, configs: Iterable[Config]) -> None:
        self.label, self.source, self.configs = label, source, list(configs)
        self.sources: dict[str, int] = {}
        self._read: dict[str, float] = {}
        self._against: dict[str, tuple[str, float, float]] = {}  # origin -> module, what it states, what is used
        self._foreign: list[Config] = []
        self._perhaps: list[Config] = []

    def resolve(self, adapters: Iterable[Adapter]) -> list[Adapter]:
        """The same adapters with their alphas; kinds whose alpha is no scale keep what their tensor says."""
        adapters = list(adapters)
        fitting = [config for config in self.configs if _has_these_ranks(config, adapters)]
        self._foreign = [config for config in self.configs if config.certain and config not in fitting]
        self._perhaps = [config for config in fitting if not config.certain]
        self.configs = [config for config in fitting if config.certain]
        return [self._resolved(adapter) for adapter in adapters]

    def _resolved(self, adapter: Adapter) -> Adapter:
        tensor = dict(adapter.parts).get(ALPHA)
        if tensor is not None and tensor not in self._read:
            self._read[tensor] = read_alpha(self.label, self.source, tensor)
        alpha = None if tensor is None else self._read[tensor]
        if is_dense(adapter):
            self._refuse_scaled_dense(adapter)
            return adapter
        if not is_scaled(adapter):
            return replace(adapter, alpha=alpha) if tensor is not None else adapter
        origin = "none" if tensor is None else "tensor"
        module = adapter.module.removesuffix(".bias") if _is_up_bias(adapter) else adapter.module
        for config in self.configs:
            stated = config.alpha(module, adapter.rank) if config.covers(module) else None
            if stated is not None and alpha is None:
                alpha, origin = stated, config.origin
            elif stated is not None and alpha is not None and not math.isclose(stated, alpha, rel_tol=CLOSE):
                self._against.setdefault(config.origin, (adapter.module, stated, alpha))
        if adapter.kind in SCALED:
            self.sources[origin] = self.sources.get(origin, 0) + 1
        return replace(adapter, alpha=alpha)

    def _refuse_scaled_dense(self, adapter: Adapter) -> None:
        """Alpha is no scale of a dense LoKr, except in PEFT's own files."""
        for config in self.configs:
            alpha, rank = config.alpha(adapter.module, 1), config.rank(adapter.module, 0)
            if config.covers(adapter.module) and alpha is not None and rank and alpha != rank:
                seen = f"'{shown(adapter.module)}' is a LoKr of whole factors, and {config.origin} states a scale of"
                why = "This combination is not supported: ComfyUI and LyCORIS would use 1."
                raise broken(self.label, f"{seen} {alpha / rank:.4g}.", why)

    # --- what is to be said about it

    def findings(self, adapters: list[Adapter], metadata: Mapping[str, str], dialect: str) -> Iterator[Finding]:
        """LF305: alphas that are missing, zero, contradicted or only noted down."""
        scaled = [adapter for adapter in adapters if adapter.kind in SCALED and not is_dense(adapter)]
        yield from self._disagreements()
        yield from self._possible(scaled)
        yield from self._zero_or_missing(scaled, dialect)
        yield from self._noted(scaled, metadata)
        dense = [adapter for adapter in adapters if is_dense(adapter) and ALPHA in dict(adapter.parts)]
        if dense:
            seen = f"{self.label}: {len(dense)} LoKr modules are of two whole factors; their alpha is not applied."
            why = "LyCORIS and ComfyUI do the same, but some files were made for alpha / dim and come out too strong."
            yield self._finding("note", seen, why, "If the effect is far too strong, lower the strength.")

    def _disagreements(self) -> Iterator[Finding]:
        for origin, (module, stated, used) in self._against.items():
            seen = f"{self.label}: '{shown(module)}' has alpha {used:.4g}, but {origin} states {stated:.4g}."
            yield self._finding("warning", seen, f"{used:.4g} is used: it is nearer to the factors.")
        for config in self._foreign:
            seen = f"{self.label}: {config.origin} states other ranks than the factors have."
            why = "It belongs to another file, or the LoRA was resized: the scale in it is not used."
            yield self._finding("warning", seen, why, "Ask the author for the scale, and set the strength by it.")

    def _possible(self, scaled: list[Adapter]) -> Iterator[Finding]:
        for config in self._perhaps:
            without = [adapter for adapter in scaled if adapter.alpha is None and config.covers(adapter.module)]
            stated = ((adapter.rank, config.alpha(adapter.module, adapter.rank)) for adapter in without)
            other = [alpha / rank for rank, alpha in stated if alpha is not None and alpha != rank]
            if other:
                seen = f"{self.label}: {config.origin} beside it states a scale of {other[0]:.4g}; it is not used."
                why = "There are other LoRAs in the folder that it may belong to."
                fix = f"If it is of this file, give both a folder of their own, or use the strength {other[0]:.4g}."
                yield self._finding("warning", seen, why, fix)

    def _zero_or_missing(self, scaled: list[Adapter], dialect: str) -> Iterator[Finding]:
        without = [adapter.module for adapter in scaled if adapter.alpha is None]
        zero = [adapter.module for adapter in scaled if adapter.alpha == 0.0]
        if zero:
            seen = f"{self.label}: alpha is 0 in {len(zero)} of {len(scaled)} modules, first '{shown(zero[0])}'."
            yield self._finding("warning", seen, "These modules have no effect.")
        if without and len(without) < len(scaled):
            seen = f"{self.label}: {len(without)} of {len(scaled)} modules state no alpha, first '{shown(without[0])}'."
            why = "Scale 1.0 is used for them, and alpha/rank for the others."
            yield self._finding("warning", seen, why, "Ask the author which is meant.")
        elif without and dialect.split(" + ")[0] in WRITE_ALPHA:
            seen = f"{self.label}: no alpha: scale 1.0 used for all {len(scaled)} modules."
            why = "Most trainers that write these names write an alpha too; extracted LoRAs are made for 1.0."
            yield self._finding("note", seen, why)
        elif without and without[0].startswith("base_model.model.") and not self._perhaps:
            seen = f"{self.label}: a PEFT file without its {CONFIG_FILE}: scale 1.0 used for all {len(scaled)} modules."
            why = f"PEFT writes the scale only into {CONFIG_FILE}, and that gives none here."
            yield self._finding("note", seen, why, f"If you have it, put {CONFIG_FILE} into the folder of the LoRA.")

    def _noted(self, scaled: list[Adapter], metadata: Mapping[str, str]) -> Iterator[Finding]:
        try:
            alpha, rank = float(metadata["ss_network_alpha"]), float(metadata["ss_network_dim"])
        except (KeyError, ValueError):
            return
        concerned = any(adapter.alpha is None and adapter.rank == rank for adapter in scaled)
        if concerned and math.isfinite(alpha) and alpha not in (0.0, rank):
            seen = f"{self.label}: its metadata says alpha {alpha:.4g} at rank {rank:.4g}, its tensors state no alpha."
            why = "Scale 1.0 is used: metadata is often copied from one file to another."
            yield self._finding("warning", seen, why, f"If it is too strong, use it at strength {alpha / rank:.4g}.")

    def _finding(self, severity: str, seen: str, why: str, fix: str = "") -> Finding:
        return Finding("LF305", severity, seen, why, fix, subject=self.label)


def _has_these_ranks(config: Config, adapters: Iterable[Adapter]) -> bool:
    mine = (a for a in adapters if a.kind in SCALED and not is_dense(a) and config.covers(a.module))
    return all(config.rank(adapter.module, adapter.rank) == adapter.rank for adapter in mine)
