"""What a check or a bake measured as one SVG: no fonts, no scripts, no links; light or dark as the reader has it.

The browser draws the same on a node (``web/pictures.mjs``).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import PurePath
from typing import Any
from xml.sax.saxutils import escape

from ..loaders.disk.header import shown
from .terminal import size

WIDTH, LABEL, VALUE, ROW, HEAD, EDGE = 640, 240, 80, 22, 40, 20
BAR = WIDTH - 2 * EDGE - LABEL - VALUE
WELL, BINS, TALL, NAME = 0.9, 32, 90, 34  # a bar below WELL warns; letters of a name
STYLE = """
  text { font: 13px system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif; fill: #1f2328 }
  .head { font-weight: 600 } .page { fill: #ffffff } .ground { fill: #eaeef2 } .good { fill: #1a7f37 }
  .bad { fill: #bf8700 } .plain { fill: #0969da } .axis { stroke: #d1d9e0 } .limit { stroke: #cf222e }
  .total { stroke: #1f2328; stroke-dasharray: 3 2 }
  @media (prefers-color-scheme: dark) {
    text { fill: #e6edf3 } .page { fill: #0d1117 } .ground { fill: #21262d } .good { fill: #3fb950 }
    .bad { fill: #d29922 } .plain { fill: #58a6ff } .axis { stroke: #3d444d } .limit { stroke: #f85149 }
    .total { stroke: #e6edf3 }
  }
"""
Part = tuple[int, list[str]]  # height, elements


def svg(told: Mapping[str, Any], title: str) -> str:
    """The JSON of a check or a bake as a picture: a heading and, below it, what was measured."""
    loras, title = told["loras"], shown(title)
    sections = [_kept(loras) or _fit(loras), _energy(loras), _sizes(told.get("size")), _errors(told)]
    top, parts = HEAD, [_text(EDGE, 26, title, "head")]
    for height, drawn in filter(None, sections):
        parts += [f'<g transform="translate({EDGE} {top})">', *drawn, "</g>"]
        top += height + 16
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {top}" width="{WIDTH}" height="{top}">\n'
        f"<title>{escape(title)}</title>\n<style>{STYLE}</style>\n"
        f'<rect class="page" width="{WIDTH}" height="{top}"/>\n' + "\n".join(parts) + "\n</svg>\n"
    )


def _bars(title: str, rows: Iterable[tuple[str, float, str, str]]) -> Part | None:
    """One bar a row of (name, share of the longest bar, value in words, class)."""
    drawn = [_text(0, 14, title, "head")]
    for number, (name, share, value, kind) in enumerate(rows, 1):
        y = ROW * number
        drawn += [_text(0, y + 15, _short(name)), _rect(LABEL, y + 4, BAR, 13, "ground")]
        drawn += [_rect(LABEL, y + 4, BAR * min(max(share, 0.0), 1.0), 13, kind)]
        drawn += [_text(LABEL + BAR + 8, y + 15, value)]
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
    drawn = [_text(0, 14, "Where it is strong, by block", "head")]
    for number, (name, shares) in enumerate(strips, 1):
        y, most, width = ROW * number, max(shares.values()), (BAR + VALUE) / len(shares)
        drawn.append(_text(0, y + 15, _short(name)))
        for place, (block, share) in enumerate(shares.items()):
            word, shade = escape(f"{shown(block)}: {share:.1%}"), 0.08 + 0.92 * share / most
            box = _rect(LABEL + place * width, y + 4, width - min(1.0, width / 4), 13, "plain", shade)
            drawn.append(box.replace("/>", f"><title>{word}</title></rect>"))
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
    width, base, drawn = (WIDTH - 2 * EDGE) / BINS, TALL + 24, [_text(0, 14, f"Errors of {len(errors)} layers", "head")]
    for place, count in enumerate(bins):
        height = TALL * count / max(bins)
        drawn.append(_rect(place * width + 0.5, base - height, width - 1, height, "plain"))
    words = [f"all together {total:.2%}"] + ([f"limit {limit:.2%}"] if limit else [])
    drawn.append(f'<path class="axis" d="M0 {base}H{WIDTH - 2 * EDGE}"/>')
    for kind, value in (("total", total), ("limit", limit)):
        x = value / most * (WIDTH - 2 * EDGE)
        drawn += [f'<path class="{kind}" d="M{x:.1f} 22V{base}"/>'] if value else []
    drawn += [_text(0, base + 16, f"0 to {most:.2%}; {', '.join(words)}")]
    return base + 20, drawn


def _is_number(value: float | None) -> bool:
    return value is not None and math.isfinite(value)


def _has_blocks(energy: Mapping[str, float]) -> bool:
    """Whether a LoRA has strength in a block of several: one of zeros has none anywhere."""
    return len(energy) > 1 and all(map(_is_number, energy.values())) and max(energy.values()) > 0


def _short(name: str) -> str:
    plain = shown(PurePath(name.replace("\\", "/")).name.removesuffix(".safetensors"), 500)
    return plain if len(plain) <= NAME else f"{plain[: NAME // 2]}…{plain[1 - NAME // 2 :]}"


def _rect(x: float, y: float, width: float, height: float, kind: str, shade: float | None = None) -> str:
    opacity = "" if shade is None else f' fill-opacity="{shade:.2f}"'
    place = f'x="{x:.1f}" y="{y:.1f}" width="{max(width, 0.0):.1f}" height="{height:.1f}"'
    return f'<rect class="{kind}" {place}{opacity}/>'


def _text(x: float, y: float, text: str, kind: str = "") -> str:
    return f'<text x="{x:.0f}" y="{y:.0f}"{f" class={chr(34)}{kind}{chr(34)}" if kind else ""}>{escape(text)}</text>'
