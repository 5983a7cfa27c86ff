"""``lora-foundry inspect``: what it tells of a LoRA, a base, a result and a file that is none of them."""

from __future__ import annotations

import json

import pytest
import torch
from lora_foundry.loaders.disk.small import save_small
from schemas import faults


@pytest.fixture
def run(run):
    """The command; what ``inspect --json`` prints is as docs/inspect.schema.json says."""

    def call(*arguments: str):
        code, out, err = run(*arguments)
        if arguments[0] == "inspect" and isinstance(out, dict) and "error" not in out:
            assert faults(out, "inspect") == []
        return code, out, err

    return call


def test_inspect_a_lora(folder, run):
    code, facts, _ = run("inspect", "lightning.safetensors", "--json")
    assert code == 0 and len(facts["sha256"]) == 64
    seen = {key: facts[key] for key in ("kind", "dialect", "family", "rank", "alpha", "scale", "modules")}
    assert seen == {
        "kind": "lora", "dialect": "down/up", "family": "wan", "rank": [16, 16], "alpha": [2.0, 2.0],
        "scale": [0.125, 0.125], "modules": 10,
    }  # fmt: skip
    assert "down/up" in run("inspect", "lightning.safetensors")[1]


def test_inspect_a_base_and_what_was_made_of_it(folder, run):
    _, facts, _ = run("inspect", "base.safetensors", "--json")
    assert (facts["kind"], facts["family"], facts["quantized"], facts["made_by"]) == ("base", "wan", None, None)
    _, report, _ = run("bake", "stack.json", "-o", "out.safetensors", "--json")
    _, facts, _ = run("inspect", "out.safetensors", "--json")
    assert facts["made_by"]["recipe_sha256"] == report["recipe_sha256"] and "float8" in facts["quantized"]
    out = run("inspect", "out.safetensors")[1]
    assert report["recipe_sha256"] in out and "lightning.safetensors" in out


def test_inspect_an_adapter_that_is_not_supported(folder, run):
    save_small(folder / "loha.safetensors", {f"blocks.0.q.hada_w{i}_a": torch.zeros(4, 4) for i in (1, 2)})
    code, facts, _ = run("inspect", "loha.safetensors", "--json")
    assert (code, facts["kind"], facts["findings"][0]["code"]) == (1, "lora", "LF304")


@pytest.mark.parametrize(
    ("name", "data"),
    [("cut.safetensors", b"\x10\0\0\0\0\0\0\0{}"), ("model.ckpt", b"PK\x03\x04"), ("gone.safetensors", None)],
)
def test_inspect_a_damaged_file(folder, run, name, data):
    if data is not None:
        (folder / name).write_bytes(data)
    code, out, err = run("inspect", name)
    assert (code, out) == (2, "") and err.startswith("[file]") and name in err and err.count("\n") == 1


def test_metadata_cannot_write_to_the_terminal(folder, run):
    from lora_foundry.engine.tensors import TensorInfo
    from lora_foundry.loaders.disk.writer import write_safetensors

    nasty = {"note": "\x1b[2J gone", "lora_foundry": json.dumps({"recipe": {"layers": ["\x1b[2J"], "base": 1}})}
    with write_safetensors(folder / "x.safetensors", [TensorInfo("a", torch.float32, (1,))], nasty) as sink:
        sink.write("a", torch.zeros(1))
    code, out, _ = run("inspect", "x.safetensors")
    assert code == 0 and "\x1b" not in out and "gone" in out


def test_inspect_lists_the_dialects_and_wants_a_file(run):
    code, report, _ = run("inspect", "--dialects", "--json")
    assert code == 0 and {"name", "writers", "prefix", "alpha"} <= set(report["dialects"][0])
    assert "kohya SDXL" in run("inspect", "--dialects")[1]
    code, report, _ = run("inspect", "--json")
    assert (code, report["error"]["code"]) == (2, "usage")
