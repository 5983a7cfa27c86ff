"""What the pack costs in the browser: ``python benchmarks/page.py [chains of eight nodes [renderer]]``.

In a real ComfyUI and Chromium, in both renderers, with the pack's browser files and without them: the longest task of
the page after an edit among 504 nodes, and what of it is ours. Then the chooser over 5,000 LoRAs, from the
click until it is painted. Needs ``python tests/install.py host browser``.
"""

from __future__ import annotations

import json
import statistics
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "tests" / "helpers")]

import pack_here as pack_here  # noqa: E402
from browser.conftest import FLAGS  # noqa: E402
from browser.many import BUILD, profiled  # noqa: E402
from browser.rows_parts import open_rows  # noqa: E402
from browser.scripts import EXTENSION  # noqa: E402
from browser.studio import Studio  # noqa: E402
from host import foundry, rig  # noqa: E402
from install import find_browser  # noqa: E402
from lora_foundry.cli.demo import tiny  # noqa: E402
from playwright.sync_api import Browser, sync_playwright  # noqa: E402

EDITS = 5
OPENINGS = 7
LONG = """() => {
  window.tasks = [0]
  new PerformanceObserver((list) => window.tasks.push(...list.getEntries().map(({duration}) => duration)))
    .observe({type: "longtask"})
}"""
OPENED = """() => new Promise((done) => {
  const began = performance.now()
  document.querySelector(".lf-add").click()
  requestAnimationFrame(() => setTimeout(() => done(performance.now() - began)))
})"""


def edits(studio: Studio, names: dict[str, str], chains: int, ours: bool) -> None:
    """Print what edits of a large graph cost: one that changes no finding, and one that does."""
    studio.clear()
    studio.page.evaluate(BUILD, [names, chains])
    if ours:
        studio.check()
    studio.quiet()
    studio.page.evaluate(LONG)
    kinds: dict[str, Callable[[int], None]] = {
        "steps": lambda step: studio.set("sample", "steps", 20 + step),
        "another LoRA": lambda step: studio.set("row", "lora_name", names["other" if step % 2 else "style"]),
    }
    for what, change in kinds.items():
        burst(studio, change, 1)  # what is used is compiled
        longest = [long_task(studio, change, 10 + step) for step in range(EDITS)]
        print(f"  {what}: longest task {statistics.median(longest):.0f} ms (0: under 50), at most {max(longest):.0f}")
        studio.requests.clear()
        spans, alone = profiled(studio, partial(burst, studio, change, 41, 11))
        told = ", ".join(f"{span:.0f}" for span in spans[:4])
        print(f"    eleven at once: {studio.requests}, our spans {told} ms, our own time {alone:.0f} ms", flush=True)


def burst(studio: Studio, change: Callable[[int], None], first: int, often: int = 1) -> None:
    """Edits one after the other, until all that follows from them is done."""
    for step in range(first, first + often):
        change(step)
        studio.edited()
    studio.quiet()


def long_task(studio: Studio, change: Callable[[int], None], step: int) -> float:
    """The longest task of one edit, in ms; the browser tells none under 50."""
    studio.page.evaluate("() => { window.tasks = [0] }")
    burst(studio, change, step)
    return float(studio.page.evaluate("() => Math.max(...window.tasks)"))


def chooser(studio: Studio, names: dict[str, str]) -> None:
    """Print how long the chooser takes to open."""
    open_rows(studio, names, [names["style"]])
    studio.quiet()
    many = json.dumps({"loras": [f"folder{at % 40}/style_{at}.safetensors" for at in range(5000)]})
    studio.page.route("**/lora_foundry/loras", lambda route: route.fulfill(body=many, content_type="application/json"))
    studio.page.evaluate("() => document.querySelector('.lf-add').click()")
    studio.page.wait_for_function("() => document.querySelector('.lf-space')?.offsetHeight === 5000 * 28")
    took: list[float] = []

    def open_it() -> None:
        studio.page.keyboard.press("Escape")
        studio.page.locator(".lf-chooser").wait_for(state="detached")
        studio.quiet()
        took.append(studio.page.evaluate(OPENED))

    for _ in range(OPENINGS):
        open_it()
    spans, alone = profiled(studio, open_it)
    print(f"  5,000 LoRAs: painted {statistics.median(took[:-1]):.0f} ms after the click, at most {max(took[:-1]):.0f}")
    print(f"  of it our longest span {spans[0]:.0f} ms, our own time {alone:.0f} ms")
    studio.page.keyboard.press("Escape")
    studio.page.unroute("**/lora_foundry/loras")


def in_part(host: rig.Host) -> str:
    """A LoRA of which not every module fits the tiny Wan: each chain of the graph has a finding."""
    whole = tiny.lora(tiny.shapes("wan"), rank=16, alpha=16, prefix="diffusion_model.", seed=3)
    queries = {name: tensor.clone() for name, tensor in whole.items() if "cross_attn.q." in name}
    stray = {name.replace("blocks.0.", "blocks.9."): tensor for name, tensor in queries.items()}
    return host.add_model("loras", "wan_partial.safetensors", {**whole, **stray})


@contextmanager
def opened(browser: Browser, host: rig.Host, mode: str, ours: bool, work: Path) -> Iterator[Studio]:
    """The frontend, with our browser files or an empty one in their place."""
    studio = Studio(browser, host, mode, work)
    if not ours:
        studio.context.route(
            f"**{EXTENSION}/foundry.js", lambda route: route.fulfill(content_type="text/javascript", body="")
        )
    with studio:
        yield studio


def main(chains: int, modes: list[str]) -> None:
    """Print a few lines a renderer."""
    tree, chromium = rig.find_tree(), find_browser()
    if not tree or not chromium:
        sys.exit("needs a ComfyUI and a browser: python tests/install.py host browser")
    work = tempfile.TemporaryDirectory(prefix="page-")
    with work, rig.Host(tree, Path(work.name), ROOT) as host, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=str(chromium), args=FLAGS)
        base, other = foundry.loras(host, "wan")
        names = {"wan": host.tiny("wan"), "lightning": base, "style": in_part(host), "other": other}
        for mode in modes:
            for ours in (True, False):
                print(f"{mode}, {chains * 8} nodes, {'with' if ours else 'without'} our browser files", flush=True)
                with opened(browser, host, mode, ours, Path(work.name)) as studio:
                    edits(studio, names, chains, ours)
                    if ours:
                        chooser(studio, names)
        browser.close()


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 63, sys.argv[2:] or ["canvas", "nodes2"])
