"""Stack documents for tests of the command line."""

from __future__ import annotations

import json
from pathlib import Path


def write(folder: Path, base: str = "base", fuse=(), stack=(), name: str = "stack.json", **settings) -> Path:
    rows = {"fuse": [f"{lora}.safetensors" for lora in fuse], "stack": [f"{lora}.safetensors" for lora in stack]}
    path = folder / name
    path.write_text(json.dumps({"base": f"{base}.safetensors", **rows, **settings}))
    return path
