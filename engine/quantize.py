"""Which weights are quantized and which stay in high precision."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

from .codes import Format
from .formats import DEFAULT
from .near import near
from .tensors import TensorInfo
from .texts.say import refuse

AUTO = "auto"
MOST_PATTERNS, LONGEST, MOST_STARS = 64, 200, 8  # of a keep list; characters and stars of one pattern
MOST_NAMES, MOST_PARTS = 5000, 16  # of a base, looked at for what a pattern may have meant


@dataclass(frozen=True)
class LayerRule:
    """Which layers of a family are quantized: names matching ``only`` and not matching ``keep``."""

    only: str
    keep: str = r"(?!)"


# Union of what sd-scripts, musubi-tuner, convert_to_quant and the published fp8 releases keep in high precision; for
# Kandinsky, CogVideoX, Mochi, Cosmos 1, HunyuanDiT, PixArt and AuraFlow what their publishers' code in diffusers keeps.
FAMILY_RULES = {
    "flux": LayerRule(r"^(double|single)_blocks\.", r"norm|mod"),
    "flux2": LayerRule(r"^(double|single)_blocks\.", r"norm|mod"),
    "chroma": LayerRule(r"^(double|single)_blocks\.", r"norm|mod"),
    "hunyuan-video": LayerRule(r"^(double|single)_blocks\.", r"norm|mod"),
    "hunyuan-video-1.5": LayerRule(r"^(double|single)_blocks\.", r"norm|mod"),
    "hunyuan-image-2.1": LayerRule(r"^(double|single)_blocks\.", r"norm|mod"),
    "qwen-image": LayerRule(r"^transformer_blocks\.", r"norm|^transformer_blocks\.0\.img_mod\.1\."),
    "wan": LayerRule(r"^blocks\.", r"norm|modulation"),
    "z-image": LayerRule(r"^(layers|noise_refiner|context_refiner)\.", r"norm|adaLN_modulation"),
    "lumina2": LayerRule(r"^(layers|noise_refiner|context_refiner)\.", r"norm|adaLN_modulation"),
    "krea-2": LayerRule(r"^blocks\.", r"norm|mod\."),
    "minimax-h3": LayerRule(r"^blocks\.", r"norm"),
    "ideogram-4": LayerRule(r"^layers\.", r"norm|adaln"),
    "anima": LayerRule(r"^blocks\.", r"norm|adaln|^blocks\.0\."),
    "cosmos-predict2": LayerRule(r"^blocks\.", r"norm|adaln"),
    "mage-flow": LayerRule(r"^transformer_blocks\.", r"norm|_mod\."),
    "qwen-image-2.1": LayerRule(r"^transformer_blocks\.", r"norm"),
    "boogu": LayerRule(r"^((noise|context|ref_image)_refiner|(double|single)_stream_layers)\.", r"norm"),
    "ltx-2": LayerRule(r"^transformer_blocks\.", r"norm|to_gate_logits|^transformer_blocks\.(0|1|46|47)\."),
    "kandinsky-5": LayerRule(r"^(text|visual)_transformer_blocks\.", r"norm|modulation"),
    "kandinsky-6": LayerRule(r"^(visual_blocks|(video|audio)_text_transformer_blocks)\.", r"norm|modulation"),
    "cogvideox": LayerRule(r"^blocks\.", r"norm"),
    "mochi": LayerRule(r"^blocks\.", r"norm|mod_[xy]"),
    "cosmos": LayerRule(r"^blocks\.", r"norm|adaLN_modulation|\.to_[qk]\.1\."),
    "hunyuan-dit": LayerRule(r"^blocks\.", r"norm|default_modulation"),
    "pixart": LayerRule(r"^blocks\.", r"norm"),
    "auraflow": LayerRule(r"^(double|single)_layers\.", r"norm|\.mod(C|X|CX)\."),
    "ovis-image": LayerRule(r"^(double|single)_blocks\.", r"norm|mod"),
    "sd3": LayerRule(r"^joint_blocks\.", r"norm|adaLN_modulation"),
    "sd15": LayerRule(r"\.attn[12]\.to_|\.ff\.net\."),
    "sdxl": LayerRule(r"\.attn[12]\.to_|\.ff\.net\."),
    "svd": LayerRule(r"\.attn[12]\.to_|\.ff\.net\."),
}
UNKNOWN_FAMILY = LayerRule(r"blocks?\.|layers\.", r"norm|embed|modulation|_mod\.|adaLN|time|final|head")


def parse_keep(text: str) -> tuple[str, ...]:
    """``"auto, *.ffn.2"`` -> ("auto", "*.ffn.2"): comma separated patterns of layers (see ``keeps``).

    Raises FoundryError ``usage`` for more or longer patterns than anybody writes.
    """
    patterns = tuple(part.strip() for part in text.split(",") if part.strip())
    if len(patterns) > MOST_PATTERNS:
        raise refuse("usage.keep_many", count=len(patterns), most=MOST_PATTERNS)
    for pattern in patterns:
        if len(pattern) > LONGEST or pattern.count("*") > MOST_STARS:
            most = {"most_characters": LONGEST, "most_stars": MOST_STARS}
            raise refuse("usage.keep_long", characters=len(pattern), stars=pattern.count("*"), **most)
    return patterns


def keeps(name: str, family: str | None, patterns: Sequence[str]) -> bool:
    """Whether a layer stays in high precision, by the family's list (``auto``) and the user's own patterns.

    A pattern is whole dotted parts anywhere in a name: ``blocks.1`` is not ``blocks.10``. ``*`` matches anything.
    """
    if any(_hits(pattern, name) for pattern in patterns if pattern != AUTO):
        return True
    if AUTO not in patterns:
        return False
    rule = FAMILY_RULES.get(family or "", UNKNOWN_FAMILY)
    return re.search(rule.only, name) is None or re.search(rule.keep, name) is not None


def _hits(pattern: str, name: str) -> bool:
    """Whether a pattern is some whole parts of a name: every piece between stars is found after the one before it.

    The first place is as good as any other, so nothing is tried twice; a regular expression would try all of them.
    """
    whole, at = f".{name}.", 0
    for piece in f".{pattern.strip('.')}.".split("*"):
        at = whole.find(piece, at)
        if at < 0:
            return False
        at += len(piece)
    return True


def check_patterns(patterns: Sequence[str], names: Collection[str]) -> None:
    """FoundryError ``usage`` for a pattern that none of the base's tensor ``names`` has; ``auto`` is always fine."""
    for pattern in patterns:
        if pattern == AUTO or any(_hits(pattern, name) for name in names):
            continue
        meant = near(pattern.replace("*", "").strip("."), _spellings(names), 3)
        if meant:
            raise refuse("usage.keep_near", pattern=pattern, near=" or ".join(meant))
        raise refuse("usage.keep_nothing", pattern=pattern, layer=_layer(next(iter(names), "none")))


def _spellings(names: Iterable[str]) -> list[str]:
    """What a pattern may have meant: the first parts of a layer's name, or its last ones."""
    return sorted({run for name in islice(names, MOST_NAMES) for run in _runs(_layer(name).split("."))})


def _runs(parts: list[str]) -> Iterator[str]:
    for at in range(min(len(parts), MOST_PARTS)):
        yield ".".join(parts[: at + 1])
        yield ".".join(parts[-at - 1 :])


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
