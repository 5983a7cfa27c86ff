"""Each format as a file: loaded and computed right by a host that knows it, refused by one that does not."""

from __future__ import annotations

import re

import pytest
import torch
from fakes import a_plan
from host import rig
from host.foundry import known, relative, unknown
from host.graphs import Graph
from lora_foundry.cli.demo import tiny
from lora_foundry.engine.blueprint import blueprint
from lora_foundry.engine.finish import (
    FP8_MATMUL,
    FULL_PRECISION,
    Finish,
    beside_name,
    layer_marker,
    marker_name,
)
from lora_foundry.engine.formats import FORMATS, quantize
from safetensors.torch import save_file

WIDTH = 256  # int8_convrot rotates 256 columns together
# Relative change of one sampling step by each format, about three times what was measured; a wrong load changes 0.4.
CHANGE = {"float8_e4m3fn": 2e-3, "float8_e5m2": 4e-3, "int8_convrot": 1e-3}
CHANGE |= {"mxfp8": 2.7e-3, "nvfp4": 7.5e-3, "w4a8": 7.5e-3, "w6a8": 2e-3}  # measured on 0.33: 0.9, 2.6, 2.5, 0.6e-3
# The error of outputs at most: with weights made whole again first, and as the host multiplies otherwise.
OUTPUT = {
    "float8_e4m3fn": (0.0285, 0.041),
    "float8_e5m2": (0.056, 0.062),
    "int8_convrot": (0.0125, 0.0125),
}  # int8 always
OUTPUT |= {"mxfp8": (0.029, 0.041), "nvfp4": (0.085, 0.125), "w4a8": (0.076, 0.076), "w6a8": (0.023, 0.023)}


def base() -> dict[str, torch.Tensor]:
    return tiny.state_dict("wan", width=WIDTH)


def quantized(finish: Finish) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """The tiny Wan in a format: its tensors and its header, without a bake."""
    wanted, tensors = blueprint(a_plan(base(), family="wan"), finish), base()
    marker = layer_marker(finish)
    for name in wanted.quantized:
        shape, format = tensors[name].shape, finish.quantization
        tensors[name], scale = quantize(tensors[name].to(torch.float32), format, name)
        for (part, _, _), tensor in zip(format.beside(shape), format.stored_scales(scale), strict=True):
            tensors[beside_name(name, part)] = tensor
        tensors.update({marker_name(name): marker.clone()} if marker is not None else {})
    return tensors, {"format": "pt", **wanted.quantization_metadata}


def load_and_compare(path, exact, name):
    """Load a file as UNETLoader does. How far the host's weights are from ours, relative to amax; how many there are;
    the relative error of what its layers make of Gaussian inputs, against the exact weights (biases are left out).
    """
    import comfy.sd
    import torch
    from lora_foundry.engine.formats import FORMATS
    from safetensors.torch import load_file

    model, stored, base = comfy.sd.load_diffusion_model(path), load_file(path), load_file(exact)
    worst, count, off, whole, format = 0.0, 0, 0.0, 0.0, FORMATS[name]
    generator = torch.Generator().manual_seed(0)
    for key, module in model.model.diffusion_model.named_modules():
        parts = [f"{key}.{part}" for part, _, _ in format.beside((16, 256))]
        if parts[0] in stored:
            theirs = module.convert_weight(module.weight).float()
            scale = format.read_scales([stored[part] for part in parts], theirs.shape)
            ours = format.decode(stored[f"{key}.weight"], scale)
            worst, count = max(worst, float((ours - theirs).abs().max() / ours.abs().max())), count + 1
            inputs, weight = torch.randn(64, theirs.shape[1], generator=generator), base[f"{key}.weight"].double()
            with torch.no_grad():
                bias, got = module(torch.zeros_like(inputs[:1])), module(inputs)
            wanted = inputs.double() @ weight.t()
            off += float(((got - bias).double() - wanted).square().sum())
            whole += float(wanted.square().sum())
    return worst, count, (off / whole) ** 0.5 if whole else 1.0


def off_without_a_header(path, exact):
    """Load a file as UNETLoader does; the relative error of the outputs of layers that have a marker."""
    import comfy.sd
    import torch
    from safetensors.torch import load_file

    model, stored, base = comfy.sd.load_diffusion_model(path), load_file(path), load_file(exact)
    layers = [name.removesuffix(".comfy_quant") for name in stored if name.endswith(".comfy_quant")]
    generator, off, whole = torch.Generator().manual_seed(0), 0.0, 0.0
    for layer in layers:
        weight = base[f"{layer}.weight"].double()
        module = model.model.diffusion_model.get_submodule(layer)
        theirs = getattr(module, "convert_weight", lambda weight: weight)(module.weight).double()
        inputs = torch.randn(64, weight.shape[1], generator=generator).double()
        off += float((inputs @ (theirs - weight).t()).square().sum())
        whole += float((inputs @ weight.t()).square().sum())
    return (off / whole) ** 0.5


def written(tmp_path, finish: Finish, told: str = "both") -> tuple[str, str]:
    """(file in a format, exact weights). ``told``: by its header alone, by the markers of its layers alone, or both."""
    tensors, metadata = quantized(finish)
    if told == "marker":
        del metadata["_quantization_metadata"]
    if told == "header":
        tensors = {name: each for name, each in tensors.items() if not name.endswith("comfy_quant")}
    paths = str(tmp_path / "model.safetensors"), str(tmp_path / "exact.safetensors")
    save_file(tensors, paths[0], metadata)
    save_file(base(), paths[1])
    return paths


