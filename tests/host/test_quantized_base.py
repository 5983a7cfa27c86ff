"""A base that is quantized already: refused, or on request dequantized, fused and quantized again, on a real host."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from host import rig
from host.foundry import fuse, loras, message, native, quantize, relative, report, stack
from host.graphs import Graph, Link
from lora_foundry.cli.demo import tiny
from lora_foundry.engine.formats import FORMATS
from lora_foundry.engine.formats import quantize as quantized
from safetensors.torch import load_file, save_file

E4M3 = torch.float8_e4m3fn
# The largest relative distance of a latent from the chain that was never quantized, about three times what is measured.
# Cast norms and biases cost more than all scaled weights; a base without its scales is off by more than 0.3.
FAR, FAR_CAST = 0.005, 0.05


def bare(header: bool = False) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """The tiny Wan as scaled fp8, in the older form or with a header; its other weights stay bf16."""
    tensors, layers = tiny.state_dict("wan"), {}
    for name in blocks(tensors):
        tensors[name], scale = quantized(tensors[name].float(), FORMATS["float8_e4m3fn"])
        layer = name.removesuffix(".weight")
        layers[layer] = {"format": "float8_e4m3fn"}
        tensors[f"{layer}.{'weight_scale' if header else 'scale_weight'}"] = scale
    if header:
        return tensors, {"_quantization_metadata": json.dumps({"layers": layers})}
    return {**tensors, "scaled_fp8": torch.zeros(0, dtype=E4M3)}, {}


def cast() -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """The tiny Wan with every tensor, norms and biases too, cast to fp8 without scales."""
    return {name: tensor.to(E4M3) for name, tensor in tiny.state_dict("wan").items()}, {}


def blocks(tensors: dict[str, torch.Tensor]) -> list[str]:
    return [name for name, tensor in tensors.items() if name.startswith("blocks.") and tensor.ndim == 2]


FORMS = {"scaled fp8": bare, "header": lambda: bare(header=True), "plain fp8": cast}


def load(graph: Graph, name: str, wanted: str = "dequantize") -> Link:
    return graph.add("FoundryLoadBase", base_name=name, on_quantized_base=wanted)


def chain(host: rig.Host) -> torch.Tensor:
    """What the bf16 file gives with both LoRAs, by the host's own loaders."""
    lightning, style = loras(host, "wan")
    graph = Graph()
    graph.sample(native(graph, graph.unet(host.tiny("wan")), (lightning, 1.0), (style, 0.7)), "wan")
    return whole(host, graph)


def whole(host: rig.Host, graph: Graph) -> torch.Tensor:
    return rig.latent_tensor(host.run(graph))


def check_report(told: dict) -> None:
    """Every module found its weight, every LoRA is there in full, and what the base is stored as is said."""
    assert all(lora["matched"] == lora["modules"] and abs(lora["gain"] - 1) < 0.05 for lora in told["loras"])
    assert told["quantized"] > 0 and 0.005 < told["relative_error"] < 0.04
    note = next(finding for finding in told["findings"] if finding["code"] == "LF201")
    assert note["severity"] == "note" and "dequantized" in note["seen"] and "float8_e4m3fn" in note["seen"]


@pytest.mark.parametrize("form", FORMS)
def test_dequantize_fuse_quantize_sample(host, form):
    lightning, style = loras(host, "wan")
    tensors, metadata = FORMS[form]()
    name = host.add_model("diffusion_models", f"quantized_{form.replace(' ', '_')}.safetensors", tensors, metadata)
    graph = Graph()
    model = quantize(graph, stack(graph, fuse(graph, load(graph, name), lightning), style))
    graph.sample(model, "wan")
    seen = host.run(graph)
    check_report(report(seen, model))
    assert relative(rig.latent_tensor(seen), chain(host)) < (FAR_CAST if form == "plain fp8" else FAR)


