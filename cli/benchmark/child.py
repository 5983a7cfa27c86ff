"""One strategy in a process of its own: so that its peak memory is its own, and its end cannot end the others."""

from __future__ import annotations

import json
import os
import statistics
import sys
import threading
import time
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor
from torch.nn.functional import linear

from ...engine.blueprint import blueprint
from ...engine.errors import FoundryError
from ...engine.gain import GainMeter, Share, compared, sampled_rows
from ...engine.gemm import Workspace
from ...engine.json_demo import GainJSON, OutcomeJSON, QualityJSON, TimesJSON
from ...engine.memory import peak_rss_bytes
from ...engine.plan import Layer, Patch, Plan
from ...engine.terms import effective_scale, placement, read_factors
from ...engine.units import size
from ...loaders.documents.document import load_document
from ...loaders.plans.planner import plan_document
from .machine import free_memory
from .strategies import FORMAT, Bench, Weights, matrices
from .table import STRATEGIES, Sizes, Strategy, sizes

Moment = tuple[float, float]


def main() -> None:
    """Run the job in argv[3] (JSON) and write its row to stdout as JSON; ends at once when the parent does."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    answer: OutcomeJSON | dict[str, str]
    try:
        answer = measure(json.loads(sys.argv[3]))
    except FoundryError as error:
        answer = {"error": str(error)}
    sys.stdout.write(f"\n{json.dumps(answer)}\n")


def _end_with_parent() -> None:
    while os.read(0, 1):  # nothing is ever sent: it returns when the other end is closed, even by a kill
        pass
    os._exit(1)


def measure(job: dict[str, Any]) -> OutcomeJSON:
    """The numbers of one row; ``job`` names strategy, files, device, dtype, tokens, steps and threads."""
    strategy, device, dtype = STRATEGIES[job["strategy"]], torch.device(job["device"]), getattr(torch, job["dtype"])
    torch.set_num_threads(job["threads"])
    warm_up(device, dtype)
    document = Path(job["document"])
    plan = _planned(document)
    if lacking := too_large(strategy, sizes(plan), device):
        return {"state": "does not fit", "sentence": lacking}
    before = peak_rss_bytes()
    started = now()
    plan = _planned(document) if strategy.ours else plan  # checking is a part of what ours does
    bench = Bench(plan, device, dtype, Path(job["work"]), Path(job["fp8_base"]))
    times, weights = _run(strategy, bench, job["tokens"], job["steps"])
    peak = peak_rss_bytes() - before  # before the measure of quality takes its own
    told = {
        "state": "measured",
        **durations(started, times),
        "memory_bytes": peak,
        "device_memory_bytes": torch.cuda.max_memory_allocated(device) if device.type == "cuda" else None,
        **quality(bench, weights),
    }
    return cast(OutcomeJSON, told)


def now() -> Moment:
    """(wall clock, CPU time of all threads of this process) in seconds."""
    return time.perf_counter(), time.process_time()


def durations(started: Moment, times: list[Moment]) -> TimesJSON:
    """Seconds until ready, to the end of the first step, and the median of the further steps; ``cpu``: of CPU time."""
    wall, cpu = ([moment[clock] - started[clock] for moment in times] for clock in range(2))
    return {
        "ready_s": wall[0],
        "first_step_s": wall[1],
        "step_s": _median_step(wall),
        "ready_cpu_s": cpu[0],
        "first_step_cpu_s": cpu[1],
        "step_cpu_s": _median_step(cpu),
    }


def _median_step(ends: list[float]) -> float:
    """Of the steps after the first; ``ends``: when the model was ready and when each step had ended."""
    return statistics.median(stop - start for start, stop in zip(ends[1:], ends[2:], strict=False))


def _planned(document: Path) -> Plan:
    return plan_document(load_document(document))


def too_large(strategy: Strategy, sizes: Sizes, device: torch.device) -> str:
    """Why a strategy is not even tried: it needs more memory than is free; empty when it fits or nobody can tell."""
    there, here = strategy.needs(sizes)
    places: list[tuple[str, int, int | None]] = [("memory", there + here, free_memory())]
    if device.type == "cuda":
        places = [("GPU memory", there, torch.cuda.mem_get_info(device)[0]), ("memory", here, free_memory())]
    for what, needed, free in places:
        if free is not None and needed > free:
            return f"does not fit: it needs {size(needed)} of {what} and {size(free)} are free."
    return ""


def warm_up(device: torch.device, dtype: torch.dtype) -> None:
    """Load the libraries and start the threads that any first product would: they are no strategy's doing."""
    square = torch.ones(256, 256, device=device)
    linear(square.to(dtype), square.to(dtype))
    linear(square, square).to(torch.float8_e4m3fn).to(dtype)
    synchronize(device)


