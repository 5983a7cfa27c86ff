"""The order on the host itself: its own LoRA loader on our file in each format against the LoRA fused first.

``COMFYUI_PATH`` of a host that knows the formats; an older one stops at the file. ``-s`` prints the numbers.
"""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from host.foundry import known, unknown
from lora_foundry.cli.demo import tiny
from lora_foundry.engine.finish import Finish
from lora_foundry.engine.formats import FORMATS
from lora_foundry.loaders.bakes.baking import bake_to_file
from lora_foundry.loaders.documents.document import parse_document
from lora_foundry.loaders.lint.late import ON_TOP
from lora_foundry.loaders.plans.planner import plan_document
from quant_vectors import BY_AMAX
from safetensors.torch import load_file, save_file

WIDTH = 256


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


def heavy(weight: torch.Tensor) -> torch.Tensor:
    """The weight over a chi of 4 degrees, Student's t, with rows and columns of different size."""
    generator = torch.Generator().manual_seed(9)
    squares = sum(torch.randn(weight.shape, generator=generator).square() for _ in range(4))
    rows, columns = (torch.randn(size, generator=generator) for size in ((len(weight), 1), (1, weight.shape[1])))
    spread = torch.exp(0.3 * rows + 0.5 * columns)
    return (weight.float() / (squares / 4).sqrt() * spread).to(weight.dtype)


class Case:
    """A base and a LoRA of ``percent`` of it as files, and what the host makes of a file quantized from them."""

    def __init__(self, inprocess, folder, name: str, change=None, percent: int = 1) -> None:
        self._inprocess, self._folder, self._name = inprocess, folder, name
        self._base = tiny.state_dict("wan", width=WIDTH)
        if change is not None:
            self._base |= {key: change(each) for key, each in self._base.items() if each.ndim == 2}
        lora = tiny.lora(
            self._base, rank=16, alpha=16, rms=percent / 100, modules=r"^blocks\.", prefix="diffusion_model.", seed=3
        )
        save_file(self._base, folder / "base.safetensors")
        save_file(lora, folder / "lora.safetensors")
        self._added, self.out = deltas(lora), folder / "out.safetensors"

    def on_host(self, first: bool) -> None:
        """Bake and load, with the LoRA fused ``first``, or put on top by the host's own loader."""
        rows = [{"path": "lora.safetensors", "strength": 1.0}] if first else []
        document = parse_document({"base": "base.safetensors", "stack": rows}, "test")
        made = self._folder / "made.safetensors"
        bake_to_file(plan_document(replace(document, folder=self._folder)), Finish(self._name), made)
        on_top = "" if first else str(self._folder / "lora.safetensors")
        self._inprocess(weights_of, str(made), on_top, str(self.out))

    def told(self, first: bool) -> tuple[float, float]:
        """(share of the LoRA that is kept, relative error of the weights)."""
        self.on_host(first)
        kept, error = compared(load_file(self.out), self._base, self._added)
        print(f"{self._name}, LoRA {'fused first' if first else 'on the file'}: {kept:.1%} kept, error {error:.2%}")
        return kept, error


@pytest.mark.parametrize("name", FORMATS)
def test_a_lora_on_a_file_against_fused_first(inprocess, tmp_path, name):
    case = Case(inprocess, tmp_path, name)
    if name not in inprocess(known):  # an older host stops at the file, with a LoRA on it or in it
        for first in (False, True):
            with pytest.raises(AssertionError, match=unknown(name)):
                case.on_host(first)
            assert not case.out.exists()
        return
    late, early, said = case.told(False), case.told(True), ON_TOP[name]
    assert abs(early[0] - 1) < 0.03 and early[1] == pytest.approx(said.first, rel=0.08)
    assert late[0] == pytest.approx(said.kept, abs=0.03) and late[1] == pytest.approx(said.late, rel=0.08)


@pytest.mark.parametrize(("weights", "percent"), BY_AMAX)
def test_a_file_with_scales_by_amax_loses_more(inprocess, tmp_path, monkeypatch, weights, percent):
    """As other writers make nvfp4."""
    monkeypatch.setitem(FORMATS, "nvfp4", replace(FORMATS["nvfp4"], searched=range(1)))
    case = Case(inprocess, tmp_path, "nvfp4", heavy if weights == "heavy-tailed" else None, percent)
    if "nvfp4" not in inprocess(known):
        with pytest.raises(AssertionError, match=unknown("nvfp4")):
            case.on_host(False)
        return
    print(f"{weights} weights, scales by amax, LoRA of {percent} %")
    (kept, error), (kept_first, first), wanted = case.told(False), case.told(True), BY_AMAX[weights, percent]
    assert kept == pytest.approx(wanted[0], abs=0.02) and abs(kept_first - 1) < 0.03
    assert (error, first) == tuple(pytest.approx(each, rel=0.02) for each in wanted[1:])


def compared(
    got: dict[str, torch.Tensor], base: dict[str, torch.Tensor], added: dict[str, torch.Tensor]
) -> tuple[float, float]:
    exact = {name: base[name].double() + delta for name, delta in added.items()}
    off = sum(float((got[name].double() - exact[name]).square().sum()) for name in exact)
    signal = sum(float(each.square().sum()) for each in exact.values())
    aligned = sum(float(((got[name].double() - base[name].double()) * delta).sum()) for name, delta in added.items())
    return aligned / sum(float(each.square().sum()) for each in added.values()), (off / signal) ** 0.5
