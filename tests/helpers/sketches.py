"""A prompt in API form that grows node by node, and names of files as people share them."""

from __future__ import annotations

from typing import Any

LIGHTNING_8 = "Qwen-Image-Lightning-8steps-V1.0.safetensors"
LIGHTNING_4 = "Qwen-Image-Lightning-4steps-V1.0.safetensors"
HIGH, LOW = (f"wan2.2_i2v_lightx2v_4steps_lora_v1_{half}_noise.safetensors" for half in ("high", "low"))


class Out(list[Any]):
    """The first output of a node as a link; called with a number, another output."""

    def __call__(self, slot: int) -> list[Any]:
        return [self[0], slot]


class Sketch:
    """A prompt that grows: calling it adds a node and gives back its output."""

    def __init__(self) -> None:
        self.prompt: dict[str, Any] = {}

    def __call__(self, kind: str, **inputs: Any) -> Out:
        self.prompt[str(len(self.prompt) + 1)] = {"class_type": kind, "inputs": inputs}
        return Out([str(len(self.prompt)), 0])

    def text(self, clip: Any) -> Out:
        return self("CLIPTextEncode", text="a lighthouse", clip=clip)

    def save(self, latent: Any, vae: Any) -> None:
        self("SaveImage", filename_prefix="x", images=self("VAEDecode", samples=latent, vae=vae))

    def sample(self, model: Any, clip: Any, steps: Any = 20, cfg: Any = 7.0, latent: Any = None, **more: Any) -> Out:
        latent = latent or self("EmptyLatentImage", width=1024, height=1024, batch_size=1)
        shared = {"positive": self.text(clip), "negative": self.text(clip), "latent_image": latent, "denoise": 1.0}
        settings = {"seed": 1, "sampler_name": "euler", "scheduler": "normal"}
        return self("KSampler", model=model, steps=steps, cfg=cfg, **{**shared, **settings, **more})

    def half(self, model: Any, start: int, end: int, steps: int = 4, cfg: float = 1.0, latent: Any = None) -> Out:
        """One of several samplers that share a schedule of ``steps``."""
        return self(
            "KSamplerAdvanced", model=model, steps=steps, cfg=cfg, start_at_step=start, end_at_step=end,
            add_noise="enable", noise_seed=1, sampler_name="euler", scheduler="simple", latent_image=latent,
            return_with_leftover_noise="enable",
        )  # fmt: skip

    def lora(self, model: Any, name: str, strength: Any = 1.0, kind: str = "LoraLoaderModelOnly", **more: Any) -> Out:
        return self(kind, model=model, lora_name=name, strength_model=strength, **more)

    def unet(self, name: str, dtype: str = "default") -> Out:
        return self("UNETLoader", unet_name=name, weight_dtype=dtype)


def custom(g: Sketch, model: Any, steps: Any, clip: Any, guider: str = "BasicGuider", **cfg: Any) -> Out:
    """SamplerCustomAdvanced with all that belongs to it."""
    guidance = g("FluxGuidance", conditioning=g.text(clip), guidance=3.5)
    return g(
        "SamplerCustomAdvanced", noise=g("RandomNoise", noise_seed=1), sampler=g("KSamplerSelect"),
        guider=g(guider, model=model, conditioning=guidance, **cfg), latent_image=g("EmptySD3LatentImage"),
        sigmas=g("BasicScheduler", model=model, scheduler="simple", steps=steps, denoise=1.0),
    )  # fmt: skip
