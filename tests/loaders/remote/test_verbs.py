"""Verbs that read a LoRA or a base take its address: the same answers and the same files as of the copy here."""

from __future__ import annotations

import json

import pytest
import torch
from lora_foundry.cli.demo import tiny
from lora_foundry.cli.main import main
from lora_foundry.engine.errors import FoundryError
from lora_foundry.loaders.bases.checkpoint import open_checkpoint
from lora_foundry.loaders.disk.small import save_small, serialised
from lora_foundry.loaders.lineage.provenance import lineage_of_lora
from lora_foundry.loaders.lineage.subjects import name_lora
from lora_foundry.loaders.loras.file import open_lora
from lora_foundry.loaders.remote import source
from lora_foundry.loaders.remote.fetching import fetch
from lora_foundry.loaders.remote.names import parse_remote
from lora_foundry.loaders.remote.objects import Asking

THERE = "s3://models/wan/"
KNOWN = "Qwen-Image-Lightning-8steps-V1.1"


def dora(base: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """A DoRA on the blocks, which no merge can do without the base."""
    plain = tiny.lora(base, rank=4, dialect="A/B", rms=0.05, seed=5, modules=r"^blocks\.", prefix="diffusion_model.")
    ups = {name: each for name, each in plain.items() if name.endswith("lora_B.weight")}
    return plain | {
        f"{name.removesuffix('lora_B.weight')}dora_scale": torch.ones(len(up), 1) for name, up in ups.items()
    }


@pytest.fixture
def folder(server, tmp_path, monkeypatch):
    """A base, one with a LoRA inside, and LoRAs: here, and on the server."""
    base = tiny.state_dict("wan", width=64)
    blocks = {"modules": r"^blocks\.", "prefix": "diffusion_model."}
    loras = {name: tiny.lora(base, rank=4, rms=0.05, seed=seed, **blocks) for seed, name in enumerate(("a", "b"), 1)}
    for name, tensors in {"base": base, **loras, "dora": dora(base)}.items():
        save_small(tmp_path / f"{name}.safetensors", tensors)
    monkeypatch.chdir(tmp_path)
    rows = {"base": "base.safetensors", "stack": ["a.safetensors"]}
    (tmp_path / "stack.json").write_text(json.dumps(rows))
    assert main(["bake", "stack.json", "-o", "tuned.safetensors"]) == 0
    for path in tmp_path.glob("*.safetensors"):
        server.files[f"/models/wan/{path.name}"] = path.read_bytes()
    return tmp_path


@pytest.fixture
def told(folder, capsys):
    def call(*words: str, code: int = 0):
        capsys.readouterr()
        assert main([*words, "--json"]) == code
        return json.loads(capsys.readouterr().out)

    return call


@pytest.mark.parametrize("file", ["a.safetensors", "dora.safetensors", "base.safetensors", "tuned.safetensors"])
def test_inspect_tells_the_same_of_a_file_elsewhere(told, server, file):
    here = told("inspect", file)
    server.asked.clear()
    there = told("inspect", f"{THERE}{file}")
    assert there == {**here, "files": [f"{THERE}{file}"]} and {asked.method for asked in server.asked} == {"GET"}


def test_of_a_base_elsewhere_only_header_and_edges_are_read(server, capsys):
    large = {f"blocks.{i}.weight": torch.ones(1024, 512) for i in range(8)}
    server.files["/models/large.safetensors"] = serialised(large)
    server.sent = 0
    assert main(["inspect", "s3://models/large.safetensors"]) == 0
    assert server.sent < 2 * source.HEAD + 9 * 8192 < len(server.files["/models/large.safetensors"]) / 10


@pytest.mark.parametrize("file", ["a.safetensors", "tuned.safetensors"])
def test_lineage_shows_the_same_of_a_file_elsewhere(told, file):
    assert told("lineage", "show", f"{THERE}{file}") == told("lineage", "show", file)


def test_what_is_declared_of_a_file_elsewhere_is_known_of_its_copy_here(told):
    made = told("lineage", "declare", f"{THERE}b.safetensors", "--trained-with", f"{THERE}a.safetensors")
    assert made["record"]["name"] == "b.safetensors"
    (claim,) = told("lineage", "show", "b.safetensors")["claims"]
    assert [each["name"] for each in claim["trained_with"]] == ["a.safetensors"]
    here = told("lineage", "declare", "b.safetensors", "--trained-with", "a.safetensors")
    assert here["record"]["claims"][0]["trained_with"] == made["record"]["claims"][0]["trained_with"]
    assert told("lineage", "export", f"{THERE}b.safetensors")["records"]
    assert told("lineage", "forget", f"{THERE}b.safetensors")["forgotten"]


def test_a_stamped_copy_of_a_file_elsewhere_lies_here(told, folder):
    told("lineage", "declare", "b.safetensors", "--trained-with", "none")
    out = told("lineage", "stamp", f"{THERE}b.safetensors")["out"]
    assert out == "b_lineage.safetensors" and (folder / out).is_file()
    assert told("lineage", "show", out)["claims"]


def test_weights_elsewhere_are_weighed(told):
    for words in (("a", "a"), ("a", "b"), ("tuned", "a", "base")):
        here = [f"{word}.safetensors" for word in words]
        there = [f"{THERE}{name}" for name in here]
        options = [*("--original",) * (len(words) - 2)]
        answers = [told("lineage", "weigh", w[0], "--contains", w[1], *options, *w[2:]) for w in (here, there)]
        assert answers[0] == answers[1] and answers[0]["verdict"] in ("contains it", "does not contain it")


@pytest.mark.parametrize("words", [
    ("merge", "dora.safetensors", "b.safetensors", "--base", "base.safetensors"),
    ("resize", "dora.safetensors", "--base", "base.safetensors", "--rank", "2"),
    ("extract", "tuned.safetensors", "base.safetensors", "--rank", "4"),
])  # fmt: skip
def test_a_base_elsewhere_makes_the_same_file(told, folder, words):
    outs = []
    for where in ("", THERE):
        told(*(f"{where}{word}" if word.endswith(".safetensors") else word for word in words), "-o", "out.safetensors")
        outs.append((folder / "out.safetensors").read_bytes())
    assert outs[0] == outs[1]


def test_the_base_of_a_merged_document_may_lie_elsewhere(told, folder):
    outs = []
    for where in ("", THERE):
        rows = {
            "base": f"{where}base.safetensors",
            "fuse": [f"{where}a.safetensors"],
            "stack": [f"{where}dora.safetensors"],
        }
        (folder / "stack.json").write_text(json.dumps(rows))
        told("merge", "stack.json", "-o", "out.safetensors")
        outs.append((folder / "out.safetensors").read_bytes())
    assert outs[0] == outs[1]
    assert told("merge", "--verify", "out.safetensors", f"{THERE}a.safetensors", f"{THERE}dora.safetensors", "--base",
                f"{THERE}base.safetensors")["agrees"]  # fmt: skip


def test_conflicts_are_the_same_on_a_base_elsewhere(told):
    answers = [
        told("conflicts", f"{where}dora.safetensors", f"{where}b.safetensors", "--base", f"{where}base.safetensors")
        for where in ("", THERE)
    ]
    assert json.dumps(answers[1]).replace(THERE, "") == json.dumps(answers[0])


def test_a_large_tensor_is_read_in_ranges(folder, server, monkeypatch):
    """As an extraction reads it: in one request it could take longer than a request may."""
    monkeypatch.setattr(source, "RANGE", 1 << 12)
    monkeypatch.setattr(source, "SMALL", 1 << 10)
    there = source.RemoteSource([parse_remote(f"{THERE}base.safetensors")], Asking())
    here = open_checkpoint(folder / "base.safetensors")
    name = max(there.tensors, key=lambda each: there.tensors[each].nbytes)
    server.asked.clear()
    assert torch.equal(there.read(name), here.read(name))
    spans = sorted(asked.span for asked in server.asked)
    assert len(spans) > 2 and all(end - begin <= 1 << 12 for begin, end in spans)
    assert all(one[1] == other[0] for one, other in zip(spans, spans[1:], strict=False))


def test_a_known_lora_elsewhere_is_known_by_its_name(folder, server):
    server.files[f"/models/{KNOWN}.safetensors"] = server.files["/models/wan/a.safetensors"]
    file = fetch(parse_remote(f"s3://models/{KNOWN}.safetensors"), Asking())
    there = lineage_of_lora(open_lora(file.path, file.name, file.notes))
    (folder / "a.safetensors").rename(folder / f"{KNOWN}.safetensors")
    here = lineage_of_lora(open_lora(folder / f"{KNOWN}.safetensors"))
    assert here.accelerator is not None and there.accelerator is not None
    assert (there.accelerator.id, there.accelerator.level) == (here.accelerator.id, here.accelerator.level)


def test_an_address_in_somebody_elses_text_is_not_asked_for(server):
    """The browser's declaring names LoRAs too: there it stays a name."""
    with pytest.raises(FoundryError):
        name_lora(f"{THERE}a.safetensors")
    assert not server.asked


@pytest.mark.parametrize("words", [
    ("inspect", "s3://models/nowhere.safetensors"), ("lineage", "show", "s3://models/nowhere.safetensors"),
    ("extract", "s3://models/nowhere.safetensors", "base.safetensors", "--rank", "2", "-o", "out.safetensors"),
])  # fmt: skip
def test_a_file_that_is_not_there_is_a_sentence(told, words):
    error = told(*words, code=2)["error"]
    assert (error["code"], error["what"]) == ("remote", "s3://models/nowhere.safetensors is not there.")


def test_a_password_in_an_address_is_not_told(folder, server, capsys):
    assert main(["inspect", "s3://user:geheim@models/a.safetensors"]) == 2
    said = capsys.readouterr()
    assert "geheim" not in said.out + said.err and "holds a user name" in said.err and not server.asked