@pytest.mark.parametrize("matmul", [FULL_PRECISION, FP8_MATMUL])
@pytest.mark.parametrize("name", FORMATS)
def test_a_file_loads_right_or_not_at_all(inprocess, tmp_path, name, matmul):
    path, exact = written(tmp_path, Finish(name, matmul=matmul))
    if name in inprocess(known):
        worst, count, error = inprocess(load_and_compare, path, exact, name)
        print(f"{name}, {matmul}: outputs are off by {error:.2%}")
        assert worst < 1e-6 and count == 10
        assert OUTPUT[name][0] / 2 < error < OUTPUT[name][matmul == FP8_MATMUL]
        return
    with pytest.raises(AssertionError, match=unknown(name)):
        inprocess(load_and_compare, path, exact, name)


@pytest.mark.parametrize("told", ["marker", "header"])
@pytest.mark.parametrize("name", [name for name, each in FORMATS.items() if each.marked])
def test_marker_and_header_say_the_same(inprocess, tmp_path, name, told):
    """Each alone is enough where the format is known. Elsewhere it is the header that stops a host; without one it
    stops at codes of another shape only, and computes nonsense with the others: which is why files have both.
    """
    path, exact = written(tmp_path, Finish(name), told)
    if name not in inprocess(known) and told == "marker":
        if FORMATS[name].code_shape((WIDTH, WIDTH)) == (WIDTH, WIDTH):
            assert inprocess(off_without_a_header, path, exact) > 0.2
        else:
            with pytest.raises(AssertionError, match="size mismatch|shape|divisible"):
                inprocess(off_without_a_header, path, exact)
        return
    if name in inprocess(known):
        worst, count, error = inprocess(load_and_compare, path, exact, name)
        assert worst < 1e-6 and count == 10 and OUTPUT[name][0] / 2 < error < OUTPUT[name][0]
        return
    with pytest.raises(AssertionError, match=unknown(name)):
        inprocess(load_and_compare, path, exact, name)


@pytest.mark.parametrize("name", FORMATS)
def test_the_native_loader_samples_a_file_or_stops(host, inprocess, name):
    tensors, metadata = quantized(Finish(name))
    exact, graph = Graph(), Graph()
    exact.sample(exact.unet(host.tiny("wan", width=WIDTH)), "wan")
    graph.sample(graph.unet(host.add_model("diffusion_models", f"{name}.safetensors", tensors, metadata)), "wan")
    loads = name in inprocess(known)
    entry = host.run(graph, expect_error=not loads)
    if not loads:
        told = rig.failure(entry)
        assert re.search(unknown(name), f"{told['exception_type']}: {told['exception_message']}")
        return
    change = relative(rig.latent_tensor(entry), rig.latent_tensor(host.run(exact)))
    print(f"{name}: a step is changed by {change:.1e}")
    assert 1e-6 < change < CHANGE[name]


def refuse(name):
    """What the pack says to this format here."""
    from lora_foundry.engine.errors import FoundryError
    from lora_foundry.nodes import host

    try:
        host.refuse_format(name)
    except FoundryError as error:
        return [error.code, str(error)]


@pytest.mark.parametrize("name", FORMATS)
def test_what_a_host_cannot_load_is_refused_in_a_sentence(inprocess, name):
    loads = inprocess(known)
    assert loads[0] == "float8_e4m3fn"
    refused = inprocess(refuse, name)
    if name in loads:
        assert refused is None
        return
    code, text = refused
    assert code == "format" and f"This ComfyUI cannot load {name}; it loads float8_e4m3fn" in text


def host_codes(values, names):
    """What the host itself makes of a weight: codes, scales and their shape by format."""
    import comfy.quant_ops as quant
    import torch

    options = {"int8_tensorwise": {"per_channel": True, "convrot": True, "convrot_groupsize": 256}}
    made = {}
    for name in names:
        layout = quant.QUANT_ALGOS[name]["comfy_tensor_layout"]
        tensor = quant.QuantizedTensor.from_float(
            torch.tensor(values), layout, **options.get(name, {"scale": "recalculate"})
        )
        made[name] = [tensor._qdata.float().tolist(), tensor._params.scale.tolist()]
    return made


def test_our_codes_are_the_hosts_own(inprocess):
    """From the same fp32 weight: all but a few in 100 000 codes, which fall on the edge between two."""
    formats = [FORMATS[name] for name in inprocess(known) if name in ("float8_e5m2", "int8_convrot")]
    values = base()["blocks.0.ffn.0.weight"].to(torch.float32)
    made = inprocess(host_codes, values.tolist(), [each.host_name for each in formats])
    for each in formats:
        codes, scale = quantize(values, each)
        theirs, scales = (torch.tensor(part) for part in made[each.host_name])
        assert scale.shape == scales.shape and float((codes.float() != theirs).double().mean()) < 1e-4
        torch.testing.assert_close(scale, scales, rtol=2e-6, atol=0)
    assert bool(formats) == ("int8_convrot" in inprocess(known))