def synchronize(device: torch.device) -> None:
    """Wait for what a GPU still has to do."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _run(strategy: Strategy, bench: Bench, tokens: int, steps: int) -> tuple[list[Moment], Weights]:
    """(times when the model was ready and after each of 1 + ``steps`` steps, the model)."""
    weights = strategy.load(bench)
    synchronize(bench.device)
    times = [now()]
    inputs: dict[int, Tensor] = {}
    for _ in range(1 + steps):
        step(weights, inputs, tokens)
        synchronize(bench.device)
        times.append(now())
    return times, weights


def step(weights: Weights, inputs: dict[int, Tensor], tokens: int) -> None:
    """Every weight multiplied once with ``tokens`` rows of activations; one set of activations per width."""
    for _, weight in weights():
        width = weight.shape[1]
        if width not in inputs:
            inputs[width] = torch.randn(tokens, width, dtype=weight.dtype, device=weight.device)
        linear(inputs[width], weight)


# --- quality ----------------------------------------------------------------------------------------------------------


def quality(bench: Bench, weights: Weights) -> QualityJSON:
    """Relative weight error and the gain of each LoRA against float64, of every weight with LoRAs or in fp8.

    On sampled rows, as ``engine.gain`` defines both.
    """
    plan = bench.plan
    work, slots = plan.by_weight(), {id(layer): slot for slot, layer in enumerate(plan.layers)}
    wanted = {*work, *blueprint(plan, FORMAT).quantized} & {info.name for info in matrices(plan)}
    meter, workspace = GainMeter(), Workspace()
    for name, used in weights():
        if name not in wanted:
            continue
        rows = torch.tensor(sampled_rows(used.shape))
        base = bench.read(name)[rows].double()
        pairs = work.get(name, ())
        deltas = [delta_rows(base, rows, layer, patch) for layer, patch in pairs]
        stored, whole = used[rows.to(used.device)].to("cpu"), used.shape[0] / len(rows)
        measured = compared(base + sum(deltas), stored, deltas, whole, workspace)
        meter.add(name, measured, [slots[id(layer)] for layer, _ in pairs])
    shares = [(layer.lora.name, meter.layers.get(slot, Share())) for slot, layer in enumerate(plan.layers)]
    gains: list[GainJSON] = [{"lora": name, "gain": share.gain} for name, share in shares if share.energy]
    return {"weight_error": meter.relative_error(), "gains": gains}


def delta_rows(base: Tensor, rows: Tensor, layer: Layer, patch: Patch) -> Tensor:
    """Rows of strength * alpha / rank * up @ down in float64, zero where the patch does not reach."""
    up, down = (factor.double() for factor in read_factors(layer, patch))
    place, columns = placement(patch)
    offset = place.start or 0
    inside = (rows >= offset) & (rows < offset + up.shape[0])
    delta = torch.zeros_like(base)
    delta[inside.nonzero()[:, 0], columns] = effective_scale(layer, patch) * up[rows[inside] - offset] @ down
    return delta
