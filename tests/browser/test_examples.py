"""Every example as it opens, in both renderers: no two nodes lie over each other."""

from __future__ import annotations

import json

import pytest
from browser.layout import boxes_of, overlapping
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
    boxes = boxes_of(studio)
    assert len(boxes) == len(workflow["nodes"])
    assert overlapping(boxes) == []
