"""Which alpha each adapter has: what is nearest to its factors counts.

That is an alpha tensor, then ``lora_adapter_metadata`` in the header (diffusers), then ``adapter_config.json`` beside
the file (PEFT), then nothing, which means a scale of 1. Where two of them disagree a finding says so. What trainers
only note down (``ss_network_alpha``) is told, never applied.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cache, partial
from typing import NamedTuple

import torch

from ...engine.findings import Finding
from ...engine.plan import Adapter
from ...engine.tensors import TensorSource
from ...engine.texts.say import refuse, say_of
from ..disk.header import shown
from ..names.dialects import ALPHA, LOKR, OFT_IN
from ..names.lookup import is_text_encoder
from ..remote.beside import CONFIG_FILE
from .building import plain
from .configs import Config, SlowPatternError
from .groups import SCALED

WRITE_ALPHA = ("down/up", "loha", "lokr", "glora")  # dialects whose trainers write alpha tensors
Keyed = tuple[str, Mapping[str, object]]  # the key of a finding, and the values of its blanks
FUSED = (3, 4)  # parts of the layers that trainers split: q, k and v, or these and an MLP
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


def has_rank(adapter: Adapter) -> bool:
    """Whether alpha / rank is the scale of its whole delta."""
    return adapter.kind in SCALED and not is_dense(adapter)


def is_scaled(adapter: Adapter) -> bool:
    """Whether alpha / rank is a factor of it; so also for the bias of a LoRA's up, which is a difference."""
    return adapter.kind in SCALED or _is_up_bias(adapter)


def _is_up_bias(adapter: Adapter) -> bool:
    return dict(adapter.parts).get("diff", "").endswith(".bias")


@dataclass(frozen=True)
class Alphas:
    """The adapters of one file with their alphas, and where these came from.

    ``sources``: "tensor", a config's origin or "none" -> how many adapters. ``configs`` are those that were used,
    ``foreign`` those of other ranks, ``possible`` those that may belong to a neighbour of the file.
    ``against``: origin -> the first (module, what it states, what is used instead). ``dense``: LoKr module of whole
    factors -> the alpha that its tensor states and nobody applies.
    """

    adapters: tuple[Adapter, ...]
    sources: Mapping[str, int]
    configs: tuple[Config, ...]
    foreign: tuple[Config, ...]
    possible: tuple[Config, ...]
    against: Mapping[str, tuple[str, float, float]]
    dense: Mapping[str, float]


class Settled(NamedTuple):
    """One adapter with its alpha, where that is from, and which configs state another one."""

    adapter: Adapter
    origin: str
    against: Mapping[str, float]  # origin -> what it states


def resolve(label: str, source: TensorSource, configs: Iterable[Config], adapters: Iterable[Adapter]) -> Alphas:
    """Give adapters their alphas; kinds whose alpha is no scale keep what their tensor says.

    Raises FoundryError LF304, also for patterns of a config that take longer than a moment.
    """
    try:
        return _resolved(label, source, list(configs), list(adapters))
    except SlowPatternError as slow:
        raise refuse("LF304.pattern", lora=label, source=slow.origin, pattern=shown(slow.pattern)) from None


def _resolved(label: str, source: TensorSource, configs: list[Config], adapters: list[Adapter]) -> Alphas:
    fitting = [config for config in configs if _has_these_ranks(config, adapters)]
    used = tuple(config for config in fitting if config.certain)
    read = cache(partial(read_alpha, label, source))
    settled = [_settled(label, adapter, read, used) for adapter in adapters]
    against: dict[str, tuple[str, float, float]] = {}
    for each in settled:
        for origin, stated in each.against.items():
            against.setdefault(origin, (each.adapter.module, stated, each.adapter.alpha or 0.0))
    return Alphas(
        tuple(each.adapter for each in settled),
        Counter(each.origin for each in settled if has_rank(each.adapter)),
        used,
        tuple(config for config in configs if config.certain and config not in fitting),
        tuple(config for config in fitting if not config.certain),
        against,
        {a.module: read(dict(a.parts)[ALPHA]) for a in adapters if is_dense(a) and ALPHA in dict(a.parts)},
    )