def test_our_own_fp8_file_is_a_base_again(host):
    lightning, style = loras(host, "wan")
    graph = Graph()
    fused = fuse(graph, load(graph, host.tiny("wan")), lightning)
    saved = graph.add("FoundrySaveModel", model=fused, filename_prefix="again/wan", format="float8_e4m3fn")
    path = Path(report(host.run(graph), saved)["out"])
    shutil.move(path, host.base / "models" / "diffusion_models" / "again.safetensors")

    for inputs in ({}, {"on_quantized_base": "refuse"}):  # a workflow from before there was a choice, and the default
        graph = Graph()
        base = graph.add("FoundryLoadBase", base_name="again.safetensors", **inputs)
        graph.sample(quantize(graph, stack(graph, base, style)), "wan")
        said = message(host.run(graph, expect_error=True))
        assert "LF201" in said and "on_quantized_base: dequantize" in said

    graph = Graph()
    model = quantize(graph, stack(graph, load(graph, "again.safetensors"), style))
    graph.sample(model, "wan")
    seen = host.run(graph)
    check_report(report(seen, model))
    assert relative(rig.latent_tensor(seen), chain(host)) < FAR


@pytest.mark.parametrize("how", ["patches", "bake"])
def test_a_dequantized_base_as_a_model_in_its_own_precision(host, how):
    """Patches too go on plain weights, never on the quantized ones of the file."""
    lightning, style = loras(host, "wan")
    tensors, metadata = bare()
    name = host.add_model("diffusion_models", "quantized_apply.safetensors", tensors, metadata)
    graph = Graph()
    plan = stack(graph, fuse(graph, load(graph, name), lightning), style)
    model = graph.add("FoundryApply", model=plan, how=how)
    graph.sample(model, "wan")
    graph.add("ModelDtypes", model=model)
    seen = host.run(graph)
    dtypes = next(out["model"][0]["dtypes"] for out in seen["outputs"].values() if "model" in out)
    assert not any("float8" in dtype for dtype in dtypes)
    assert relative(rig.latent_tensor(seen), chain(host)) < FAR


def test_a_dequantized_base_saved_as_bf16_has_nothing_left_of_its_scales(host):
    _, style = loras(host, "wan")
    tensors, metadata = bare(header=True)
    name = host.add_model("diffusion_models", "quantized_save.safetensors", tensors, metadata)
    graph = Graph()
    plan = stack(graph, load(graph, name), style)
    saved = graph.add("FoundrySaveModel", model=plan, filename_prefix="plain/wan", format="bf16")
    result = load_file(report(host.run(graph), saved)["out"])
    assert set(result) == set(tiny.shapes("wan")) and {tensor.dtype for tensor in result.values()} == {torch.bfloat16}


def test_a_quantized_model_on_a_wire_is_refused_with_the_way_out(host):
    _, style = loras(host, "wan")
    tensors, metadata = bare(header=True)
    name = host.add_model("diffusion_models", "quantized_wire.safetensors", tensors, metadata)
    graph = Graph()
    graph.sample(quantize(graph, stack(graph, graph.unet(name), style)), "wan")
    said = message(host.run(graph, expect_error=True))
    assert "LF201" in said and "Load Base Model" in said and "on_quantized_base: dequantize" in said


def test_a_form_that_is_not_understood_is_refused_by_name(host):
    tensors = tiny.state_dict("wan")
    for layer in ("blocks.0.ffn.0", "blocks.0.ffn.2"):
        told = torch.tensor(list(b'{"format": "awq_w4a16"}'), dtype=torch.uint8)
        tensors |= {f"{layer}.weight": torch.ones(128, 64).byte(), f"{layer}.comfy_quant": told}
        tensors |= {f"{layer}.weight_scale": torch.ones(128, 8).byte(), f"{layer}.weight_scale_2": torch.ones(())}
    name = host.add_model("diffusion_models", "awq_w4a16.safetensors", tensors)
    graph = Graph()
    graph.sample(quantize(graph, load(graph, name)), "wan")
    said = message(host.run(graph, expect_error=True))
    assert "LF201" in said and "awq_w4a16" in said and "Start from the bf16" in said


def kitchen(source, target):
    """Quantize a file's blocks to int8 with the host's own kitchen, rotated; None where this host has no int8."""
    import json

    import comfy.quant_ops
    import torch
    from safetensors.torch import load_file, save_file

    if "int8_tensorwise" not in comfy.quant_ops.QUANT_ALGOS:
        return None
    tensors, exact = load_file(source), {}
    settings = {"format": "int8_tensorwise", "convrot": True, "convrot_groupsize": 64}
    layout = comfy.quant_ops.get_layout_class("TensorWiseINT8Layout")
    for name in [name for name in tensors if name.startswith("blocks.") and tensors[name].ndim == 2]:
        weight = tensors[name].float()
        codes, params = layout.quantize(weight, per_channel=True, convrot=True, convrot_groupsize=64)
        exact[name] = layout.dequantize(codes, params)
        layer = name.removesuffix(".weight")
        tensors[name], tensors[f"{layer}.weight_scale"] = codes, params.scale
        tensors[f"{layer}.comfy_quant"] = torch.tensor(list(json.dumps(settings).encode()), dtype=torch.uint8)
    save_file(tensors, target)
    save_file(exact, f"{target}.exact")
    return len(exact)


