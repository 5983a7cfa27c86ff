"""Where a graph begins: a base model as a plan. Headers are read, no weights."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..engine.plan import Plan
from ..loaders.bases.dequantize import ON_QUANTIZED_BASE, REFUSE
from . import folders, host
from .common import FoundryNode, check_file, file_state
from .sockets import BASE, check_links
from .sources import open_base

# Last, and optional: a workflow from before it was there refuses a quantized base, as it did.
POLICY = {
    "on_quantized_base": (
        list(ON_QUANTIZED_BASE),
        {
            "default": REFUSE,
            "tooltip": "dequantize: an fp8 or int8 file becomes plain weights, LoRAs go in, and it is quantized again. "
            "What its first quantization lost stays lost: take the bf16 file if there is one.",
        },
    ),
    "no_mmap": (
        "BOOLEAN",
        {
            "default": False,
            "tooltip": "Read the file plainly: for a disk whose files other programs cut short while they are "
            "read. Files on network drives are read so anyway.",
        },
    ),
}


class FoundryLoadBase(FoundryNode):
    """A diffusion model file, or a sharded folder, as the untouched base."""

    DESCRIPTION = (
        "The untouched base model. Only its header is read here; weights are read once, when the plan is finished."
    )
    SEARCH_ALIASES = ["load diffusion model", "unet loader", "base weights"]
    RETURN_TYPES = (BASE,)
    OUTPUT_TOOLTIPS = ("The base: connect it to 1 Fuse Base LoRA or 2 Stack LoRAs.",)

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        """ComfyUI's V1 declaration of inputs."""
        names = [*folders.model_files(*folders.BASE_KINDS), *folders.sharded_folders()]
        tooltip = "bf16, fp16 or fp32; a quantized file is refused, or dequantized if you say so."
        return {"required": {"base_name": (names, {"tooltip": tooltip})}, "optional": POLICY}

    @classmethod
    def VALIDATE_INPUTS(cls, input_types: Mapping[str, Any], base_name: Any = None) -> bool | str:
        """Wires, and that the file exists."""
        sharded = base_name in folders.sharded_folders()
        problem = None if sharded else check_file(base_name, *folders.BASE_KINDS)
        return problem or check_links(cls.INPUT_TYPES(), input_types)

    @classmethod
    def IS_CHANGED(cls, base_name: str, **_: Any) -> str:
        """Runs again when the file, or the index of a sharded folder, was replaced."""
        return file_state(base_name, *folders.BASE_KINDS)

    def run(self, base_name: str, on_quantized_base: str = REFUSE, no_mmap: bool = False) -> tuple[Plan]:
        """The plan with nothing on it."""
        return (open_base(base_name, on_quantized_base=on_quantized_base, no_mmap=no_mmap),)


class FoundryLoadCheckpoint(FoundryNode):
    """An all-in-one checkpoint: its diffusion model as the untouched base, and its CLIP and VAE."""

    DESCRIPTION = "The untouched base of an all-in-one checkpoint, with its CLIP and VAE loaded the usual way."
    SEARCH_ALIASES = ["load checkpoint", "checkpoint loader", "base weights"]
    RETURN_TYPES = (BASE, "CLIP", "VAE")
    OUTPUT_TOOLTIPS = ("The base: connect it to 1 Fuse Base LoRA or 2 Stack LoRAs.", "Text encoder.", "Image decoder.")

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        """ComfyUI's V1 declaration of inputs."""
        return {
            "required": {
                "ckpt_name": (folders.model_files("checkpoints"), {"tooltip": "A file with UNet, CLIP and VAE."})
            },
            "optional": POLICY,
        }

    @classmethod
    def VALIDATE_INPUTS(cls, input_types: Mapping[str, Any], ckpt_name: Any = None) -> bool | str:
        """Wires, and that the file exists."""
        return check_file(ckpt_name, "checkpoints") or check_links(cls.INPUT_TYPES(), input_types)

    @classmethod
    def IS_CHANGED(cls, ckpt_name: str, **_: Any) -> str:
        """Runs again when the file was replaced."""
        return file_state(ckpt_name, "checkpoints")

    def run(self, ckpt_name: str, on_quantized_base: str = REFUSE, no_mmap: bool = False) -> tuple[Plan, Any, Any]:
        """(plan with nothing on it, CLIP, VAE)."""
        plan = open_base(ckpt_name, "checkpoints", on_quantized_base=on_quantized_base, no_mmap=no_mmap)
        clip, vae = host.load_clip_and_vae(folders.find_file(ckpt_name, "checkpoints"))
        return plan, clip, vae
