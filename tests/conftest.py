"""What every test shares: the pack under its import name, the terminal command, and the rule that CI skips nothing."""

from __future__ import annotations

import importlib.util
import os
import re
import runpy
import subprocess
import sys
from collections.abc import Callable
from itertools import count
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.pop("PYTEST_ADDOPTS", None)  # read already, and not for a pytest that a test starts
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before torch: host, browser and tests share two cores
ROOT = Path(__file__).resolve().parents[1]
REQUIRE = os.environ.get("LORA_FOUNDRY_REQUIRE_HOST", "") not in ("", "0")
WITHOUT_POSIX = os.environ.get("LORA_FOUNDRY_WITHOUT_POSIX", "") not in ("", "0")


def load_pack(root: Path = ROOT, name: str = "lora_foundry") -> ModuleType:
    """Import the pack the way ComfyUI does: by file location, whatever its folder is called."""
    spec = importlib.util.spec_from_file_location(name, root / "__init__.py", submodule_search_locations=[str(root)])
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def without_posix() -> None:
    """With LORA_FOUNDRY_WITHOUT_POSIX the pack gets only what Windows has."""
    if WITHOUT_POSIX:
        runpy.run_path(str(ROOT / "tests" / "helpers" / "without_posix.py"))["take_away"]("lora_foundry")


without_posix()
load_pack()


@pytest.fixture(scope="session")
def root() -> Path:
    """The repository root."""
    return ROOT


@pytest.fixture(scope="session", autouse=True)
def two_threads():
    """Two torch threads: what the smallest supported machine has, and the same sums on every machine."""
    import torch

    torch.set_num_threads(2)


@pytest.fixture(scope="session", autouse=True)
def session_home(tmp_path_factory: pytest.TempPathFactory):
    """No test writes to the user's home: not the host of the session, and no fixture of a module."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LORA_FOUNDRY_HOME", str(tmp_path_factory.mktemp("home") / "session"))
        yield


@pytest.fixture(scope="session")
def new_folder(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Call ``new_folder("words")``: a new one that has them in its name.

    pytest's own way looks through every folder there is for each new one, twice a test: minutes over all of them.
    """
    above, numbers = tmp_path_factory.mktemp("each"), count()

    def make(words: str) -> Path:
        folder = above / f"{re.sub(r'[^A-Za-z0-9_]', '_', words)[:30]}{next(numbers)}"
        folder.mkdir(mode=0o700)
        return folder

    return make


@pytest.fixture
def tmp_path(new_folder: Callable[[str], Path], request: pytest.FixtureRequest) -> Path:
    """A folder of this test alone; pytest removes them as it does its own, after three more sessions."""
    return new_folder(request.node.name)


@pytest.fixture(autouse=True)
def pack_home(new_folder: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch) -> Path:
    """This test's own home for the pack's records; it does not exist until something is written to it."""
    from lora_foundry.loaders.disk.process import PROCESS

    PROCESS.files.clear()  # nothing is known from earlier tests
    folder = new_folder("home") / "lora-foundry"
    monkeypatch.setenv("LORA_FOUNDRY_HOME", str(folder))
    return folder


@pytest.fixture(autouse=True)
def every_bake_on_cuda(request: pytest.FixtureRequest):
    """With LORA_FOUNDRY_PRETEND_CUDA every bake that names no device runs on a pretended GPU, with late copies."""
    if os.environ.get("LORA_FOUNDRY_PRETEND_CUDA", "") in ("", "0"):
        yield
        return
    own = request.node.path.name.startswith(("test_device", "test_pretended"))
    if own or request.node.get_closest_marker("cpu"):
        pytest.skip("has a pretended GPU of its own, or is about the CPU's own path")
    from pretended_cuda import bakes_on_cuda

    with bakes_on_cuda():
        yield


@pytest.fixture(autouse=True)
def only_with_posix(request: pytest.FixtureRequest):
    """With LORA_FOUNDRY_WITHOUT_POSIX the tests of what Windows does not have are left out."""
    if WITHOUT_POSIX and request.node.get_closest_marker("posix"):
        pytest.skip("about what Windows does not have")


@pytest.fixture(scope="session")
def run_cli():
    """Call ``run_cli("inspect", path)``: the real command in its own process; returns a CompletedProcess (text)."""
    conftest = str(ROOT / "tests" / "conftest.py")
    boot = f"import runpy; runpy.run_path({conftest!r}); from lora_foundry.cli.main import main; "

    def call(*args: object, timeout: float = 120, **kwargs: object) -> subprocess.CompletedProcess[str]:
        code = boot + "import sys; sys.exit(main(sys.argv[1:]))"
        command = [sys.executable, "-c", code, *map(str, args)]
        return subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=False, **kwargs)

    return call


