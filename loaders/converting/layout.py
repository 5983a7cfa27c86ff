"""Where new nodes stand: in columns near those they stand for, over no other node, each chain in a frame of its own."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from ..workflows.canvas import entries, mapping, mappings

TITLE, GAP, PADDING, HEAD = 30.0, 40.0, 20.0, 50.0  # pixels: a node's title, between nodes, inside a frame, its title
DEFAULT = (220.0, 120.0)  # of a node whose size was not saved
FARTHEST = 1e9  # pixels from the middle of a canvas
COLOUR = "#3f789e"
Columns = list[list[str]]


class Box(NamedTuple):
    """A rectangle in pixels, a node's title included."""

    x: float
    y: float
    width: float
    height: float

    def meets(self, other: Box) -> bool:
        """Whether two rectangles share more than an edge."""
        apart = self.x + self.width <= other.x or other.x + other.width <= self.x
        return not (apart or self.y + self.height <= other.y or other.y + other.height <= self.y)


def box_of(node: Mapping[str, Any]) -> Box:
    """The rectangle of a saved node."""
    x, y = _pair(node.get("pos"), (0.0, 0.0))
    width, height = _pair(node.get("size"), DEFAULT)
    height = 0.0 if mapping(node.get("flags")).get("collapsed") else height
    return Box(x, y - TITLE, width, height + TITLE)


def arrange(
    saved: dict[str, Any], nodes: Mapping[str, dict[str, Any]], columns: Columns, near: Box, title: str
) -> None:
    """Give the nodes of these columns a place on a canvas, near a rectangle and in no other frame;
    with a title also a frame around them."""
    new = {key for column in columns for key in column}
    others = [box_of(node) for key, node in nodes.items() if key not in new]
    others += (frame for frame in _frames(saved) if not frame.meets(near))
    best: tuple[float, dict[str, tuple[float, float]], Box] | None = None
    for shape in _shapes(columns):
        places, width, height = _placed(shape, nodes)
        x, y, cost = _free(others, width, height, near)
        if best is None or cost < best[0]:
            best = (cost, {key: (x + left, y + top) for key, (left, top) in places.items()}, Box(x, y, width, height))
    if best is None:
        return
    for key, place in best[1].items():
        nodes[key]["pos"] = [round(each) for each in place]
    if not title:
        return
    if not isinstance(saved.get("groups"), list):
        saved["groups"] = []
    frames = saved["groups"]
    numbers = [each.get("id") for each in mappings(frames)]
    number = max((each for each in numbers if isinstance(each, int)), default=0) + 1
    frames.append({"id": number, "title": title, "bounding": [round(each) for each in best[2]], "color": COLOUR,
                   "font_size": 24, "flags": {}})  # fmt: skip


def _frames(saved: Mapping[str, Any]) -> Iterator[Box]:
    """The frames of a canvas, as far as their places can be read."""
    for group in mappings(saved.get("groups")):
        sides = entries(group.get("bounding"))
        corner, extent = _pair(sides[:2], (FARTHEST, 0.0)), _pair(sides[2:], (0.0, 0.0))
        if corner[0] < FARTHEST:
            yield Box(*corner, *extent)


def _shapes(columns: Columns) -> Iterator[Columns]:
    """The columns as they are, in two, and in one."""
    filled = [column for column in columns if column]
    flat = [key for column in filled for key in column]
    half = (len(flat) + 1) // 2
    yield from (filled, [flat[:half], flat[half:]], [flat])


def _placed(
    columns: Columns, nodes: Mapping[str, Mapping[str, Any]]
) -> tuple[dict[str, tuple[float, float]], float, float]:
    """(node -> place inside the frame, width, height) of columns side by side."""
    places: dict[str, tuple[float, float]] = {}
    x, height = PADDING, 0.0
    for column in filter(None, columns):
        y = HEAD + TITLE
        for key in column:
            places[key] = (x, y)
            y += box_of(nodes[key]).height + GAP
        height = max(height, y - TITLE - GAP)
        x += max(box_of(nodes[key]).width for key in column) + GAP
    return places, x - GAP + PADDING, height + PADDING


def _free(others: Sequence[Box], width: float, height: float, near: Box) -> tuple[float, float, float]:
    """(x, y, how far that is) of a place for a frame that meets no node, as near as the edges of the others allow."""
    best = (near.x, near.y, float("inf"))
    for x in dict.fromkeys((near.x, near.x + (near.width - width) / 2, near.x + near.width - width)):
        beside = sorted((each for each in others if each.x < x + width + GAP and each.x + each.width > x - GAP),
                        key=lambda each: each.y)  # fmt: skip
        for y in _gaps(beside, height, near.y):
            cost = abs(x - near.x) + abs(y - near.y)
            best = min(best, (x, y, cost), key=lambda each: each[2])
    return best


def _gaps(column: Sequence[Box], height: float, wanted: float) -> Iterator[float]:
    """The tops at which this height fits between rectangles sorted by their tops, as near to ``wanted`` as can be."""
    edges = [-float("inf")]
    bottoms = []
    for each in column:
        bottoms.append(max(edges[-1], each.y + each.height + GAP))
        edges.append(bottoms[-1])
    tops = [*(each.y - GAP for each in column), float("inf")]
    for bottom, top in zip(edges, tops, strict=True):
        if top - bottom >= height:
            yield min(max(wanted, bottom), top - height)


def _pair(saved: Any, default: tuple[float, float]) -> tuple[float, float]:
    """Two numbers, in a list or under "0" and "1" as older frontends wrote them."""
    values = [saved.get("0"), saved.get("1")] if isinstance(saved, Mapping) else entries(saved)[:2]
    kept = (each for each in values if isinstance(each, int | float) and not isinstance(each, bool))
    numbers = [float(each) for each in kept if abs(each) < FARTHEST]  # no NaN, nor what no picture has
    return (numbers[0], numbers[1]) if len(numbers) == 2 else default


def around(boxes: Sequence[Box]) -> Box:
    """The rectangle around others."""
    x, y = min(box.x for box in boxes), min(box.y for box in boxes)
    return Box(x, y, max(box.x + box.width for box in boxes) - x, max(box.y + box.height for box in boxes) - y)
