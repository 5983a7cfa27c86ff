"""What the host may do with a baked MODEL, in process: clones, rebuilt twins, wrappers, refusals."""

from __future__ import annotations

import pytest
from lora_foundry.cli.demo import tiny
from safetensors.torch import save_file


@pytest.fixture
def files(tmp_path) -> tuple[str, str]:
    """(tiny Wan model, LoRA) on disk."""
    base, lora = tmp_path / "wan.safetensors", tmp_path / "lora.safetensors"
    save_file(tiny.state_dict("wan"), base)
    save_file(tiny.lora(tiny.shapes("wan"), rank=8, alpha=4, prefix="diffusion_model.", rms=0.05), lora)
    return str(base), str(lora)


def twins(base, lora):
    """Bake to fp8 from a loaded MODEL, then clone and (where the host can) rebuild: is the fusion in all of them?"""
    from pathlib import Path

    import comfy.sd
    import torch
    from lora_foundry.engine.finish import Finish
    from lora_foundry.engine.plan import STACK
    from lora_foundry.loaders.bakes.baking import resolve
    from lora_foundry.loaders.loras.file import open_lora
    from lora_foundry.nodes import host, layers, making, rows, sources

    model = comfy.sd.load_diffusion_model(base)
    model.model_options["transformer_options"]["mark"] = 1
    model.set_attachments("mark", {"kept": True})
    before = {key: value.clone() for key, value in model.model.state_dict().items()}
    plan = layers.add_row(sources.plan_of(model), open_lora(Path(lora)), rows.StackRow("lora", 1.0, 1.0), STACK)
    finish = Finish("float8_e4m3fn", linears=plan.base.source.facts.linears)
    baked, _ = making.baked_model(resolve(plan, finish))

    def weights(patcher):
        state = patcher.model.diffusion_model.state_dict()
        return {key: (v.dequantize() if hasattr(v, "_qdata") else v).float() for key, v in state.items()}

    reference, others = weights(baked), {"clone": baked.clone()}
    if hasattr(baked, "cached_patcher_init"):
        others["rebuilt"] = baked.clone(force_deepcopy=True)
    same = all(torch.equal(reference[key], weights(other)[key]) for other in others.values() for key in reference)
    plain = weights(model)
    moved = (reference["blocks.0.ffn.0.weight"] - plain["blocks.0.ffn.0.weight"]).norm()
    return {
        "same": same,
        "fused": bool(moved / plain["blocks.0.ffn.0.weight"].norm() > 0.04),
        "untouched": all(torch.equal(value, before[key]) for key, value in model.model.state_dict().items()),
        "options": baked.model_options["transformer_options"].get("mark"),
        "attachment": baked.get_attachment("mark"),
        "ledger": host.ledger(baked)["stack"],
        "others": sorted(others),
        "own_module": baked.model is not model.model,
    }


def test_clones_and_rebuilt_twins_keep_the_fusion(inprocess, files):
    seen = inprocess(twins, *files)
    assert seen["same"] and seen["fused"] and seen["untouched"] and seen["own_module"]
    assert seen["options"] == 1 and seen["attachment"] == {"kept": True} and seen["ledger"] == ["lora.safetensors"]
    assert "clone" in seen["others"]


def compiled_first(base, lora):
    """torch.compile above our stage captured the unfused modules: refused, with what to do."""
    import comfy.sd
    from lora_foundry.engine.errors import FoundryError
    from lora_foundry.nodes import sources

    model = comfy.sd.load_diffusion_model(base)
    model.add_wrapper_with_key(
        "apply_model", "torch.compile", lambda executor, *args, **kwargs: executor(*args, **kwargs)
    )
    try:
        sources.plan_of(model)
    except FoundryError as error:
        return str(error)
    return "accepted"


def test_torch_compile_before_a_stage_is_refused(inprocess, files):
    assert "TorchCompileModel" in inprocess(compiled_first, *files)


def foreign(base, lora):
    """A patcher of another pack (GGUF, Nunchaku) is refused, for its weights are no plain tensors."""
    import comfy.model_patcher
    import comfy.sd
    from lora_foundry.engine.errors import FoundryError
    from lora_foundry.nodes import sources

    class GGUFModelPatcher(comfy.model_patcher.ModelPatcher):
        pass

    model = comfy.sd.load_diffusion_model(base)
    model.__class__ = GGUFModelPatcher
    try:
        sources.plan_of(model)
    except FoundryError as error:
        return str(error)
    return "accepted"


def test_a_patcher_of_another_pack_is_refused(inprocess, files):
    assert "GGUFModelPatcher" in inprocess(foreign, *files)


