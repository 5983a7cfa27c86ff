"""Our rules against the host's own key map: the same weight and the same rows for every name it knows."""

from __future__ import annotations

import pytest
from fixtures_dialects import FIXTURES
from host_models import MODELS, NO_LORAS, OTHERS
from lora_foundry.loaders.names.dialects import split
from lora_foundry.loaders.names.lookup import is_text_encoder

# Names the host maps to rows that a weight of the family does not have, and that no file has: ours differ on purpose.
READS_DIFFUSERS = ("sd3", "flux", "qwen-image")  # families whose diffusers names the host knows too
HOST_IS_WRONG = {"lumina2": ("attention_to_k", "attention_to_v"), "flux2": ("proj_mlp",)}


def matched(family, kind, config, modules):
    """Of a model of the host's: how our rules differ from its key map, and which modules neither of both finds.

    (names the host knows, [(name, the host's target, ours)], [module that is not found on the host path],
    {dialect: names that a file we write has and the host's map has not})
    """
    import dataclasses

    import comfy.lora
    import comfy.supported_models
    import torch
    from comfy.ldm.chroma.model import ChromaParams
    from comfy.ldm.flux.model import FluxParams
    from comfy.ldm.hunyuan_video.model import HunyuanVideoParams
    from lora_foundry.engine.tensors import TensorInfo
    from lora_foundry.loaders.names.lookup import BaseNames
    from lora_foundry.loaders.names.outgoing import DIALECTS, Outgoing
    from lora_foundry.nodes import host
    from lora_foundry.nodes.sources import HostMatcher

    parameters = {"Flux": FluxParams, "Flux2": FluxParams, "Chroma": ChromaParams, "HunyuanVideo": HunyuanVideoParams}
    if kind in parameters:  # newer hosts want fields that older ones do not know
        fields = {field.name for field in dataclasses.fields(parameters[kind])}
        later = {"txt_ids_dims": [], "vec_in_dim": None, "vision_in_dim": None, "meanflow_sum": False}
        config = {**config, **{name: value for name, value in later.items() if name in fields and name not in config}}
    made = getattr(comfy.supported_models, kind)(config)
    made.set_inference_dtype(torch.float32, None)
    model = made.get_model({}, "", device="meta")
    key_map = comfy.lora.model_lora_keys_unet(model, {})
    tensors = {
        name: TensorInfo(name, torch.bfloat16, tuple(value.shape))
        for name, value in model.diffusion_model.state_dict().items()
    }
    ours, path = BaseNames(tensors, family), HostMatcher(key_map, tensors, family)

    def plain(target):
        whole = target.slice is None or tuple(target.slice) == (0, 0, tensors[target.weight].shape[0])
        return [target.weight, None if whole else list(target.slice), target.transform, target.part]

    known = {name: host.target_of(entry) for name, entry in key_map.items()}
    known = {name: target for name, target in known.items() if target and target.weight in tensors}
    pairs = [(name, [plain(target)], [*map(plain, ours.find(name))]) for name, target in known.items()]
    differ = [pair for pair in pairs if pair[1] != pair[2]]
    weights = [name for name in tensors if name.endswith(".weight")]
    names = {dialect: Outgoing(tensors, family, dialect) for dialect in DIALECTS}
    units = {each: [unit.name for name in weights for unit in names[each].units(name)] for each in DIALECTS}
    unknown = {dialect: [name for name in found if name not in key_map] for dialect, found in units.items()}
    return len(pairs), differ, [module for module in modules if not path.find(module)], unknown


SPELLINGS = ("{name}", "diffusion_model.{name}", "transformer.{name}", "base_model.model.{name}", "lora_unet_{flat}",
             "lycoris_{flat}", "lora_transformer_{flat}")  # fmt: skip
FAMILIES = {  # what the structure of a class tells; of those that are left out, that of another class or nothing
    "SVD_img2vid": "svd", "Stable_Cascade_C": "stable-cascade", "HunyuanDiT": "hunyuan-dit", "GenmoMochi": "mochi",
    "LTXV": "ltx-video", "LTXAV": "ltx-2", "HunyuanVideo15": "hunyuan-video-1.5", "CosmosT2V": "cosmos",
    "HunyuanImage21": "hunyuan-image-2.1", "CosmosT2IPredict2": "cosmos-predict2", "Anima": "anima",
    "Hunyuan3Dv2": "hunyuan-3d", "HiDream": "hidream", "HiDreamO1": "hidream-o1", "ACEStep": "ace-step",
    "ACEStep15": "ace-step-1.5", "Omnigen2": "omnigen2", "Boogu": "boogu", "MageFlow": "mage-flow",
    "JoyImage": "joyimage", "Ideogram4": "ideogram-4", "Krea2": "krea-2", "Lens": "lens", "Kandinsky5": "kandinsky-5",
    "ErnieImage": "ernie-image", "CogVideoX_T2V": "cogvideox", "MiniMaxH3": "minimax-h3",
    "QwenImage21": "qwen-image-2.1", "SenseNovaU15": "sensenova-u1.5", "YuE2": "yue2",
    "Kandinsky6": "kandinsky-6", "Prism": "prism",
}  # fmt: skip


