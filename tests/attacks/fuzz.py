"""A fuzz of every reader of what strangers write: seeds, changes of them, and what may come of one.

A reader may return or raise FoundryError, in a moment; anything else is a find, and its input a new seed in ``seeds/``.
"""

from __future__ import annotations

import hashlib
import json
import random
import struct
import time
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from attacks.files import GOOD, pack, tensor
from attacks.hostile_shapes import hostile_shapes
from fakes import Collected
from lora_foundry.engine.bake import bake
from lora_foundry.engine.errors import FoundryError
from lora_foundry.engine.finish import Finish
from lora_foundry.engine.memory import AUTO
from lora_foundry.engine.needs import working_bytes
from lora_foundry.engine.plan import Plan
from lora_foundry.engine.quantize import keeps, parse_keep
from lora_foundry.loaders.converting.convert import convert
from lora_foundry.loaders.disk.header import read_header
from lora_foundry.loaders.disk.shards import find_files
from lora_foundry.loaders.disk.text import decode, parse_text
from lora_foundry.loaders.documents.document import parse_document, parse_rows
from lora_foundry.loaders.evidence.configs import parse_json
from lora_foundry.loaders.evidence.reading import read_evidence
from lora_foundry.loaders.lineage.record import parse_record
from lora_foundry.loaders.lint.lint import lint
from lora_foundry.loaders.loras.file import LoRAFile
from lora_foundry.loaders.loras.matching import add_layer
from lora_foundry.loaders.names.blocks import parse_blocks
from lora_foundry.loaders.remote.names import parse_remote
from lora_foundry.loaders.workflows.reading import graph_of, read_workflow
from planner_parts import a_base, layer
from samples import ShapeSource

SEEDS = Path(__file__).parent / "seeds"
MOST_WORK = 64e6  # bytes that a bake of weights of at most 1536 numbers may announce
SLOW = 2.0  # seconds of processor time of one case
BASE = a_base({"blocks.0.q.weight": (48, 32), "patch_embedding.weight": (16, 8), "blocks.0.q.bias": (48,)})
WORDS = [
    *(
        b"{",
        b"}",
        b"[",
        b"]",
        b'"',
        b":",
        b",",
        b"\n",
        b"- ",
        b"&a ",
        b"*a",
        b"<<: ",
        b"!!int ",
        b"\0",
        b"\xff",
        b"\\u",
    ),
    *(b"null", b"true", b"1e999", b"NaN", b"-1", b"0", b"9" * 30, b"4294967295", b"a" * 300, b"$(", b"<<END\n", b"'''"),
    *(
        b"lora",
        b"model",
        b"inputs",
        b"class_type",
        b"stack",
        b"path",
        b"weight",
        b"nodes",
        b"links",
        b"prompt:",
        b"../",
    ),
]


@dataclass(frozen=True)
class Target:
    """A reader of bytes (through a file of this ending), and what it usually reads.

    ``make`` writes whole inputs of its own: every second case is one, and is not changed.
    """

    read: Callable[[Path], object]
    ending: str
    seeds: tuple[bytes, ...]
    make: Callable[[random.Random], bytes] | None = None


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


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


def _said(path: Path) -> str:
    return path.read_bytes().decode("utf-8", "replace")


def _shapes(path: Path) -> None:
    """A LoRA of any shapes, planned on a base and, where that is allowed, baked within what was announced.

    Nothing is allocated for it before the shapes are checked.
    """
    stated = parse_json(_said(path), "shapes")
    shapes: dict[str, tuple[int, ...]] = {}
    for name, shape in stated.items() if isinstance(stated, dict) else ():
        if isinstance(shape, list) and all(type(size) is int and 0 <= size < 2**10 for size in shape[:5]):
            shapes[name] = tuple(shape[:5])
    shapes = {name: shape for name, shape in shapes.items() if len(shape) < 3 or max(shape, default=0) < 100}
    values = {name: torch.full(shape, 0.1) for name, shape in shapes.items()}
    made = layer(BASE, LoRAFile(ShapeSource({}, values, label="x"), "x", "0" * 64))
    plan = add_layer(Plan(BASE), made)
    assert working_bytes(plan, AUTO) < MOST_WORK, "a weight of a few numbers takes megabytes"
    bake(plan, Finish("none"), Collected())


def _convert(path: Path) -> None:
    convert(parse_json(_said(path), "x")).to_json()


def _texts(path: Path) -> None:
    text = _said(path)
    keeps("blocks.0.self_attn.q.weight", "wan", parse_keep(text))
    parse_blocks(text, "flux")(next(iter(BASE.source.tensors)))


def _document(path: Path) -> None:
    parse_document(parse_text(decode(path.read_bytes(), "doc"), "doc"), "doc")