def deltas(base, lora):
    """fp32 sum of our engine against the host's own calculate_weight, per weight, relative to the delta."""
    from pathlib import Path

    import comfy.lora
    import comfy.sd
    from lora_foundry.engine.fuse import fused_weight
    from lora_foundry.engine.plan import STACK
    from lora_foundry.engine.terms import make_term
    from lora_foundry.loaders.loras.file import open_lora
    from lora_foundry.nodes import layers, rows, sources
    from safetensors.torch import load_file

    model = comfy.sd.load_diffusion_model(base)
    patches = comfy.lora.load_lora(load_file(lora), comfy.lora.model_lora_keys_unet(model.model, {}))
    theirs = model.clone()
    theirs.add_patches(patches, 0.8)
    plan = layers.add_row(sources.plan_of(model), open_lora(Path(lora)), rows.StackRow("lora", 0.8, 0.8), STACK)
    worst, count = 0.0, 0
    for name, pairs in plan.by_weight().items():
        key = "diffusion_model." + name
        weight = plan.base.source.read(name).float()
        ours = fused_weight(weight, pairs, [make_term(*pair) for pair in pairs])
        host = comfy.lora.calculate_weight(theirs.patches[key], weight.clone(), key)
        worst = max(worst, ((ours - host).norm() / (host - weight).norm()).item())
        count += 1
    return {"worst": worst, "ours": count, "host": len(theirs.patches)}


def test_deltas_equal_the_hosts_own(inprocess, files):
    seen = inprocess(deltas, *files)
    assert seen["ours"] == seen["host"] > 5
    assert seen["worst"] < 1e-5


def bypassed(base):
    import comfy.sd
    from lora_foundry.engine.errors import FoundryError
    from lora_foundry.nodes import sources

    model = comfy.sd.load_diffusion_model(base)
    model.set_injections("bypass_lora", [])  # the key of LoraLoaderBypassModelOnly
    try:
        sources.plan_of(model)
    except FoundryError as error:
        return str(error)


def test_a_bypass_lora_before_a_stage_is_refused(inprocess, files):
    assert "bypass" in inprocess(bypassed, files[0])


def markers(kinds):
    """The tensors a MODEL's source adds for how it samples, by kind, and whether a fresh detection understands them."""
    import comfy.supported_models
    import torch
    from lora_foundry.nodes import host

    config = {"disable_unet_model_creation": True, "in_channels": 4, "adm_in_channels": 2816}

    class Patcher:
        def __init__(self, tensors):
            self.model = comfy.supported_models.SDXL(config).get_model(tensors)

    def about(patcher):
        sampling = patcher.model.model_sampling
        return patcher.model.model_type.name, float(sampling.sigma_max), type(patcher.model.latent_format).__name__

    seen = {}
    for kind, names in kinds.items():
        first = Patcher({name: torch.tensor(value) for name, value in names.items()})
        again = Patcher(host.sampling_markers(first))
        seen[kind] = [about(first)[0], sorted(host.sampling_markers(first)), about(first) == about(again)]
    return seen


def test_a_model_remembers_how_it_samples(inprocess):
    """v-prediction and EDM are marked by tensors beside the network, which a loaded MODEL no longer holds."""
    edm = {"edm_vpred.sigma_max": 120.0, "edm_vpred.sigma_min": 0.002}
    kinds = {
        "EPS": {},
        "V_PREDICTION": {"v_pred": [], "ztsnr": []},
        "V_PREDICTION_EDM": edm,
        "EDM": {"edm_mean": [0.0], "edm_std": [1.0]},
    }
    seen = inprocess(markers, kinds)
    assert seen == {kind: [kind, sorted(names), True] for kind, names in kinds.items()}


def edges_taken(base, lora):
    """How often Quantize looks at each weight of a MODEL for the fingerprint, in memory and through the cache."""
    from collections import Counter
    from pathlib import Path

    import comfy.sd
    from lora_foundry.engine.plan import STACK
    from lora_foundry.loaders.loras.file import open_lora
    from lora_foundry.nodes import host, layers, quantize, rows, sources

    looked, real = Counter(), host.ModelWeights.edges

    def edges(self, name):
        looked[name] += 1
        return real(self, name)

    seen = {}
    for keep in ("memory", "file"):
        model = comfy.sd.load_diffusion_model(base)
        plan = layers.add_row(sources.plan_of(model), open_lora(Path(lora)), rows.StackRow("lora", 1.0, 1.0), STACK)
        host.ModelWeights.edges, quantize.plan_of = edges, lambda _, plan=plan: plan
        try:
            looked.clear()
            quantize.FoundryQuantizeFP8().run(model, "float8_e4m3fn", "full precision", "auto", keep=keep)
        finally:
            host.ModelWeights.edges, quantize.plan_of = real, sources.plan_of
        seen[keep] = [min(looked.values(), default=0), max(looked.values(), default=0)]
    return seen


def test_quantize_takes_the_fingerprint_of_the_base_once(inprocess, files):
    assert inprocess(edges_taken, *files) == {"memory": [1, 1], "file": [1, 1]}
