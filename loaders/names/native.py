"""The weights LoRAs were made for, under ComfyUI's names, told from the LoRAs alone: for when no base is named.

``stand_in`` gives what a base would: names and shapes. All matching then goes through the same tables, base or not.
"""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache

import torch

from ...engine.tensors import TensorInfo
from ...engine.texts.say import refuse
from .lookup import BIAS, bare, flat
from .spellings import RESNET_NAMES, UNETS, Rule, Template, parse, unet_module
from .tables import GENERAL, TABLES

Shape = tuple[int, ...]
PARAMETERS = ("scale", "modulation", "scale_shift_table", "pos_embed", "emb_pos")  # last words of what is no module

_UNET = (
    "input_blocks.#.# middle_block.# output_blocks.#.# down_blocks.#.attentions.# mid_block.attentions.# "
    "up_blocks.#.attentions.# down_blocks.#.resnets.# mid_block.resnets.# up_blocks.#.resnets.#",
    "attn1.to_q attn1.to_k attn1.to_v attn1.to_out.0 attn2.to_q attn2.to_k attn2.to_v attn2.to_out.0 ff.net.0.proj "
    "ff.net.2 norm1 norm2 norm3",
    "input_blocks.#.0.op output_blocks.#.#.conv down_blocks.#.downsamplers.0.conv up_blocks.#.upsamplers.0.conv",
)
_QWEN = (
    "to_q to_k to_v to_out.0 add_q_proj add_k_proj add_v_proj to_add_out norm_q norm_k norm_added_q norm_added_k",
    "mod.1 mlp.net.0.proj mlp.net.2",
    "img_in txt_in txt_norm proj_out norm_out.linear time_text_embed.timestep_embedder.linear_1 "
    "time_text_embed.timestep_embedder.linear_2",
)
_LUMINA = (
    "*.feed_forward.w1 *.feed_forward.w2 *.feed_forward.w3 *.adaLN_modulation.0 *.adaLN_modulation.1 *.attention_norm1 "
    "*.attention_norm2 *.ffn_norm1 *.ffn_norm2 cap_embedder.0 cap_embedder.1 t_embedder.mlp.0 t_embedder.mlp.2"
)


def _in(blocks: Iterable[str], layers: str) -> list[str]:
    return [f"{block}.{layer}" for block in blocks for layer in layers.split()]


def _unet_names() -> list[str]:
    blocks, layers, samplers = (text.split() for text in _UNET)
    inside = _in((f"{block}.transformer_blocks.#" for block in blocks), " ".join(layers))
    around = _in(blocks, " ".join(("proj_in", "proj_out", "norm", *RESNET_NAMES, *RESNET_NAMES.values())))
    return [*inside, *around, *samplers]


def _qwen_names() -> list[str]:
    attention, streams, ends = _QWEN
    both = [f"transformer_blocks.#.{side}_{layer}" for side in ("img", "txt") for layer in streams.split()]
    return [*_in(["transformer_blocks.#.attn"], attention), *both, *ends.split()]


# Names that ComfyUI and others have in common, or that differ by the block alone: no rule of ``tables`` has them.
COMMON: Mapping[str, Iterable[str]] = {
    **dict.fromkeys(UNETS, _unet_names()),
    "qwen-image": _qwen_names(),
    **dict.fromkeys(("z-image", "ming-image", "lumina2"), _LUMINA.split()),
    "wan": ["patch_embedding"],
}


def _is_known(family: str | None) -> bool:
    return family in TABLES or family in COMMON


@cache
def family_rules(family: str | None) -> tuple[Rule, ...]:
    """The rules of a family alone; on their left are ComfyUI's names, and those of diffusers come first."""
    return parse(TABLES.get(family or "", ""))


@cache
def _general_rules() -> tuple[Rule, ...]:
    return parse(GENERAL)


def dotted(name: str, family: str | None) -> str:
    """A flat name with its dots, if the family has a name like it; any other name as it is."""
    if "." in name or not _is_known(family):
        return name
    for pattern, template in _flat_names(family):
        if found := pattern.fullmatch(name):
            return template.name(tuple(re.sub(r"_(\d+)$", r".\1", value) for value in found.groups()))
    return name


@cache
def _flat_names(family: str | None) -> tuple[tuple[re.Pattern[str], Template], ...]:
    """Every name of the family's tables: (what it looks like with its dots gone, the name), the plainest first."""
    rules = (*family_rules(family), *_general_rules())
    templates = [part.text for rule in rules for part in (rule.whole, *rule.parts) if part.text]
    names = dict.fromkeys((*COMMON.get(family or "", ()), *templates))
    ordered = sorted(names, key=lambda name: (name.count("*"), -len(name)))
    return tuple((Template(flat(name)).pattern, Template(name)) for name in ordered)


@dataclass(frozen=True)
class Native:
    """A module under ComfyUI's name, or as ``part`` (its place in ``rule``) of the module that has this name."""

    name: str
    rule: Rule | None = None
    part: int = 0


