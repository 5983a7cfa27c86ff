"""What is fuzzed: every reader of what strangers write, with whole inputs to begin from."""

from __future__ import annotations

import io
import json
import random
import struct
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from attacks.files import GOOD, pack, tensor
from attacks.hostile_shapes import hostile_shapes
from community_graphs import ORDINARY
from drawn_prompts import drawn
from fakes import Collected
from fixtures_dialects import FIXTURES
from lora_foundry.engine.bake import bake
from lora_foundry.engine.finish import Finish
from lora_foundry.engine.memory import AUTO
from lora_foundry.engine.needs import working_bytes
from lora_foundry.engine.plan import Plan
from lora_foundry.engine.quantize import keeps, parse_keep
from lora_foundry.loaders.converting.convert import convert
from lora_foundry.loaders.disk.header import parse_header
from lora_foundry.loaders.disk.shards import find_files
from lora_foundry.loaders.disk.text import decode, parse_text
from lora_foundry.loaders.documents.document import parse_document, parse_rows
from lora_foundry.loaders.evidence.configs import parse_json
from lora_foundry.loaders.evidence.reading import read_evidence
from lora_foundry.loaders.lineage.record import parse_record
from lora_foundry.loaders.lint.lint import lint
from lora_foundry.loaders.loras.configs import HEADER_KEY
from lora_foundry.loaders.loras.file import LoRAFile
from lora_foundry.loaders.loras.matching import add_layer
from lora_foundry.loaders.names.blocks import parse_blocks
from lora_foundry.loaders.remote.names import parse_remote
from lora_foundry.loaders.workflows.reading import graph_of, read_workflow
from planner_parts import a_base, layer
from pngs import SIGNATURE, chunk
from record_parts import record_json
from samples import ShapeSource

MOST_WORK = 64e6  # bytes that a bake of weights of at most 1536 numbers may announce
BASE = a_base({"blocks.0.q.weight": (48, 32), "patch_embedding.weight": (16, 8), "blocks.0.q.bias": (48,)})


@dataclass(frozen=True)
class Target:
    """A reader of bytes, which gets a folder for a file where it needs one, and what it usually reads.

    ``trees`` are more of the same as JSON, of which values are exchanged, and ``wrap`` makes its bytes of such JSON.
    ``make`` writes whole inputs of its own. ``SHARES`` says what of the seconds it gets.
    """

    read: Callable[[bytes, Path], object]
    seeds: tuple[bytes, ...]
    trees: tuple[Any, ...] = ()
    wrap: Callable[[bytes], bytes] = bytes
    make: Callable[[random.Random], bytes] | None = None


def _in_file(read: Callable[[Path], object], name: str) -> Callable[[bytes, Path], object]:
    """A reader of files, of which it gets one of this name."""

    def of(data: bytes, folder: Path) -> object:
        path = folder / name
        path.write_bytes(data)
        return read(path)

    return of


PROMPT = json.dumps({
    "1": {"class_type": "UNETLoader", "inputs": {"unet_name": "a.safetensors"}},
    "2": {"class_type": "LoraLoader", "inputs": {"model": ["1", 0], "lora_name": "b.safetensors", "strength_model": 1}},
    "3": {"class_type": "FoundryLoRAStack", "inputs": {"loras": '[{"path": "c", "weight": 0.5}]'}},
    "4": {"class_type": "FoundryStackLoRAs", "inputs": {"model": ["2", 0], "lora_stack": ["3", 0]}},
    "5": {"class_type": "KSampler", "inputs": {"model": ["4", 0], "steps": 20, "cfg": 5.0}},
}).encode()  # fmt: skip
CANVAS = json.dumps({
    "nodes": [{"id": 1, "type": "UNETLoader", "outputs": [{"type": "MODEL"}], "widgets_values": ["a.safetensors"]},
              {"id": 2, "type": "sub", "inputs": [{"name": "model", "type": "MODEL", "link": 1}], "mode": 4}],
    "links": [[1, 1, 0, 2, 0, "MODEL"]], "last_node_id": 2,
    "definitions": {"subgraphs": [{"id": "sub", "nodes": [{"id": 3, "type": "KSampler"}], "links": [], "inputs": []}]},
}).encode()  # fmt: skip
EIGHT = bytes(8)
SHAPES = json.dumps({
    "blocks.0.q.lora_up.weight": [48, 4], "blocks.0.q.lora_down.weight": [4, 32], "blocks.0.q.alpha": [],
    "patch_embedding.lora_up.weight": [16, 1], "patch_embedding.lora_down.weight": [1, 16],
    "patch_embedding.reshape_weight": [2], "blocks.0.q.lokr_w1": [6, 4], "blocks.0.q.lokr_w2": [8, 8],
    "blocks.0.q.oft_blocks": [12, 4, 4], "blocks.0.q.diff_b": [48], "blocks.0.q.hada_w1_a": [48, 2],
    "blocks.0.q.hada_t1": [2, 2, 1, 1], "blocks.0.q.dora_scale": [48, 1], "blocks.0.q.set_weight": [48, 32],
}).encode()  # fmt: skip
RECORD = json.dumps({
    "schema": 1, "ids": ["tensors:" + "a" * 64], "name": "x", "family": "wan",
    "claims": [{"evidence": {"level": "declared", "source": "user", "quote": "", "time": ""}, "trained_with": []}],
}).encode()  # fmt: skip
SCRIPT = b"""#!/bin/bash
LORA="${1:-a.safetensors}"
accelerate launch train.py --lora_base_model dit --lora_fused "$LORA" \\
  --output_path ./out # --preset_lora_path b
cat <<END
nothing
END
"""


