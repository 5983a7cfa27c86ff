"""The order at 4 bits on the host itself: its own LoRA loader on our nvfp4 file against the LoRA fused first.

``COMFYUI_PATH`` of 0.8 or newer; an older host refuses the file. ``-s`` prints the numbers.
"""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from lora_foundry.cli.demo import tiny
from lora_foundry.engine.finish import Finish
from lora_foundry.loaders.bakes.baking import bake_to_file
from lora_foundry.loaders.documents.document import parse_document
from lora_foundry.loaders.plans.planner import plan_document
from safetensors.torch import load_file, save_file

WIDTH = 256


def known():
    """What the pack says this host loads."""
    from lora_foundry.nodes import host

    return host.loadable_formats()


def weights_of(path, lora, out):
    """The weights the host multiplies with, its own LoRA loader's LoRA on them, written to a file."""
    import comfy.model_management
    import comfy.sd
    import comfy.utils
    from safetensors.torch import save_file

    model = comfy.sd.load_diffusion_model(path)
    if lora:
        model, _ = comfy.sd.load_lora_for_models(model, None, comfy.utils.load_torch_file(lora), 1.0, 0)
    comfy.model_management.load_models_gpu([model], force_patch_weights=True)
    linears = (each for each in model.model.diffusion_model.named_modules() if type(each[1]).__name__ == "Linear")
    save_file(
        {f"{name}.weight": each.convert_weight(each.weight).float().contiguous() for name, each in linears if name},
        out,
    )


def deltas(lora: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    found = {}
    for name in (name for name in lora if name.endswith("lora_down.weight")):
        module = name.removesuffix(".lora_down.weight")
        scale = float(lora[f"{module}.alpha"]) / len(lora[name])
        product = lora[f"{module}.lora_up.weight"].double() @ lora[name].double()
        found[module.removeprefix("diffusion_model.") + ".weight"] = scale * product
    return found


def test_a_lora_on_an_nvfp4_file_loses_a_part_and_doubles_the_error(inprocess, tmp_path):
    base = tiny.state_dict("wan", width=WIDTH)
    lora = tiny.lora(base, rank=16, alpha=16, rms=0.01, modules=r"^blocks\.", prefix="diffusion_model.", seed=3)
    save_file(base, tmp_path / "base.safetensors")
    save_file(lora, tmp_path / "lora.safetensors")
    added, path, out = deltas(lora), str(tmp_path / "lora.safetensors"), tmp_path / "out.safetensors"

    def on_host(stack: list[str], on_top: str) -> None:
        rows = [{"path": name, "strength": 1.0} for name in stack]
        document = parse_document({"base": "base.safetensors", "stack": rows}, "test")
        made = tmp_path / "made.safetensors"
        bake_to_file(plan_document(replace(document, folder=tmp_path)), Finish("nvfp4"), made)
        inprocess(weights_of, str(made), on_top, str(out))

    def told(stack: list[str], on_top: str) -> tuple[float, float]:
        """(share of the LoRA that is kept, relative error of the weights)."""
        on_host(stack, on_top)
        return compared(load_file(out), base, added)

    if "nvfp4" not in inprocess(known):  # an older host stops at the file, with a LoRA on it or in it
        for stack, on_top in (([], path), (["lora.safetensors"], "")):
            with pytest.raises(AssertionError, match="KeyError: 'nvfp4'"):
                on_host(stack, on_top)
            assert not out.exists()
        return
    late, first = told([], path), told(["lora.safetensors"], "")
    print(
        f"nvfp4: LoRA on the file {late[0]:.1%} kept, error {late[1]:.2%}; fused first {first[0]:.1%}, {first[1]:.2%}"
    )
    assert abs(first[0] - 1) < 0.03 and first[1] < 0.083
    assert late[0] < 0.98 and late[1] > 2 * first[1]


def compared(
    got: dict[str, torch.Tensor], base: dict[str, torch.Tensor], added: dict[str, torch.Tensor]
) -> tuple[float, float]:
    exact = {name: base[name].double() + delta for name, delta in added.items()}
    off = sum(float((got[name].double() - exact[name]).square().sum()) for name in exact)
    signal = sum(float(each.square().sum()) for each in exact.values())
    aligned = sum(float(((got[name].double() - base[name].double()) * delta).sum()) for name, delta in added.items())
    return aligned / sum(float(each.square().sum()) for each in added.values()), (off / signal) ** 0.5
