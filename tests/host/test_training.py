"""Fuse, train, save, validate: a LoRA that ComfyUI trained on a model of this pack tells what it was trained on."""

from __future__ import annotations

import json

import pytest
from host import rig
from host.foundry import declare, fuse, load, loras, native, report, stack, train
from host.graphs import Graph, Link
from safetensors import safe_open
from safetensors.torch import load_file

FAMILY = "sd15"


def save(graph: Graph, lora: Link, model: Link, **inputs: object) -> Link:
    """FoundrySaveTrainedLoRA."""
    settings = {"filename_prefix": "loras/foundry"}
    return graph.add("FoundrySaveTrainedLoRA", lora=lora, model=model, **{**settings, **inputs})


def trained_on(host: rig.Host, graph: Graph, model: Link, **inputs: object) -> dict:
    """What the saving node reports of a LoRA trained on this MODEL; ``host_file`` is what the host's own node wrote."""
    lora = train(host, graph, model, FAMILY)
    saved = save(graph, lora, model, **inputs)
    graph.add("SaveLoRA", lora=lora, prefix="by_host/lora")
    entry = host.run(graph)
    (claim,) = (report(entry, saved)["lineage"] or {"claims": [None]})["claims"]
    text = "\n".join(entry["outputs"][saved[0]]["text"])
    return {**report(entry, saved), "claim": claim, "text": text, "host_file": max(host.output.glob("by_host/*"))}


@pytest.fixture(scope="module")
def base(host) -> tuple[str, str]:
    """(base, Lightning-like LoRA) as names."""
    return host.tiny(FAMILY), loras(host, FAMILY)[0]


@pytest.fixture(scope="module")
def trained(host, base) -> dict:
    """A LoRA trained on the fused base."""
    graph = Graph()
    fused = fuse(graph, load(graph, base[0]), base[1], 0.8)
    return trained_on(host, graph, graph.add("FoundryApply", model=fused, how="bake"))


def findings(host: rig.Host, base: tuple[str, str], trained: dict, fused: bool) -> list[dict]:
    """What the validator says of the trained LoRA on this base, about order and base LoRAs."""
    graph = Graph()
    plan = load(graph, base[0])
    plan = stack(graph, fuse(graph, plan, base[1], 0.8) if fused else plan, name_of(trained), 1.0)
    validator = graph.add("FoundryStackValidator", model=plan, policy="match training", strict=False)
    found = report(host.run(graph), validator)["findings"]
    return [finding for finding in found if finding["code"].startswith("LF1")]


def name_of(trained: dict) -> str:
    """The name a LoRA loader lists it by."""
    return trained["out"].replace("\\", "/").rpartition("/")[2]


def test_the_file_holds_what_the_host_would_write_and_its_lineage(base, trained):
    ours, theirs = load_file(trained["out"]), load_file(trained["host_file"])
    assert {name: tensor.dtype for name, tensor in ours.items()} == {n: t.dtype for n, t in theirs.items()}
    assert all(ours[name].equal(theirs[name]) for name in theirs)
    with safe_open(trained["out"], "pt") as file:
        record = json.loads(file.metadata()["lora_foundry.lineage"])
    assert record["claims"] == trained["lineage"]["claims"]
    assert record["id"] == {"tensor_sha256": trained["lineage"]["id"]["tensor_sha256"]}
    (inside,) = trained["claim"]["trained_with"]
    assert trained["claim"]["evidence"]["level"] == "derived"
    assert (inside["name"], inside["strength"]) == (base[1], 0.8)
    assert any(id.startswith("sha256:") for id in inside["ids"])


def test_on_the_unfused_base_it_is_told_and_on_the_fused_one_nothing(host, base, trained):
    (finding,) = findings(host, base, trained, fused=False)
    assert (finding["code"], finding["severity"], finding["evidence"]) == ("LF102", "warning", "derived")
    assert (finding["subject"], base[1] in finding["seen"]) == (name_of(trained), True)
    assert findings(host, base, trained, fused=True) == []


def test_taking_back_a_declaration_leaves_what_the_training_wrote(host, trained):
    levels = []
    for said in ("vanilla base", "unknown"):
        graph = Graph()
        link = declare(graph, name_of(trained), said)
        claims = report(host.run(graph), link)["lineage"]["claims"]
        levels.append([claim["evidence"]["level"] for claim in claims])
    assert levels == [["declared", "derived"], ["derived"]]


def test_patches_of_ours_are_on_record_and_patches_of_others_make_it_a_guess(host, base):
    graph = Graph()
    ours = graph.add("FoundryApply", model=fuse(graph, load(graph, base[0]), base[1]), how="patches")
    told = trained_on(host, graph, ours)["claim"]
    assert ([each["name"] for each in told["trained_with"]], told["evidence"]["level"]) == ([base[1]], "derived")
    other = loras(host, FAMILY)[1]
    told = trained_on(host, graph, native(graph, ours, (other, 0.5)))["claim"]
    assert ([each["name"] for each in told["trained_with"]], told["evidence"]["level"]) == ([base[1]], "guessed")


def test_of_a_native_model_no_more_is_claimed_than_is_known(host, base):
    graph = Graph()
    unet = graph.unet(base[0])
    seen = trained_on(host, graph, unet)
    assert (seen["claim"]["trained_with"], seen["claim"]["evidence"]["level"]) == ([], "guessed")
    seen = trained_on(host, graph, native(graph, unet, (base[1], 1.0)))
    assert (seen["lineage"], "Nothing was written down" in seen["text"]) == (None, True)
    with safe_open(seen["out"], "pt") as file:
        assert file.metadata() == {"format": "pt"}


def test_steps_go_into_the_name_and_no_file_is_overwritten(host, base):
    outs = []
    for strength in (0.1, 0.2, 0.3):
        graph = Graph()
        fused = fuse(graph, load(graph, base[0]), base[1], strength)
        model = graph.add("FoundryApply", model=fused, how="bake")
        steps = graph.add("PrimitiveInt", value=10)
        outs.append(trained_on(host, graph, model, filename_prefix="loras/numbered", steps=steps)["out"])
    assert len(set(outs)) == 3 and all("numbered_10_steps_" in out for out in outs)


def test_a_diverged_training_is_kept_and_told(inprocess):
    def seen() -> list:
        import torch
        from lora_foundry.engine.errors import FoundryError
        from lora_foundry.nodes import train

        found = train.broken("x.safetensors", {"a": torch.tensor([1.0, float("nan")]), "b": torch.ones(2)})
        refused = []
        for odd in (None, {}, {"a": 1}, [torch.ones(1)]):
            try:
                train.tensors_of(odd)
            except FoundryError as error:
                refused.append(error.code)
        return [found[0].code, found[0].severity, found[0].seen, train.broken("x", {"b": torch.ones(2)}), refused]

    told = "1 of 2 tensors of x.safetensors hold NaN or Inf."
    assert inprocess(seen) == ["LF304", "warning", told, [], ["lora"] * 4]
