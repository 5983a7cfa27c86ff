"""Prompts in API form, written shortly: ``graph.add("KSampler", model=link, ...)`` returns the node's first output."""

from __future__ import annotations

from typing import Any

Link = list[Any]

# family -> tokens and width of the conditioning, width of its pooled vector; channels and frames of the latent
SAMPLING = {
    "wan": ((8, 4096, 0), (16, 1)),
    "sd15": ((8, 768, 0), (4, 0)),
    "sdxl": ((8, 2048, 1280), (4, 0)),
    "flux": ((8, 64, 64), (16, 0)),
    "qwen-image": ((8, 3584, 0), (16, 1)),
}


class Graph(dict):
    """A prompt under construction; post it as it is."""

    def add(self, class_type: str, **inputs: Any) -> Link:
        """Add a node; returns the link to its first output."""
        key = str(len(self) + 1)
        self[key] = {"class_type": class_type, "inputs": inputs}
        return [key, 0]

    def unet(self, name: str, weight_dtype: str = "default") -> Link:
        """UNETLoader."""
        return self.add("UNETLoader", unet_name=name, weight_dtype=weight_dtype)

    def sample(self, model: Link, family: str, steps: int = 1, seed: int = 7, size: int = 8) -> Link:
        """Conditioning, latent (``size`` high and wide), KSampler and TinyStats: read the result with rig.latent."""
        (tokens, dim, pooled), (channels, frames) = SAMPLING[family]
        cond = {"tokens": tokens, "dim": dim, "pooled": pooled}
        latent = self.add(
            "KSampler",
            model=model,
            positive=self.add("TinyCond", **cond, seed=1),
            negative=self.add("TinyCond", **cond, seed=2),
            latent_image=self.add("TinyLatent", channels=channels, frames=frames, height=size, width=size),
            seed=seed,
            steps=steps,
            cfg=1.0,
            sampler_name="euler",
            scheduler="simple",
            denoise=1.0,
        )
        return self.add("TinyStats", samples=latent)


def output(link: Link, index: int) -> Link:
    """Another output of the node a link points to."""
    return [link[0], index]
