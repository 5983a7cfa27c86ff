"""The command line without an installation, with any Python that has torch, an embedded one too.

In the folder of this pack: ``python lora_foundry.py doctor``.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from pathlib import Path

NAME = "lora_foundry_here"  # the folder may have any name, and another copy may be installed


def main() -> int:
    """Run one command of the pack in this folder; returns the exit code."""
    folder = Path(__file__).resolve().parent
    sys.path[:] = [path for path in sys.path if Path(path or ".").resolve() != folder]  # nodes/ is ComfyUI's name too
    spec = importlib.util.spec_from_file_location(
        NAME, folder / "__init__.py", submodule_search_locations=[str(folder)]
    )
    if spec is None or spec.loader is None:
        raise SystemExit(f"{folder} is not the folder of the pack.")
    module = importlib.util.module_from_spec(spec)
    sys.modules[NAME] = module
    spec.loader.exec_module(module)
    code: int = importlib.import_module(f"{NAME}.cli.main").main()
    return code


if __name__ == "__main__":
    sys.exit(main())
