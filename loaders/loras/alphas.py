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
from ...engine.texts.say import refuse, say_of
from ..disk.header import shown
from ..names.dialects import ALPHA, LOKR
from .building import SCALED, plain
from .configs import CONFIG_FILE, Config

WRITE_ALPHA = ("down/up", "loha", "lokr", "glora")  # dialects whose trainers write alpha tensors
CLOSE = 0.005  # an alpha stored in bf16 is off by up to 0.4%


def read_alpha(label: str, source: TensorSource, name: str) -> float:
    """An alpha tensor, of shape [] or [1]; FoundryError LF304 for anything but one real, finite number."""
    info = source.tensors[name]
    if math.prod(info.shape) != 1 or info.dtype == torch.bool or info.dtype.is_complex:
        values = {"tensor": shown(name), "dtype": plain(info.dtype), "shape": list(info.shape)}
        raise refuse("LF304.alpha_type", lora=label, **values)
    alpha = float(source.read(name).reshape(()).item())
    if not math.isfinite(alpha):
        raise refuse("LF304.alpha_value", lora=label, tensor=shown(name), alpha=alpha)
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
                values = {"module": shown(adapter.module), "source": config.origin, "scale": f"{alpha / rank:.4g}"}
                raise refuse("LF304.dense_scale", lora=self.label, **values)

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
            yield self._say("LF305.dense", modules=len(dense))

    def _disagreements(self) -> Iterator[Finding]:
        for origin, (module, stated, used) in self._against.items():
            values = {"module": shown(module), "used": f"{used:.4g}", "source": origin, "stated": f"{stated:.4g}"}
            yield self._say("LF305.two_alphas", **values)
        for config in self._foreign:
            yield self._say("LF305.other_ranks", source=config.origin)

    def _possible(self, scaled: list[Adapter]) -> Iterator[Finding]:
        for config in self._perhaps:
            without = [adapter for adapter in scaled if adapter.alpha is None and config.covers(adapter.module)]
            stated = ((adapter.rank, config.alpha(adapter.module, adapter.rank)) for adapter in without)
            other = [alpha / rank for rank, alpha in stated if alpha is not None and alpha != rank]
            if other:
                yield self._say("LF305.perhaps", source=config.origin, scale=f"{other[0]:.4g}")

    def _zero_or_missing(self, scaled: list[Adapter], dialect: str) -> Iterator[Finding]:
        without = [adapter.module for adapter in scaled if adapter.alpha is None]
        zero = [adapter.module for adapter in scaled if adapter.alpha == 0.0]
        if zero:
            yield self._say("LF305.zero", count=len(zero), modules=len(scaled), module=shown(zero[0]))
        if without and len(without) < len(scaled):
            values = {"count": len(without), "modules": len(scaled), "module": shown(without[0])}
            yield self._say("LF305.some_without", **values)
        elif without and dialect.split(" + ")[0] in WRITE_ALPHA:
            yield self._say("LF305.none", modules=len(scaled))
        elif without and without[0].startswith("base_model.model.") and not self._perhaps:
            yield self._say("LF305.no_config", config=CONFIG_FILE, modules=len(scaled))

    def _noted(self, scaled: list[Adapter], metadata: Mapping[str, str]) -> Iterator[Finding]:
        try:
            alpha, rank = float(metadata["ss_network_alpha"]), float(metadata["ss_network_dim"])
        except (KeyError, ValueError):
            return
        concerned = any(adapter.alpha is None and adapter.rank == rank for adapter in scaled)
        if concerned and math.isfinite(alpha) and alpha not in (0.0, rank):
            values = {"alpha": f"{alpha:.4g}", "rank": f"{rank:.4g}", "strength": f"{alpha / rank:.4g}"}
            yield self._say("LF305.noted", **values)

    def _say(self, key: str, **values: object) -> Finding:
        return say_of(self.label, key, **values)


def _has_these_ranks(config: Config, adapters: Iterable[Adapter]) -> bool:
    mine = (a for a in adapters if a.kind in SCALED and not is_dense(a) and config.covers(a.module))
    return all(config.rank(adapter.module, adapter.rank) == adapter.rank for adapter in mine)
