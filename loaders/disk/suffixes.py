"""What safetensors files are called: apart from ``header.py``, for what has to begin without torch."""

from __future__ import annotations

SUFFIXES = (".safetensors", ".sft")
