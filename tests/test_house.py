"""The rules of the house, read from the source: who imports whom, how long things are, what is never written."""

from __future__ import annotations

import ast
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
from pathlib import Path

import lora_foundry
import pytest
from sizes import (
    LONGEST_FILE,
    LONGEST_FUNCTION,
    MEDIAN_FILE,
    MEDIAN_FUNCTION,
    SHORT_SHARE,
    functions,
    length,
    lines_of,
    short_share,
)
from sources import PACK, ROOT, name_of, nodes_of, tree_of

HOST_FILES = {"nodes/host.py", "nodes/folders.py", "nodes/server.py"}
# Foreign objects, asked for what not every version or system has; every other attribute is typed.
FOREIGN = HOST_FILES | {
    "engine/formats.py", "engine/gemm.py", "engine/memory.py", "loaders/disk/header.py", "loaders/disk/reading.py",
    "loaders/disk/text.py", "loaders/disk/writer.py", "cli/benchmark/child.py", "cli/doctor.py", "cli/terminal.py",
}  # fmt: skip
DISPATCH = {"loaders/evidence/words.py"}  # a method by the kind of a token
HOST_MODULES = {"comfy", "comfy_api", "comfy_execution", "comfy_extras", "execution", "folder_paths", "nodes", "server"}


def layer_of(path: Path) -> str:
    return name_of(path).split("/")[0]


def absolute_imports(path: Path) -> set[str]:
    """Top-level packages a file imports, statically or by name through importlib."""
    plain = {alias.name for node in nodes_of(path, ast.Import) for alias in node.names}
    plain |= {node.module for node in nodes_of(path, ast.ImportFrom) if node.level == 0}
    for call in nodes_of(path, ast.Call):
        if ast.unparse(call.func).endswith(("import_module", "__import__")) and isinstance(call.args[0], ast.Constant):
            plain.add(call.args[0].value)
    return {name.split(".")[0] for name in plain if not name.startswith(".")}


every_file = pytest.mark.parametrize("path", PACK, ids=name_of)


@every_file
def test_the_pack_never_names_itself(path):
    assert "lora_foundry" not in absolute_imports(path), "inside a ComfyUI the pack has another name: import with dots"


@every_file
def test_only_the_host_files_know_comfyui(path):
    assert name_of(path) in HOST_FILES or not absolute_imports(path) & HOST_MODULES


@every_file
def test_files_and_functions_fit(path):
    assert lines_of(path) <= LONGEST_FILE
    long = [node.name for node in functions(path) if length(node) > LONGEST_FUNCTION]
    assert not long


def test_every_test_file_fits():
    """Longer ones are split by subject; what two of them share stands in tests/helpers or in a conftest.py."""
    assert not [name_of(path) for path in (ROOT / "tests").rglob("*.py") if lines_of(path) > 400]


def test_the_typical_function_is_short():
    assert statistics.median(length(node) for path in PACK for node in functions(path)) <= MEDIAN_FUNCTION


def test_the_typical_file_is_short_and_nearly_every_function():
    assert statistics.median(map(lines_of, PACK)) <= MEDIAN_FILE
    assert short_share() >= SHORT_SHARE


@every_file
def test_nothing_is_swallowed(path):
    """A bare or broad except hides faults: only the border to the host may have one, unless it raises again."""
    broad = [
        handler.lineno
        for handler in nodes_of(path, ast.ExceptHandler)
        if handler.type is None or {"Exception", "BaseException"} & set(names_in(handler.type))
        if not (isinstance(handler.body[-1], ast.Raise) and handler.body[-1].exc is None)
    ]
    assert name_of(path) in HOST_FILES or not broad


@every_file
def test_what_an_object_has_is_known_by_its_type(path):
    """No probing: a source says in its type what it has, and what is foreign is asked for at the border."""
    probes = [call.lineno for call in nodes_of(path, ast.Call) if ast.unparse(call.func) == "getattr"]
    assert name_of(path) in FOREIGN | DISPATCH or not probes
    assert "type: ignore[attr-defined]" not in path.read_text(encoding="utf-8")
    open_ended = [node for node in functions(path) if node.name == "__getattr__" and path != ROOT / "__init__.py"]
    assert not open_ended


