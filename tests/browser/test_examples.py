"""Every example as it opens, in both renderers: no two nodes lie over each other."""

from __future__ import annotations

import json
from itertools import combinations

import pytest
from browser.test_converting import BOXES
from sources import ROOT

EXAMPLES = sorted((ROOT / "example_workflows").glob("*.json"))
OPEN = """async (workflow) => {
  await app.loadGraphData(workflow, true, true, null, { showMissingModelsDialog: false })
  Object.assign(app.canvas.ds, { scale: 0.2, offset: [900, 900] }) // all of it, or Nodes 2.0 draws a part
  app.canvas.setDirty(true, true)
}"""


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_no_two_nodes_of_an_example_overlap(studio, path):
    workflow = json.loads(path.read_text(encoding="utf-8"))
    studio.page.evaluate(OPEN, workflow)
    studio.settle()
    studio.settle()  # Nodes 2.0 measures its nodes a frame later
    boxes = studio.page.evaluate(BOXES[studio.mode])
    assert len(boxes) == len(workflow["nodes"])
    for one, two in combinations(boxes, 2):
        apart = (
            one[1] + one[3] <= two[1]
            or two[1] + two[3] <= one[1]
            or one[2] + one[4] <= two[2]
            or two[2] + two[4] <= one[2]
        )
        assert apart, (one, two)
