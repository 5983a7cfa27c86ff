"""What a check or a bake measured as one SVG: no fonts, no scripts, no links; light or dark as the reader has it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from xml.sax.saxutils import escape

from ..loaders.plans.pictures import EDGE, WIDTH, Line, Rect, Shape, Words, page

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


def svg(told: Mapping[str, Any], title: str) -> str:
    """The JSON of a check or a bake as a picture: a heading and, below it, what was measured."""
    drawn = page(told, title)
    parts = [_drawn(Words(EDGE, 26, drawn.title, "head"))]
    for top, shapes in drawn.parts:
        parts += [f'<g transform="translate({EDGE} {top})">', *map(_drawn, shapes), "</g>"]
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {drawn.height}" width="{WIDTH}" '
        f'height="{drawn.height}">\n'
        f"<title>{escape(drawn.title)}</title>\n<style>{STYLE}</style>\n"
        f'<rect class="page" width="{WIDTH}" height="{drawn.height}"/>\n' + "\n".join(parts) + "\n</svg>\n"
    )


def _drawn(shape: Shape) -> str:
    if isinstance(shape, Words):
        kind = f' class="{shape.kind}"' if shape.kind else ""
        return f'<text x="{shape.x:.0f}" y="{shape.y:.0f}"{kind}>{escape(shape.text)}</text>'
    return _rect(shape) if isinstance(shape, Rect) else _line(shape)


def _rect(shape: Rect) -> str:
    opacity = "" if shape.shade is None else f' fill-opacity="{shape.shade:.2f}"'
    place = f'x="{shape.x:.1f}" y="{shape.y:.1f}" width="{max(shape.width, 0.0):.1f}" height="{shape.height:.1f}"'
    end = f"><title>{escape(shape.tip)}</title></rect>" if shape.tip else "/>"
    return f'<rect class="{shape.kind}" {place}{opacity}{end}'


def _line(shape: Line) -> str:
    across = shape.y == shape.to_y
    path = (
        f"M{shape.x:.0f} {shape.y:.0f}H{shape.to_x:.0f}" if across else f"M{shape.x:.1f} {shape.y:.0f}V{shape.to_y:.0f}"
    )
    return f'<path class="{shape.kind}" d="{path}"/>'
