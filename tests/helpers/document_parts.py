"""A stack document, and texts parsed as one."""

from __future__ import annotations

from lora_foundry.loaders.disk.text import parse_text
from lora_foundry.loaders.documents.document import Document, parse_document

OURS = """
base: flux1-dev.safetensors
fuse:  [{path: lightning.safetensors, strength: 1.0}]
stack:
  - {path: style.safetensors, strength: 0.7, clip_strength: 0.5, on: false}
  - other.safetensors
quantize: fp8
rounding: match training
"""


def parse(text: str, where: str = "doc.yaml") -> Document:
    return parse_document(parse_text(text, where), where)
