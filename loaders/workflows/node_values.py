"""What the inputs of a graph node say: numbers, words and rows of LoRAs."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from ...engine.errors import FoundryError
from ..documents.document import parse_rows
from .graph import GraphNode
from .lora_kinds import ANY_ROWS, HIGH, LORA_NODES, LOW, MAX_ROWS, NO_LORA, OFF, LoraNode, RowInputs

_DIGITS = r"[+-]?(?:\d+(?:[.,]\d*)?|[.,]\d+)(?:[eE][+-]?\d+)?"  # one way to read it: linear in a text of digits
TAG = re.compile(rf"<lora:([^:<>]+)(?::\s*({_DIGITS})(?::\s*({_DIGITS}))?|(?=>))")
_NUMBER = re.compile(rf"\s*{_DIGITS}\s*")
NAMES, STRENGTHS = ("lora", "lora_name", "name"), ("strength", "strength_model", "model_strength", "weight")
CLIPS = ("strengthTwo", "clipStrength", "clip_strength", "strength_clip", "clip_weight")
SWITCHES = ("on", "active", "enabled")
BLOCKS = ("blocks", "block_vector")  # ours and WanVideoWrapper's; Inspire Pack's
_ANY = LoraNode(ANY_ROWS)
MOST = sys.float_info.max  # JSON knows larger numbers, and some that are none


class Named(NamedTuple):
    """A row as it is written: a name, a strength, and the half it is for.

    ``clip`` is its strength on the text encoders, None where it is written once for both; ``on``: it is not switched
    off; ``blocks``: it has other factors for some blocks of the model.
    """

    name: str
    strength: float
    half: str = ""
    clip: float | None = None
    on: bool = True
    blocks: bool = False


@dataclass(frozen=True)
class LoraRow:
    """A LoRA that a node names, with its strength on the model. ``loose``: its folder and ending may be left out.

    ``beside``: it is told to stay apart from the weights (``merge_loras`` of WanVideoWrapper is off). ``half``: it goes
    onto the model of ``high`` or of ``low`` noise only, in a node that holds both. ``blocks``: with block weights.
    ``at``: the node that names it.
    """

    name: str
    strength: float = 1.0
    loose: bool = False
    beside: bool = False
    half: str = ""
    blocks: bool = False
    at: str = field(default="", compare=False)


def number(node: GraphNode, name: str) -> float | None:
    """An input as a number, or None where it says none that is known here."""
    return spelled(node.values.get(name))


def spelled(value: object) -> float | None:
    """A value as a number, also one that is written as text, as ComfyUI and some packs take it; else as ``finite``."""
    if isinstance(value, str) and _NUMBER.fullmatch(value):
        value = float(value.replace(",", "."))
    return finite(value)


def finite(value: object) -> float | None:
    """A value as a number; None for another kind, for NaN, and for what no float holds."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if abs(value) <= MOST else None


def word(node: GraphNode, name: str) -> str:
    """An input as text, or an empty one; of a choice with a picture (pysssss) its text."""
    value = node.values.get(name)
    value = value.get("content") if isinstance(value, Mapping) else value
    return value if isinstance(value, str) else ""


def is_lora_node(node: GraphNode) -> bool:
    """Whether the inputs of a node may name LoRAs."""
    return node.kind in LORA_NODES or "lora" in node.kind.lower()


def rows_of(node: GraphNode) -> tuple[LoraRow, ...]:
    """The LoRAs a node itself names, those that are on and do something. Raises FoundryError for a bad list of ours."""
    if "rows" not in node.memo:
        loose, beside = LORA_NODES.get(node.kind, _ANY).loose, node.values.get("merge_loras") is False
        doing = [each for each in named_loras(node) if each.strength and each.name.strip().lower() not in NO_LORA]
        apart = any(name in node.links or word(node, name).strip() for name in BLOCKS)
        node.memo["rows"] = tuple(
            LoraRow(each.name, each.strength, loose, beside, each.half, each.blocks or apart, node.id) for each in doing
        )
    rows: tuple[LoraRow, ...] = node.memo["rows"]
    return rows


def named_loras(node: GraphNode) -> list[Named]:
    """Every row that is on, "none" and those at 0 too. Raises FoundryError as ``rows_of`` does."""
    return [each for each in written_loras(node) if each.on]


def written_loras(node: GraphNode) -> list[Named]:
    """Every row, those that are switched off too. Raises FoundryError as ``rows_of`` does."""
    if "loras" not in node.memo:
        try:
            node.memo["loras"] = _written_loras(node)
        except FoundryError as error:  # a text that took a while to read is not read again
            node.memo["loras"] = error
    found: list[Named] | FoundryError = node.memo["loras"]
    if isinstance(found, FoundryError):
        raise found
    return found


def _written_loras(node: GraphNode) -> list[Named]:
    if not is_lora_node(node):
        return []
    kind = LORA_NODES.get(node.kind, _ANY)
    return [*_from_inputs(node, kind), *_from_mappings(node, kind), *_from_text(node, kind)]


def wired_names(node: GraphNode) -> Iterator[str]:
    """The inputs by which a node names its LoRAs, as far as something is wired into them."""
    kind = LORA_NODES.get(node.kind, _ANY)
    if kind.text in node.links and not node.kind.startswith("Foundry"):  # ours take a list there that is followed
        yield kind.text
    for layout in kind.rows:
        named = (layout.name.format(spelled) for spelled in _numbers(layout.name))
        yield from (name for name in named if name in node.links)


