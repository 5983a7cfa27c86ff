"""A LoRA out of two all-in-one checkpoints: their text encoders too, whatever each file calls them."""

from __future__ import annotations

import pytest
import torch
from fakes import Cancelled, noise
from lora_foundry.engine.errors import FoundryError
from lora_foundry.engine.merge.ranks import Policy
from lora_foundry.loaders.disk.small import save_small
from lora_foundry.loaders.loras.file import open_lora
from lora_foundry.loaders.loras.text_encoders import host_name
from lora_foundry.loaders.merges.extracting import Wish, extract_lora
from lora_foundry.loaders.names.outgoing import DIFFUSERS, KOHYA, text_key
from merged_files import a_base
from safetensors.torch import load_file

LAYER = "text_model.encoder.layers.0."
L = {
    f"{LAYER}self_attn.q_proj.weight": (8, 8), f"{LAYER}mlp.fc1.weight": (16, 8), f"{LAYER}mlp.fc1.bias": (16,),
    f"{LAYER}layer_norm1.weight": (8,), "text_model.embeddings.token_embedding.weight": (20, 8),
}  # fmt: skip
G = {
    "transformer.resblocks.0.attn.in_proj_weight": (36, 12), "transformer.resblocks.0.attn.in_proj_bias": (36,),
    "transformer.resblocks.0.attn.out_proj.weight": (12, 12), "transformer.resblocks.0.mlp.c_fc.weight": (24, 12),
    "transformer.resblocks.0.mlp.c_proj.weight": (12, 24), "transformer.resblocks.0.ln_2.bias": (12,),
    "ln_final.weight": (12,), "positional_embedding": (6, 12), "text_projection": (12, 10), "logit_scale": (),
}  # fmt: skip
SDXL = {"conditioner.embedders.0.transformer.": L, "conditioner.embedders.1.model.": G}


def numbered(shapes, seed):
    seeds = range(seed * 1000, seed * 1000 + len(shapes))
    return {
        name: noise(shape or (1,), 0.5, n, torch.float32).reshape(shape)
        for n, (name, shape) in zip(seeds, shapes.items(), strict=True)
    }


def all_in_one(folder, name, family="sdxl", texts=SDXL, seed=0):
    """A checkpoint with its text encoders; another seed changes all of them, and one weight of the model."""
    net = load_file(a_base(folder, family))
    first = next(each for each, tensor in net.items() if tensor.ndim == 2)
    net[first] = net[first] + 0.1 * noise(tuple(net[first].shape), 0.5, seed, torch.float32) * bool(seed)
    tensors = {f"model.diffusion_model.{each}": tensor for each, tensor in net.items()}
    for prefix, shapes in texts.items():
        tensors |= {prefix + each: tensor for each, tensor in numbered(shapes, seed).items()}
    save_small(folder / name, tensors)
    return folder / name


def extracted(folder, tuned, base, **more):
    wish = {"policy": Policy("error", 0.0), "dtype": "fp32", **more}
    extract_lora(Wish(tuned, base, folder / "out.safetensors", **wish))
    return open_lora(folder / "out.safetensors")


def changes_of(lora):
    """What a file adds to text encoders, by its names."""
    found = {}
    for adapter in lora.text_adapters:
        parts = {part: lora.read(name) for part, name in adapter.parts if part in ("up", "down", "diff")}
        found[adapter.module] = parts["diff"] if "diff" in parts else parts["up"] @ parts["down"] * adapter.scale
    return found


def differences(tuned, base, prefix):
    one, other = load_file(tuned), load_file(base)
    return {name.removeprefix(prefix): one[name] - other[name] for name in one if name.startswith(prefix)}


def wanted_of_g(of_file):
    """Differences by OpenCLIP's names as those of the modules that ComfyUI has."""
    fused = {f"self_attn.{part}_proj": number for number, part in enumerate("qkv")}
    block, rows = "transformer.resblocks.0.", slice
    parts = {name: rows(12 * number, 12 * number + 12) for name, number in fused.items()}
    found = {f"{LAYER}{name}": of_file[f"{block}attn.in_proj_weight"][at] for name, at in parts.items()}
    found |= {f"{LAYER}{name}.bias": of_file[f"{block}attn.in_proj_bias"][at] for name, at in parts.items()}
    return found | {
        f"{LAYER}self_attn.out_proj": of_file[f"{block}attn.out_proj.weight"],
        f"{LAYER}mlp.fc1": of_file[f"{block}mlp.c_fc.weight"],
        f"{LAYER}mlp.fc2": of_file[f"{block}mlp.c_proj.weight"],
        f"{LAYER}layer_norm2.bias": of_file[f"{block}ln_2.bias"],
        "text_model.final_layer_norm": of_file["ln_final.weight"],
        "text_model.embeddings.position_embedding": of_file["positional_embedding"],
        "text_projection": of_file["text_projection"].T,
    }


