"""A real Chromium on the host's real frontend, in both of its renderers."""

from __future__ import annotations

import os
from itertools import count
from pathlib import Path

import pytest

FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


@pytest.fixture(scope="session")
def browser(chromium):
    """The one browser of this session."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=str(chromium), headless=True, args=FLAGS)
        yield running
        running.close()


@pytest.fixture(scope="session")
def artefacts(root) -> Path:
    """Where screenshots go: tests/artefacts/, or LORA_FOUNDRY_ARTIFACTS."""
    folder = Path(os.environ.get("LORA_FOUNDRY_ARTIFACTS") or root / "tests" / "artefacts")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@pytest.fixture(scope="session", params=["canvas", "nodes2"])
def one_studio(request, host, browser, artefacts):
    """The frontend with the classic canvas, then with Nodes 2.0."""
    from browser.studio import Studio

    with Studio(browser, host, request.param, artefacts) as opened:
        yield opened


@pytest.fixture
def studio(one_studio):
    """The frontend, in which every test builds its own graph and leaves no problem of our files."""
    one_studio.problems.clear()  # of a test that failed
    yield one_studio
    assert one_studio.problems == []


@pytest.fixture(scope="session")
def names(host) -> dict[str, str]:
    """File names in the running host: a tiny Wan base, LoRAs that fit it whole, in part and not at all."""
    from host import foundry
    from lora_foundry.cli.demo import tiny

    shapes = tiny.shapes("wan")
    whole = tiny.lora(shapes, rank=16, alpha=16, prefix="diffusion_model.", seed=3)
    queries = {name: tensor.clone() for name, tensor in whole.items() if "cross_attn.q." in name}
    stray = {name.replace("blocks.0.", "blocks.9."): tensor for name, tensor in queries.items()}
    other = {name.replace(".blocks.", ".towers."): tensor for name, tensor in whole.items() if ".blocks." in name}
    base, style = foundry.loras(host, "wan")
    return {
        "wan": host.tiny("wan"),
        "lightning": base,
        "style": style,
        "partial": host.add_model("loras", "wan_partial.safetensors", {**whole, **stray}),
        "unrelated": host.add_model("loras", "unrelated.safetensors", other),
    }


_seeds = count(500)


@pytest.fixture
def unknown(host, names) -> dict[str, str]:
    """The names, with a LoRA called ``new`` of which nobody has said anything yet."""
    from lora_foundry.cli.demo import tiny

    seed = next(_seeds)
    tensors = tiny.lora(tiny.shapes("wan"), rank=8, dialect="A/B", prefix="diffusion_model.", seed=seed)
    return {**names, "new": host.add_model("loras", f"portrait_{seed}.safetensors", tensors)}


@pytest.fixture
def rows(studio, names):
    """Three rows, the first with a key the editor does not know; wired to a base."""
    from browser.rows_parts import open_rows

    return open_rows(
        studio, names, [{"path": names["style"], "weight": 0.5}, names["partial"], {"path": names["unrelated"]}]
    )