def ours(source: Path, target: Path) -> None:
    """The same file by our own formats, for a host that knows none of it: a dequantized base needs no host for it."""
    tensors = load_file(source)
    format = FORMATS["int8_convrot"]
    rotated = type(format)(**{**vars(format), "group": 64})
    exact = {}
    for name in blocks(tensors):
        tensors[name], scale = quantized(tensors[name].float(), rotated)
        exact[name] = rotated.decode(tensors[name], scale)
        layer = name.removesuffix(".weight")
        tensors[f"{layer}.weight_scale"] = scale
        told = {"format": rotated.host_name, "convrot": True, "convrot_groupsize": rotated.group}
        tensors[f"{layer}.comfy_quant"] = torch.tensor(list(json.dumps(told).encode()), dtype=torch.uint8)
    save_file(tensors, target)
    save_file(exact, f"{target}.exact")


def test_an_int8_file_of_the_hosts_own_kitchen(host, inprocess, tmp_path):
    from lora_foundry.loaders.bases.checkpoint import open_checkpoint
    from lora_foundry.loaders.bases.dequantize import Dequantized

    lightning, style = loras(host, "wan")
    source = host.base / "models" / "diffusion_models" / host.tiny("wan")
    target = tmp_path / "int8.safetensors"
    if inprocess(kitchen, str(source), str(target)) is None:
        ours(source, target)
    base = Dequantized(open_checkpoint(target))
    assert base.quantized == "comfy_quant: int8_tensorwise per row with convrot"
    for name, exact in load_file(f"{target}.exact").items():
        assert torch.allclose(base.read(name), exact, atol=1e-7, rtol=1e-5), name
    name = host.add_model("diffusion_models", "int8.safetensors", target)
    graph = Graph()
    model = quantize(graph, stack(graph, fuse(graph, load(graph, name), lightning), style))
    graph.sample(model, "wan")
    seen = host.run(graph)
    told = report(seen, model)
    assert all(abs(lora["gain"] - 1) < 0.05 for lora in told["loras"])
    assert relative(rig.latent_tensor(seen), chain(host)) < FAR


def test_the_choice_is_offered_last_and_optional(host):
    for node, first in (("FoundryLoadBase", "base_name"), ("FoundryLoadCheckpoint", "ckpt_name")):
        inputs = host.object_info(node)[node]["input"]
        assert list(inputs["required"]) == [first]
        choices, options = inputs["optional"]["on_quantized_base"]
        assert choices == ["refuse", "dequantize"] and options["default"] == "refuse" and options["tooltip"]


def test_a_quantized_all_in_one_checkpoint(host):
    whole = load_file(host.base / "models" / "checkpoints" / host.tiny_checkpoint())
    net = {name for name in whole if name.startswith("model.diffusion_model.")}
    cast = {name: tensor.to(E4M3) if name in net and tensor.ndim > 1 else tensor for name, tensor in whole.items()}
    name = host.add_model("checkpoints", "quantized_sd15.safetensors", cast)
    lora = tiny.lora(tiny.shapes("sd15"), rank=8, alpha=4, prefix="lora_unet_", seed=3)
    lora = host.add_model("loras", "sd15_quantized.safetensors", lora)
    seen = []
    for ckpt, inputs in ((host.tiny_checkpoint(), {}), (name, {"on_quantized_base": "dequantize"})):
        graph = Graph()
        base = graph.add("FoundryLoadCheckpoint", ckpt_name=ckpt, **inputs)
        model = quantize(graph, stack(graph, base, lora))
        graph.sample(model, "sd15")
        entry = host.run(graph)
        assert abs(report(entry, model)["loras"][0]["gain"] - 1) < 0.05
        seen.append(rig.latent_tensor(entry))
    assert relative(seen[1], seen[0]) < FAR_CAST
    host.free()
