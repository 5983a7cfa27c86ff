"""Workflows with one mistake each: ``MISTAKEN`` lists what each mistake gives, and nothing else.

Every function returns a prompt in API form.
"""

from __future__ import annotations

from typing import Any

from community_graphs import (
    qwen_lightning,
    wan_wrapper,
)
from sketches import LIGHTNING_4, LIGHTNING_8, LOW, Out, Sketch, custom


def _ours(g: Sketch, model: Any, fuse: str = LIGHTNING_8, style: str = "style.safetensors") -> Out:
    """Our three stages on a model: fuse, stack, quantize."""
    fused = g("FoundryFuseBaseLoRA", model=model, lora_name=fuse, strength=1.0, rounding="once")
    row = g("FoundryLoRA", lora_name=style, strength_model=0.8, strength_clip=0.0, enabled=True)
    stacked = g("FoundryStackLoRAs", model=fused, lora_stack=row)
    return g("FoundryQuantizeFP8", model=stacked, format="float8_e4m3fn")


def native_lora_before_fusion() -> Sketch:
    g = Sketch()
    model = g.lora(g.unet("qwen_image_bf16.safetensors"), "my_watercolor.safetensors", 0.8)
    g.save(g.sample(_ours(g, g("ModelSamplingAuraFlow", model=model, shift=3.1)), g("CLIPLoader"), 8, 1.0), g("VAE"))
    return g


def stack_before_fusion() -> Sketch:
    g = Sketch()
    rows = g("FoundryLoRAStack", loras='[{"path": "style.safetensors", "strength": 0.8}]')
    stacked = g("FoundryStackLoRAs", model=g("FoundryLoadBase", base_name="wan.safetensors"), lora_stack=rows)
    again = g("FoundryApply", model=stacked, how="patches")
    g("FoundrySaveModel", model=g("FoundryFuseBaseLoRA", model=again, lora_name=LIGHTNING_8, strength=1.0))
    return g


def fp8_before_stages() -> Sketch:
    g = Sketch()
    model = _ours(g, g.unet("qwen_image_bf16.safetensors", "fp8_e4m3fn"))
    g.save(g.sample(model, g("CLIPLoader"), 8, 1.0), g("VAELoader"))
    return g


def quantized_twice() -> Sketch:
    g = Sketch()
    model = _ours(g, g("FoundryLoadBase", base_name="qwen_image_bf16.safetensors"))
    g("FoundrySaveModel", model=g("ModelSamplingAuraFlow", model=model, shift=3.1), filename_prefix="x")
    return g


def lora_after_quantize() -> Sketch:
    g = Sketch()
    model = _ours(g, g("FoundryLoadBase", base_name="qwen_image_bf16.safetensors"))
    g.save(g.sample(g.lora(model, "late.safetensors", 0.5), g("CLIPLoader"), 8, 1.0), g("VAELoader"))
    return g


def lora_on_fp8() -> Sketch:
    return qwen_lightning(dtype="fp8_e4m3fn")


def lora_merged_into_fp8() -> Sketch:
    return wan_wrapper("fp8_e4m3fn")


def two_accelerators() -> Sketch:
    g = Sketch()
    model = g.lora(g.lora(g.unet("qwen_image_bf16.safetensors"), LIGHTNING_8), LIGHTNING_4)
    g.save(g.sample(model, g("CLIPLoader"), 8, 1.0), g("VAELoader"))
    return g


def lightning_at_40_steps() -> Sketch:
    return qwen_lightning(LIGHTNING_4, 40, 4.0)


def lightning_at_9_of_4_steps() -> Sketch:
    return qwen_lightning(LIGHTNING_4, 9, 1.0)


def lightning_at_4_of_8_steps() -> Sketch:
    return qwen_lightning(LIGHTNING_8, 4, 1.0)


def lightning_with_guidance() -> Sketch:
    g = Sketch()
    model = g.lora(g.unet("qwen_image_bf16.safetensors"), LIGHTNING_8)
    clip = g("CLIPLoader")
    g.save(custom(g, model, 8, clip, "CFGGuider", cfg=4.0), g("VAELoader"))
    return g


def wan_half_with_lightning() -> Sketch:
    """Only the low noise half has its accelerator, and the schedule is that of the other half."""
    g = Sketch()
    high = g.unet("wan2.2_i2v_high_noise_14B_fp16.safetensors")
    low = g.lora(g.unet("wan2.2_i2v_low_noise_14B_fp16.safetensors"), LOW)
    g.save(g.half(low, 10, 20, 20, 3.5, g.half(high, 0, 10, 20, 3.5)), g("VAELoader"))
    return g


def fused_and_loaded_again() -> Sketch:
    g = Sketch()
    base = g("FoundryLoadBase", base_name="qwen_image_bf16.safetensors")
    fused = g("FoundryFuseBaseLoRA", model=base, lora_name=LIGHTNING_8, strength=1.0, rounding="once")
    model = g.lora(g("FoundryApply", model=fused, how="patches"), LIGHTNING_8)
    g.save(g.sample(model, g("CLIPLoader"), 8, 1.0), g("VAELoader"))
    return g


def adapter_left_in() -> Sketch:
    g = Sketch()
    model = g.lora(g.unet("z_image_turbo_bf16.safetensors"), "zimage_turbo_training_adapter_v1.safetensors")
    g.save(g.sample(g.lora(model, "me.safetensors", 0.9), g("CLIPLoader"), 8, 1.0), g("VAELoader"))
    return g


def damaged_list() -> Sketch:
    g = Sketch()
    base = g("FoundryLoadBase", base_name="qwen_image_bf16.safetensors")
    g("FoundryStackLoRAs", model=base, lora_stack=g("FoundryLoRAStack", loras='[{"path": "a", "wieght": 1}]'))
    return g


def named_fp8_before_stages() -> Sketch:
    g = Sketch()
    base = g("FoundryLoadBase", base_name="qwen_image_fp8_e4m3fn.safetensors")
    fused = g("FoundryFuseBaseLoRA", model=base, lora_name=LIGHTNING_8, strength=1.0, rounding="once")
    g("FoundrySaveModel", model=fused, format="float8_e4m3fn")
    return g


MISTAKEN = {
    native_lora_before_fusion: [("error", "LF101.lora_above")],
    stack_before_fusion: [("error", "LF101.stack_above")],
    fp8_before_stages: [("error", "LF201.before_stage")],
    quantized_twice: [("error", "LF201.before_stage")],
    lora_after_quantize: [("warning", "LF201.after_format")],
    lora_on_fp8: [("warning", "LF201.native")],
    lora_merged_into_fp8: [("warning", "LF201.native")],
    two_accelerators: [("question", "LF403.two")],
    lightning_at_40_steps: [("question", "LF403.sampling")],
    lightning_at_9_of_4_steps: [("question", "LF403.steps")],
    lightning_at_4_of_8_steps: [("question", "LF403.steps")],
    lightning_with_guidance: [("question", "LF403.cfg")],
    wan_half_with_lightning: [("question", "LF403.sampling")],
    fused_and_loaded_again: [("warning", "LF105.fused_and_stacked")],
    adapter_left_in: [("question", "LF106.adapter_guessed")],
    damaged_list: [("error", "document.unknown")],
    named_fp8_before_stages: [("question", "LF201.named")],
}