def _settled(label: str, adapter: Adapter, read: Callable[[str], float], configs: Iterable[Config]) -> Settled:
    tensor = dict(adapter.parts).get(ALPHA)
    alpha = None if tensor is None else read(tensor)
    if is_dense(adapter):
        return Settled(_scaled_dense(label, adapter, configs), "", {})
    if adapter.kind == OFT_IN:
        terms = (config.terms(adapter.module) for config in configs)
        return Settled(replace(adapter, alpha=next((each for each in terms if each is not None), None)), "", {})
    if not is_scaled(adapter):
        return Settled(adapter if tensor is None else replace(adapter, alpha=alpha), "", {})
    origin = "none" if tensor is None else "tensor"
    module = adapter.module.removesuffix(".bias") if _is_up_bias(adapter) else adapter.module
    against: dict[str, float] = {}
    for config in configs:
        stated = config.alpha(module, adapter.rank) if config.covers(module) else None
        if stated is not None and alpha is None:
            alpha, origin = stated, config.origin
        elif stated is not None and alpha is not None and not math.isclose(stated, alpha, rel_tol=CLOSE):
            against.setdefault(config.origin, stated)
    return Settled(replace(adapter, alpha=alpha), origin, against)


def _scaled_dense(label: str, adapter: Adapter, configs: Iterable[Config]) -> Adapter:
    """Alpha is no scale of a dense LoKr, except in PEFT's own files; the host, who loads text encoders, knows none."""
    for config in configs:
        alpha, rank = config.alpha(adapter.module, 1), config.rank(adapter.module, 0)
        if not config.covers(adapter.module) or alpha is None or not rank or alpha == rank:
            continue
        if is_text_encoder(adapter.module):
            values = {"module": shown(adapter.module), "source": config.origin, "scale": f"{alpha / rank:.4g}"}
            raise refuse("LF304.dense_scale", lora=label, **values)
        return replace(adapter, alpha=alpha, rank=rank)
    return adapter


def alpha_findings(label: str, alphas: Alphas, metadata: Mapping[str, str], dialect: str) -> list[Finding]:
    """LF305: alphas that are missing, zero, contradicted or only noted down."""
    scaled = [adapter for adapter in alphas.adapters if has_rank(adapter)]
    found: list[Keyed] = [
        *_disagreements(alphas),
        *_possible(alphas, scaled),
        *_zero_or_missing(scaled, dialect, bool(alphas.possible)),
        *_noted(scaled, metadata),
        *_dense(alphas.dense, metadata),
        *_unraised(scaled, metadata),
    ]
    return [say_of(label, key, **values) for key, values in found]


def _disagreements(alphas: Alphas) -> Iterator[Keyed]:
    for origin, (module, stated, used) in alphas.against.items():
        values = {"module": shown(module), "used": f"{used:.4g}", "source": origin, "stated": f"{stated:.4g}"}
        yield "LF305.two_alphas", values
    for config in alphas.foreign:
        yield "LF305.other_ranks", {"source": config.origin}


def _possible(alphas: Alphas, scaled: list[Adapter]) -> Iterator[Keyed]:
    for config in alphas.possible:
        without = [adapter for adapter in scaled if adapter.alpha is None and config.covers(adapter.module)]
        stated = ((adapter.rank, config.alpha(adapter.module, adapter.rank)) for adapter in without)
        other = [alpha / rank for rank, alpha in stated if alpha is not None and alpha != rank]
        if other:
            yield "LF305.perhaps", {"source": config.origin, "scale": f"{other[0]:.4g}"}


