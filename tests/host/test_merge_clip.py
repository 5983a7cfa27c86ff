"""The text-encoder parts of an SDXL merge in the host's own two CLIPs: a prompt is encoded as under the stack."""

from __future__ import annotations

import torch
from forms import Maker
from lora_foundry.loaders.disk.small import save_small
from lora_foundry.loaders.merges.matching import Wanted
from lora_foundry.loaders.merges.merging import Request, merge

STRENGTHS = (1.0, -0.6, 0.5)
WIDTHS = {"1": 32, "2": 48}  # CLIP-L, CLIP-G
LAYERS = 3


def spoken(files, strengths, widths, layers, through_ours):
    """(weights reached by each file, the encoded prompt, its pooled vector) of a CLIP of SDXL under LoRA files.

    The two text encoders are the host's own classes with few and narrow layers; their weights are random.
    """
    from pathlib import Path

    import comfy.lora
    import comfy.sd
    import comfy.sdxl_clip
    import torch
    from comfy.supported_models_base import ClipTarget
    from lora_foundry.loaders.loras.file import open_lora
    from lora_foundry.loaders.loras.text_encoders import text_encoder_state
    from lora_foundry.nodes.host import patch_clip
    from safetensors.torch import load_file

    options = {"dtype": torch.float32}
    for encoder, width in zip(("clip_l", "clip_g"), widths, strict=True):
        small = {"num_hidden_layers": layers, "hidden_size": width, "intermediate_size": 2 * width}
        options[f"{encoder}_model_config"] = {**small, "num_attention_heads": 4, "projection_dim": width}
    target = ClipTarget(comfy.sdxl_clip.SDXLTokenizer, comfy.sdxl_clip.SDXLClipModel)
    clip = comfy.sd.CLIP(target, model_options=options)
    random = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in sorted(clip.cond_stage_model.named_parameters()):
            size = 0.5 / parameter.shape[-1] ** 0.5 if parameter.ndim > 1 else 0.02
            norm = parameter.ndim == 1 and name.endswith("weight")
            parameter.copy_(torch.randn(parameter.shape, generator=random) * size + norm)
    counts = []
    for file, strength in zip(files, strengths, strict=True):
        if through_ours:
            lora = open_lora(Path(file))
            clip, count = patch_clip(clip, lambda known, lora=lora: text_encoder_state(lora, known), strength)
        else:
            keys = comfy.lora.model_lora_keys_clip(clip.cond_stage_model, {})
            clip, loaded = clip.clone(), comfy.lora.load_lora(load_file(file), keys, log_missing=False)
            count = len(clip.add_patches(loaded, strength))
        counts.append(count)
    cond, pooled = clip.encode_from_tokens(clip.tokenize("a red fox (in:1.2) the snow"), return_pooled=True)
    return [counts, cond.flatten().tolist(), pooled.flatten().tolist()]


def layers_of(width):
    """Dotted layers of one text encoder with their shapes."""
    for layer in range(LAYERS):
        block = f"text_model.encoder.layers.{layer}"
        yield from (
            (f"{block}.self_attn.{part}", (width, width)) for part in ("q_proj", "k_proj", "v_proj", "out_proj")
        )
        yield from ((f"{block}.mlp.fc1", (2 * width, width)), (f"{block}.mlp.fc2", (width, 2 * width)))


def three(folder):
    """Plain LoRAs in kohya's and diffusers' names, and LoHa with the norms and biases that only ComfyUI names."""
    files = [{}, {}, {}]
    for encoder, width in WIDTHS.items():
        dotted = f"text_encoder{'' if encoder == '1' else '_2'}"
        for number, (layer, (out, inp)) in enumerate(layers_of(width)):
            short, seed = f"lora_te{encoder}_{layer.replace('.', '_')}", 100 * int(encoder) + number
            plain = Maker(out, inp, rank=4, seed=seed).lora()
            files[0] |= {f"{short}.lora_{part}.weight": tensor for part, tensor in plain.parts.items()}
            files[0][f"{short}.alpha"] = torch.tensor(plain.alpha)
            parts = Maker(out, inp, rank=2, seed=seed + 50).lora(None).parts
            files[1] |= {f"{dotted}.{layer}.lora_{'B' if part == 'up' else 'A'}.weight": t for part, t in parts.items()}
            loha = Maker(out, inp, rank=2, seed=seed + 70).loha()
            if layer.endswith("fc1"):
                files[2] |= {f"{short}.hada_{part}": tensor for part, tensor in loha.parts.items()}
                files[2] |= {f"{short}.alpha": torch.tensor(loha.alpha), f"{short}.diff_b": torch.full((out,), 0.1)}
        own = f"text_encoders.clip_{'l' if encoder == '1' else 'g'}.transformer.text_model"
        files[2][f"{own}.encoder.layers.0.layer_norm1.diff"] = torch.linspace(-0.2, 0.2, width)
        files[2][f"{own}.embeddings.position_embedding.diff"] = 0.1 * torch.ones(77, width)
    paths = [folder / f"{number}.safetensors" for number in range(3)]
    for path, tensors in zip(paths, files, strict=True):
        save_small(
            path, {name: tensor * (0.1 if "up" in name or "_B" in name else 1) for name, tensor in tensors.items()}
        )
    return paths


def off(one, other):
    one, other = (torch.tensor(each, dtype=torch.float64) for each in (one, other))
    return float((one - other).norm() / other.norm())


def test_both_clips_of_sdxl_say_the_same_under_the_merged_file_as_under_the_stack(inprocess, tmp_path):
    paths = three(tmp_path)
    loras = tuple(Wanted(path.name, path, 1.0, n) for path, n in zip(paths, STRENGTHS, strict=True))
    merged = merge(Request(loras, tmp_path / "merged.safetensors"))
    assert merged.proof["error"] < 1e-6
    given = [*WIDTHS.values()], LAYERS
    counts, cond, pooled = inprocess(spoken, [str(path) for path in paths], STRENGTHS, *given, False)
    assert counts[:2] == [2 * 6 * LAYERS] * 2 and counts[2] > 2 * LAYERS
    _, bare, _ = inprocess(spoken, [], [], *given, False)
    assert off(cond, bare) > 0.05, "the LoRAs are heard"
    for through_ours in (False, True):
        reached, *said = inprocess(spoken, [str(merged.path)], [1.0], *given, through_ours)
        assert reached[0] == 2 * (6 * LAYERS + LAYERS + 2), "every weight, bias, norm and embedding"
        assert off(said[0], cond) < 1e-5 and off(said[1], pooled) < 1e-5
