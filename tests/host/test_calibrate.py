"""Calibrate in the graph: every Linear seen, the same picture, nothing left behind; then weights rounded by it."""

from __future__ import annotations

import time

import pytest
from host import rig
from host.foundry import fuse, load, loras, quantize, relative, report, stack
from host.graphs import Graph, Link
from lora_foundry.cli.demo import tiny
from lora_foundry.engine.calibration import Calibration
from lora_foundry.engine.quantize import is_quantizable
from lora_foundry.engine.tensors import TensorInfo
from lora_foundry.loaders.bakes.calibrations import load_calibration

SIZE, STEPS = 32, 4  # 256 tokens a step


def planned(host: rig.Host, graph: Graph, family: str, strength: float = 0.7) -> Link:
    lightning, style = loras(host, family)
    return stack(graph, fuse(graph, load(graph, host.tiny(family)), lightning), style, strength)


def applied(host: rig.Host, graph: Graph, family: str, how: str = "patches") -> Link:
    return graph.add("FoundryApply", model=planned(host, graph, family), how=how)


def calibrate(graph: Graph, model: Link, name: str, **inputs: object) -> Link:
    return graph.add("FoundryCalibrate", model=model, name=name, **{"what": "ranges and rounding", **inputs})


def sample(graph: Graph, model: Link, family: str, steps: int = STEPS, seed: int = 7, size: int = SIZE) -> Link:
    """``graph.sample`` of more tokens and steps, and what the model is afterwards."""
    stats = graph.sample(model, family, steps, seed, size)
    graph.add("ModelDtypes", model=model, after=graph[stats[0]]["inputs"]["samples"])
    return stats


def model_of(entry: rig.Entry) -> dict:
    """What ModelDtypes saw."""
    return next(output["model"][0] for output in entry["outputs"].values() if "model" in output)


def collected(host: rig.Host, name: str) -> Calibration:
    return load_calibration(host.base / "user" / "lora_foundry" / "calibrations" / f"{name}.safetensors")


def expected(family: str) -> set[str]:
    """The Linears that a format takes."""
    infos = [TensorInfo(name, tensor.dtype, tuple(tensor.shape)) for name, tensor in tiny.state_dict(family).items()]
    return {info.name for info in infos if is_quantizable(info, family, ("auto",))}


@pytest.mark.parametrize(("family", "how"), [("wan", "patches"), ("flux", "bake")])
def test_every_linear_is_seen_and_the_picture_stays(host, family, how):
    plain, watched = Graph(), Graph()
    few = {"steps": 1, "size": 8} if family == "flux" else {}  # whose layers are wide
    sample(plain, applied(host, plain, family, how), family, **few)
    sample(watched, calibrate(watched, applied(host, watched, family, how), family), family, **few)
    exact, seen = host.run(plain), host.run(watched)
    assert rig.latent(seen)["sha256"] == rig.latent(exact)["sha256"]
    assert model_of(seen)["hooks"] == 0 and model_of(seen)["wrappers"] == ["outer_sample/lora_foundry_calibration"]
    known = collected(host, family)
    assert set(known.sets) == expected(family) <= set(known.ranges)
    assert all(known.covers(name, tiny.shapes(family)[name][1]) for name in known.sets)
    assert [layer["lora"] for layer in known.origin.layers] == list(loras(host, family)) and not known.origin.others
    assert known.origin.base == host.tiny(family) and len(known.origin.fingerprint) == 64
    assert (len(set(known.sets.values())) < len(known.sets)) == (family == "wan")  # whose q, k and v share


@pytest.mark.parametrize("memory_gb", [0.0, 0.0001])
def test_weights_are_rounded_by_it_and_judged_by_outputs(host, memory_gb):
    name = f"wan {memory_gb}"
    graph = Graph()
    sample(graph, calibrate(graph, applied(host, graph, "wan"), name, memory_gb=memory_gb), "wan")
    host.run(graph)
    told = {}
    for calibration in ("none", name):
        graph = Graph()
        model = quantize(graph, planned(host, graph, "wan"), calibration=calibration)
        sample(graph, model, "wan")
        entry = host.run(graph)
        told[calibration] = report(entry, model)
        assert rig.latent(entry)["finite"]
    plain, found = told.values()
    assert plain["by_outputs"] == 0 < found["by_outputs"] <= found["quantized"] == plain["quantized"]
    assert not [each for each in found["findings"] if each["code"] == "LF205"]
    assert found["relative_error"] < plain["relative_error"]
    assert found["recipe_sha256"] != plain["recipe_sha256"]
    folder = host.base / "user" / "lora_foundry" / "calibrations"
    assert not list(folder.glob(".*.tmp"))


def test_other_loras_warn_another_base_stops_and_a_saved_file_takes_it_too(host):
    graph = Graph()
    sample(graph, calibrate(graph, applied(host, graph, "wan"), "for others"), "wan")
    host.run(graph)
    graph = Graph()
    plan = planned(host, graph, "wan", 0.3)
    saved = graph.add(
        "FoundrySaveModel", model=plan, filename_prefix="calibrated/wan", format="float8_e4m3fn",
        calibration="for others",
    )  # fmt: skip
    told = report(host.run(graph), saved)
    (finding,) = [each for each in told["findings"] if each["code"] == "LF205"]
    assert finding["severity"] == "warning" and "x 0.7" in finding["seen"] and told["by_outputs"] > 0
    graph = Graph()
    graph.add(
        "FoundrySaveModel", model=load(graph, host.tiny("flux")), filename_prefix="calibrated/flux",
        format="float8_e4m3fn", calibration="for others",
    )  # fmt: skip
    assert "[LF205]" in rig.failure(host.run(graph, expect_error=True))["exception_message"]


