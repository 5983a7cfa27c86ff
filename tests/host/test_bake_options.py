"""What the finishing nodes offer beside the format: memory, kept files, an error budget, shards; over POST /prompt."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from host import rig
from host.foundry import fuse, known, load, loras, quantize, relative, report, row, stack
from host.graphs import Graph, Link, output
from lora_foundry.cli.demo import tiny


def models(host: rig.Host) -> Path:
    return host.base / "models" / "diffusion_models"


def sampled(host: rig.Host, strength: float = 0.7, finish=quantize, **options: object) -> tuple[dict, dict]:
    """(report of the finishing node, what the sampler made) of fuse -> stack -> finish on the tiny Wan."""
    lightning, style = loras(host, "wan")
    graph = Graph()
    model = finish(
        graph, stack(graph, fuse(graph, load(graph, host.tiny("wan")), lightning), style, strength), **options
    )
    graph.sample(model, "wan")
    seen = host.run(graph)
    return report(seen, model), rig.latent(seen)


def bake(graph: Graph, plan: Link, **options: object) -> Link:
    return graph.add("FoundryApply", model=plan, how="bake", **options)


@pytest.mark.parametrize("finish", [quantize, bake])
def test_a_file_samples_as_memory_does_and_is_found_again(host, finish):
    in_memory, wanted = sampled(host, 0.61, finish)
    made, first = sampled(host, 0.61, finish, keep="file")
    again, second = sampled(host, 0.61, finish, keep="file", memory="low")
    assert (made["state"], again["state"]) == ("made", "from the cache")
    assert first["sha256"] == second["sha256"] == wanted["sha256"]
    assert again["recipe_sha256"] == made["recipe_sha256"] == in_memory["recipe_sha256"]
    assert [lora["gain"] for lora in again["loras"]] == pytest.approx([lora["gain"] for lora in made["loras"]])
    assert again["bytes_read"] == 0 and again["relative_error"] == pytest.approx(made["relative_error"])


def test_what_was_measured_comes_out_as_a_picture(host):
    """Of each node that measures; two are wired only after they ran: they run no more then."""
    lightning, style = loras(host, "wan")
    graph = Graph()
    plan = stack(graph, fuse(graph, load(graph, host.tiny("wan")), lightning), style, 0.34)
    checked = graph.add("FoundryStackValidator", model=plan, policy="allow accelerators", strict=False)
    model = quantize(graph, checked, max_error=0.02)
    graph.sample(model, "wan")
    host.run(graph)
    applied = graph.add("FoundryApply", model=plan, how="patches")
    saved = graph.add("FoundrySaveModel", model=plan, filename_prefix="diffusion_models/drawn", format="bf16")
    for name, link in {"checked": output(checked, 3), "made": output(model, 2), "applied": output(applied, 2),
                       "saved": output(saved, 2)}.items():  # fmt: skip
        graph.add("SaveImage", images=link, filename_prefix=f"drawn_{name}")
    host.run(graph)
    heights = {name: picture_of(host, name).shape[0] for name in ("checked", "made", "applied", "saved")}
    assert heights["made"] == heights["saved"] > heights["applied"] == heights["checked"] > 150
    limit = (picture_of(host, "made") == LIMIT).all(axis=2)
    assert limit.any(axis=0).sum() == 2 and limit.sum() > 60, "one line, as tall as the histogram, stands at max_error"


LIMIT = (207, 34, 46)  # the red of it


def picture_of(host: rig.Host, name: str) -> np.ndarray:
    """What SaveImage wrote: [height, 640, 3], bytes."""
    from PIL import Image

    (file,) = host.output.glob(f"drawn_{name}*.png")
    drawn = np.asarray(Image.open(file).convert("RGB"))
    assert drawn.shape[1:] == (640, 3)
    return drawn


@pytest.mark.parametrize("keep", ["memory", "file"])
def test_a_changed_strength_redoes_only_what_it_touches(host, keep):
    """Of two LoRAs, one on every module and one on two of them, the strength of the smaller one is changed."""
    one = tiny.lora(tiny.shapes("wan"), rank=4, prefix="diffusion_model.", modules=r"ffn", seed=7)
    name = host.add_model("loras", "wan_ffn.safetensors", one)
    seen = []
    for strength in (0.5, 0.8):
        graph = Graph()
        rows = row(graph, name, strength, lora_stack=row(graph, loras(host, "wan")[1], 0.4))
        plan = graph.add("FoundryStackLoRAs", model=load(graph, host.tiny("wan")), lora_stack=rows)
        model = quantize(graph, plan, keep=keep)
        graph.sample(model, "wan")
        entry = host.run(graph)
        seen.append((report(entry, model), rig.latent(entry)["sha256"]))
    (first, _), (second, latent) = seen
    assert second["reused"] == second["tensors"] - 2 and first["tensors"] == second["tensors"]
    fresh, exact = sampled_rows(host, name, 0.8)
    assert latent == exact and [lora["gain"] for lora in second["loras"]] == pytest.approx(
        [lora["gain"] for lora in fresh["loras"]]
    )


def sampled_rows(host: rig.Host, name: str, strength: float) -> tuple[dict, str]:
    """The same by another route, so that nothing of it is there already: from a MODEL in the file's own precision."""
    graph = Graph()
    rows = row(graph, name, strength, lora_stack=row(graph, loras(host, "wan")[1], 0.4))
    copy = host.add_model("diffusion_models", "wan_copy.safetensors", models(host) / host.tiny("wan"))
    plan = graph.add("FoundryStackLoRAs", model=load(graph, copy), lora_stack=rows)
    model = quantize(graph, plan)
    graph.sample(model, "wan")
    entry = host.run(graph)
    assert report(entry, model)["reused"] == 0
    return report(entry, model), rig.latent(entry)["sha256"]


