"""Which weights are quantized and which stay in high precision."""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache

from .errors import FoundryError
from .formats import DEFAULT, Format
from .tensors import TensorInfo

AUTO = "auto"


@dataclass(frozen=True)
class LayerRule:
    """Which layers of a family are quantized: names matching ``only`` and not matching ``keep``."""

    only: str
    keep: str = r"(?!)"


# Union of what musubi-tuner, convert_to_quant and the published fp8 releases keep in high precision.
FAMILY_RULES = {
    "flux": LayerRule(r"^(double|single)_blocks\.", r"norm|mod"),
    "flux2": LayerRule(r"^(double|single)_blocks\.", r"norm|mod"),
    "chroma": LayerRule(r"^(double|single)_blocks\.", r"norm|mod"),
    "hunyuan-video": LayerRule(r"^(double|single)_blocks\.", r"norm|mod"),
    "qwen-image": LayerRule(r"^transformer_blocks\.", r"norm|^transformer_blocks\.0\.img_mod\.1\."),
    "wan": LayerRule(r"^blocks\.", r"norm|modulation"),
    "z-image": LayerRule(r"^(layers|noise_refiner|context_refiner)\.", r"norm|adaLN_modulation"),
    "lumina2": LayerRule(r"^(layers|noise_refiner|context_refiner)\.", r"norm|adaLN_modulation"),
    "sd3": LayerRule(r"^joint_blocks\.", r"norm|adaLN_modulation"),
    "sd15": LayerRule(r"\.attn[12]\.to_|\.ff\.net\."),
    "sdxl": LayerRule(r"\.attn[12]\.to_|\.ff\.net\."),
}
UNKNOWN_FAMILY = LayerRule(r"blocks?\.|layers\.", r"norm|embed|modulation|_mod\.|adaLN|time|final|head")


def parse_keep(text: str) -> tuple[str, ...]:
    """``"auto, *.ffn.2"`` -> ("auto", "*.ffn.2"): comma separated patterns of layers (see ``keeps``)."""
    return tuple(part.strip() for part in text.split(",") if part.strip())


def keeps(name: str, family: str | None, patterns: Sequence[str]) -> bool:
    """Whether a layer stays in high precision, by the family's list (``auto``) and the user's own patterns.

    A pattern is whole dotted parts anywhere in a name: ``blocks.1`` is not ``blocks.10``. ``*`` matches anything.
    """
    if any(_glob(pattern).search(name) for pattern in patterns if pattern != AUTO):
        return True
    if AUTO not in patterns:
        return False
    rule = FAMILY_RULES.get(family or "", UNKNOWN_FAMILY)
    return re.search(rule.only, name) is None or re.search(rule.keep, name) is not None


@lru_cache
def _glob(pattern: str) -> re.Pattern[str]:
    parts = ".*".join(re.escape(piece) for piece in pattern.strip(".").split("*"))
    return re.compile(rf"(?:^|\.){parts}(?:\.|$)")


def check_patterns(patterns: Sequence[str], names: Collection[str]) -> None:
    """FoundryError ``usage`` for a pattern that none of the base's tensor ``names`` has; ``auto`` is always fine."""
    for pattern in patterns:
        if pattern == AUTO or any(_glob(pattern).search(name) for name in names):
            continue
        near = difflib.get_close_matches(pattern.replace("*", "").strip("."), _spellings(names), 3)
        fix = f"Did you mean {' or '.join(near)}?" if near else f"A layer of it is {_layer(next(iter(names), 'none'))}."
        why = "Patterns are whole dotted parts of a layer's name, and * matches anything."
        raise FoundryError("usage", f"No layer is called '{pattern}', which was to stay in high precision.", why, fix)


def _spellings(names: Iterable[str]) -> list[str]:
    """What a pattern may have meant: the first parts of a layer's name, or its last ones."""
    layers = [_layer(name).split(".") for name in names]
    runs = {".".join(run) for parts in layers for at in range(len(parts)) for run in (parts[: at + 1], parts[at:])}
    return sorted(runs)


def _layer(name: str) -> str:
    return name.rpartition(".")[0] or name


def is_quantizable(
    info: TensorInfo,
    family: str | None,
    patterns: Sequence[str],
    linears: Collection[str] | None = None,
    format: Format = DEFAULT,
) -> bool:
    """Whether a tensor is quantized: a 2-D Linear ``.weight`` whose dims fit the format and that no list keeps.

    ``linears`` are the weights a host knows to be nn.Linear; without it the family's rule decides by name.
    """
    if not info.name.endswith(".weight") or not info.dtype.is_floating_point or not format.fits(info.shape):
        return False
    if linears is not None and info.name not in linears:
        return False
    return not keeps(info.name, family, patterns)
