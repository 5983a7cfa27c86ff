"""The page of ``pictures.py`` as pixels, by Pillow, which every ComfyUI brings: only nodes ask for it.

The colours are those of the light SVG.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ..disk.header import shown
from .pictures import EDGE, WIDTH, Rect, Shape, Words, page

if TYPE_CHECKING:
    from PIL import ImageFont

TEXT, HEADING = 13, 14  # pixels
Colour = tuple[int, int, int]
PAGE, INK = (255, 255, 255), (31, 35, 40)
COLOURS: dict[str, Colour] = {
    "ground": (234, 238, 242),
    "good": (26, 127, 55),
    "bad": (191, 135, 0),
    "plain": (9, 105, 218),
    "axis": (209, 217, 224),
    "limit": (207, 34, 46),
    "total": INK,
}


class Canvas:
    """A white picture in memory, ``width`` by ``height`` pixels."""

    def __init__(self, width: int, height: int) -> None:
        from PIL import Image, ImageDraw

        self._image = Image.new("RGB", (width, height), PAGE)
        self._draw = ImageDraw.Draw(self._image)

    def rect(self, x: float, y: float, width: float, height: float, colour: Colour) -> None:
        """A filled box; one that is less than half a pixel wide or high is not seen."""
        left, top, right, bottom = round(x), round(y), round(x + width) - 1, round(y + height) - 1
        if left <= right and top <= bottom:
            self._draw.rectangle((left, top, right, bottom), fill=colour)

    def words(self, x: float, y: float, text: str, colour: Colour = INK, size: int = TEXT) -> None:
        """A line of text on the base line ``y``."""
        font = _font(size)
        if font is not None:
            self._draw.text((x, y), shown(text, 500), fill=colour, font=font, anchor="ls")

    def line(self, x: float, y: float, to_x: float, to_y: float, colour: Colour) -> None:
        """A line two pixels wide, seen before the bars that it crosses."""
        self._draw.line((round(x), round(y), round(to_x), round(to_y)), fill=colour, width=2)

    def pixels(self) -> npt.NDArray[np.float32]:
        """[height, width, 3] from 0 to 1."""
        drawn: npt.NDArray[np.uint8] = np.asarray(self._image, np.uint8)
        return np.divide(drawn, 255, dtype=np.float32)


@cache
def _font(size: int) -> ImageFont.FreeTypeFont | None:
    """Pillow's own font, which it has from 10.1 on; None before, and pictures have no words then."""
    from PIL import ImageFont

    try:
        found = ImageFont.load_default(size)
    except TypeError:
        return None
    return found if isinstance(found, ImageFont.FreeTypeFont) else None


def pixels(told: Mapping[str, Any], title: str) -> npt.NDArray[np.float32]:
    """The JSON of a check or a bake as a picture: [height, ``WIDTH``, 3] from 0 to 1."""
    drawn = page(told, title)
    canvas = Canvas(WIDTH, drawn.height)
    canvas.words(EDGE, 26, drawn.title, size=HEADING)
    for top, shapes in drawn.parts:
        for shape in shapes:
            _put(canvas, shape, top)
    return canvas.pixels()


def _put(canvas: Canvas, shape: Shape, top: int) -> None:
    x, y = shape.x + EDGE, shape.y + top
    if isinstance(shape, Words):
        canvas.words(x, y, shape.text, size=HEADING if shape.kind == "head" else TEXT)
    elif isinstance(shape, Rect):
        canvas.rect(x, y, shape.width, shape.height, _shaded(COLOURS[shape.kind], shape.shade))
    else:
        canvas.line(x, y, shape.to_x + EDGE, shape.to_y + top, COLOURS[shape.kind])


def _shaded(colour: Colour, shade: float | None) -> Colour:
    if shade is None:
        return colour
    red, green, blue = (round(behind + (own - behind) * shade) for own, behind in zip(colour, PAGE, strict=True))
    return red, green, blue