def test_one_that_comes_by_a_wire_is_watched_and_a_needless_one_is_told(host):
    def collect(seed: int) -> None:
        graph = Graph()
        sample(graph, calibrate(graph, applied(host, graph, "wan"), "wired"), "wan", seed=seed)
        host.run(graph)

    collect(3)
    graph = Graph()
    plan, name = planned(host, graph, "wan"), graph.add("AnyText", text="wired")
    model = quantize(graph, plan, calibration=name)
    graph.sample(model, "wan")
    needless = graph.add(
        "FoundrySaveModel", model=plan, filename_prefix="calibrated/plain", format="bf16", calibration="wired",
        max_error=0.02,
    )  # fmt: skip
    told = report(host.run(graph), needless)
    notes = {each["text"]: each["severity"] for each in told["findings"] if each["text"].endswith(".unused")}
    assert notes == {"LF205.unused": "note", "LF204.unused": "note"}
    assert model[0] in rig.cached(host.run(graph))
    collect(4)
    assert model[0] not in rig.cached(host.run(graph))


def knows_the_scale():
    """Whether this host multiplies inputs by pre_quant_scale."""
    import comfy.quant_ops

    return "pre_quant_scale" in comfy.quant_ops.QUANT_ALGOS.get("nvfp4", {}).get("parameters", ())


def test_pre_quant_scale_is_used_or_refused_when_queued(host, inprocess):
    graph, name = Graph(), "evened"
    sample(graph, calibrate(graph, applied(host, graph, "wan"), name), "wan")
    host.run(graph)
    graph = Graph()
    model = quantize(graph, planned(host, graph, "wan"), format="nvfp4", calibration=name, pre_quant_scale=True)
    sample(graph, model, "wan")
    if not inprocess(knows_the_scale):
        status, answer = host.post(graph)
        assert status == 400 and ("nvfp4" in str(answer) or "pre_quant_scale" in str(answer))
        return
    exact = Graph()
    sample(exact, applied(host, exact, "wan"), "wan")
    entry = host.run(graph)
    assert report(entry, model)["by_outputs"] > 0
    far = relative(rig.latent_tensor(entry), rig.latent_tensor(host.run(exact)))
    assert 0 < far < 0.05  # a scale that is dropped changes everything


def test_a_native_model_with_a_native_lora_is_watched_and_says_what_it_knows(host):
    graph = Graph()
    model = graph.add(
        "LoraLoaderModelOnly", model=graph.unet(host.tiny("wan")), lora_name=loras(host, "wan")[1], strength_model=0.7
    )
    sample(graph, calibrate(graph, model, "native", what="ranges"), "wan")
    host.run(graph)
    known = collected(host, "native")
    assert set(known.ranges) >= expected("wan") and not known.sets
    assert not known.origin.fingerprint and "patches on" in known.origin.others[0]


def test_cancel_leaves_nothing(host):
    graph = Graph()
    sample(graph, calibrate(graph, applied(host, graph, "wan"), "cancelled", memory_gb=0.0001), "wan", steps=5000)
    status, answer = host.post(graph)
    assert status == 200
    folder, deadline = host.base / "user" / "lora_foundry" / "calibrations", time.monotonic() + 120
    while not (folder.exists() and list(folder.glob(".*.tmp/*"))):  # it has begun to count
        assert time.monotonic() < deadline, host.tail()
        time.sleep(0.05)
    host.interrupt()
    entry = host.wait(answer["prompt_id"])
    assert any(kind == "execution_interrupted" for kind, _ in entry["status"]["messages"])
    assert not list(folder.glob("cancelled*")) and not list(folder.glob(".*.tmp"))
    graph = Graph()
    sample(graph, graph.add("FoundryApply", model=load(graph, host.tiny("wan")), how="patches"), "wan")
    assert model_of(host.run(graph))["hooks"] == 0


def test_what_cannot_be_is_told_when_the_prompt_is_queued(host):
    for wrong in ({"name": "a/b"}, {"name": ""}, {"memory_gb": -1.0}):
        graph = Graph()
        model = graph.unet(host.tiny("wan"))
        settings = {"name": "fine", "what": "ranges", **wrong}
        graph.sample(graph.add("FoundryCalibrate", model=model, **settings), "wan")
        assert host.post(graph)[0] == 400
    graph = Graph()
    graph.sample(calibrate(graph, quantize(graph, load(graph, host.tiny("wan"))), "late"), "wan")
    status, answer = host.post(graph)
    assert status == 400 and "already quantized" in str(answer)
    graph = Graph()
    graph.sample(quantize(graph, load(graph, host.tiny("wan")), calibration="nobody"), "wan")
    status, answer = host.post(graph)
    assert status == 400 and "nobody" in str(answer)