def by_text(module):
    """``1:text_model_...`` of the modules of this file."""
    return text_key(module.removesuffix(".bias")) + (".bias" if module.endswith(".bias") else "")


def flat_module(name):
    bias = ".bias" * name.endswith(".bias")
    return name.removesuffix(".bias").replace(".", "_") + bias


def test_both_text_encoders_of_sdxl_are_extracted_as_they_are(tmp_path):
    base, tuned = all_in_one(tmp_path, "base.safetensors"), all_in_one(tmp_path, "tuned.safetensors", seed=1)
    found = changes_of(extracted(tmp_path, tuned, base))
    one, other = (differences(tuned, base, prefix) for prefix in SDXL)
    wanted = {f"1:{name.removesuffix('.weight')}": change for name, change in one.items()}
    wanted |= {f"2:{name}": change for name, change in wanted_of_g(other).items()}
    wanted = {flat_module(name): change for name, change in wanted.items()}
    assert {by_text(module) for module in found} == set(wanted)
    for module, change in found.items():
        assert torch.allclose(change, wanted[by_text(module)], atol=1e-5), module


def test_every_name_is_one_that_comfyui_reads(tmp_path):
    """Its map knows a few layers by kohya's names, and all weights by its own."""
    base, tuned = all_in_one(tmp_path, "base.safetensors"), all_in_one(tmp_path, "tuned.safetensors", seed=1)
    lora = extracted(tmp_path, tuned, base)
    modules = {adapter.module.removesuffix(".bias") for adapter in lora.text_adapters}
    own = {module for module in modules if module.startswith("text_encoders.")}
    assert own == {
        "text_encoders.clip_l.transformer.text_model.encoder.layers.0.layer_norm1",
        "text_encoders.clip_l.transformer.text_model.embeddings.token_embedding",
        "text_encoders.clip_g.transformer.text_model.encoder.layers.0.layer_norm2",
        "text_encoders.clip_g.transformer.text_model.final_layer_norm",
        "text_encoders.clip_g.transformer.text_model.embeddings.position_embedding",
        "text_encoders.clip_g.transformer.text_projection",
    }
    assert all("_text_model_encoder_layers_0_" in module for module in modules - own)
    name = next(iter(own)) + ".lora_up.weight"
    assert host_name(name, modules) == name


@pytest.mark.parametrize(("dialect", "first", "second"), [
    (KOHYA, "lora_te1_text_model_encoder_layers_0_mlp_fc1", "lora_te2_text_model_encoder_layers_0_mlp_fc1"),
    (DIFFUSERS, f"text_encoder.{LAYER}mlp.fc1", f"text_encoder_2.{LAYER}mlp.fc1"),
])  # fmt: skip
def test_other_dialects_get_the_layers_their_readers_know(tmp_path, dialect, first, second):
    base, tuned = all_in_one(tmp_path, "base.safetensors"), all_in_one(tmp_path, "tuned.safetensors", seed=1)
    modules = set(changes_of(extracted(tmp_path, tuned, base, dialect=dialect)))
    assert {first, second} <= modules
    assert not any("norm" in module or "embedding" in module for module in modules)
    assert any(module.endswith(".bias") for module in modules) is (dialect == KOHYA)


def test_files_that_name_one_encoder_differently_are_compared(tmp_path):
    """A checkpoint that ComfyUI saved in its own names, against one in those of the original."""
    base = all_in_one(tmp_path, "base.safetensors", "sd15", {"cond_stage_model.transformer.": L})
    tuned = all_in_one(tmp_path, "tuned.safetensors", "sd15", {"text_encoders.clip_l.transformer.": L}, seed=1)
    found = changes_of(extracted(tmp_path, tuned, base))
    module = "lora_te_text_model_encoder_layers_0_mlp_fc1"
    name = f"{LAYER}mlp.fc1.weight"
    want = load_file(tuned)[f"text_encoders.clip_l.transformer.{name}"]
    want = want - load_file(base)[f"cond_stage_model.transformer.{name}"]
    assert torch.allclose(found[module], want, atol=1e-5)


def test_t5_and_encoders_without_a_number(tmp_path):
    query = "encoder.block.0.layer.0.SelfAttention.q"
    prefixes = "text_encoders.t5xxl.transformer.", "text_encoders.other.transformer."
    texts = {prefix: {f"{query}.weight": (8, 8)} for prefix in prefixes}
    for family, name in (("flux", "lora_te3_encoder_block_0_layer_0_SelfAttention_q"),
                         ("wan", prefixes[0] + query)):  # fmt: skip
        base = all_in_one(tmp_path, "base.safetensors", family, texts)
        tuned = all_in_one(tmp_path, "tuned.safetensors", family, texts, seed=1)
        assert set(changes_of(extracted(tmp_path, tuned, base))) == {
            name,
            prefixes[1] + query,
        }
    base, tuned = (all_in_one(tmp_path, f"{n}.safetensors", "flux", texts, seed=n) for n in (0, 1))
    assert set(changes_of(extracted(tmp_path, tuned, base, dialect=DIFFUSERS))) == {f"text_encoder_2.{query}"}


