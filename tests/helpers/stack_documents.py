"""Stack documents for tests of the command line."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any


def write(
    folder: Path,
    base: str = "base",
    fuse: Sequence[str] = (),
    stack: Sequence[str] = (),
    name: str = "stack.json",
    **settings: Any,
) -> Path:
    rows = {"fuse": [f"{lora}.safetensors" for lora in fuse], "stack": [f"{lora}.safetensors" for lora in stack]}
    path = folder / name
    path.write_text(json.dumps({"base": f"{base}.safetensors", **rows, **settings}))
    return path