def test_foreign_files_do_ask():
    asked = {
        name_of(path) for path in PACK if any(ast.unparse(call.func) == "getattr" for call in nodes_of(path, ast.Call))
    }
    assert asked >= FOREIGN - HOST_FILES | DISPATCH


def names_in(node: ast.AST) -> list[str]:
    return [part.id for part in ast.walk(node) if isinstance(part, ast.Name)]


@every_file
def test_nothing_is_printed_or_unpickled(path):
    calls = {ast.unparse(call.func) for call in nodes_of(path, ast.Call)}
    assert layer_of(path) == "cli" or "print" not in calls
    assert not calls & {"torch.load", "eval", "exec", "os.system", "logging.basicConfig"}
    assert not absolute_imports(path) & {"pickle", "dill", "joblib", "shelve", "marshal", "torchvision", "torchaudio"}


@pytest.mark.parametrize("path", [p for p in PACK if layer_of(p) in ("engine", "validator", "loaders")], ids=name_of)
def test_everything_public_says_what_it_is(path):
    module = tree_of(path)
    assert ast.get_docstring(module)
    assert not list(undocumented(module))


def undocumented(scope: ast.Module | ast.ClassDef):
    for node in scope.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
            if not ast.get_docstring(node):
                yield node.name
            if isinstance(node, ast.ClassDef):
                yield from undocumented(node)


