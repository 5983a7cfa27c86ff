"""Make example_workflows/*.json and their pictures: ``python tests/helpers/make_examples.py [NAME ...]``.

``example_workflows/api/NAME.json`` is the graph. A real browser loads it into the real frontend, this script says what
stands where, and what the frontend then saves is the workflow. Needs ``python tests/install.py host browser``.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = ROOT / "example_workflows"
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "tests" / "helpers")]  # never ROOT: its nodes/ would shadow ComfyUI's

from browser.conftest import FLAGS  # noqa: E402
from browser.scripts import READY  # noqa: E402
from browser.studio import SETTINGS  # noqa: E402
from example_models import converted, with_models  # noqa: E402
from example_notes import NOTES  # noqa: E402
from host import rig  # noqa: E402
from install import find_browser  # noqa: E402
from playwright.sync_api import Page, sync_playwright  # noqa: E402

# A lane is a row of columns from left to right, a column (group title or "", node ids from top to bottom).
# Columns side by side with one title share a group. The note stands left of all lanes.
Lane = list[tuple[str, list[str]]]
LANES: dict[str, list[Lane]] = {
    "1_qwen_image_lightning_and_style": [
        [("1 Fuse", ["1", "2"]), ("2 Stack", ["3", "4"]), ("2 Stack", ["5"]), ("3 Quantize", ["6", "7"])],
        [("Prompt", ["8", "13"]), ("Prompt", ["9", "10"]), ("Sample", ["11"]), ("Sample", ["12"]),
         ("Sample", ["14", "15"])],
    ],
    "2_sdxl_multi_lora": [
        [("1 Fuse", ["1", "2"]), ("2 Stack", ["3", "4"]), ("2 Stack", ["5", "6"]), ("3 Quantize", ["7"])],
        [("Prompt", ["8"]), ("Prompt", ["9"]), ("Sample", ["10"]), ("Sample", ["11"]), ("Sample", ["12", "13"])],
    ],
    "3_wan_lightning": [
        [("1 Fuse", ["2", "3", "7", "8"]), ("2 Stack", ["1", "4", "9"]), ("3 Quantize", ["5", "6", "10", "11"])],
        [("Prompt", ["12", "18"]), ("Prompt", ["13", "14"]), ("Sample", ["15", "16"]), ("Sample", ["17"]),
         ("Sample", ["19", "20", "21"])],
    ],
    "4_sdxl_merge_once": [
        [("LoRAs", ["2"]), ("Merge", ["3"]), ("2 Stack", ["1", "4"]), ("2 Stack", ["5", "6"])],
        [("Prompt", ["7"]), ("Prompt", ["8"]), ("Sample", ["9"]), ("Sample", ["10"]), ("Sample", ["11", "12"])],
    ],
    "5_sdxl_merge_to_a_size": [
        [("LoRAs", ["2", "1"]), ("Compare", ["3", "19"]), ("Merge", ["4"]), ("Live", ["5", "6"]),
         ("Merged", ["7", "8"])],
        [("Prompt", ["9", "10"]), ("Prompt", ["11", "12"]), ("Sample", ["13", "14"]), ("Sample", ["15", "16"]),
         ("Sample", ["17", "18"])],
    ],
    "6_sd15_first_try": [
        [("1 Fuse", ["1", "2"]), ("2 Stack", ["3"]), ("2 Stack", ["4", "5"]), ("3 Quantize", ["6"])],
        [("Prompt", ["7"]), ("Prompt", ["8"]), ("Sample", ["9"]), ("Sample", ["10"]), ("Sample", ["11", "12"])],
    ],
    "7_qwen_image_native": [
        [("", ["1"]), ("", ["2"]), ("", ["3"])],
        [("Prompt", ["5", "10"]), ("Prompt", ["6", "7"]), ("Sample", ["4", "8"]), ("Sample", ["9"]),
         ("Sample", ["11", "12"])],
    ],
}  # fmt: skip
CONVERTED = {"8_qwen_image_converted": "7_qwen_image_native"}  # made by `convert`, of which
ROOM = {"7_qwen_image_native": 360.0}  # pixels below the first lane: where the nodes of `convert` then stand

GAP, COLUMN_GAP, LANE_GAP, TITLE = 130, 70, 60, 46  # GAP: nodes are taller in Nodes 2.0, and with panels
NOTE = [430, 480]
MAX_BYTES = 150_000
PLAIN = {
    "Comfy.VueNodes.Enabled": False,
    "LoRAFoundry.Lint": False,  # the files are empty here, and it would say so
    "Comfy.Graph.CanvasInfo": False,
    "Comfy.Graph.CanvasMenu": False,
    "LiteGraph.Canvas.MinFontSizeForLOD": 0,  # text at every zoom
}
OPEN = """async ([prompt, name, note, size]) => {
  await app.loadApiJson(prompt, name)
  const made = LiteGraph.createNode("MarkdownNote")
  made.title = "Read me"
  app.graph.add(made)
  made.widgets[0].value = note
  made.size = size
  window.noteId = made.id
  for (const node of app.graph.nodes) {
    const seed = node.widgets?.find((widget) => widget.name === "control_after_generate")
    if (seed) seed.value = "fixed"
  }
}"""
FAR = "() => { Object.assign(app.canvas.ds, { scale: 0.2, offset: [900, 900] }); app.canvas.setDirty(true, true) }"
MEASURE = """() => Object.fromEntries(app.graph.nodes.map((node) => {
  if (node.id === window.noteId) return ["note", [...node.size]]
  const text = node.widgets?.some((widget) => widget.name === "text")
  const [width, height] = node.computeSize()
  const rows = node.widgets?.some((widget) => widget.name === "foundry_rows")
  node.setSize([Math.max(width, rows ? 420 : 320), Math.max(height, text ? 150 : 0)])
  return [String(node.id), [...node.size]]
}))"""
PLACE = """([places, groups]) => {
  for (const [id, [x, y]] of Object.entries(places)) {
    app.graph.getNodeById(id === "note" ? window.noteId : Number(id)).pos = [x, y]
  }
  for (const [title, [x, y, width, height]] of groups) {
    const group = new LiteGraph.LGraphGroup(title)
    group.pos = [x, y]
    group.size = [width, height]
    app.graph.add(group)
  }
  Object.assign(app.canvas.ds, { scale: 0.6, offset: [150, 280] }) // what is seen first when it is opened
}"""
SAVE = "async () => JSON.stringify({ workflow: app.graph.serialize(), prompt: (await app.graphToPrompt()).output })"
SHOW = """async ([x, y, width, height]) => {
  await app.extensionManager.command.execute("Workspace.ToggleFocusMode")
  document.querySelectorAll(".comfy-menu-hamburger").forEach((menu) => menu.remove())
  const { ds } = app.canvas
  ds.scale = Math.min(innerWidth / width, innerHeight / height)
  ds.offset = [-x, -y]
  app.canvas.setDirty(true, true)
  return [width * ds.scale, height * ds.scale]
}"""

Box = tuple[float, float, float, float]


def layout(
    lanes: list[Lane], sizes: dict[str, list[float]], room: float = 0.0
) -> tuple[dict[str, list[float]], list[tuple[str, Box]]]:
    """(node -> position, groups) for lanes stacked from top to bottom, with room below the first."""
    places: dict[str, list[float]] = {"note": [0.0, 0.0]}
    groups: list[tuple[str, Box]] = []
    top = 0.0
    for lane in lanes:
        left, bottom = sizes["note"][0] + COLUMN_GAP, top
        columns: list[tuple[str, Box]] = []
        for title, ids in lane:
            y = top
            width = max(sizes[key][0] for key in ids)
            for key in ids:
                places[key] = [left, y]
                y += sizes[key][1] + GAP
            columns.append((title, (left, top, left + width, y - GAP)))
            left += width + COLUMN_GAP
            bottom = max(bottom, y)
        groups += grouped(columns)
        top, room = bottom + LANE_GAP + room, 0.0
    return places, groups


def grouped(columns: list[tuple[str, Box]]) -> Iterator[tuple[str, Box]]:
    """Frames around neighbouring columns of one title, as (x, y, width, height)."""
    while columns:
        title = columns[0][0]
        count = next((i for i, (other, _) in enumerate(columns) if other != title), len(columns))
        boxes = [box for _, box in columns[:count]]
        columns = columns[count:]
        if title:
            x, y = boxes[0][0] - 20, boxes[0][1] - 2 * TITLE
            yield title, (x, y, boxes[-1][2] + 20 - x, max(box[3] for box in boxes) + 20 - y)


def stand_ins(host: rig.Host) -> None:
    """Empty files under the names the examples use, so that every list offers them."""
    folders = {"base_name": "diffusion_models", "unet_name": "diffusion_models", "ckpt_name": "checkpoints",
               "lora_name": "loras", "vae_name": "vae", "clip_name": "text_encoders"}  # fmt: skip
    for name in LANES:
        for node in json.loads((EXAMPLES / "api" / f"{name}.json").read_text(encoding="utf-8")).values():
            for key, value in node["inputs"].items():
                if key in folders and str(value).endswith(".safetensors"):
                    (host.base / "models" / folders[key] / value).touch()


def make(page: Page, name: str) -> None:
    """One example: the workflow, the prompt as the frontend exports it, and the picture."""
    prompt: dict[str, Any] = json.loads((EXAMPLES / "api" / f"{name}.json").read_text(encoding="utf-8"))
    page.evaluate(OPEN, [prompt, name, NOTES[name], NOTE])
    page.evaluate(FAR)
    page.wait_for_timeout(2000)  # report panels take their room once they are in view
    sizes = page.evaluate(MEASURE)
    places, groups = layout(LANES[name], sizes, ROOM.get(name, 0.0))
    assert places.keys() == sizes.keys(), f"{name}: not placed: {sizes.keys() ^ places.keys()}"
    page.evaluate(PLACE, [places, groups])
    saved = json.loads(page.evaluate(SAVE))  # as text: the frontend leaves out what is undefined
    posted = inputs(saved["prompt"])
    for key, (kind, told) in inputs(prompt).items():  # an input the file does not have yet is at its default
        assert posted[key][0] == kind and posted[key][1].items() >= told.items(), (key, posted[key])
    assert posted.keys() == prompt.keys()
    write(EXAMPLES / f"{name}.json", with_models(saved["workflow"]))
    write(EXAMPLES / "api" / f"{name}.json", saved["prompt"])
    picture(page, EXAMPLES / f"{name}.jpg", places, sizes)


def make_converted(page: Page, name: str, source: str) -> None:
    """What ``convert`` makes of an example, with a note of its own; the page only shows and exports it."""
    before = json.loads((EXAMPLES / f"{source}.json").read_text(encoding="utf-8"))
    workflow = converted(before, NOTES[name])
    write(EXAMPLES / f"{name}.json", workflow)
    page.evaluate("(workflow) => app.loadGraphData(workflow)", workflow)
    page.evaluate(FAR)
    page.wait_for_timeout(2000)
    write(EXAMPLES / "api" / f"{name}.json", json.loads(page.evaluate(SAVE))["prompt"])
    places, sizes = ({str(node["id"]): node[key] for node in workflow["nodes"]} for key in ("pos", "size"))
    picture(page, EXAMPLES / f"{name}.jpg", places, sizes)


def inputs(prompt: dict[str, Any]) -> dict[str, Any]:
    return {key: (node["class_type"], node["inputs"]) for key, node in prompt.items()}


def write(path: Path, data: object) -> None:
    path.write_text(json.dumps(data, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def picture(page: Page, path: Path, places: dict[str, list[float]], sizes: dict[str, list[float]]) -> None:
    """The whole graph as a JPEG below MAX_BYTES."""
    right = max(places[key][0] + sizes[key][0] for key in places)
    bottom = max(places[key][1] + sizes[key][1] for key in places)
    x, y = (min(place[side] for place in places.values()) for side in (0, 1))
    x, y = x - 50, y - 3 * TITLE
    width, height = page.evaluate(SHOW, [x, y, right + 50 - x, bottom + 50 - y])
    page.wait_for_timeout(1500)
    for quality in range(90, 30, -5):
        page.screenshot(
            path=path, type="jpeg", quality=quality, clip={"x": 0, "y": 0, "width": width, "height": height}
        )
        if path.stat().st_size <= MAX_BYTES:
            return
    raise AssertionError(f"{path} is larger than {MAX_BYTES} bytes at any quality")


def main(names: list[str]) -> None:
    tree, browser = rig.find_tree(), find_browser()
    assert tree and browser, "run: python tests/install.py host browser"
    work = tempfile.TemporaryDirectory()
    with work, rig.Host(tree, Path(work.name), ROOT) as host, sync_playwright() as playwright:
        stand_ins(host)
        for setting, value in {**SETTINGS, **PLAIN}.items():
            host.request(f"/settings/{setting}", value)
        chromium = playwright.chromium.launch(executable_path=str(browser), args=FLAGS)
        for name in names:
            page = chromium.new_page(viewport={"width": 1800, "height": 1000}, reduced_motion="reduce")
            page.route("**/lora_foundry/rows", lambda route: route.fulfill(json={"rows": {}}))  # no fact of empty files
            page.goto(host.url)
            page.wait_for_function(READY, timeout=120_000)
            make_converted(page, name, CONVERTED[name]) if name in CONVERTED else make(page, name)
            page.close()
            print(name)
        chromium.close()


if __name__ == "__main__":
    main(sys.argv[1:] or [*LANES, *CONVERTED])
