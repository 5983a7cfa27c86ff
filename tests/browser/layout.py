"""Where nodes lie on the page, as the renderer draws them."""

from __future__ import annotations

import json
from itertools import combinations

Box = tuple[str, float, float, float, float]  # what it is, left, top, width, height

BOXES = {
    "canvas": """() => app.graph.nodes.map(({ type, pos: [x, y], size: [width, height] }) =>
      [type, x, y - 30, width, height + 30])""",
    "nodes2": """() => [...document.querySelectorAll('[data-node-id]')].map((each) => {
      const { x, y, width, height } = each.getBoundingClientRect()
      return [each.dataset.nodeId, x, y, width, height]
    })""",
}


# Nodes 2.0 makes and measures its nodes some frames after the graph has them.
STILL = """(count) => {
  const [boxes, before] = [(%s)(), window.foundryBoxes]
  window.foundryBoxes = JSON.stringify(boxes)
  return boxes.length === count && window.foundryBoxes === before ? window.foundryBoxes : null
}"""


def boxes_of(studio) -> list[Box]:
    """The box of every node of the graph, its title bar included, once all are drawn and stay as they are."""
    count = studio.page.evaluate("() => { delete window.foundryBoxes; return app.graph.nodes.length }")
    still = studio.page.wait_for_function(STILL % BOXES[studio.mode], arg=count, polling=100)
    return [tuple(each) for each in json.loads(still.json_value())]


def overlapping(boxes: list[Box]) -> list[tuple[Box, Box]]:
    """The pairs that lie over each other."""

    def apart(one: Box, two: Box) -> bool:
        return one[1] + one[3] <= two[1] or one[2] + one[4] <= two[2]

    return [(one, two) for one, two in combinations(boxes, 2) if not (apart(one, two) or apart(two, one))]
