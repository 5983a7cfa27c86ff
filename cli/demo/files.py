"""The demo's files: tiny models and LoRAs with real names, written as safetensors files."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from ...loaders.disk.small import save_small
from . import tiny

WIDTH, LAYERS = 384, 2  # so many weights that rounding moves a gain by 0.2 %
STRENGTHS = {"lightning": 1.0, "ink": 0.8, "light": 0.6}


def make_files(folder: Path, width: int = WIDTH, layers: int = LAYERS) -> None:
    """A tiny Wan, a Lightning-style LoRA (alpha 8, rank 64), two styles in other dialects, and what can go wrong.

    At its strength in the stack each LoRA is 1 % rms of what it goes on.
    """
    base = tiny.state_dict("wan", width=width, layers=layers)
    blocks = r"^blocks\."
    lightning = tiny.lora(base, rank=64, alpha=8, dialect="down/up", prefix="diffusion_model.", seed=1, modules=blocks)
    files = {
        "base": base,
        "lightning": lightning,
        "lightning_without_alpha": {name: tensor for name, tensor in lightning.items() if not name.endswith(".alpha")},
        "ink": tiny.lora(
            base, rank=16, dialect="A/B", prefix="diffusion_model.", modules=blocks, rms=0.01 / STRENGTHS["ink"], seed=2
        ),
        "light": tiny.lora(base, rank=32, dialect="A/B default", modules=blocks, rms=0.01 / STRENGTHS["light"], seed=3),
        "flux_lora": tiny.lora(tiny.shapes("flux", width=128), rank=4, prefix="diffusion_model.", modules="_blocks"),
    }
    for name, tensors in files.items():
        save_small(folder / f"{name}.safetensors", tensors)


def make_checkpoint_files(checkpoints: Path, loras: Path) -> None:
    """An all-in-one SD1.5 checkpoint (260 MB, nearly all of it the text encoder) with an accelerator and a style LoRA.

    The style has text-encoder parts in kohya's flat names.
    """
    checkpoint = tiny.checkpoint()
    last = max((name for name in checkpoint if "taesd_decoder" in name), key=lambda name: int(name.split(".")[2]))
    layer = last.rpartition(".")[0]
    checkpoint[f"{layer}.weight"] *= 16  # random weights decode to almost black: spread the picture around mid-grey
    checkpoint[f"{layer}.bias"] += 0.5
    save_small(checkpoints / "tiny.safetensors", checkpoint)
    unet = tiny.shapes("sd15")
    blocks, prefix = "transformer_blocks", "diffusion_model."
    lightning = tiny.lora(unet, rank=64, alpha=8, prefix=prefix, modules=blocks, rms=0.05, seed=1)
    save_small(loras / "lightning.safetensors", lightning)
    style = tiny.lora(unet, rank=16, alpha=16, dialect="A/B", prefix=prefix, modules=blocks, rms=0.05, seed=2)
    text = tiny.lora(tiny.shapes("clip-l"), rank=4, alpha=4, prefix="lora_te_", modules=r"layers\.0\.mlp", seed=3)
    save_small(loras / "style.safetensors", style | text)


def document(folder: Path, name: str, base: str = "base", fuse: str = "lightning", extra: Sequence[str] = ()) -> Path:
    """Write ``<name>.json``: a stack document over the folder's files; without ``fuse`` just the base, quantized."""
    stack = [{"path": f"{lora}.safetensors", "strength": STRENGTHS.get(lora, 1.0)} for lora in ("ink", "light", *extra)]
    content = {
        "base": f"{base}.safetensors",
        "fuse": [{"path": f"{fuse}.safetensors", "strength": STRENGTHS["lightning"]}] if fuse else [],
        "stack": stack if fuse else [],
        "quantize": "fp8",
    }
    path = folder / f"{name}.json"
    path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    return path
