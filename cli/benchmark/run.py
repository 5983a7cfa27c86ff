"""``lora-foundry benchmark``: the strategies people argue about, measured on the machine at hand, as one table.

Each strategy runs in a process of its own. What a step is, and that it is no time of a picture, is said in the result.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import torch

from ...engine.errors import FoundryError
from ...engine.guard import raise_first
from ...engine.json_demo import BenchedModelJSON, BenchmarkJSON, OutcomeJSON, StrategyJSON
from ...engine.plan import Plan
from ...engine.progress import Progress
from ...engine.texts.say import refuse
from ...loaders.bakes.baking import bake_to_file
from ...loaders.disk.temps import claimed, hidden, remove, sweep, temporary
from ...loaders.documents.document import load_document
from ...loaders.plans.planner import plan_document
from ...validator.rules import check
from ..demo import files as demo
from ..demo.formats import compare_formats
from ..terminal import note
from . import process as benchmark_process
from .chart import svg
from .machine import machine, multiplied_in
from .report import definitions, findings, markdown
from .strategies import FORMAT, matrices
from .table import STRATEGIES, Strategy

WIDTH, LAYERS = 1536, 1  # 99 MB in weights as large as a real model's, so that they and not the process are measured
TOKENS = {"cpu": 256, "cuda": 4096}  # 4096: a picture of 1024 x 1024 pixels
STEPS = 3
FORMAT_NUMBERS = 1 << 22  # of the weights that the formats are compared on
CPU = torch.device("cpu")
NAMES = ("benchmark.md", "benchmark.json", "benchmark.svg")


def run(
    document: Path | None = None,
    device: torch.device = CPU,
    tokens: int | None = None,
    steps: int = STEPS,
    out: Path | None = None,
    on_step: Progress = lambda done, total: None,
) -> BenchmarkJSON:
    """Measure every strategy; ``ok``: none of them failed. Writes ``NAMES`` into ``out``, all of them or none.

    ``document`` is a stack document (None: a tiny model made on the spot), ``tokens`` the rows of activations of a
    step (None: 256 on a CPU, 4096 on a GPU), ``steps`` the further steps that are timed. Raises FoundryError for what
    no strategy could work with.
    """
    tokens = TOKENS[device.type] if tokens is None else tokens
    if tokens < 1 or steps < 1:
        raise refuse("usage.bench_steps")
    if out is not None:
        _prepare(out)
    with temporary(out or Path(tempfile.gettempdir())) as work:
        work.mkdir()
        result = _measured(document, work, device, tokens, steps, on_step)
    if out is not None:
        write(result, out)
        result["out"] = str(out)
    return result


def text(result: Mapping[str, Any]) -> str:
    """The result as Markdown, and where its files are."""
    last = f"\nWritten to {result['out']}: {', '.join(NAMES)}" if "out" in result else ""
    return markdown(result).rstrip() + last


# --- measuring --------------------------------------------------------------------------------------------------------


def _measured(
    given: Path | None, work: Path, device: torch.device, tokens: int, steps: int, on_step: Progress
) -> BenchmarkJSON:
    started = time.perf_counter()
    path = make_files(work) if given is None else given
    loaded = load_document(path)
    for said in loaded.notes:
        note(said)
    plan = plan_document(loaded)
    raise_first(check(plan))
    if not plan.by_weight():
        raise refuse("usage.bench_nothing")
    _refuse_other_kinds(plan)
    dtype = multiplied_in(device, Counter(info.dtype for info in matrices(plan)).most_common(1)[0][0])
    job: dict[str, Any] = {
        "document": str(path.resolve()),
        "work": str(work),
        "fp8_base": str(work / "base_fp8.safetensors"),
        "device": str(device),
        "dtype": str(dtype).removeprefix("torch."),
        "tokens": tokens,
        "steps": steps,
        "threads": torch.get_num_threads(),
    }
    facts, rows = machine(device), list[StrategyJSON]()
    for done, (key, strategy) in enumerate(STRATEGIES.items()):
        on_step(done, len(STRATEGIES))
        about = {"strategy": key, "name": strategy.name, "does": strategy.does, "ours": strategy.ours}
        rows.append(cast(StrategyJSON, {**about, **_outcome(key, strategy, plan, job)}))
    formats = [row.to_json() for row in compare_formats(plan, FORMAT_NUMBERS)]
    on_step(len(STRATEGIES), len(STRATEGIES))
    return {
        "ok": all(row["state"] != "failed" for row in rows),
        "machine": facts,
        "model": _model(plan, "tiny Wan made on the spot" if given is None else plan.base.name, tokens, job["dtype"]),
        "definitions": definitions(tokens, job["dtype"], steps),
        "rows": rows,
        "formats": formats,
        "findings": findings(rows, facts),
        "seconds": time.perf_counter() - started,
    }


def _refuse_other_kinds(plan: Plan) -> None:
    """The other orders are worked out for LoRAs of two factors alone."""
    for layer, patch in plan.patches():
        if not {"up", "down"} <= dict(patch.adapter.parts).keys() <= {"up", "down", "alpha"}:
            raise refuse("usage.bench_kinds", lora=layer.lora.name, module=patch.adapter.module)


def _model(plan: Plan, name: str, tokens: int, dtype: str) -> BenchedModelJSON:
    infos = matrices(plan)
    return {
        "name": name,
        "family": plan.base.family,
        "weights": sum(torch.Size(info.shape).numel() for info in infos),
        "matrices": len(infos),
        "bytes": sum(info.nbytes for info in infos),
        "loras": [{"name": layer.lora.name, "weight": layer.strength, "stage": layer.stage} for layer in plan.layers],
        "tokens": tokens,
        "dtype": dtype,
    }


def _outcome(key: str, strategy: Strategy, plan: Plan, job: Mapping[str, Any]) -> OutcomeJSON:
    """The numbers of one strategy, or the sentence that says why there are none."""
    try:
        if strategy.reads_fp8 and not Path(job["fp8_base"]).exists():
            bake_to_file(Plan(plan.base, vanilla=True), FORMAT, Path(job["fp8_base"]))
    except FoundryError as error:
        return {"state": "failed", "sentence": benchmark_process.without_folders(str(error))}
    answer = benchmark_process.measure({**job, "strategy": key})
    if "error" in answer:
        return {"state": "failed", "sentence": answer["error"]}
    return cast(OutcomeJSON, answer)


# --- files ------------------------------------------------------------------------------------------------------------


def make_files(folder: Path) -> Path:
    """A Wan of ``LAYERS`` layers, the demo's three LoRAs of 1 % each, and the document that names them."""
    demo.make_files(folder, WIDTH, LAYERS)
    return demo.document(folder, "stack")


def _prepare(out: Path) -> None:
    """Refuse before minutes of measuring what could not be written at their end."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        sweep(out)  # what a killed benchmark left are copies of whole models
        blocked = next((name for name in NAMES if (out / name).is_dir()), None)
    except OSError as error:
        raise refuse("file.no_folder", folder=out, reason=error.strerror or error) from error
    if blocked:
        raise refuse("file.is_folder", path=out / blocked)


def write(result: Mapping[str, Any], out: Path) -> None:
    """The three files, each under a hidden name until all are complete; files of these names are replaced."""
    texts = dict(zip(NAMES, (markdown(result), json.dumps(result, indent=1) + "\n", svg(result)), strict=True))
    unfinished = {name: hidden(out) for name in NAMES}
    try:
        with claimed(out):
            for name, written in texts.items():
                unfinished[name].write_text(written, encoding="utf-8")
            for name in NAMES:
                unfinished[name].replace(out / name)
    except OSError as error:
        raise refuse("file.not_written", folder=out, reason=error.strerror or error) from error
    finally:
        for left in unfinished.values():
            remove(left)
