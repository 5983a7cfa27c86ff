"""Documents, options and merges that name files elsewhere: the very bytes of the same files on this machine."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from fault_server import Reply
from lora_foundry.cli.demo import tiny
from lora_foundry.cli.main import main
from lora_foundry.engine.errors import FoundryError
from lora_foundry.loaders.disk.small import save_small
from lora_foundry.loaders.documents.document import load_document, parse_document
from lora_foundry.loaders.plans.planner import plan_document
from lora_foundry.loaders.remote.objects import Asking

SHAPES = tiny.shapes("wan", width=128, layers=2)
LORAS = ("lightning", "style")


@pytest.fixture
def files(server, tmp_path):
    """A base and two LoRAs, here and on the server."""
    save_small(tmp_path / "base.safetensors", tiny.state_dict("wan", width=128, layers=2))
    for seed, name in enumerate(LORAS, 1):
        made = tiny.lora(SHAPES, rank=4, alpha=4, dialect="A/B", prefix="diffusion_model.", seed=seed)
        save_small(tmp_path / f"{name}.safetensors", made)
    for path in tmp_path.glob("*.safetensors"):
        server.files[f"/models/wan/{path.name}"] = path.read_bytes()
    return tmp_path


def document(folder, where: str, base: str | None = None, **more) -> str:
    """A document with both LoRAs at ``where``."""
    rows = {
        "fuse": [f"{where}lightning.safetensors"],
        "stack": [{"path": f"{where}style.safetensors", "strength": 0.5}],
    }
    path = folder / "stack.json"
    path.write_text(json.dumps({"base": base or "base.safetensors", **rows, "quantize": "fp8", **more}))
    return str(path)


def baked(folder, *arguments: str) -> bytes:
    out = folder / "out" / "model.safetensors"
    out.parent.mkdir(exist_ok=True)
    assert main(["bake", *arguments, "-o", str(out), "--fresh"]) == 0
    return out.read_bytes()


def test_a_document_with_loras_of_a_bucket_bakes_to_the_same_bytes(files, capsys):
    here = baked(files, document(files, ""))
    there = baked(files, document(files, "s3://models/wan/"))
    assert there == here
    assert "s3://models/wan/style.safetensors" in capsys.readouterr().out


def test_a_base_of_a_bucket_bakes_to_the_same_bytes(files, server, capsys):
    here = baked(files, document(files, ""))
    server.asked.clear()
    there = baked(files, document(files, "s3://models/wan/", "s3://models/wan/base.safetensors"))
    assert there == here and "base.safetensors" in capsys.readouterr().out
    assert not (files / "lora-foundry" / "remote").exists()


def test_the_toolkits_block_may_name_them(files):
    block = {"model": {"name_or_path": "base.safetensors", "lora_paths": ["s3://models/wan/style.safetensors"]}}
    (files / "toolkit.json").write_text(json.dumps(block))
    (files / "here.json").write_text(json.dumps(block).replace("s3://models/wan/", ""))
    assert baked(files, str(files / "toolkit.json")) == baked(files, str(files / "here.json"))


def test_the_options_may_name_them_with_a_strength(files, monkeypatch):
    monkeypatch.chdir(files)
    options = ("--base", "base.safetensors", "--lora")
    there = baked(files, *options, "s3://models/wan/style.safetensors:0.7")
    assert there == baked(files, *options, "style.safetensors:0.7")


def test_a_merge_takes_them_from_a_bucket(files, capsys):
    out, found = files / "merged.safetensors", []
    for where in ("s3://models/wan/", f"{files}/"):
        assert main(["merge", *(f"{where}{name}.safetensors" for name in LORAS), "-o", str(out), "--json"]) == 0
        found.append(out.read_bytes())
        out.unlink()
    assert found[0] == found[1]
    assert main(["conflicts", "s3://models/wan/style.safetensors", str(files / "lightning.safetensors")]) == 0
    capsys.readouterr()


def test_a_row_that_cannot_be_had_is_told_like_any_other(files, capsys):
    assert main(["check", document(files, "s3://models/gone/")]) == 2
    said = capsys.readouterr()
    assert len(re.findall("is not there", said.out + said.err)) >= 2


def test_what_a_strict_plan_asks_for_is_refused_and_nothing_is_sent(files, server):
    data = json.loads(Path(document(files, "s3://models/wan/")).read_text())
    data["base"] = str(files / "base.safetensors")
    with pytest.raises(FoundryError, match="LORA_FOUNDRY_S3_ALLOW=models"):
        plan_document(parse_document(data, "here"), asking=Asking(strict=True))
    assert not server.asked


def test_a_note_that_a_copy_was_used_is_a_finding_of_its_lora(files, server, capsys):
    text = document(files, "s3://models/wan/")
    baked(files, text)
    server.fault = lambda server, asked: Reply(503)
    assert main(["check", text]) == 0
    assert capsys.readouterr().out.count("the copy in the cache is used") == 2


def test_init_leaves_addresses_as_they_are(files, monkeypatch, capsys):
    monkeypatch.chdir(files)
    (files / "sub").mkdir()
    told = ("--base", "s3://models/wan/base.safetensors", "--lora", "s3://models/wan/style.safetensors:0.7")
    assert main(["init", *told, "-o", "sub/stack.yaml"]) == 0
    read = load_document(files / "sub" / "stack.yaml")
    assert (read.base, read.stack[0].path) == (told[1], "s3://models/wan/style.safetensors")
    assert read.stack[0].strength == 0.7
