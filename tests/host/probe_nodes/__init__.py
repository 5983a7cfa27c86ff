"""Test-only nodes: conditioning and latents without text encoder or autoencoder, and exact values of a latent."""

from __future__ import annotations

import hashlib
from pathlib import Path

import folder_paths
import torch
from safetensors.torch import save_file


def _int(default: int) -> tuple:
    return ("INT", {"default": default, "min": 0, "max": 1 << 31})


class TinyCond:
    """Random conditioning ``(1, tokens, dim)``, with a pooled vector of width ``pooled`` when that is not 0."""

    CATEGORY, FUNCTION, RETURN_TYPES = "probe", "make", ("CONDITIONING",)

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"tokens": _int(8), "dim": _int(768), "pooled": _int(0), "seed": _int(0)}}

    def make(self, tokens: int, dim: int, pooled: int, seed: int):
        generator = torch.Generator().manual_seed(seed)
        extra = {"pooled_output": torch.randn(1, pooled, generator=generator)} if pooled else {}
        return ([[torch.randn(1, tokens, dim, generator=generator), {"guidance": 3.5, **extra}]],)


class TinyLatent:
    """An empty latent ``(1, channels[, frames], height, width)``; no frames axis when ``frames`` is 0."""

    CATEGORY, FUNCTION, RETURN_TYPES = "probe", "make", ("LATENT",)

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"channels": _int(4), "frames": _int(0), "height": _int(8), "width": _int(8)}}

    def make(self, channels: int, frames: int, height: int, width: int):
        shape = (1, channels, *([frames] if frames else []), height, width)
        return ({"samples": torch.zeros(shape)},)


class TinyStats:
    """Reports a latent bit for bit: sha256 of its fp32 bytes, first values, and the whole tensor in a file."""

    CATEGORY, FUNCTION, RETURN_TYPES, OUTPUT_NODE = "probe", "look", ("LATENT",), True

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"samples": ("LATENT",)}}

    def look(self, samples: dict):
        tensor = samples["samples"].detach().float().cpu().contiguous()
        digest = hashlib.sha256(tensor.numpy().tobytes()).hexdigest()
        path = Path(folder_paths.get_output_directory()) / "latents" / f"{digest}.safetensors"
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file({"samples": tensor}, path)
        stats = {
            "shape": list(tensor.shape),
            "finite": bool(torch.isfinite(tensor).all()),
            "std": tensor.std().item(),
            "sha256": digest,
            "first": tensor.flatten()[:8].tolist(),
            "path": str(path),
        }
        return {"ui": {"latent": [stats]}, "result": (samples,)}


class ModelDtypes:
    """Reports what a MODEL is made of: how many parameters of which dtype, and the class of its patcher.

    ``after``: a latent that has to be there before.
    """

    CATEGORY, FUNCTION, RETURN_TYPES, OUTPUT_NODE = "probe", "look", ("MODEL",), True

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"model": ("MODEL",)}, "optional": {"after": ("LATENT",)}}

    def look(self, model, after=None):
        dtypes: dict[str, int] = {}
        for value in model.model.diffusion_model.state_dict().values():
            dtype = str(getattr(value, "dtype", type(value).__name__))
            dtypes[dtype] = dtypes.get(dtype, 0) + 1
        about = {
            "dtypes": dtypes,
            "patcher": type(model).__name__,
            "model": type(model.model).__name__,
            "patched": len(model.patches),
            "hooks": sum(len(each._forward_pre_hooks) for each in model.model.diffusion_model.modules()),
            "attachments": sorted(model.attachments),
            "model_options": sorted(model.model_options),
            "wrappers": sorted(f"{kind}/{key}" for kind, keys in model.wrappers.items() for key in keys),
        }
        return {"ui": {"model": [about]}, "result": (model,)}


class HideModel:
    """Passes a MODEL on through an input that no lint follows, as a node of some other pack might."""

    CATEGORY, FUNCTION, RETURN_TYPES = "probe", "hide", ("MODEL",)

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"hidden": ("MODEL",)}}

    def hide(self, hidden):
        return (hidden,)


class ForeignStack:
    """A LORA_STACK as other packs make it: a list of plain tuples."""

    CATEGORY, FUNCTION, RETURN_TYPES = "probe", "make", ("LORA_STACK",)

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"name": ("STRING", {"default": ""})}}

    def make(self, name: str):
        return ([(name, 0.8, 1.0), ("None", 1.0, 1.0)],)


class AnyText:
    """A text on a wire of any type, as other packs' switches and settings are."""

    CATEGORY, FUNCTION, RETURN_TYPES = "probe", "make", ("*",)

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"text": ("STRING", {"default": ""})}}

    def make(self, text: str):
        return (text,)


NODES = (TinyCond, TinyLatent, TinyStats, ModelDtypes, HideModel, ForeignStack, AnyText)
NODE_CLASS_MAPPINGS = {node.__name__: node for node in NODES}