@pytest.mark.parametrize("memory", ["low", "lowest"])
def test_less_memory_gives_the_same_picture(host, memory):
    told, latent = sampled(host, 0.52, memory=memory)
    wanted, exact = sampled(host, 0.52)
    assert told["recipe_sha256"] == wanted["recipe_sha256"]
    assert told["relative_error"] == pytest.approx(wanted["relative_error"], rel=1e-3)
    assert latent["finite"] and exact["finite"]


def test_a_budget_is_held_and_told(host):
    told, latent = sampled(host, 0.53, max_error=0.015)
    assert told["relative_error"] <= 0.015 < told["budget"]["error_without"] and latent["finite"]
    assert told["budget"]["kept"] and told["budget"]["extra_bytes"] > 0


@pytest.mark.parametrize("node", ["FoundryQuantizeFP8", "FoundrySaveModel"])
def test_a_format_this_host_cannot_load_is_told_when_the_prompt_is_queued(host, inprocess, node):
    graph = Graph()
    plan = load(graph, host.tiny("wan", width=256))
    settings = {"filename_prefix": "diffusion_models/int8"}
    if node == "FoundryQuantizeFP8":
        settings = {"matmul": "full precision", "keep_high_precision": "auto"}
    model = graph.add(node, model=plan, format="int8_convrot", **settings)
    if node == "FoundryQuantizeFP8":
        graph.sample(model, "wan")
    if "int8_convrot" in inprocess(known):
        assert report(host.run(graph), model)["relative_error"] < 0.01
        return
    status, answer = host.post(graph)
    assert status == 400 and "This ComfyUI cannot load int8_convrot" in str(answer)


def test_a_saved_model_in_shards_is_a_base_again(host):
    lightning, style = loras(host, "wan")
    graph = Graph()
    plan = fuse(graph, load(graph, host.tiny("wan")), lightning)
    saved = graph.add("FoundrySaveModel", model=plan, filename_prefix="sharded/wan", format="bf16", max_shard_gb=0.0005)
    files = [Path(file) for file in report(host.run(graph), saved)["files"]]
    assert len(files) > 1 and all(file.is_file() for file in files)
    index = files[0].parent / (files[0].name.split("-00001")[0] + ".safetensors.index.json")
    assert index.is_file()
    folder = models(host) / "baked_in_shards"
    folder.mkdir(exist_ok=True)
    for file in (*files, index):
        file.rename(folder / file.name)
    once, again = Graph(), Graph()
    once.sample(bake(once, stack(once, fuse(once, load(once, host.tiny("wan")), lightning), style)), "wan")
    again.sample(bake(again, stack(again, load(again, "baked_in_shards"), style)), "wan")
    assert relative(rig.latent_tensor(host.run(again)), rig.latent_tensor(host.run(once))) < 1e-2
