"""Every name a base's weights go by: the rules of ``tables.py`` applied to the names the base itself has.

Nothing is guessed from a LoRA's names: all spellings of the base are made, and the LoRA's module is looked up in them.
What a name means is a view: rows of one weight, of a part of it, or of several weights below each other. So the rules
work both ways, for a LoRA on q, k and v over a base with fused qkv and for the reverse.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from functools import cache, cached_property

from ...engine.plan import Target
from ...engine.tensors import TensorInfo
from .tables import GENERAL, TABLES

UNETS = ("sd15", "sd2", "sdxl", "svd")
SWAP = "swap_scale_shift"
ADALN = "~"


@dataclass(frozen=True)
class Piece:
    """``length`` rows of a weight from row ``start`` on."""

    weight: str
    start: int
    length: int


View = tuple[Piece, ...]


@dataclass(frozen=True)
class Template:
    """A module name with ``#`` and ``*``, and its rows as a multiple of the columns; 0: a share of what is left."""

    text: str
    multiple: int = 0

    @cached_property
    def pattern(self) -> re.Pattern[str]:
        """Matches the names it stands for, one group for each ``#`` and ``*``."""
        return re.compile(re.escape(self.text).replace(r"\#", r"(\d+)").replace(r"\*", "(.+)"))

    def name(self, values: tuple[str, ...]) -> str:
        """The template with these values for its ``#`` and ``*``."""
        given = iter(values)
        return re.sub(r"[#*]", lambda _: next(given), self.text)


@dataclass(frozen=True)
class Rule:
    """``whole`` has the rows of ``parts`` below each other; ``swap``: its halves swapped, or an adaLN's."""

    whole: Template
    parts: tuple[Template, ...]
    swap: str = ""


def parse(table: str) -> tuple[Rule, ...]:
    """The rules of a table of ``tables.py``."""
    rules: list[Rule] = []
    before = ("", "")
    for line in filter(str.strip, table.splitlines()):
        whole, _, parts = (side.strip() for side in line.partition("="))
        if parts.endswith(":"):
            before = (f"{whole}.", f"{parts[:-1]}.")
            continue
        left, right = before if line.startswith(" ") else ("", "")
        names = (part.strip().partition(":") for part in parts.rstrip("~").split("|"))
        given = tuple(Template("" if name == "-" else right + name, int(size or 0)) for name, _, size in names)
        rules.append(Rule(Template(left + whole), given, parts[len(parts.rstrip("~")) :]))
    return tuple(rules)


@cache
def _index(family: str | None) -> Mapping[str, list[tuple[Rule, Template]]]:
    """The rules of a family by the last word of every name in them."""
    index: dict[str, list[tuple[Rule, Template]]] = defaultdict(list)
    for rule in parse(GENERAL + TABLES.get(family or "", "")):
        for part in (rule.whole, *rule.parts):
            index[_last(part.text)].append((rule, part))
    return dict(index)


def _last(name: str) -> str:
    word = name.rpartition(".")[2]
    return "#" if word.isdecimal() else word


