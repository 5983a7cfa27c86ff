"""The example workflows: what the browser loads and what the API takes are one graph, in order, without leftovers."""

from __future__ import annotations

import ast
import json
import re
from pathlib import Path
from typing import Any

import pytest
from lora_foundry.loaders.lint.order import check_order

ROOT = Path(__file__).resolve().parents[3]
EXAMPLES = ROOT / "example_workflows"
NAMES = sorted(path.stem for path in EXAMPLES.glob("*.json"))
NATIVE = "7_qwen_image_native"  # none of our nodes; what convert makes of it is example 8
STAGES = ("1 Fuse", "2 Stack", "3 Quantize")  # frames from left to right
FRAMES = {
    "4_sdxl_merge_once": ("LoRAs", "Merge", "2 Stack"),
    "5_sdxl_merge_to_a_size": ("LoRAs", "Compare", "Merge"),
    NATIVE: ("Prompt", "Sample"),
    "8_qwen_image_converted": ("Prompt", "LoRA Foundry: fuse, stack, quantize - qwen_image_bf16", "Sample"),
}
NOTE = "MarkdownNote"
TITLE = 30  # height of a node's title, which is not in its size
AFTER_SEED = ("seed", "noise_seed")  # widgets the frontend puts "control after generate" behind

every_example = pytest.mark.parametrize("name", NAMES)


def load(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8"))


def workflow(name: str) -> dict[str, Any]:
    return load(EXAMPLES / f"{name}.json")


def prompt(name: str) -> dict[str, Any]:
    return load(EXAMPLES / "api" / f"{name}.json")


def registered() -> set[str]:
    """The ids of our nodes, read from the source: importing it would need a ComfyUI."""
    tree = ast.parse((ROOT / "nodes" / "__init__.py").read_text(encoding="utf-8"))
    tables = [node.value for node in tree.body if isinstance(node, ast.Assign) and isinstance(node.value, ast.Dict)]
    return {key.value for table in tables for key in table.keys if isinstance(key, ast.Constant)}


def as_prompt(saved: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """A saved workflow as node id -> {class_type, inputs}, the way the frontend turns it into a prompt."""
    links = {link[0]: [str(link[1]), link[2]] for link in saved["links"]}
    nodes = (node for node in saved["nodes"] if node["type"] != NOTE)
    return {str(node["id"]): {"class_type": node["type"], "inputs": inputs_of(node, links)} for node in nodes}


def inputs_of(node: dict[str, Any], links: dict[int, list[Any]]) -> dict[str, Any]:
    names = [slot["widget"]["name"] for slot in node["inputs"] if "widget" in slot]
    values = list(node.get("widgets_values") or [])
    for name in set(names) & set(AFTER_SEED):
        assert values.pop(names.index(name) + 1) == "fixed", "an example gives the same picture twice"
    assert len(names) == len(values), f"{node['type']}: {len(names)} widgets, {len(values)} values"
    linked = {slot["name"]: links[slot["link"]] for slot in node["inputs"] if slot.get("link") is not None}
    return {**dict(zip(names, values, strict=True)), **linked}


def test_there_are_three_or_more():
    assert len(NAMES) >= 3
    assert sorted(path.stem for path in (EXAMPLES / "api").glob("*.json")) == NAMES


@every_example
def test_both_forms_are_one_graph(name):
    wanted = {key: {part: node[part] for part in ("class_type", "inputs")} for key, node in prompt(name).items()}
    assert as_prompt(workflow(name)) == wanted


@every_example
def test_links_name_the_nodes_they_join(name):
    saved = workflow(name)
    nodes = {node["id"]: node for node in saved["nodes"]}
    for number, source, output, target, slot, _ in saved["links"]:
        assert number in nodes[source]["outputs"][output]["links"]
        assert nodes[target]["inputs"][slot]["link"] == number
    assert saved["last_node_id"] == max(nodes) and len(nodes) == len(saved["nodes"])


@every_example
def test_our_nodes_exist_and_stand_in_order(name):
    graph = prompt(name)
    ours = {key: node["class_type"] for key, node in graph.items() if node["class_type"].startswith("Foundry")}
    assert bool(ours) is (name != NATIVE) and set(ours.values()) <= registered()
    assert [finding for key in ours for finding in check_order(graph, key)] == []


@every_example
def test_it_is_laid_out_in_the_order_of_the_work(name):
    saved = workflow(name)
    left = {group["title"]: group["bounding"][0] for group in saved["groups"]}
    stages = FRAMES.get(name, STAGES)
    assert left.keys() >= set(stages) and sorted(stages, key=left.__getitem__) == list(stages)
    boxes = [(*node["pos"], *node["size"]) for node in saved["nodes"]]
    assert not [(a, b) for i, a in enumerate(boxes) for b in boxes[:i] if overlap(a, b)]


def overlap(a: tuple[float, ...], b: tuple[float, ...]) -> bool:
    return a[0] < b[0] + b[2] and b[0] < a[0] + a[2] and a[1] - TITLE < b[1] + b[3] and b[1] - TITLE < a[1] + a[3]


@every_example
def test_it_opens_at_its_beginning(name):
    view = workflow(name)["extra"]["ds"]
    assert 0.5 <= view["scale"] <= 1 and all(0 < offset < 500 for offset in view["offset"])


@every_example
def test_the_note_names_every_file(name):
    (note,) = [node for node in workflow(name)["nodes"] if node["type"] == NOTE]
    text = note["widgets_values"][0]
    for node in prompt(name).values():
        for value in node["inputs"].values():
            files = re.findall(r"[\w.-]+\.safetensors", value) if isinstance(value, str) else []
            assert not [file for file in files if not file.startswith("your_") and not mentioned(file, text)]


def mentioned(file: str, text: str) -> bool:
    """By its whole name, or as ``...`` and its ending."""
    return file in text or any(file.endswith(ending) for ending in re.findall(r"`\.\.\.([\w.-]+)`", text))


@every_example
def test_nothing_of_the_machine_it_was_made_on_is_left(name):
    for path in (EXAMPLES / f"{name}.json", EXAMPLES / "api" / f"{name}.json"):
        text = re.sub(r'"url": "https://huggingface.co/[^"]+"', "", path.read_text(encoding="utf-8"))  # downloads
        assert not re.search(r"127\.0\.0\.1|localhost|://|[A-Z]:\\\\|\"/|/(home|tmp|root|work|Users)/", text)


@every_example
def test_its_picture_is_small(name):
    picture = (EXAMPLES / f"{name}.jpg").read_bytes()
    assert picture.startswith(b"\xff\xd8\xff") and len(picture) <= 150_000