def _from_inputs(node: GraphNode, kind: LoraNode) -> Iterator[Named]:
    for layout in kind.rows:
        asked, wanted = layout.when
        if node.values.get(asked, wanted) != wanted:
            continue
        for spelled in _numbers(layout.name):
            name = word(node, layout.name.format(spelled))
            if name and _counts(node, layout, spelled):
                on = not _is_off(node, layout.switch.format(spelled))
                strengths = _strength(node, layout, spelled), layout.half, _clip(node, layout, spelled)
                yield Named(name, *strengths, on)


def _counts(node: GraphNode, layout: RowInputs, spelled: str) -> bool:
    """Whether the row of that number is one of those in use."""
    most, picked = number(node, layout.count), number(node, layout.pick)
    return (most is None or int(spelled) <= most) and (picked is None or int(spelled) == picked)


def _is_off(node: GraphNode, switch: str) -> bool:
    """Whether a switch is off; one that is not there, or only known at run time, is on."""
    return switch in node.values and str(node.values[switch]).lower() in _OFF


_OFF = {str(value).lower() for value in OFF}
_NUMBERS = tuple(dict.fromkeys(text.format(i) for i in range(MAX_ROWS) for text in ("{}", "{:02d}")))


def _numbers(name: str) -> tuple[str, ...]:
    return _NUMBERS if "{}" in name else ("",)


def _strength(node: GraphNode, layout: RowInputs, spelled: str) -> float:
    """The strength of a row; 1.0 where it is wired to something that is only known at run time."""
    mode, simple = layout.simple
    names = (simple,) if node.values.get(mode) == "simple" else layout.strengths
    strength = _first_number(node, names, spelled)
    return 1.0 if strength is None else strength


def _clip(node: GraphNode, layout: RowInputs, spelled: str) -> float | None:
    """The strength of a row on the text encoders; None where it is the one strength it has."""
    return None if node.values.get(layout.simple[0]) == "simple" else _first_number(node, layout.clips, spelled)


def _first_number(node: GraphNode, names: Iterable[str], spelled: str) -> float | None:
    """What the first of these inputs that is there says; None for no number, and for one only the run knows."""
    inputs = (name.format(spelled) for name in names)
    return number(node, next((name for name in inputs if name in node.values or name in node.links), ""))


def _from_mappings(node: GraphNode, kind: LoraNode) -> Iterator[Named]:
    for row in _mappings(node):
        name = next((row[key] for key in NAMES if isinstance(row.get(key), str)), None)
        strength = _row_number(row, STRENGTHS)
        if name is not None and (strength is not None or "lora" in row):
            on = str(next((row[key] for key in SWITCHES if key in row), True)).lower() not in _OFF
            clip = _row_number(row, CLIPS)
            for told, strong, half in _by_half(row, kind, name, 1.0 if strength is None else strength):
                yield Named(told, strong, half, None if half == LOW else clip, on)


def _by_half(row: Mapping[str, Any], kind: LoraNode, name: str, strength: float) -> Iterator[tuple[str, float, str]]:
    """(name, strength, half) of what a row puts on the models of Wan 2.2, in nodes that hold both.

    Newer versions say in the row which models are meant, and without a word the one of high noise; in older ones a
    row that names no second file is for both.
    """
    low = row.get("low_variant_name") if kind.variants and row.get("is_low") else None
    weaker = spelled(row.get("low_strength", strength)) or 0.0
    if kind.variants and row.get("low_only") is True:
        yield name, weaker if kind.apart else strength, LOW
        return
    both = kind.variants and row.get("use_for_both") is True
    apart = bool(low) or kind.apart or (kind.variants and "use_for_both" in row)
    yield name, strength, HIGH if apart and (kind.apart or not both) else ""
    if both and kind.apart:
        yield name, weaker, LOW
    elif isinstance(low, str) and not both and row.get("low_active") is not False:
        yield low, weaker, LOW


def _row_number(row: Mapping[str, Any], keys: Iterable[str]) -> float | None:
    """The first of these keys that says a number; some packs write it as text."""
    values = (row[key] for key in keys if key in row)
    return next((found for value in values if (found := spelled(value)) is not None), None)


def _mappings(node: GraphNode) -> Iterator[Mapping[str, Any]]:
    """Rows that are mappings: inputs of their own, in a list, in a wrapped list, or under dotted names."""
    for value in (*node.values.values(), *node.unnamed):
        rows = value.get("__value__", value) if isinstance(value, Mapping) else value
        yield from (row for row in (rows if isinstance(rows, list) else [rows]) if isinstance(row, Mapping))
    dotted: dict[str, dict[str, Any]] = {}
    for key, value in node.values.items():
        group, dot, name = key.rpartition(".")
        if dot:
            dotted.setdefault(group, {})[name] = value
    yield from dotted.values()


def _from_text(node: GraphNode, kind: LoraNode) -> Iterator[Named]:
    text = node.values.get(kind.text) if kind.text else None
    if node.kind.startswith("Foundry"):  # a tag in a comment of its text names nothing
        for row in parse_rows(text, node.title or node.kind) if text is not None else ():
            yield Named(row.path, row.strength, "", row.clip_strength, row.on, bool(row.blocks))
        return
    known = node.kind in LORA_NODES
    for each in (text,) if known else (*node.values.values(), *node.unnamed):
        if isinstance(each, str) and "<lora:" in each:
            yield from tagged_loras(each, bare=not known)


def tagged_loras(text: str, bare: bool = False) -> Iterator[Named]:
    """The LoRAs of ``<lora:name:strength>`` and ``<lora:name:strength:clip strength>`` in a text.

    ``bare``: also of ``<lora:name>``, at 1.
    """
    for name, strength, clip in TAG.findall(text):
        if (model := spelled(strength or ("1" if bare else ""))) is not None:
            yield Named(name, model, "", spelled(clip) if clip else None)