def _zero_or_missing(scaled: list[Adapter], dialect: str, explained: bool) -> Iterator[Keyed]:
    without = [adapter.module for adapter in scaled if adapter.alpha is None]
    zero = [adapter.module for adapter in scaled if adapter.alpha == 0.0]
    negative = [adapter.module for adapter in scaled if (adapter.alpha or 0.0) < 0.0]
    if negative:
        yield "LF305.negative", {"count": len(negative), "modules": len(scaled), "module": shown(negative[0])}
    if zero:
        yield "LF305.zero", {"count": len(zero), "modules": len(scaled), "module": shown(zero[0])}
    if without and len(without) < len(scaled):
        yield "LF305.some_without", {"count": len(without), "modules": len(scaled), "module": shown(without[0])}
    elif without and dialect.split(" + ")[0] in WRITE_ALPHA:
        yield "LF305.none", {"modules": len(scaled)}
    elif without and without[0].startswith("base_model.model.") and not explained:
        yield "LF305.no_config", {"config": CONFIG_FILE, "modules": len(scaled)}


def _noted(scaled: list[Adapter], metadata: Mapping[str, str]) -> Iterator[Keyed]:
    alpha, rank = _stated(metadata)
    concerned = any(adapter.alpha is None and adapter.rank == rank for adapter in scaled)
    if concerned and alpha not in (0.0, rank):
        values = {"alpha": f"{alpha:.4g}", "rank": f"{rank:.4g}", "strength": f"{alpha / rank:.4g}"}
        yield "LF305.noted", values


def _dense(dense: Mapping[str, float], metadata: Mapping[str, str]) -> Iterator[Keyed]:
    """LyCORIS sets alpha to dim where both factors are whole; one that is the alpha of the header was scaled by it."""
    alpha, rank = _stated(metadata)
    odd = [stated for stated in dense.values() if math.isclose(stated, alpha, rel_tol=CLOSE) and 0 < stated < rank]
    if odd:
        numbers = {"times": rank / alpha, "strength": alpha / rank, "alpha": alpha, "rank": rank}
        told = {name: f"{number:.3g}" for name, number in numbers.items()}
        yield "LF305.dense_noted", {"modules": len(odd), **told}
    if len(odd) < len(dense):
        yield "LF305.dense", {"modules": len(dense) - len(odd)}


def _unraised(scaled: list[Adapter], metadata: Mapping[str, str]) -> Iterator[Keyed]:
    """Parts that were trained apart and merged into one factor: the rank is a multiple, and alpha has to be, too."""
    alpha, rank = _stated(metadata)
    if not math.isfinite(alpha) or not _is_split(metadata.get("ss_network_args", "")):
        return
    wide = [a for a in scaled if a.alpha is not None and a.rank in [parts * rank for parts in FUSED]]
    odd = [a for a in wide if math.isclose(a.alpha or 0.0, alpha, rel_tol=CLOSE)]
    if odd:
        ranks = " or ".join(map(str, sorted({a.rank for a in odd})))
        times = " or ".join(f"{number:g}" for number in sorted({a.rank / rank for a in odd}))
        values = {"rank": f"{rank:g}", "wide": ranks, "alpha": f"{alpha:.4g}", "times": times}
        yield "LF305.split_qkv", {"modules": len(odd), **values}


def _is_split(arguments: str) -> bool:
    try:
        stated = json.loads(arguments)
    except ValueError:
        return False
    return isinstance(stated, dict) and str(stated.get("split_qkv", "")).lower() in ("true", "1")


def _stated(metadata: Mapping[str, str]) -> tuple[float, float]:
    """alpha and rank as the trainer noted them down; NaN for both where one is missing or no number."""
    try:
        alpha, rank = float(metadata["ss_network_alpha"]), float(metadata["ss_network_dim"])
    except (KeyError, ValueError):
        return math.nan, math.nan
    return (alpha, rank) if math.isfinite(alpha) and math.isfinite(rank) and rank >= 1 else (math.nan, math.nan)


def _has_these_ranks(config: Config, adapters: Iterable[Adapter]) -> bool:
    mine = (adapter for adapter in adapters if has_rank(adapter) and config.covers(adapter.module))
    return all(config.rank(adapter.module, adapter.rank) == adapter.rank for adapter in mine)
