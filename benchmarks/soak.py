"""ComfyUI and this pack under load for a while: ``python benchmarks/soak.py [prompts] [minutes]`` (Linux).

Three clients post twenty workflows over HTTP in random order, press Cancel at random moments, ask for lints and lists
in between, and somebody outside asks ``GET /system_stats`` four times a second all the time. Told at the end: that
every workflow's latent was always the same to the last bit, how long that answer took at most, and memory, open files
and hidden files of the server on the way. Needs the ComfyUI of ``python tests/install.py host``, or COMFYUI_PATH.
"""

from __future__ import annotations

import random
import sys
import tempfile
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "tests" / "helpers")]

from host import rig  # noqa: E402 (they lie among the tests)
from host.foundry import fuse, load, loras, native, quantize, row, stack  # noqa: E402
from host.graphs import Graph, Link  # noqa: E402

CLIENTS, CANCELLED = 3, 0.15  # share of prompts
WAIT = 600  # seconds that a prompt may take, those before it included
LOOK, LATE = 0.25, 0.5  # seconds between two looks from outside, and that an answer may take
FAMILIES = ("wan", "sd15", "flux", "qwen-image")
Workflow = tuple[str, Graph]


@dataclass
class Seen:
    """What came of it; all clients write here, one at a time."""

    left: float  # prompts
    end: float  # when the time is over
    latents: dict[str, Counter[str]] = field(default_factory=dict)
    outcomes: Counter[str] = field(default_factory=Counter)
    states: list[tuple[int, float, int, int]] = field(default_factory=list)  # prompts, RSS in MB, open and hidden files
    waits: list[float] = field(default_factory=list)
    others: Counter[int] = field(default_factory=Counter)  # answers of the other routes, by status
    over: threading.Event = field(default_factory=threading.Event)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def take(self) -> bool:
        """Whether one more prompt is to be posted."""
        with self.lock:
            self.left -= 1
            return self.left >= 0 and time.monotonic() < self.end


def workflows(host: rig.Host) -> list[Workflow]:
    """Five ways through the nodes for each of four families."""
    found = []
    for family in FAMILIES:
        base, style = loras(host, family)
        for name, finish in FINISHES.items():
            graph = Graph()
            plan = fuse(graph, load(graph, host.tiny(family)), base)
            if name == "merge":
                rows = row(graph, style, 0.4, lora_stack=row(graph, base, 0.3))
                merged = graph.add("FoundryMergeLoRAs", lora_stack=rows, **MERGE)
                plan = graph.add("FoundryStackLoRAs", model=load(graph, host.tiny(family)), lora_stack=merged)
            elif name == "native":
                plan = native(graph, graph.unet(host.tiny(family)), (base, 1.0), (style, 0.5))
            else:
                plan = graph.add(
                    "FoundryStackValidator", model=stack(graph, plan, style), policy="match training", strict=False
                )
            graph.sample(plan if name == "native" else finish(graph, plan), family)
            found.append((f"{family}, {name}", graph))
    return found


MERGE = {"method": "exact", "shrink": "no", "amount": 0.0, "dialect": "comfyui", "dtype": "fp32"} | {
    "filename_prefix": "loras/soak"
}


def _patches(graph: Graph, plan: Link) -> Link:
    return graph.add("FoundryApply", model=plan, how="patches")


FINISHES: dict[str, Any] = {
    "fp8": quantize, "fp8 in a file": lambda graph, plan: quantize(graph, plan, keep="file"), "patches": _patches,
    "merge": _patches, "native": None,
}  # fmt: skip