def test_every_model_class_of_the_host(inprocess):
    """Each is built: every name of its key map, and seven spellings of every weight, find the weight they mean."""
    assert not OTHERS.keys() & {kind for kind, _ in MODELS.values()}
    classes, found = inprocess(walked, OTHERS, SPELLINGS)
    known = {*OTHERS, *NO_LORAS, *(kind for kind, _ in MODELS.values())}
    assert set(classes) <= known, "a class that this host has and this test does not know"
    assert found.keys() == set(classes) & OTHERS.keys() and len(found) > 50
    assert {kind: told for kind, told in found.items() if told["error"] or told["wrong"] or not told["count"]} == {}
    assert {kind: FAMILIES[kind] for kind in found if kind in FAMILIES} == {
        kind: told["family"] for kind, told in found.items() if kind in FAMILIES
    }


def walked(others, spellings):
    """(the names of the host's model classes, {class: what we make of its names})"""
    import itertools
    import re

    import comfy.lora
    import comfy.supported_models
    import torch
    from lora_foundry.engine.tensors import TensorInfo
    from lora_foundry.loaders.bases.families import detect_base
    from lora_foundry.loaders.names.lookup import BaseNames
    from lora_foundry.nodes import host

    # some classes read weights of their conditioning when they are built
    def beside(learned):
        given = {"cc_projection.weight": torch.empty(768, 772), "cc_projection.bias": torch.empty(768)}
        for end in ("seconds_start", "seconds_total"):
            name = f"conditioner.conditioners.{end}.embedder.embedding"
            given |= {f"{name}.0.weights": torch.empty(128) for _ in range(learned)}
            given |= {f"{name}.1.weight": torch.empty(768, 256 + learned), f"{name}.1.bias": torch.empty(768)}
        return given

    later = {"txt_ids_dims": [], "vec_in_dim": None}

    def built(kind, config):
        config, fault = {**kind.unet_config, **config}, None
        for _ in range(len(config)):
            try:
                made = kind(dict(config))
                made.set_inference_dtype(torch.float32, None)
                given = beside(kind.__name__ != "StableAudio3")
                with torch.no_grad():  # one class reads a number of a tensor: no meta device for it
                    return made.get_model(given, "", device="cpu" if kind.__name__ == "ACEStep15" else "meta")
            except TypeError as error:  # a host that does not know a setting yet, or wants one that older ones do not
                fault, names = error, {*re.findall(r"'(\w+)'", str(error))}
                unknown = names if "unexpected keyword argument" in str(error) else set()
                config = {name: value for name, value in config.items() if name not in unknown}
                config |= {name: later[name] for name in later.keys() & names - unknown}
        raise fault

    def told(kind):
        model = built(kind, others[kind.__name__])
        shapes = {name: tuple(value.shape) for name, value in model.diffusion_model.state_dict().items()}
        tensors = {name: TensorInfo(name, torch.bfloat16, shape) for name, shape in shapes.items()}
        family = detect_base(tensors)
        ours = BaseNames(tensors, family)
        known = {name: host.target_of(entry) for name, entry in comfy.lora.model_lora_keys_unet(model, {}).items()}
        known = {name: target for name, target in known.items() if target and target.weight in tensors}
        weights = [name for name in shapes if name.endswith(".weight")]
        for weight, each in itertools.product(weights, spellings):
            name = weight.removesuffix(".weight")
            spelled = each.format(name=name, flat=name.replace(".", "_"))
            known.setdefault(spelled, host.target_of(f"diffusion_model.{weight}"))

        def plain(target):
            whole = target.slice is None or tuple(target.slice) == (0, 0, shapes[target.weight][0])
            return [target.weight, None if whole else list(target.slice), target.transform, target.part]

        pairs = [(name, [plain(target)], [*map(plain, ours.find(name))]) for name, target in known.items()]
        return {"family": family, "count": len(pairs), "wrong": [pair for pair in pairs if pair[1] != pair[2]][:3]}

    found = {}
    for kind in comfy.supported_models.models:
        if kind.__name__ in others:
            try:
                found[kind.__name__] = {**told(kind), "error": ""}
            except (TypeError, KeyError, AssertionError, RuntimeError) as error:
                found[kind.__name__] = {"error": repr(error)[:300], "wrong": [], "count": 0, "family": None}
    return [kind.__name__ for kind in comfy.supported_models.models], found


def modules_of(family):
    """Every module of the dialects' fixtures of a family."""
    files = [shapes for name, shapes in FIXTURES.values() if name == family]
    parts = [part for shapes in files for part in map(split, shapes) if part]
    return sorted({part.target for part in parts if not is_text_encoder(part.module)})


@pytest.mark.parametrize("family", MODELS)
def test_rules_agree_with_the_hosts_key_map(inprocess, family):
    """Every name the host knows means the same to us, and every dialect's modules are found with its map."""
    kind, config = MODELS[family]
    count, differ, missing, unknown = inprocess(matched, family, kind, config, modules_of(family))
    wrong = HOST_IS_WRONG.get(family, ())
    assert count > 50 and [pair for pair in differ if not pair[0].replace(".", "_").endswith(wrong)] == []
    assert missing == []
    assert unknown["comfyui"] == unknown["kohya"] == [], "files we write, by the host's own loader"
    assert family not in READS_DIFFUSERS or unknown["diffusers"] == []