PROMPTS = tuple(sketch().prompt for sketch in ORDINARY.values())
CANVASES = tuple(drawn(prompt) for prompt in PROMPTS)
DOCUMENT = {
    "base": "a.safetensors", "fuse": [{"path": "b", "strength": 1.0, "sha256": "a" * 64}], "quantize": "fp8",
    "stack": [{"path": "c", "strength": 0.5, "clip_strength": 0.1, "on": True, "blocks": "double=1"}, "d"],
    "rounding": "once", "on_quantized_base": "refuse", "reproducible": True, "allow_partial": False,
}  # fmt: skip
JOB = {"config": {"name": "x", "process": [{
    "type": "sd_trainer", "network": {"type": "lora", "linear": 16},
    "model": {"name_or_path": "a", "lora_path": "b", "lora_paths": [{"path": "c", "weight": 0.5}], "quantize": True,
              "assistant_lora_path": "d", "inference_lora_path": "e", "qtype": "uint4|f", "arch": "wan"},
}]}}  # fmt: skip
SIDECARS = (
    JOB, {"usage_tips": '{"strength": 0.8, "strength_range": "0.6-1.0"}', "sha256": "a" * 64, "base_model": "Flux.1 D"},
    {"preferred weight": 0.7, "notes": "x"}, {"peft_type": "LORA", "base_model_name_or_path": "a", "r": 8},
    {"assistant_lora_path": "a", "disable_assistant_lora": False, "--output_dir": "b", "lora_type": "standard"},
    {"training_method": "LORA", "base_model_name": "a"}, {"base_weights": ["a"], "base_weights_multiplier": [1.0]},
)  # fmt: skip
CONFIG = {
    "peft_type": "LORA", "r": 8, "lora_alpha": 4, "use_rslora": True, "use_dora": False, "init_lora_weights": "pissa",
    "rank_pattern": {"to_q": 4}, "alpha_pattern": {r"blocks\.(0|1)\.q": 2.0}, "use_cayley_neumann": True,
}  # fmt: skip
FILES = tuple({"shapes": shapes, "config": CONFIG} for _, shapes in FIXTURES.values())


def _said(data: bytes) -> str:
    return data.decode("utf-8", "replace")


def _json(data: bytes) -> Any:
    return parse_json(_said(data), "x")


def _header(data: bytes, folder: Path) -> object:
    return parse_header(folder / "x.safetensors", io.BytesIO(data).read, len(data))