TARGETS = {
    "header": Target(read_header, ".safetensors", (GOOD, pack({"__metadata__": {"a": "b"}, "a": tensor(0, 8)}, EIGHT))),
    "index": Target(find_files, ".safetensors.index.json", (b'{"metadata": {}, "weight_map": {"a": "b.sft"}}',)),
    "document": Target(_document, ".yaml", (
        b"base: a.safetensors\nstack:\n- {path: b, weight: 0.5}\n", b'{"base": "a", "lora_paths": ["b"]}',
        b"config: {process: [{model: {name_or_path: a, lora_path: b, quantize: true}}]}\n",
    )),
    "rows": Target(lambda path: parse_rows(_said(path), "rows"), ".json", (
        b'[{"path": "a", "weight": 1.0, "blocks": "double=1"}]', b"- a\n- {path: b, on: false}\n",
    )),
    "posted": Target(lambda path: lint(graph_of({"prompt": parse_json(_said(path), "x")})), ".json", (PROMPT,)),
    "workflow": Target(lambda path: lint(read_workflow(path)).to_json(), ".json", (PROMPT, CANVAS)),
    "script": Target(read_evidence, ".sh", (SCRIPT,)),
    "config": Target(read_evidence, ".toml", (b'base_weights = ["a"]\n[x]\nnetwork_module = "y"\n',)),
    "job": Target(read_evidence, ".yaml", (b"config:\n  process:\n  - model: {lora_path: a}\n",)),
    "log": Target(read_evidence, ".log", (b"merging module: a with multiplier 1.0\n2 tensors are fused by LoRA.\n",)),
    "picture": Target(read_workflow, ".png", (
        b"\x89PNG\r\n\x1a\n" + _chunk(b"tEXt", b"prompt\0" + PROMPT),
        b"RIFF\0\0\0\0WEBPEXIF" + struct.pack("<I", 40) + b"II*\0\x08\0\0\0\x01\0" + struct.pack("<HHII", 271, 2, 9, 26)
        + b"\0\0\0\0prompt:{}", b"\xff\xd8\xff\xe1\0\x10Exif\0\0MM\0*\0\0\0\x08\0\0",
    )),
    "record": Target(lambda path: parse_record(parse_json(_said(path), "x"), "x"), ".json", (RECORD,)),
    "shapes": Target(_shapes, ".json", (SHAPES,), partial(hostile_shapes, BASE.source.tensors)),
    "convert": Target(_convert, ".json", (PROMPT, CANVAS)),
    "address": Target(lambda path: parse_remote(_said(path)), ".txt", (
        b"s3://bucket/a/b.safetensors", b"hf://owner/repo@main/a.safetensors", b"https://h/a.sft#sha256=" + b"a" * 64,
    )),
    "texts": Target(_texts, ".txt", (b"auto, *.ffn.2", b"double=1,single=0.5,double.0-9=0.3")),
}  # fmt: skip


@dataclass(frozen=True)
class Find:
    """An input that a reader did not survive, and how."""

    target: str
    data: bytes
    fault: str

    def keep(self) -> Path:
        """The input as a new seed."""
        path = SEEDS / f"{self.target}-{hashlib.sha256(self.data).hexdigest()[:12]}.bin"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(self.data)
        return path


def changed(rng: random.Random, data: bytes, others: list[bytes]) -> bytes:
    """One to eight changes: bytes, words of the readers, parts doubled, cut, moved, or from another seed."""
    text = bytearray(data)
    for _ in range(rng.randint(1, 8)):
        at, end = sorted((rng.randint(0, len(text)), rng.randint(0, len(text))))
        how = rng.randrange(7)
        if how == 0 and text:
            text[rng.randrange(len(text))] = rng.randrange(256)
        elif how == 1:
            text[at:at] = rng.choice(WORDS) * rng.choice((1, 1, 1, 2, 50))
        elif how == 2:
            del text[at:end]
        elif how == 3 and len(text) < 20_000:
            text[at:at] = text[at:end] * rng.choice((1, 2, 20))
        elif how == 4:
            other = rng.choice(others)
            text[at:end] = other[: rng.randint(0, len(other))]
        elif how == 5:
            text[at:end] = str(rng.choice((0, -1, 2**31, 2**63, 10**20, rng.randrange(100)))).encode()
        else:
            text[at:at] = rng.choice((b"[", b'{"a":', b"(", b"- ")) * rng.choice((1, 10, 300))
    return bytes(text[:60_000])


def tried(name: str, data: bytes, folder: Path) -> Find | None:
    """What came of one input; None where it is read or refused in a moment."""
    target = TARGETS[name]
    path = folder / f"fuzz{target.ending}"
    path.write_bytes(data)
    start = time.thread_time()
    try:
        target.read(path)
    except FoundryError as error:
        if not str(error).replace("\n", "").isprintable():
            return Find(name, data, f"a sentence that cannot be printed: {str(error)!r:.200}")
    except Exception as error:  # noqa: BLE001 (that is what is looked for)
        return Find(name, data, f"{type(error).__name__}: {error!s:.200}")
    spent = time.thread_time() - start
    return Find(name, data, f"{spent:.1f} s") if spent > SLOW else None


def kept_seeds(name: str) -> list[bytes]:
    """What was found before."""
    return [path.read_bytes() for path in sorted(SEEDS.glob(f"{name}-*.bin"))]


def fuzz(name: str, seconds: float, seed: int, folder: Path) -> Iterator[Find | None]:
    """Cases of one target for so long; each is a find, or None."""
    rng, end = random.Random(f"{name} {seed}"), time.monotonic() + seconds
    seeds = [*TARGETS[name].seeds, *kept_seeds(name)]
    others = [data for target in TARGETS.values() for data in target.seeds]
    make = TARGETS[name].make
    while time.monotonic() < end:
        own = make is not None and rng.random() < 0.5
        yield tried(name, make(rng) if own and make else changed(rng, rng.choice(seeds), others), folder)
