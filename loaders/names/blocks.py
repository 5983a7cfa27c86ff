"""Block weights: a row's strength times a factor for each block of the model.

``double=1,single=0.5`` names kinds of blocks, ``double.3=0`` one block, ``double.0-9=0.3`` a range; later items win and
what is not named keeps its strength. A list of 12, 17, 20 or 26 numbers is that of the LoRA Block Weight extension for
SD 1.5 and SDXL: its first number is for the text encoder, and blocks that a short list leaves out get 0, as there.
"""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

from ...engine.errors import FoundryError
from ...engine.texts.say import refuse
from ..disk.header import shown
from .spellings import UNETS, unet_block
from .tables import HUNYUANS

OTHER = "other"  # what is in no block: embedders, final layers
TWO_STREAMS = {
    "double": r"(?:double_blocks|transformer_blocks)\.(\d+)\.",
    "single": r"(?:single_blocks|single_transformer_blocks)\.(\d+)\.",
}
REFINED = {
    "layer": r"layers\.(\d+)\.",
    "noise": r"noise_refiner\.(\d+)\.",
    "context": r"context_refiner\.(\d+)\.",
}
BLOCK = {"block": r"(?:transformer_)?blocks\.(\d+)\."}
LAYER = {"layer": r"(?:decoder\.)?layers\.(\d+)\."}
UNET = {"in": r"input_blocks\.(\d+)\.", "mid": r"middle_block\.", "out": r"output_blocks\.(\d+)\."}
KINDS: dict[str, dict[str, str]] = {
    **dict.fromkeys(UNETS, UNET),
    **dict.fromkeys(("flux", "flux2", "chroma", "ovis-image", *HUNYUANS), TWO_STREAMS),
    **dict.fromkeys(("z-image", "lumina2", "ming-image"), REFINED),
    "omnigen2": {**REFINED, "ref": r"ref_image_refiner\.(\d+)\."},
    "sd3": {"joint": r"(?:joint_blocks|transformer_blocks)\.(\d+)\."},
    **dict.fromkeys(("qwen-image", "qwen-image-2.1", "mage-flow", "lens", "pixart", "cogvideox"), BLOCK),
    **dict.fromkeys(("ltx-video", "ltx-2", "cosmos-predict2", "mochi", "hunyuan-dit"), BLOCK),
    **dict.fromkeys(("ernie-image", "ideogram-4", "ace-step-1.5"), LAYER),
    "anima": {**BLOCK, "adapter": r"(?:llm_adapter|text_conditioner)\.blocks\.(\d+)\."},
    "minimax-h3": {**BLOCK, "refiner": r"token_refiner\.(?:refiner_)?blocks\.(\d+)\."},
    "krea-2": {
        **BLOCK,
        "layerwise": r"(?:txtfusion|text_fusion)\.layerwise_blocks\.(\d+)\.",
        "refiner": r"(?:txtfusion|text_fusion)\.refiner_blocks\.(\d+)\.",
    },
    "joyimage": {"double": r"double_blocks\.(\d+)\."},
    "boogu": {
        **REFINED,
        "ref": r"ref_image_refiner\.(\d+)\.",
        "double": r"double_stream_layers\.(\d+)\.",
        "single": r"single_stream_layers\.(\d+)\.",
    },
    "hidream": {"double": r"double_stream_blocks\.(\d+)\.", "single": r"single_stream_blocks\.(\d+)\."},
    "cosmos": {"block": r"(?:blocks\.block|transformer_blocks\.)(\d+)\."},
    "kandinsky-6": {
        "visual": r"visual_(?:transformer_)?blocks\.(\d+)\.",
        "video": r"video_text_transformer_blocks\.(\d+)\.",
        "audio": r"audio_text_transformer_blocks\.(\d+)\.",
    },
    "kandinsky-5": {"visual": r"visual_transformer_blocks\.(\d+)\.", "text": r"text_transformer_blocks\.(\d+)\."},
    "auraflow": {
        "double": r"(?:double_layers|joint_transformer_blocks)\.(\d+)\.",
        "single": r"(?:single_layers|single_transformer_blocks)\.(\d+)\.",
    },
    "wan": {"block": r"blocks\.(\d+)\.", "vace": r"vace_blocks\.(\d+)\."},
}
ANY_KIND = re.compile(r"(?:^|.*?\.)([A-Za-z_]+)\.(\d+)\.")  # a family without a row here: the first numbered list