def test_terminal_and_engine_import_without_comfyui():
    modules = [
        name_of(p).removesuffix(".py").replace("/", ".") for p in PACK if layer_of(p) not in ("nodes", "__init__.py")
    ]
    blocked = sorted(HOST_MODULES | {"torchvision", "torchaudio"})
    code = f"""
import importlib, runpy, sys
class Wall:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {blocked!r}:
            raise ModuleNotFoundError("blocked: " + name)
sys.meta_path.insert(0, Wall())
runpy.run_path({str(ROOT / "tests" / "conftest.py")!r})
for module in {[m.removesuffix(".__init__") for m in modules]!r}:
    try:
        importlib.import_module("lora_foundry." + module)
    except ModuleNotFoundError as missing:
        if missing.name not in {WITH_TORCH!r}:
            raise
"""
    done = subprocess.run([sys.executable, "-I", "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def odd_clone(tmp_path_factory) -> Path:
    """The repository in a folder whose name is no Python name."""
    clone = tmp_path_factory.mktemp("clone") / "we ird.pack-1.0"
    junk = shutil.ignore_patterns(
        ".*", "__pycache__", "*.egg-info", "artefacts", "venv", "build", "dist", "node_modules"
    )
    return Path(shutil.copytree(ROOT, clone, ignore=junk))


def test_loads_from_a_folder_of_any_name(odd_clone):
    """As ComfyUI does it: the module's name is the path with dots replaced."""
    code = f"""
import importlib, importlib.util, sys
from pathlib import Path
root = Path({str(odd_clone)!r})
name = str(root).replace(".", "_x_")
spec = importlib.util.spec_from_file_location(name, root / "__init__.py")
module = importlib.util.module_from_spec(spec)
sys.modules[name] = module
spec.loader.exec_module(module)
assert importlib.import_module(name + ".engine.plan").Plan.__module__ == name + ".engine.plan"
assert module.WEB_DIRECTORY == "./web" and "lora_foundry" not in sys.modules
"""
    done = subprocess.run([sys.executable, "-I", "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


SKIPPING = {
    "test_skips_one.py": "import pytest\n\ndef test_one():\n    pytest.skip('a reason')\n",
    "test_skips_whole.py": "import pytest\n\npytest.importorskip('a_reason')\n",
}


@pytest.fixture(scope="module")
def ran_there(odd_clone) -> dict[bool, subprocess.CompletedProcess[str]]:
    """What a test and two that are skipped print in that folder; where the host is required, and where it is not."""
    for name, source in SKIPPING.items():
        (odd_clone / "tests" / name).write_text(source)
    files = ["tests/cli/test_tiny.py", *(f"tests/{name}" for name in SKIPPING)]
    command = [sys.executable, "-I", "-m", "pytest", "-q", "-p", "no:cacheprovider", "--continue-on-collection-errors"]
    command += [*files, "-k", "kohya or test_one"]

    def run(required: bool) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, "LORA_FOUNDRY_REQUIRE_HOST": "1" if required else ""}
        return subprocess.run(command, cwd=odd_clone, env=environment, capture_output=True, text=True, check=False)

    return {required: run(required) for required in (False, True)}


def test_tests_run_from_a_folder_of_any_name(ran_there):
    done = ran_there[False]
    assert done.returncode == 0 and "1 passed, 2 skipped" in done.stdout, done.stdout + done.stderr


def test_where_the_host_is_required_a_skip_is_a_failure(ran_there):
    """A test that skips itself, and a whole file."""
    done = ran_there[True]
    told = re.split(r"^_{3,} .* _{3,}$", done.stdout.partition("short test summary")[0], flags=re.MULTILINE)[1:]
    assert done.returncode not in (0, 5) and len(told) == 2, done.stdout
    assert all("skipped although" in each for each in told), done.stdout
    assert all(any(reason in each for each in told) for reason in ("a reason", "a_reason")), done.stdout
    assert re.fullmatch(r"1 failed, 1 passed, .*1 error in .*", done.stdout.splitlines()[-1]), done.stdout


def test_the_package_is_complete():
    project = tomllib().loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert project["project"]["version"] == lora_foundry.__version__
    folders = {path.parent for path in PACK if path.name == "__init__.py"} - {ROOT}
    inside = {f"lora_foundry.{path.relative_to(ROOT).as_posix().replace('/', '.')}" for path in folders}
    assert set(project["tool"]["setuptools"]["packages"]) == inside | {"lora_foundry"}
    assert project["project"]["scripts"] == {"lora-foundry": "lora_foundry.cli.main:main"}


IMPORT_NAMES = {"pyyaml": "yaml"}
TAKEN_WHERE_THERE = {"boto3", "botocore"}  # profiles of ~/.aws
FOR_TESTS = {"test", "host"}  # extras that the pack itself does not import
WITH_THE_HOST = HOST_MODULES | {"aiohttp", "psutil", "PIL"}  # there where nodes/ is, which alone asks for PIL
WITH_TORCH = {"triton"}  # there with some builds of torch: engine/triton_kernels.py is imported only then


def test_what_is_imported_is_declared_and_the_other_way_round():
    project = tomllib().loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = {name: wanted for name, wanted in project["optional-dependencies"].items() if name not in FOR_TESTS}
    wanted = sum(extras.values(), project["dependencies"])
    declared = {re.split(r"[^\w.-]", line, maxsplit=1)[0].lower() for line in wanted}
    declared = {IMPORT_NAMES.get(name, name) for name in declared}
    imported = {name for path in PACK for name in absolute_imports(path)}
    assert imported - sys.stdlib_module_names - WITH_THE_HOST - WITH_TORCH - TAKEN_WHERE_THERE == declared


def tomllib():
    """The standard library's reader, or the one pytest brings on Python 3.10."""
    import importlib

    return importlib.import_module("tomllib" if sys.version_info >= (3, 11) else "tomli")


def test_constraints_are_plain_versions():
    lines = (ROOT / "tests" / "constraints.txt").read_text(encoding="utf-8").splitlines()
    assert all(line.partition(";")[0].count("==") == 1 and "/" not in line for line in lines)


def test_json_files_are_json():
    for folder in ("locales", "example_workflows", "web"):
        for path in (ROOT / folder).rglob("*.json"):
            json.loads(path.read_text(encoding="utf-8"))


def test_no_file_knows_the_machine_it_was_written_on():
    """No paths of a workshop, no address of a package index: the repository stands alone."""
    said = [
        piece.replace("|", "")
        for piece in ("/wo|rk/", "/tmp/|lf", "/ro|ot/", "/opt/|wheels", "../sha|red", "pypi.|org")
    ]
    kinds = ("*.py", "*.md", "*.toml", "*.txt", "*.json", "*.js", "*.mjs", "*.yaml", "*.yml", ".ci/run", ".gitignore")
    files = {path for kind in kinds for path in ROOT.rglob(kind) if not skipped(path)}
    assert files
    assert not [(name_of(path), word) for path in files for word in said if word in path.read_text(encoding="utf-8")]


def skipped(path: Path) -> bool:
    parts = path.relative_to(ROOT).parts
    return any(
        part.startswith(".") and part not in (".ci", ".gitignore") or part in ("venv", "artefacts") for part in parts
    )
