"""Runs inside the host tree: takes functions as source on stdin, runs them where ``comfy`` imports, answers in JSON."""

from __future__ import annotations

import importlib.util
import json
import os
import sys
import traceback
from pathlib import Path

answers = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)  # whatever ComfyUI prints goes to the log, the answers keep the pipe


def load_pack(root: str) -> None:
    """The pack as ``lora_foundry``, by location; its folder ``nodes/`` must not hide ComfyUI's module ``nodes``."""
    init = Path(root) / "__init__.py"
    spec = importlib.util.spec_from_file_location("lora_foundry", init, submodule_search_locations=[root])
    module = importlib.util.module_from_spec(spec)
    sys.modules["lora_foundry"] = module
    spec.loader.exec_module(module)


def answer(request: dict) -> str:
    """Run one request: ``source`` defines ``name``, which is called with ``args``."""
    scope: dict = {"__name__": "inprocess"}
    try:
        exec(compile(request["source"], f"<{request['name']}>", "exec"), scope)
        return json.dumps({"result": scope[request["name"]](*request["args"])})
    except BaseException:  # noqa: BLE001 (whatever it is belongs in the answer)
        return json.dumps({"error": traceback.format_exc()})


def main() -> None:
    """Serve until stdin closes."""
    root, *arguments = sys.argv[1:]
    sys.path[0] = str(Path.cwd())  # instead of this file's folder
    sys.argv = ["main.py", *arguments]
    import comfy.options

    comfy.options.enable_args_parsing()
    load_pack(root)
    for line in sys.stdin:
        print(answer(json.loads(line)), file=answers, flush=True)


if __name__ == "__main__":
    main()