def _stated(data: Any, most: int) -> dict[str, tuple[int, ...]]:
    """Shapes in JSON of names and shapes, as far as they are some: numbers below ``most``, few large ones."""
    shapes: dict[str, tuple[int, ...]] = {}
    for name, shape in data.items() if isinstance(data, dict) else ():
        if isinstance(shape, list) and all(type(size) is int and 0 <= size < most for size in shape[:5]):
            shapes[name] = tuple(shape[:5])
    return {name: shape for name, shape in shapes.items() if len(shape) < 3 or max(shape, default=0) < most // 10}


def _shapes(data: bytes) -> None:
    """A LoRA of any shapes, planned on a base and, where that is allowed, baked within what was announced.

    Nothing is allocated for it before the shapes are checked.
    """
    values = {name: torch.tensor(0.1).expand(shape) for name, shape in _stated(_json(data), 2**10).items()}
    made = layer(BASE, LoRAFile(ShapeSource({}, values, label="x"), "x", "0" * 64))
    plan = add_layer(Plan(BASE), made)
    assert working_bytes(plan, AUTO) < MOST_WORK, "a weight of a few numbers takes megabytes"
    bake(plan, Finish("none"), Collected())


def _names(data: bytes) -> None:
    """A LoRA of any names and shapes, with what PEFT says of its scale in its header."""
    told = _json(data)
    told = told if isinstance(told, dict) else {}
    values = {name: torch.tensor(0.0).expand(shape) for name, shape in _stated(told.get("shapes"), 2**14).items()}
    LoRAFile(ShapeSource({}, values, label="x"), "x", "0" * 64, {HEADER_KEY: json.dumps(told.get("config"))})


def _texts(data: bytes) -> None:
    keeps("blocks.0.self_attn.q.weight", "wan", parse_keep(_said(data)))
    parse_blocks(_said(data), "flux")(next(iter(BASE.source.tensors)))


def _whole_header(text: bytes) -> bytes:
    return pack(text, bytes(16))


def _in_picture(text: bytes) -> bytes:
    return SIGNATURE + chunk(b"tEXt", b"prompt\0" + text)


def _only(read: Callable[[bytes], object]) -> Callable[[bytes, Path], object]:
    """A reader that needs no folder."""
    return lambda data, _: read(data)


TARGETS = {
    "header": Target(
        _header, (GOOD, pack({"__metadata__": {"a": "b"}, "a": tensor(0, 8)}, EIGHT)),
        ({"__metadata__": {"a": "b"}, "a": tensor(0, 8), "b": tensor(8, 16)},), _whole_header,
    ),
    "index": Target(
        _in_file(find_files, "x.safetensors.index.json"), (b'{"metadata": {}, "weight_map": {"a": "b.sft"}}',),
        ({"metadata": {"total_size": 8}, "weight_map": {"a": "x-00001-of-00002.safetensors", "b": "c.safetensors"}},),
    ),
    "document": Target(_only(lambda data: parse_document(parse_text(decode(data, "doc"), "doc"), "doc")), (
        b"base: a.safetensors\nstack:\n- {path: b, weight: 0.5}\n", b'{"base": "a", "lora_paths": ["b"]}',
        b"config: {process: [{model: {name_or_path: a, lora_path: b, quantize: true}}]}\n",
    ), (DOCUMENT, JOB)),
    "rows": Target(_only(lambda data: parse_rows(_said(data), "rows")), (
        b'[{"path": "a", "weight": 1.0, "blocks": "double=1"}]', b"- a\n- {path: b, on: false}\n",
    ), (DOCUMENT["stack"],)),
    "posted": Target(_only(lambda data: lint(graph_of({"prompt": _json(data)}))), (PROMPT,), PROMPTS),
    "workflow": Target(
        _in_file(lambda path: lint(read_workflow(path)).to_json(), "x.json"), (PROMPT, CANVAS), CANVASES
    ),
    "script": Target(_in_file(read_evidence, "x.sh"), (SCRIPT,)),
    "config": Target(_in_file(read_evidence, "x.toml"), (b'base_weights = ["a"]\n[x]\nnetwork_module = "y"\n',)),
    "job": Target(_in_file(read_evidence, "x.yaml"), (
        b"config:\n  process:\n  - type: sd_trainer\n    network: {type: lora}\n    model: {lora_path: a}\n",
    ), (JOB,)),
    "sidecar": Target(_in_file(read_evidence, "x.json"), (json.dumps(JOB).encode(),), SIDECARS),
    "readme": Target(_in_file(read_evidence, "x.md"), (b"---\nbase_model:\n- a/b\ntags: [lora]\n---\n# x\n",)),
    "log": Target(_in_file(read_evidence, "x.log"), (
        b"merging module: a with multiplier 1.0\n2 tensors are fused by LoRA.\n",
    )),
    "picture": Target(_in_file(read_workflow, "x.png"), (
        _in_picture(PROMPT),
        b"RIFF\0\0\0\0WEBPEXIF" + struct.pack("<I", 40) + b"II*\0\x08\0\0\0\x01\0" + struct.pack("<HHII", 271, 2, 9, 26)
        + b"\0\0\0\0prompt:{}", b"\xff\xd8\xff\xe1\0\x10Exif\0\0MM\0*\0\0\0\x08\0\0",
    ), (json.loads(PROMPT),), _in_picture),
    "record": Target(_only(lambda data: parse_record(_json(data), "x")), (RECORD,), (record_json(),)),
    "shapes": Target(_only(_shapes), (SHAPES,), make=partial(hostile_shapes, BASE.source.tensors)),
    "names": Target(_only(_names), (json.dumps(FILES[0]).encode(),), FILES),
    "convert": Target(_only(lambda data: convert(_json(data)).to_json()), (PROMPT, CANVAS), PROMPTS + CANVASES),
    "address": Target(_only(lambda data: parse_remote(_said(data))), (
        b"s3://bucket/a/b.safetensors", b"hf://owner/repo@main/a.safetensors", b"https://h/a.sft#sha256=" + b"a" * 64,
    )),
    "texts": Target(_only(_texts), (b"auto, *.ffn.2", b"double=1,single=0.5,double.0-9=0.3")),
}  # fmt: skip
SHARES = {  # of the seconds: about what a case costs (ms), and more for the quick ones
    "header": 0.3, "index": 0.4, "document": 2.5, "rows": 0.7, "posted": 1.5, "workflow": 2.3, "script": 1.0,
    "config": 0.5, "job": 1.2, "sidecar": 0.5, "readme": 0.9, "log": 0.5, "picture": 0.7, "record": 0.3, "shapes": 1.3,
    "names": 0.4, "convert": 2.3, "address": 0.2, "texts": 0.2,
}  # fmt: skip
