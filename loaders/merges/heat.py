"""How LoRAs get along, as a picture: an SVG for the browser and the documents, pixels for the graph.

Above, every pair of LoRAs: blue where one does what the other does, red where it takes that away. Below, the energy of
the stack by block, and how much of it each LoRA brings.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape

import numpy as np
import numpy.typing as npt

from ...engine.json_merge import BlockJSON, ConflictsJSON
from ..plans.pictures import MOST_LORAS
from ..plans.raster import Canvas, Colour

CELL, GAP, LABEL, LINE = 34, 16, 190, 18
MOST_BLOCKS = 60  # of them the first; a longer list is cut, and the picture says so
NEUTRAL, ALIKE, AGAINST, STRONG = (244, 244, 242), (33, 102, 172), (178, 24, 43), (102, 81, 145)
LETTERS, SMALL = 28, 11  # of a word; its size in pixels
BRIGHT, DARK = (255, 255, 255), (34, 34, 34)


@dataclass(frozen=True)
class Box:
    """A rectangle of one colour, with a word in it or beside it for those who can show words."""

    x: int
    y: int
    width: int
    height: int
    colour: Colour
    text: str = ""


def shade(value: float) -> Colour:
    """The colour of a cosine from -1 to 1."""
    return _mixed(ALIKE if value > 0 else AGAINST, min(1.0, abs(value)))


def _mixed(colour: Colour, share: float) -> Colour:
    red, green, blue = (round(a + (b - a) * share) for a, b in zip(NEUTRAL, colour, strict=True))
    return red, green, blue


def boxes(told: ConflictsJSON) -> tuple[list[Box], int, int]:
    """(every box of the picture of a ``ConflictsJSON``, width, height)."""
    names, blocks = [each["name"] for each in told["loras"]], told["blocks"][:MOST_BLOCKS]
    found = list(_pairs(names, told["cosine"]))
    top = CELL * len(names) + GAP
    found += _energies(blocks, top)
    width = LABEL + CELL * max(len(names) + 1, 3)
    return found, width, top + LINE * len(blocks) + GAP


def _pairs(names: Sequence[str], cosines: Sequence[Sequence[float]]) -> Iterator[Box]:
    for row, name in enumerate(names):
        yield Box(0, CELL * row, LABEL, CELL, NEUTRAL, name)
        for column in range(len(names)):
            value = cosines[row][column]
            text = "" if row == column else f"{value:.2f}"
            yield Box(LABEL + CELL * column, CELL * row, CELL - 2, CELL - 2, shade(value), text)


def _energies(blocks: Sequence[BlockJSON], top: int) -> Iterator[Box]:
    largest = max((max([block["stack"], *block["loras"]]) for block in blocks), default=0.0) or 1.0
    for number, block in enumerate(blocks):
        y = top + LINE * number
        yield Box(0, y, LABEL, LINE, NEUTRAL, block["block"])
        for column, energy in enumerate([*block["loras"], block["stack"]]):
            colour = _mixed(STRONG, energy / largest)
            yield Box(LABEL + CELL * column, y, CELL - 2, LINE - 2, colour, f"{energy:.0%}")


def svg(told: ConflictsJSON) -> str:
    """The picture as SVG, names and numbers in it."""
    found, width, height = boxes(told)
    style = "font: 11px sans-serif; dominant-baseline: middle"
    lines = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" style="{style}">']
    lines.append("<title>How the LoRAs get along: cosine of every pair, energy of every block</title>")
    for box in found:
        fill, middle = "#{:02x}{:02x}{:02x}".format(*box.colour), box.y + box.height // 2
        ink, word = "#fff" if _is_dark(box.colour) else "#222", escape(box.text[:LETTERS])
        lines.append(f'<rect x="{box.x}" y="{box.y}" width="{box.width}" height="{box.height}" fill="{fill}"/>')
        lines.append(f'<text x="{box.x + 3}" y="{middle}" fill="{ink}">{word}</text>')
    return "\n".join([*lines, "</svg>"]) + "\n"


def _is_dark(colour: Colour) -> bool:
    return sum(colour) < 330


def pixels(told: ConflictsJSON) -> npt.NDArray[np.float32]:
    """The same as [height, width, 3] from 0 to 1, of the first ``MOST_LORAS``; a line tells how many there are."""
    many = len(told["loras"]) > MOST_LORAS
    found, width, height = boxes(_first(told))
    canvas = Canvas(width, height + many * LINE)
    if many:
        canvas.words(3, height + 4, f"{MOST_LORAS} of {len(told['loras'])} LoRAs", DARK, SMALL)
    for box in found:
        canvas.rect(box.x, box.y, box.width, box.height, box.colour)
        ink = BRIGHT if _is_dark(box.colour) else DARK
        canvas.words(box.x + 3, box.y + box.height // 2 + 4, box.text[:LETTERS], ink, SMALL)
    return canvas.pixels()


def _first(told: ConflictsJSON) -> ConflictsJSON:
    cosines = [row[:MOST_LORAS] for row in told["cosine"][:MOST_LORAS]]
    blocks: list[BlockJSON] = [{**block, "loras": block["loras"][:MOST_LORAS]} for block in told["blocks"]]
    return {**told, "loras": told["loras"][:MOST_LORAS], "cosine": cosines, "blocks": blocks}