class Spellings:
    """All names of a base's modules: ``views`` maps a name to the rows it means, the base's own names first."""

    def __init__(self, tensors: Mapping[str, TensorInfo], family: str | None = None) -> None:
        """``tensors`` have bare names. Biases are no modules; ``targets`` finds them beside their weights."""
        self._tensors = tensors
        self._rules = _index(family)
        weights = {name.removesuffix(".weight"): name for name in tensors if not name.endswith(".bias")}
        rows = {module: self._rows(name) for module, name in weights.items()}
        self.views: dict[str, View] = {m: (Piece(name, 0, rows[m]),) for m, name in weights.items() if rows[m]}
        self.own = frozenset(self.views)
        if family in UNETS:
            for module, other in unet_names(list(self.views)):
                self.views.setdefault(other, self.views[module])
        self._spell()

    def targets(self, name: str) -> tuple[Target, ...]:
        """Where a module of this name goes; several targets each take their ``part`` of its delta. Empty if unknown."""
        return self._as_targets(self.views[name]) if name in self.views else ()

    def parts(self, module: str, rules: tuple[Rule, ...]) -> tuple[tuple[str, View], ...]:
        """A module as the first of these rules that speaks of it names its rows; itself where none does."""
        for rule in rules:
            if found := rule.whole.pattern.fullmatch(module):
                named = tuple(self._apply(rule, rule.whole, found.groups()))
                if sum(height(view) for _, view in named) == height(self.views[module]):
                    return named
        return ((module, self.views[module]),)

    def _spell(self) -> None:
        queue = list(self.views)
        for name in queue:  # grows while it is read
            for rule, part in self._rules.get(_last(name), ()):
                found = part.pattern.fullmatch(name)
                for other, view in self._apply(rule, part, found.groups()) if found else ():
                    if other not in self.views:
                        self.views[other] = view
                        queue.append(other)

    def _apply(self, rule: Rule, part: Template, values: tuple[str, ...]) -> Iterator[tuple[str, View]]:
        """The names on the other side of a rule, with what they mean."""
        whole = rule.whole.name(values)
        if part is not rule.whole:
            view = self._joined([each.name(values) for each in rule.parts])
            if view:
                yield whole, self._swapped(view, rule.swap)
            return
        view = self._swapped(self.views[whole], rule.swap)
        start = 0
        for each, length in zip(rule.parts, self._lengths(rule.parts, view), strict=False):
            if each.text:
                yield each.name(values), cut(view, start, length)
            start += length

    def _joined(self, names: list[str]) -> View:
        """The views of these names below each other, or nothing when one is missing or has other columns."""
        views = [self.views.get(name, ()) for name in names]
        same = len({self._columns(view) for view in views if view}) == 1
        return join(*views) if all(views) and (same or len(views) == 1) else ()

    def _lengths(self, parts: tuple[Template, ...], view: View) -> list[int]:
        """Rows of each part, or nothing when the weight cannot be split so."""
        rows, columns = height(view), self._columns(view)
        if len(parts) == 1:
            return [rows]
        shares = sum(part.multiple == 0 for part in parts)
        rest = rows - columns * sum(part.multiple for part in parts)
        if not columns or rest <= 0 or rest % shares:
            return []
        return [part.multiple * columns or rest // shares for part in parts]

    def _swapped(self, view: View, how: str) -> View:
        half = {"": 0, ADALN: self._columns(view)}.get(how, height(view) // 2)
        return join(cut(view, half, half), cut(view, 0, half)) if half and height(view) == 2 * half else view

    def _columns(self, view: View) -> int:
        shape = self._tensors[view[0].weight].shape
        return shape[1] if len(shape) > 1 else 0

    def _as_targets(self, view: View) -> tuple[Target, ...]:
        if len(view) == 2 and view[0].length == view[1].length:
            swapped_back = join(view[1:], view[:1])
            if len(swapped_back) == 1 and self._whole(swapped_back[0]):
                return (Target(view[0].weight, None, SWAP),)
        targets, offset = [], 0
        for piece in view:
            place = None if self._whole(piece) else (0, piece.start, piece.length)
            targets.append(Target(piece.weight, place, part=(0, offset, piece.length) if len(view) > 1 else None))
            offset += piece.length
        return tuple(targets)

    def _whole(self, piece: Piece) -> bool:
        return piece.length == self._rows(piece.weight)

    def _rows(self, weight: str) -> int:
        return (*self._tensors[weight].shape, 1)[0]


def height(view: View) -> int:
    """Rows of a view."""
    return sum(piece.length for piece in view)


def cut(view: View, start: int, length: int) -> View:
    """``length`` rows of a view from ``start`` on."""
    pieces, offset = [], 0
    for piece in view:
        first, stop = max(start - offset, 0), min(start + length - offset, piece.length)
        if first < stop:
            pieces.append(Piece(piece.weight, piece.start + first, stop - first))
        offset += piece.length
    return tuple(pieces)


def join(*views: View) -> View:
    """Views below each other; neighbouring rows of one weight become one piece."""
    pieces: list[Piece] = []
    for piece in (piece for view in views for piece in view):
        last = pieces[-1] if pieces else None
        if last and last.weight == piece.weight and last.start + last.length == piece.start:
            pieces[-1] = Piece(last.weight, last.start, last.length + piece.length)
        else:
            pieces.append(piece)
    return tuple(pieces)


# --- the UNets of Stable Diffusion count their blocks in two ways -----------------------------------------------------

RESNET_NAMES = {
    "in_layers.0": "norm1", "in_layers.2": "conv1", "emb_layers.1": "time_emb_proj",
    "out_layers.0": "norm2", "out_layers.3": "conv2", "skip_connection": "conv_shortcut",
}  # fmt: skip
_ORIGINAL_NAMES = {diffusers: original for original, diffusers in RESNET_NAMES.items()}
RESNET = RESNET_NAMES | _ORIGINAL_NAMES  # either way
LEVELS = 4


def unet_names(modules: Collection[str]) -> Iterator[tuple[str, str]]:
    """(a module of a UNet, its name in the other naming), whichever of the two the UNet has."""
    others: dict[str, list[str]] = defaultdict(list)
    for original, diffusers in _unet_places(_resnets(modules)):
        others[original].append(diffusers)
        others[diffusers].append(original)
    for module in modules:
        words = module.split(".")
        for cuts in (5, 4, 3, 2):  # words that name the block: up_blocks.0.upsamplers.0.conv, input_blocks.4.1 ...
            block, rest = ".".join(words[:cuts]), ".".join(words[cuts:])
            if block in others:
                for other in others[block]:
                    yield module, ".".join(filter(None, (other, RESNET.get(rest, rest))))
                break


def unet_block(weight: str) -> str:
    """A weight of a UNet as if it were in the block of ComfyUI's naming: ``input_blocks.4.1.`` and so on."""
    words = weight.split(".")
    places = (_originals().get(".".join(words[:count])) for count in (5, 4, 3, 1))
    return next(filter(None, places), weight) + "."


def unet_module(module: str, family: str | None) -> str:
    """A module of a UNet under ComfyUI's name; one that has this name already, or that is in no block, as it is."""
    if module == "up_blocks.0.upsamplers.0.conv" and family != "sdxl":
        return "output_blocks.2.1.conv"  # no attention comes before it
    words = module.split(".")
    for cuts in (5, 4, 3, 2):
        if original := _originals().get(".".join(words[:cuts])):
            rest = ".".join(words[cuts:])
            return ".".join(filter(None, (original, _ORIGINAL_NAMES.get(rest, rest))))
    return module


@cache
def _originals() -> Mapping[str, str]:
    return {diffusers: original for original, diffusers in _unet_places(2)} | {"conv_in": "input_blocks.0.0"}


SECOND = re.compile(r"down_blocks\.\d+\.(resnets|attentions)\.1\.|up_blocks\.\d+\.(resnets|attentions)\.2\.")


def _resnets(modules: Collection[str]) -> int:
    """Resnets in a level on the way down. All UNets known have two, or one (KOALA): then input block 2 goes down."""
    diffusers = any(module.startswith("down_blocks.") for module in modules)
    single = not any(map(SECOND.match, modules)) if diffusers else "input_blocks.2.0.op" in modules
    return 1 if single else 2


def _unet_places(resnets: int) -> Iterator[tuple[str, str]]:
    """(block, the same block in diffusers) for every block a UNet may have."""
    for index, kind in enumerate(("resnets.0", "attentions.0", "resnets.1")):
        yield f"middle_block.{index}", f"mid_block.{kind}"
    for level in range(LEVELS):
        down, up = 1 + level * (resnets + 1), level * (resnets + 1)
        for i in range(resnets):
            yield f"input_blocks.{down + i}.0", f"down_blocks.{level}.resnets.{i}"
            yield f"input_blocks.{down + i}.1", f"down_blocks.{level}.attentions.{i}"
        yield f"input_blocks.{down + resnets}.0.op", f"down_blocks.{level}.downsamplers.0.conv"
        for i in range(resnets + 1):
            yield f"output_blocks.{up + i}.0", f"up_blocks.{level}.resnets.{i}"
            yield f"output_blocks.{up + i}.1", f"up_blocks.{level}.attentions.{i}"
        for child in (1, 2):  # 2 where an attention comes first
            yield f"output_blocks.{up + resnets}.{child}.conv", f"up_blocks.{level}.upsamplers.0.conv"
