"""The bars, as one SVG that needs nothing else: no fonts, no scripts, no links; light or dark as the reader has it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from xml.sax.saxutils import escape

from .report import FORMAT_COLUMNS, LOST, Column, columns, is_measured, least_kept

LEFT, WIDTH, BAR, ROW, TOP = 236, 162, 78, 30, 84  # label column, one column, longest bar, one row, first row
STYLE = """
  text { font: 13px system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif; fill: #1f2328 }
  .title { font-size: 16px; font-weight: 600 } .head { font-weight: 600 } .note { font-size: 11px; fill: #59636e }
  .ground { fill: #ffffff } .line { stroke: #d1d9e0 } .ours { fill: #1a7f37 } .other { fill: #8c959f }
  .lost { fill: #cf222e }
  @media (prefers-color-scheme: dark) {
    text { fill: #e6edf3 } .note { fill: #9198a1 } .ground { fill: #0d1117 } .line { stroke: #3d444d }
    .ours { fill: #3fb950 } .other { fill: #6e7681 } .lost { fill: #f85149 }
  }
"""


def svg(result: Mapping[str, Any]) -> str:
    """One row a strategy, one column a quantity; bars share a scale within their column."""
    shown, rows = columns(result), result["rows"]
    formats, below = result["formats"], TOP + ROW * len(rows) + 40
    widest = max(len(shown), len(FORMAT_COLUMNS) if formats else 0)
    width, height = LEFT + WIDTH * widest + 24, below + (TOP - 40 + ROW * len(formats) + 16 if formats else 0)
    parts = [_text(16, 28, "LoRA strategies, measured", "title"), _text(16, 46, _where(result), "note")]
    parts += _panel(TOP, shown, rows)
    for number, row in enumerate(rows):
        y = TOP + ROW * number
        parts += [f'<path class="line" d="M16 {y + 4}H{width - 16}"/>', _text(16, y + 23, row["name"])]
        if not is_measured(row):
            parts.append(_text(LEFT, y + 23, _cut(row["sentence"], 26 * len(shown)), "note"))
    parts.append(_legend(TOP + ROW * len(rows) + 24))
    if formats:
        top = below + TOP - 40
        parts += [_text(16, top - 18, "Formats, fused first", "head"), *_panel(top, FORMAT_COLUMNS, formats)]
        parts += [_text(16, top + ROW * number + 23, row["format"]) for number, row in enumerate(formats)]
    label = escape("LoRA strategies: " + "; ".join(f"{row['name']} {row['state']}" for row in rows), {'"': "&quot;"})
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        f'role="img" aria-label="{label}">\n<style>{STYLE}</style>\n'
        f'<rect class="ground" width="{width}" height="{height}" rx="6"/>\n' + "\n".join(parts) + "\n</svg>\n"
    )


def _panel(top: int, shown: Sequence[Column], rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """The columns of a table whose first row is at ``top``."""
    parts = []
    for number, column in enumerate(shown):
        x = LEFT + WIDTH * number
        parts += [_text(x, top - 18, column.title, "head"), _text(x, top - 4, column.note, "note")]
        parts += _bars(x, top, column, rows)
    return parts


def _bars(x: int, top: int, column: Column, rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """The bars of one quantity and the numbers after them."""
    values = [column.value(row) if "state" not in row or is_measured(row) else None for row in rows]
    most = max((abs(value) for value in values if value is not None), default=0.0) or 1.0
    parts = []
    for number, (row, value) in enumerate(zip(rows, values, strict=True)):
        if value is not None:
            y, length = top + ROW * number, max(1.0, BAR * max(0.0, value) / most)
            parts.append(f'<rect class="{_kind(row)}" x="{x}" y="{y + 11}" width="{length:.1f}" height="15" rx="2"/>')
            parts.append(_text(x + length + 5, y + 23, column.text(row)))
    return parts


def _kind(row: Mapping[str, Any]) -> str:
    """The colour of a row, the same in every column."""
    gain = least_kept(row) if "gains" in row else None
    if gain is not None and gain < LOST and row["strategy"] != "base":
        return "lost"
    return "ours" if row.get("ours", True) else "other"


def _legend(y: int) -> str:
    parts, x = [], 16
    for kind, text in (("ours", "this pack"), ("other", "other orders"), ("lost", "a LoRA lost more than 10%")):
        parts.append(f'<rect class="{kind}" x="{x}" y="{y - 10}" width="12" height="12" rx="2"/>')
        parts.append(_text(x + 18, y, text, "note"))
        x += 110
    return "\n".join(parts)


def _where(result: Mapping[str, Any]) -> str:
    model, machine = result["model"], result["machine"]
    device = machine["cpu"] if machine["device"] == "cpu" else machine["device"]
    return _cut(
        f"{model['name']}, {model['weights'] / 1e6:,.0f} M weights, {len(model['loras'])} LoRAs; {device}, "
        f"{machine['threads']} threads, torch {machine['torch']}; a step is all weights times {model['tokens']} tokens",
        150,
    )


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else text[: most - 3].rstrip() + "..."


def _text(x: float, y: float, text: str, kind: str = "") -> str:
    return f'<text x="{x:.0f}" y="{y:.0f}"{f" class={chr(34)}{kind}{chr(34)}" if kind else ""}>{escape(text)}</text>'