def client(host: rig.Host, works: list[Workflow], seen: Seen, seed: int) -> None:
    """Post, wait or cancel, and ask for something else."""
    rng = random.Random(seed)
    while seen.take():
        name, graph = rng.choice(works)
        status, answer = host.post(graph)
        if status != 200:
            with seen.lock:
                seen.outcomes[f"refused {status}"] += 1
            print(name, answer, file=sys.stderr)
            continue
        if rng.random() < CANCELLED:
            time.sleep(rng.random() * 2)
            host.interrupt()
        other = rng.choice(
            ("/lora_foundry/lint", "/lora_foundry/loras", "/lora_foundry/lineage?lora=wan_style.safetensors")
        )
        code = host.request(other, {"prompt": graph} if other.endswith("lint") else None)[0]
        entry = host.wait(answer["prompt_id"], WAIT)
        with seen.lock:
            seen.others[code] += 1
            outcome = "cancelled" if is_cancelled(entry) else entry["status"]["status_str"]
            outcome = "cached" if outcome == "success" and not entry["outputs"] else outcome  # the one before, again
            seen.outcomes[outcome] += 1
            if outcome == "success":
                seen.latents.setdefault(name, Counter())[rig.latent(entry)["sha256"]] += 1
            elif outcome == "error":
                print(name, rig.failure(entry).get("exception_message"), file=sys.stderr)
            if (done := seen.outcomes.total()) % 10 == 0:
                seen.states.append((done, *state_of(host)))


def is_cancelled(entry: rig.Entry) -> bool:
    """Whether a run ended because somebody pressed Cancel."""
    return any(kind == "execution_interrupted" for kind, _ in entry["status"]["messages"])


def state_of(host: rig.Host) -> tuple[float, int, int]:
    """(RSS in MB, open files, hidden files below its folders) of the server now."""
    place = Path(f"/proc/{host.process.pid}")
    lines = (place / "status").read_text().splitlines()
    rss = next(int(line.split()[1]) / 1e3 for line in lines if line.startswith("VmRSS:"))
    hidden = sum(1 for _ in host.base.rglob(".lora_foundry-*"))
    return rss, sum(1 for _ in (place / "fd").iterdir()), hidden


def watch(host: rig.Host, seen: Seen) -> None:
    """Somebody outside: how long ComfyUI's own answer takes."""
    while not seen.over.wait(LOOK):
        start = time.monotonic()
        host.get("/system_stats")
        seen.waits.append(time.monotonic() - start)
        if seen.waits[-1] > LATE:
            print(f"{seen.waits[-1]:.2f} s after {seen.outcomes.total()} prompts", file=sys.stderr)


def told(seen: Seen, seconds: float, left: tuple[float, int, int]) -> str:
    """The table."""
    waits = sorted(seen.waits)
    late = sum(each > LATE for each in waits)
    odd = [name for name, digests in seen.latents.items() if len(digests) > 1]
    lines = [
        f"{seen.outcomes.total()} prompts of {len(seen.latents)} workflows in {seconds:.0f} s: "
        + ", ".join(f"{count} {name}" for name, count in seen.outcomes.most_common()),
        f"latents: {'the same bits in every run of a workflow' if not odd else f'DIFFERENT in {odd}'}",
        f"GET /system_stats: {len(waits)} answers, median {median(waits) * 1e3:.0f} ms, "
        f"99 % {waits[len(waits) * 99 // 100] * 1e3:.0f} ms, longest {waits[-1] * 1e3:.0f} ms, {late} above {LATE} s",
        f"other routes: {dict(seen.others)}",
        f"hidden files after the last prompt: {left[2]}",
        "| prompts | RSS MB | open files | hidden files |",
        "|--:|--:|--:|--:|",
    ]
    step = max(1, len(seen.states) // 10)
    return "\n".join(
        [*lines, *(f"| {n} | {rss:.0f} | {files} | {hidden} |" for n, rss, files, hidden in seen.states[::step])]
    )


def main(prompts: float = 500, minutes: float = 120) -> None:
    """Start a ComfyUI, soak it, tell."""
    tree = rig.find_tree()
    if tree is None:
        sys.exit("needs a ComfyUI: set COMFYUI_PATH, or run: python tests/install.py host")
    with tempfile.TemporaryDirectory(prefix="lora_foundry_soak_") as folder, rig.Host(tree, Path(folder), ROOT) as host:
        works, seen = workflows(host), Seen(prompts, time.monotonic() + 60 * minutes)
        outside = threading.Thread(target=watch, args=(host, seen))
        clients = [threading.Thread(target=client, args=(host, works, seen, seed)) for seed in range(CLIENTS)]
        start = time.monotonic()
        for thread in (outside, *clients):
            thread.start()
        for thread in clients:
            thread.join()
        seen.over.set()
        outside.join()
        print(told(seen, time.monotonic() - start, state_of(host)))


if __name__ == "__main__":
    main(*map(float, sys.argv[1:3]))
