"""Reference bytes of formats, as comfy-kitchen 0.2.40 writes one weight, and what ComfyUI leaves of LoRAs on nvfp4."""

from __future__ import annotations

import hashlib

import torch

VECTORS = {
    "nvfp4": {
        "weight": "2bdf5f28c0b5cf61b92ffe59bec8342182b74d50710f6ac9398ce068a846698a",
        "weight_scale": "9a04a45b1255e8dd42ce4cae5c9110abaac65e524ef79a294671d6173254ba93",
        "weight_scale_2": "768c5d2882a3a9baae16718eb6313b8d3a6ef083c5a9f4526dfde7d157a6c727",
    },
    "mxfp8": {
        "weight": "c8c00a28ba3f4fe0470e69dd2f2e50ba314a813dfb3b18796453f8f3c6abf7e4",
        "weight_scale": "9abb1ac3f4fb7d8b9e8be37cbd5b346fff8596cfa77f74e9a038b54e06b129cc",
    },
    "int8_convrot": {
        "weight": "ea97dbffec2dae8da40890f217173dad8584308f585da9562aaa2d1a7f0bbb42",
        "weight_scale": "d3ea343113c9775926cfa215ec626eb606906a5f8307533666e76fab59c2ba0d",
    },
}

# What ComfyUI 0.33's LoRA loader leaves of a LoRA on an nvfp4 file with scales by amax: by weights and size of the LoRA
# in percent (share that is kept, error of the weights then, and where the LoRA is fused first). docs/formats.md has the
# same numbers, tests/host/test_four_bits.py measures them.
BY_AMAX = {
    ("Gaussian", 1): (0.79, 0.176, 0.095),
    ("Gaussian", 3): (0.87, 0.179, 0.095),
    ("heavy-tailed", 1): (0.59, 0.174, 0.092),
    ("heavy-tailed", 3): (0.73, 0.177, 0.092),
}


def vector_weight(zero: float = 0.0) -> torch.Tensor:
    """[48, 512], every number exact in fp32; row 5 is ``zero``, the first 16 columns of row 7 are 0."""
    row, column = torch.arange(48)[:, None], torch.arange(512)
    power = 2.0 ** ((row * 3 + column // 16) % 7 - 3)
    weight = (((row * 37 + column * 101) % 127 - 63) / 4096 * power).to(torch.float32)
    weight[5], weight[7, :16] = zero, 0
    return weight


def sha256(tensor: torch.Tensor) -> str:
    return hashlib.sha256(tensor.reshape(-1).view(torch.uint8).numpy().tobytes()).hexdigest()