def native(module: str, family: str | None) -> tuple[Native, ...]:
    """Which weights a LoRA's module speaks of, in any naming; several where it joins weights that ComfyUI keeps apart.

    A name that no table knows is its own.
    """
    name = dotted(bare(module), family)
    if family in UNETS:
        name = unet_module(name, family)
    if any(rule.whole.pattern.fullmatch(name) for rule in family_rules(family)):
        return (Native(name),)
    for rule in family_rules(family):
        for number, part in enumerate(rule.parts):
            if part.text and (found := part.pattern.fullmatch(name)):
                return (Native(rule.whole.name(found.groups()), rule, number),)
    return _general(name, family)


def _general(name: str, family: str | None) -> tuple[Native, ...]:
    for rule in _general_rules() if _is_known(family) else ():
        if (found := rule.whole.pattern.fullmatch(name)) and len(rule.parts) > 1:
            return tuple(each for part in rule.parts for each in native(part.name(found.groups()), family))
        if len(rule.parts) == 1 and (found := rule.parts[0].pattern.fullmatch(name)):
            return native(rule.whole.name(found.groups()), family)
    return (Native(name),)


def stand_in(modules: Mapping[str, Shape], family: str | None) -> dict[str, TensorInfo]:
    """The weights of a base for LoRA modules and the shapes of their deltas: fp32, by bare name.

    Of a weight of which LoRAs have parts only, the other rows are told from what is known of the same weight in other
    blocks. Raises FoundryError ``LF504`` where nothing tells how many rows it has.
    """
    whole: dict[str, Shape] = {}
    shares: dict[str, dict[Native, Shape]] = defaultdict(dict)
    biases: list[tuple[Native, int]] = []
    for module, shape in modules.items():
        found = native(module.removesuffix(BIAS), family)
        if module.endswith(BIAS):
            biases += [(each, shape[0] // len(found)) for each in found]
            continue
        for each in found:
            mine = (shape[0] // len(found), *shape[1:])
            if each.rule is None:
                whole[each.name] = fuller(whole.get(each.name), mine)
            else:
                shares[each.name].setdefault(each, mine)
    heights = _Heights(shares)
    whole |= {name: heights.shape(name) for name in shares if name not in whole}
    for each, rows in biases:
        whole.setdefault(each.name, (rows, 1))  # a layer of which only the bias is known
    tensors = [_info(name, shape) for name, shape in whole.items()]
    tensors += [TensorInfo(each.name + BIAS, torch.float32, whole[each.name][:1]) for each, _ in biases]
    return {info.name: info for info in tensors}


def fuller(one: Shape | None, other: Shape) -> Shape:
    """The first of two shapes, but for one that also tells the kernel of a convolution: LoHa and LoKr store it flat."""
    if one is None or (len(other) > len(one) and math.prod(one) == math.prod(other) and one[0] == other[0]):
        return other
    return one


def _info(name: str, shape: Shape) -> TensorInfo:
    ending = "" if name.rpartition(".")[2] in PARAMETERS else ".weight"
    return TensorInfo(name + ending, torch.float32, shape)


class _Heights:
    """Rows of weights of which only parts are known."""

    def __init__(self, shares: Mapping[str, Mapping[Native, Shape]]) -> None:
        self._shares = shares
        self._known: dict[tuple[str, Shape], int] = {}  # template of the whole, columns -> rows
        for name, found in shares.items():
            if rows := _rows(found):
                self._known.setdefault(_alike(name, found), rows)

    def shape(self, name: str) -> Shape:
        """The shape of a weight, from its own parts or from a weight like it."""
        found = self._shares[name]
        rows = _rows(found) or self._known.get(_alike(name, found), 0)
        if not rows:
            raise refuse("LF504.rows", weight=name, parts=len(found))
        return (rows, *next(iter(found.values()))[1:])


def _alike(name: str, found: Mapping[Native, Shape]) -> tuple[str, Shape]:
    rule = next(iter(found)).rule
    return (rule.whole.text if rule else name, next(iter(found.values()))[1:])


def _rows(found: Mapping[Native, Shape]) -> int:
    """Rows of a weight, by any rule that these parts of it belong to; 0 where they do not tell."""
    by_rule: dict[Rule, dict[int, Shape]] = defaultdict(dict)
    for each, shape in found.items():
        if each.rule is not None:
            by_rule[each.rule][each.part] = shape
    return max((_by_rule(rule, parts) for rule, parts in by_rule.items()), default=0)


def _by_rule(rule: Rule, known: Mapping[int, Shape]) -> int:
    shape = next(iter(known.values()))
    columns = shape[1] if len(shape) > 1 else 0
    if len(rule.parts) == 1:
        return shape[0]
    share = next(
        (known[number][0] for number, part in enumerate(rule.parts) if not part.multiple and number in known), 0
    )
    if any(not part.multiple for part in rule.parts) and not share:
        return 0
    return sum(part.multiple * columns or share for part in rule.parts)