def _ids(inputs: Iterable[int], outputs: Iterable[int]) -> tuple[str, ...]:
    return ("text", *(f"in.{i}" for i in inputs), "mid", *(f"out.{i}" for i in outputs))


LISTS = {
    12: _ids((4, 5, 7, 8), range(6)),
    17: _ids((1, 2, 4, 5, 7, 8), range(3, 12)),
    20: _ids(range(9), range(9)),
    26: _ids(range(12), range(12)),
}
# Numbers of a bounded length: zeros before unbounded digits would be split in every possible way.
ITEM = re.compile(r"(?P<kind>[a-z_]{1,40}?)(?:[._]?(?P<first>\d{1,6})(?:-(?P<last>\d{1,6}))?)?", re.ASCII)
LONGEST, MOST = 4096, 256  # characters of a text, items in it
ALIASES = {
    "m": "mid", "middle": "mid", "input": "in", "output": "out", "blocks": "block", "layers": "layer",
    "transformer_blocks": "block", "double_layers": "double", "single_layers": "single",
    "double_stream_blocks": "double", "single_stream_blocks": "single", "visual_transformer_blocks": "visual",
    "text_transformer_blocks": "text",
}  # fmt: skip


@dataclass(frozen=True)
class BlockFactor:
    """``kind`` of blocks from number ``first`` to ``last`` (all when None) and the factor for them."""

    text: str
    kind: str
    first: int | None
    last: int | None
    factor: float

    def fits(self, block: str) -> bool:
        """Whether a block such as ``double.3`` is meant."""
        kind, _, number = block.partition(".")
        if kind != self.kind:
            return False
        return self.first is None or (number != "" and self.first <= int(number) <= (self.last or self.first))


@dataclass(frozen=True)
class BlockWeights:
    """Factors of a row by block. ``default`` is for blocks that nothing names; ``other`` keeps 1 unless named.

    ``text`` is the factor that a list has for text encoders, which are no part of a plan.
    """

    family: str | None
    items: tuple[BlockFactor, ...] = ()
    default: float = 1.0
    text: float = 1.0

    def __call__(self, weight: str) -> float:
        """The factor for a weight of the base, by its bare name; 1.0 leaves the strength as it is."""
        return self.of(block_of(weight, self.family))

    def of(self, block: str) -> float:
        """The factor for a block such as ``double.3``."""
        found = [item.factor for item in self.items if item.fits(block)]
        return found[-1] if found else 1.0 if block == OTHER else self.default

    def require(self, weights: Iterable[str]) -> None:
        """FoundryError ``blocks`` when an item names no block of this base."""
        names = list(weights)
        blocks = {block_of(weight, self.family) for weight in names}
        for item in self.items:
            if self.default == 1.0 and not any(map(item.fits, blocks)):
                raise _wrong(item.text, "this base has no such block", ", ".join(block_names(names, self.family)))

    def __str__(self) -> str:
        """The same factors however they were written, for the recipe; empty when all are 1."""
        default = "" if self.default == 1.0 else f"*={self.default:g},"
        return default + ",".join(f"{item.text}={item.factor!r}" for item in self.items)


def parse_blocks(text: str, family: str | None) -> BlockWeights:
    """The factors a text states; an empty one changes nothing. FoundryError ``blocks`` for what has no meaning."""
    if len(text) > LONGEST:
        raise _wrong(text, f"it has {len(text)} characters, and {LONGEST} are the limit", "double=1,single=0.5")
    parts = [part.strip() for part in re.split(r"[,;\n]", text.lower()) if part.strip()]
    if len(parts) > MOST:
        raise _wrong(text, f"it has {len(parts)} items, and {MOST} are the limit", "double.0-9=0.3")
    if parts and not any(char.isalpha() or char == "=" for part in parts for char in part):
        return _from_list(parts, family)
    return BlockWeights(family, tuple(_item(part, family) for part in parts))