@pytest.fixture(scope="session")
def host_tree() -> Path:
    """The files of a ComfyUI, for tests that start one of their own."""
    from host import rig

    return Path(_need("host", rig.find_tree))


@pytest.fixture(scope="session")
def host(tmp_path_factory: pytest.TempPathFactory):
    """The one running ComfyUI of this session (host.rig.Host); every host and browser test shares it."""
    from host import rig

    tree = _need("host", rig.find_tree)
    with rig.Host(tree, tmp_path_factory.mktemp("comfyui"), ROOT) as running:
        yield running


@pytest.fixture(scope="session")
def inprocess(tmp_path_factory: pytest.TempPathFactory):
    """Call ``inprocess(function, *args)``: runs it in a process where ``comfy`` imports (host.rig.InProcess)."""
    from host import rig

    tree = _need("host", rig.find_tree)
    with rig.InProcess(tree, tmp_path_factory.mktemp("inprocess"), ROOT) as worker:
        yield worker


@pytest.fixture(scope="session")
def gateway(tmp_path_factory: pytest.TempPathFactory):
    """The one real S3 server of this session (s3_gateway.Gateway); tests make buckets of their own."""
    import s3_gateway

    program = _need("s3", s3_gateway.find_gateway)
    pytest.importorskip("obstore", reason="run: python tests/install.py s3")
    with s3_gateway.running_gateway(program, tmp_path_factory.mktemp("s3")) as running:
        yield running


@pytest.fixture(scope="session")
def chromium() -> Path:
    """The path of a real Chromium that playwright can drive (``executable_path=str(chromium)``)."""
    import install

    return Path(_need("browser", install.find_browser))


@pytest.fixture(scope="session")
def need():
    """Call ``need("ray", find)``: what ``find()`` finds, or a skip that names the line which installs it."""
    return _need


def _need(what: str, find):
    """What ``find()`` finds; when it finds nothing, install it (CI) or skip with the line to run (everyone else)."""
    import install

    found = find()
    if not found and REQUIRE:
        install.install(what)
        found = find()
        assert found, f"python tests/install.py {what} ran, but {what} is still missing"
    if not found:
        pytest.skip(f"needs {what}; run: python tests/install.py {what}")
    return found


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests that use the host or the browser carry the marker, so that ``-m host`` finds them all.

    One of the page that fails is run once more, and told as a rerun with its reason: two cores may be busy for seconds.
    So is one that took too long: a machine that stood still for a second counts it as the time of whoever ran.
    """
    import limits

    for item in items:
        names = getattr(item, "fixturenames", ())
        for marker, fixtures in (("host", {"host", "inprocess", "host_tree"}), ("browser", {"chromium"})):
            if fixtures.intersection(names):
                item.add_marker(marker)
        reasons = {} if item.get_closest_marker("browser") else {"only_rerun": limits.TOO_LONG}
        item.add_marker(pytest.mark.flaky(reruns=1, **reasons))


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Why what was run once more had failed: a race is to be found, not to be lived with."""
    for report in terminalreporter.stats.get("rerun", []):
        terminalreporter.section(f"failed before its rerun: {report.nodeid}")
        terminalreporter.write_line(report.longreprtext)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """With ``-n 2`` (as in CI) one process has all that shares a ComfyUI, and of the rest each file stays together."""
    from xdist.scheduler import LoadScopeScheduling

    class ByRoom(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return "host" if nodeid.startswith(("tests/host/", "tests/browser/")) else nodeid.partition("::")[0]

    return ByRoom(config, log)


@pytest.hookimpl(tryfirst=True)  # before pytest-xdist counts them
def pytest_collection_finish(session: pytest.Session) -> None:
    """What needs nothing comes first. The browser comes last: its page draws for as long as it is open."""
    session.items.sort(key=lambda item: [item.get_closest_marker(name) is not None for name in ("browser", "host")])


@pytest.hookimpl(wrapper=True, trylast=True)  # inside the one that runs tests again: it sees a failure, not a skip
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo):
    """With LORA_FOUNDRY_REQUIRE_HOST a skipped test is a failed test: a green CI hides nothing."""
    report = yield
    return _refuse_skip(report)


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(collector: pytest.Collector):
    """The same for a whole file that skips itself."""
    report = yield
    return _refuse_skip(report)


def _refuse_skip(report):
    if REQUIRE and report.skipped and not hasattr(report, "wasxfail"):
        report.outcome = "failed"
        report.longrepr = f"skipped although LORA_FOUNDRY_REQUIRE_HOST is set: {report.longrepr}"
    return report
