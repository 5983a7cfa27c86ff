"""What a check or a bake measured, as shapes on a page: the command line writes them as SVG, the graph as pixels.

The browser draws the same on a node (``web/pictures.mjs``).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

from ...engine.units import size
from ..disk.header import shown

WIDTH, LABEL, VALUE, ROW, HEAD, EDGE = 640, 240, 80, 22, 40, 20
BAR = WIDTH - 2 * EDGE - LABEL - VALUE
MOST_LORAS = 24  # of them the first; the heading says how many there are
WELL, BINS, TALL, NAME = 0.9, 32, 90, 34  # a bar below WELL warns; letters of a name


@dataclass(frozen=True)
class Rect:
    """A filled box, in pixels. ``kind``: what it means, which decides the colour; ``shade``: how opaque it is, 0 to 1;
    ``tip``: what it says where a reader can ask it.
    """

    x: float
    y: float
    width: float
    height: float
    kind: str
    shade: float | None = None
    tip: str = ""


@dataclass(frozen=True)
class Words:
    """A line of text; ``y`` is its base line. ``kind`` is ``head`` for a heading."""

    x: float
    y: float
    text: str
    kind: str = ""


@dataclass(frozen=True)
class Line:
    """A line from one point to another, across or down."""

    kind: str
    x: float
    y: float
    to_x: float
    to_y: float


Shape = Rect | Words | Line
Part = tuple[int, list[Shape]]  # height, shapes from its own upper left corner


@dataclass(frozen=True)
class Page:
    """A picture ``WIDTH`` wide: its heading, and its parts with how far down each begins, ``EDGE`` from the left."""

    title: str
    height: int
    parts: tuple[tuple[int, tuple[Shape, ...]], ...]


def page(told: Mapping[str, Any], title: str) -> Page:
    """The JSON of a check or a bake as a page: a heading and, below it, what was measured."""
    loras, top, parts = told["loras"], HEAD, []
    if len(loras) > MOST_LORAS:
        title, loras = f"{title}: {MOST_LORAS} of {len(loras)} LoRAs", loras[:MOST_LORAS]
    sections = [_kept(loras) or _fit(loras), _energy(loras), _sizes(told.get("size")), _errors(told)]
    for height, drawn in filter(None, sections):
        parts.append((top, tuple(drawn)))
        top += height + 16
    return Page(shown(title), top, tuple(parts))


def _bars(title: str, rows: Iterable[tuple[str, float, str, str]]) -> Part | None:
    """One bar a row of (name, share of the longest bar, value in words, class)."""
    drawn: list[Shape] = [Words(0, 14, title, "head")]
    for number, (name, share, value, kind) in enumerate(rows, 1):
        y = ROW * number
        drawn += [Words(0, y + 15, _short(name)), Rect(LABEL, y + 4, BAR, 13, "ground")]
        drawn += [Rect(LABEL, y + 4, BAR * min(max(share, 0.0), 1.0), 13, kind)]
        drawn += [Words(LABEL + BAR + 8, y + 15, value)]
    count = (len(drawn) - 1) // 4
    return (ROW * (count + 1), drawn) if count else None


def _kept(loras: Sequence[Mapping[str, Any]]) -> Part | None:
    kept = [(lora["path"], lora["gain"]) for lora in loras if _is_number(lora["gain"])]
    rows = ((name, gain, f"{gain:.1%}", "good" if gain >= WELL else "bad") for name, gain in kept)
    return _bars("Effect kept", rows)


def _fit(loras: Sequence[Mapping[str, Any]]) -> Part | None:
    counts = [(lora["path"], lora["matched"], lora["modules"]) for lora in loras if lora["modules"]]
    rows = ((name, here / of, f"{here}/{of}", "good" if here == of else "bad") for name, here, of in counts)
    return _bars("Modules that found their weight", rows)


def _sizes(sizes: Mapping[str, int] | None) -> Part | None:
    if not sizes:
        return None
    most = max(1, *sizes.values())
    return _bars("Size", ((name, sizes[name] / most, size(sizes[name]), "plain") for name in ("before", "after")))


def _energy(loras: Sequence[Mapping[str, Any]]) -> Part | None:
    """A strip a LoRA, a cell a block of the model: the stronger the darker."""
    strips = [(lora["path"], lora["energy"]) for lora in loras if _has_blocks(lora.get("energy", {}))]
    drawn: list[Shape] = [Words(0, 14, "Where it is strong, by block", "head")]
    for number, (name, shares) in enumerate(strips, 1):
        y, most, width = ROW * number, max(shares.values()), (BAR + VALUE) / len(shares)
        drawn.append(Words(0, y + 15, _short(name)))
        for place, (block, share) in enumerate(shares.items()):
            tip, shade = f"{shown(block)}: {share:.1%}", 0.08 + 0.92 * share / most
            wide = width - min(1.0, width / 4)
            drawn.append(Rect(LABEL + place * width, y + 4, wide, 13, "plain", shade, tip))
    return (ROW * (len(strips) + 1), drawn) if strips else None


def _errors(told: Mapping[str, Any]) -> Part | None:
    """How many layers are how far off, a line for all together and one for what was allowed."""
    errors = [error for layer in told.get("layers", {}).values() if _is_number(error := layer["relative_error"])]
    limit: float = (told.get("budget") or {}).get("max_error") or 0.0
    total: float = told["relative_error"] if _is_number(told.get("relative_error")) else 0.0
    most = max([*errors, total, limit], default=0.0)
    if len(errors) < 2 or most <= 0:
        return None
    bins = [0] * BINS
    for error in errors:
        bins[min(BINS - 1, int(error / most * BINS))] += 1
    across, base = WIDTH - 2 * EDGE, TALL + 24
    drawn: list[Shape] = [Words(0, 14, f"Errors of {len(errors)} layers", "head")]
    for place, count in enumerate(bins):
        height, width = TALL * count / max(bins), across / BINS
        drawn.append(Rect(place * width + 0.5, base - height, width - 1, height, "plain"))
    drawn.append(Line("axis", 0, base, across, base))
    for kind, value in (("total", total), ("limit", limit)):
        x = value / most * across
        drawn += [Line(kind, x, 22, x, base)] if value else []
    words = [f"all together {total:.2%}"] + ([f"limit {limit:.2%}"] if limit else [])
    drawn += [Words(0, base + 16, f"0 to {most:.2%}; {', '.join(words)}")]
    return base + 20, drawn


def _is_number(value: float | None) -> bool:
    return value is not None and math.isfinite(value)


def _has_blocks(energy: Mapping[str, float]) -> bool:
    """Whether a LoRA has strength in a block of several: one of zeros has none anywhere."""
    return len(energy) > 1 and all(map(_is_number, energy.values())) and max(energy.values()) > 0


def _short(name: str) -> str:
    plain = shown(PurePath(name.replace("\\", "/")).name.removesuffix(".safetensors"), 500)
    return plain if len(plain) <= NAME else f"{plain[: NAME // 2]}…{plain[1 - NAME // 2 :]}"