def block_of(weight: str, family: str | None) -> str:
    """``double.3``, ``in.4``, ``mid`` or ``other``: the block of a bare weight name, in either naming."""
    if family in UNETS:
        weight = unet_block(weight)
    for kind, pattern in KINDS.get(family or "", {}).items():
        if found := re.match(pattern, weight):
            return ".".join((kind, *found.groups()))
    if family not in KINDS and (found := ANY_KIND.match(weight)):
        return f"{found[1].lower()}.{found[2]}"
    return OTHER


def block_names(weights: Iterable[str], family: str | None) -> tuple[str, ...]:
    """The blocks a base has, for help and errors: ``double.0-18``, ``single.0-37``, ``other``."""
    return tuple(_range(kind, numbers) for kind, numbers in _numbers(weights, family))


def each_block(weights: Iterable[str], family: str | None) -> tuple[str, ...]:
    """Every block a base has, one by one: ``double.0``, ``double.1``, ..., ``other``."""
    found = _numbers(weights, family)
    return tuple(name for kind, numbers in found for name in [f"{kind}.{n}" for n in sorted(numbers)] or [kind])


def _numbers(weights: Iterable[str], family: str | None) -> list[tuple[str, set[int]]]:
    """The kinds of blocks a base has, in the order of its family, and the numbers of each."""
    numbers: dict[str, set[int]] = defaultdict(set)
    for weight in weights:
        kind, _, number = block_of(weight, family).partition(".")
        numbers[kind] |= {int(number)} if number else set()
    order = sorted(numbers, key=lambda kind: (kind == OTHER, [*KINDS.get(family or "", ()), kind].index(kind)))
    return [(kind, numbers[kind]) for kind in order]


def kinds(family: str | None) -> tuple[str, ...]:
    """Kinds of blocks a family has, ``other`` last; only that for a family without a table."""
    return (*KINDS.get(family or "", ()), OTHER)


def _range(kind: str, numbers: set[int]) -> str:
    return f"{kind}.{min(numbers)}-{max(numbers)}" if len(numbers) > 1 else ".".join((kind, *map(str, numbers)))


def _item(text: str, family: str | None) -> BlockFactor:
    name, equals, number = (side.strip() for side in text.partition("="))
    found = ITEM.fullmatch(name)
    if not found or not equals:
        raise _wrong(text, "it is no block with a factor", f"{kinds(family)[0]}=1,{kinds(family)[0]}.0-9=0.3")
    kind = ALIASES.get(found["kind"], found["kind"]) if family in KINDS else found["kind"]
    if family in KINDS and kind not in kinds(family):
        raise _wrong(text, f"{family} has no blocks of this kind", ",".join(f"{name}=1" for name in kinds(family)))
    first, last = (None if found[part] is None else int(found[part]) for part in ("first", "last"))
    if kind == "mid":
        first = last = None  # there is one, which some write as M00
    if first is not None and last is not None and last < first:
        raise _wrong(text, "the range runs backwards", f"{kind}.{last}-{first}=...")
    return BlockFactor(_name(kind, first, last), kind, first, last, _number(number, text))


def _name(kind: str, first: int | None, last: int | None) -> str:
    return kind if first is None else f"{kind}.{first}" if last in (None, first) else f"{kind}.{first}-{last}"


def _from_list(parts: list[str], family: str | None) -> BlockWeights:
    ids = LISTS.get(len(parts))
    if family not in UNETS:
        raise _wrong(parts[0], "a list of numbers is for SD 1.5 and SDXL", f"{kinds(family)[0]}=0.5")
    if ids is None:
        raise _wrong(f"{len(parts)} numbers", "a list has 12, 17, 20 or 26 of them", "in=1,mid=0.5,out=1")
    factors = [_number(part, part) for part in parts]
    items = (BlockFactor(name, *_split(name), factor) for name, factor in zip(ids[1:], factors[1:], strict=True))
    return BlockWeights(family, tuple(items), default=0.0, text=factors[0])


def _split(name: str) -> tuple[str, int | None, int | None]:
    kind, _, number = name.partition(".")
    return kind, int(number) if number else None, None


def _number(text: str, where: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise _wrong(where, "its factor is no number", "double=0.5")
    return value


def _wrong(text: str, why: str, instead: str) -> FoundryError:
    return refuse("blocks.wrong", text=shown(text), why=why, instead=instead)