def test_text_encoders_in_8_bits_are_left_out_where_they_are_equal_and_refused_where_not(tmp_path):
    base, tuned = all_in_one(tmp_path, "base.safetensors"), all_in_one(tmp_path, "tuned.safetensors", seed=1)
    prefix, _ = SDXL
    name = f"{prefix}{LAYER}mlp.fc1.weight"

    def with_codes(path, of):
        tensors = load_file(path)
        save_small(path, {**tensors, name: load_file(of)[name].to(torch.float8_e4m3fn)})

    with_codes(base, base)
    with_codes(tuned, base)
    assert "lora_te1_text_model_encoder_layers_0_mlp_fc1" not in changes_of(extracted(tmp_path, tuned, base))
    with_codes(tuned, all_in_one(tmp_path, "other.safetensors", seed=2))
    (tmp_path / "out.safetensors").unlink()
    with pytest.raises(FoundryError, match=r"LF504.*float8_e4m3fn in a text encoder"):
        extracted(tmp_path, tuned, base)
    assert not (tmp_path / "out.safetensors").exists()


def test_models_without_text_encoders_in_both_files_are_compared_as_before(tmp_path):
    base = all_in_one(tmp_path, "base.safetensors", texts={})
    tuned = all_in_one(tmp_path, "tuned.safetensors", seed=1)
    lora = extracted(tmp_path, tuned, base)
    assert len(lora.adapters) == 1 and not lora.text_adapters


# --- clamped on request


def test_clamped_numbers_stay_below_the_quantile_and_what_that_costs_is_told(tmp_path):
    base, tuned = all_in_one(tmp_path, "base.safetensors"), all_in_one(tmp_path, "tuned.safetensors", seed=1)
    plain = extract_lora(Wish(tuned, base, tmp_path / "plain.safetensors", Policy("error", 0.0), dtype="fp32"))
    wish = Wish(tuned, base, tmp_path / "out.safetensors", Policy("error", 0.0, clamp=0.9), dtype="fp32")
    told = extract_lora(wish)
    assert told["recipe"]["policy"] == "error 0, clamped at 0.9"
    assert plain["proof"]["error"] < 1e-5 < 0.02 < told["proof"]["error"] < 0.6
    free, cut = load_file(tmp_path / "plain.safetensors"), load_file(tmp_path / "out.safetensors")
    for name in [name for name in cut if name.endswith(".lora_up.weight")]:
        pair = name, name.replace("lora_up", "lora_down")
        most = max(float(cut[each].abs().max()) for each in pair)
        sizes = torch.cat([free[each].abs().flatten() for each in pair])
        assert most == pytest.approx(float(sizes.quantile(0.9)), rel=0.1)
    prefix, _ = SDXL
    name = f"{prefix}{LAYER}mlp.fc1.weight"
    want = load_file(tuned)[name] - load_file(base)[name]
    module = "lora_te1_text_model_encoder_layers_0_mlp_fc1"
    got = changes_of(open_lora(tmp_path / "out.safetensors"))[module]
    assert told["proof"]["layers"][module] == pytest.approx(float((got - want).norm() / want.norm()), rel=1e-3)
    with pytest.raises(FoundryError, match=r"LF503.*clamp"):
        Policy("rank", 4, clamp=1.0)


# --- nothing half written


def test_a_cancel_at_any_moment_leaves_nothing(tmp_path):
    base, tuned = all_in_one(tmp_path, "base.safetensors"), all_in_one(tmp_path, "tuned.safetensors", seed=1)
    steps = []
    extract_lora(Wish(tuned, base, tmp_path / "out.safetensors", Policy("rank", 2)), lambda *step: steps.append(step))
    whole = (tmp_path / "out.safetensors").read_bytes()
    before = sorted(tmp_path.iterdir())
    for stop in range(len(steps)):
        calls = iter(range(len(steps)))

        def cancel(done, total, stop=stop, calls=calls):
            if next(calls) == stop:
                raise Cancelled

        with pytest.raises(Cancelled):
            extract_lora(Wish(tuned, base, tmp_path / "out.safetensors", Policy("rank", 3)), cancel)
        assert sorted(tmp_path.iterdir()) == before and (tmp_path / "out.safetensors").read_bytes() == whole
    assert len(steps) > 10
