"""The tiny models are real to a host: same names and shapes as its own classes, detected, loaded and sampled."""

from __future__ import annotations

import pytest
from host import rig
from host.graphs import SAMPLING, Graph, output

FAMILIES = {"wan": "WAN21_T2V", "sd15": "SD15", "sdxl": "Segmind_Vega", "flux": "Flux", "qwen-image": "QwenImage"}


def detect(family):
    """What the host makes of a tiny model's names and shapes: its family, and the names and shapes it expects."""
    import torch
    from comfy import model_detection
    from lora_foundry.cli.demo import tiny

    weights = {name: torch.empty(shape, device="meta") for name, shape in tiny.shapes(family).items()}
    config = model_detection.model_config_from_unet(weights, "")
    config.set_inference_dtype(torch.bfloat16, None)
    model = config.get_model(weights, "", device="meta")
    return [
        type(config).__name__,
        {name: list(value.shape) for name, value in model.diffusion_model.state_dict().items()},
    ]


def expected_parts():
    """Names and shapes of the host's own SD1.5 text encoder and tiny autoencoder."""
    import json
    from pathlib import Path

    import comfy.clip_model
    import comfy.ops
    import comfy.sd1_clip
    import comfy.taesd.taesd
    import torch

    config = json.loads((Path(comfy.sd1_clip.__file__).parent / "sd1_clip_config.json").read_text())
    text = comfy.clip_model.CLIPTextModel(config, torch.bfloat16, "meta", comfy.ops.manual_cast)
    parts = {"clip-l": text, "taesd": comfy.taesd.taesd.TAESD()}
    return {part: {name: list(value.shape) for name, value in parts[part].state_dict().items()} for part in parts}


@pytest.mark.parametrize("family", FAMILIES)
def test_names_and_shapes_are_the_hosts_own(inprocess, family):
    from lora_foundry.cli.demo import tiny

    detected, expected = inprocess(detect, family)
    assert detected == FAMILIES[family]
    assert _one_spelling(expected) == _one_spelling(tiny.shapes(family))


def _one_spelling(shapes):
    """Newer hosts call FLUX's norm scales ``weight`` and rename them while loading."""
    return {name.replace("_norm.scale", "_norm.weight"): list(shape) for name, shape in shapes.items()}


def test_checkpoint_parts_are_the_hosts_own(inprocess):
    from lora_foundry.cli.demo import tiny

    expected = inprocess(expected_parts)
    expected["clip-l"].pop("text_projection.weight")  # SD1.5 files have none, and the host does without
    for part, table in expected.items():
        assert table == {name: list(shape) for name, shape in tiny.shapes(part).items()}, part


@pytest.mark.parametrize("family", SAMPLING)
def test_one_step_from_a_file(host, family):
    graph = Graph()
    graph.sample(graph.unet(host.tiny(family)), family)
    seen = rig.latent(host.run(graph))
    assert seen["finite"] and seen["std"] > 0


def test_checkpoint_makes_an_image(host):
    graph = Graph()
    model = graph.add("CheckpointLoaderSimple", ckpt_name=host.tiny_checkpoint())
    clip, vae = output(model, 1), output(model, 2)
    positive, negative = (graph.add("CLIPTextEncode", clip=clip, text=text) for text in ("a foundry", "blurry"))
    latent = graph.add("EmptyLatentImage", width=64, height=64, batch_size=1)
    settings = {"seed": 7, "steps": 1, "cfg": 2.0, "sampler_name": "euler", "scheduler": "simple", "denoise": 1.0}
    sampled = graph.add(
        "KSampler", model=model, positive=positive, negative=negative, latent_image=latent, **settings
    )  # fmt: skip
    seen = graph.add("TinyStats", samples=sampled)
    image = graph.add("VAEDecode", samples=seen, vae=vae)
    graph.add("SaveImage", images=image, filename_prefix="tiny")
    entry = host.run(graph)
    assert rig.latent(entry)["finite"]
    assert _spread(next(host.output.glob("tiny_*.png"))) > 1


def test_lora_of_the_tiny_kind_changes_the_result(host):
    from lora_foundry.cli.demo import tiny

    name = host.add_model(
        "loras", "tiny_wan_lora.safetensors", tiny.lora(tiny.shapes("wan"), rank=4, prefix="diffusion_model.", rms=0.1)
    )
    results = []
    for strength in (0.0, 1.0):
        graph = Graph()
        model = graph.unet(host.tiny("wan"))
        patched = graph.add("LoraLoaderModelOnly", model=model, lora_name=name, strength_model=strength)
        graph.sample(patched, "wan")
        results.append(rig.latent(host.run(graph))["sha256"])
    assert len(set(results)) == 2


def _spread(path) -> float:
    import numpy
    from PIL import Image

    return float(numpy.asarray(Image.open(path)).std())
