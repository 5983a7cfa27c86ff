"""The whole idea on a tiny model: the right order, the wrong orders, and what each leaves of the LoRAs; no ComfyUI.

Everything shown is measured against base + LoRAs in float64. The right order, the missing alpha and the refusals run
through the engine itself; the orders this pack does not offer are worked out here.
"""

from __future__ import annotations

import math
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import cast

import torch
from torch import Tensor

from ...engine.errors import FoundryError
from ...engine.finish import Finish
from ...engine.formats import DEFAULT, quantize
from ...engine.gain import compared
from ...engine.json_demo import DemoJSON, OrderJSON
from ...engine.plan import Plan
from ...engine.progress import Progress
from ...loaders.bakes.baking import bake_to_file
from ...loaders.disk.source import FileSource
from ...loaders.documents.document import load_document
from ...loaders.plans.planner import plan_document
from .. import orders
from ..terminal import table, typed
from .files import STRENGTHS, document, make_files
from .formats import HEAD, cells, compare_formats

NAMES = {"lightning": "Lightning", "ink": "ink style", "light": "light style"}
Weights = dict[str, Tensor]
WIDE, FORMAT_NUMBERS = 512, 1 << 19  # of the model that the formats are compared on, and how many of its weights


@dataclass(frozen=True)
class OrderResult:
    """One order: relative weight error, gain of each LoRA (empty when refused), and whether that is as expected."""

    order: str
    verdict: str
    ok: bool
    error: float | None = None
    gains: Mapping[str, float] = field(default_factory=dict)
    refusal: str = ""

    def to_json(self) -> OrderJSON:
        """The order as plain data."""
        return cast(OrderJSON, asdict(self))


def run(keep: Path | None = None, on_step: Progress = lambda done, total: None) -> DemoJSON:
    """Make the files (in ``keep``, or in a folder that is removed), run every order; ``ok``: all as expected."""
    if keep is not None:
        keep.mkdir(parents=True, exist_ok=True)
        return {**_run(keep, on_step), "kept": str(keep)}
    with tempfile.TemporaryDirectory(prefix="lora_foundry_demo_") as folder:
        return _run(Path(folder), on_step)


def _run(folder: Path, on_step: Progress) -> DemoJSON:
    started = time.perf_counter()
    make_files(folder)
    truth = Truth(folder)
    rows: list[OrderResult] = []
    for done, order in enumerate(ORDERS):
        on_step(done, len(ORDERS))
        rows.append(order(folder, truth))
    formats = compare_formats(_wide_plan(folder), FORMAT_NUMBERS)
    on_step(len(ORDERS), len(ORDERS))
    better = all(row.calibrated_output_error < row.output_error for row in formats)
    return {
        "ok": all(row.ok for row in rows) and better,
        "orders": [row.to_json() for row in rows],
        "formats": [row.to_json() for row in formats],
        "weights": truth.count,
        "seconds": time.perf_counter() - started,
    }


def _wide_plan(folder: Path) -> Plan:
    """The stack on a Wan whose weights every format takes."""
    wide = folder / "wide"
    wide.mkdir(exist_ok=True)
    make_files(wide, WIDE, 1)
    return plan_document(load_document(document(wide, "stack")))


def bake_file(path: Path) -> Path:
    """What ``lora-foundry bake`` does with a document: the result lies beside it."""
    out = path.with_suffix(".safetensors")
    bake_to_file(plan_document(load_document(path)), Finish("float8_e4m3fn"), out)
    return out


# --- measuring --------------------------------------------------------------------------------------------------------


class Truth:
    """Base, deltas and their sum in float64, worked out from the files by the formula alone.

    ``best`` is the error that fp8 with one scale per tensor cannot go below.
    """

    def __init__(self, folder: Path) -> None:
        source = FileSource(folder / "base.safetensors")
        loras = {lora: FileSource(folder / f"{lora}.safetensors") for lora in NAMES}
        modules = [name.removesuffix(".lora_down.weight") for name in loras["lightning"].tensors if "_down" in name]
        names = [module.removeprefix("diffusion_model.") for module in modules]
        deltas = {lora: {name: STRENGTHS[lora] * delta(loras[lora], name) for name in names} for lora in NAMES}
        self.base = {name: source.read(f"{name}.weight").double() for name in names}
        self.sum = {name: torch.stack([deltas[lora][name] for lora in NAMES]).sum(0) for name in names}
        self.exact = {name: self.base[name] + self.sum[name] for name in names}
        self._exact = flat(self.exact)
        self._deltas = {lora: flat(deltas[lora]) for lora in NAMES}
        self.count = self._exact.numel()
        self.best, _ = self.measure({name: requantize(weight) for name, weight in self.exact.items()})

    def measure(self, stored: Weights) -> tuple[float, dict[str, float]]:
        """(relative error, gain of each LoRA) of the touched weights, all as one; ``engine.gain`` defines both."""
        measured = compared(self._exact, flat({name: stored[name] for name in self.base}), self._deltas.values())
        return measured.error or 0.0, {lora: share.gain for lora, share in zip(NAMES, measured.shares, strict=True)}

    def noise(self, error: float) -> float:
        """Standard deviation of the weakest LoRA's gain when ``error`` is nothing but rounding."""
        weakest = min(float(delta.norm()) for delta in self._deltas.values())
        return error * float(self._exact.norm()) / weakest / math.sqrt(self.count)


def flat(weights: Weights) -> Tensor:
    """All weights as one vector."""
    return torch.cat([weight.flatten() for weight in weights.values()])


def delta(lora: FileSource, name: str) -> Tensor:
    """alpha / rank * up @ down of one module in float64, whichever dialect it is written in."""
    parts = {key.split(f"{name}.", 1)[1]: lora.read(key).double() for key in lora.tensors if f"{name}." in key}
    down = next(part for key, part in parts.items() if key.startswith(("lora_down", "lora_A")))
    up = next(part for key, part in parts.items() if key.startswith(("lora_up", "lora_B")))
    return float(parts["alpha"]) / down.shape[0] * up @ down if "alpha" in parts else up @ down


def read_back(path: Path, names: Sequence[str] | Weights) -> Weights:
    """The weights of a quantized file as a loader sees them, float64."""
    source = FileSource(path)
    return {
        name: DEFAULT.decode(source.read(f"{name}.weight"), source.read(f"{name}.weight_scale")).double()
        for name in names
    }


# --- orders -----------------------------------------------------------------------------------------------------------


def right(folder: Path, truth: Truth) -> OrderResult:
    """Fuse, stack, quantize: every LoRA is whole, and no 8-bit file could be closer to the exact sum."""
    error, gains = truth.measure(read_back(bake_file(document(folder, "stack")), truth.base))
    noise = truth.noise(error)
    ok = all(abs(gain - 1) < 5 * noise for gain in gains.values()) and error < truth.best * 1.001
    return OrderResult(
        "fuse -> stack -> quantize", f"right: each LoRA is whole (rounding noise {noise:.1%})", ok, error, gains
    )


def requantize(weight: Tensor) -> Tensor:
    """A float64 weight to scaled fp8 and back."""
    return DEFAULT.decode(*quantize(weight.float(), DEFAULT)).double()


def nearest(folder: Path, truth: Truth) -> OrderResult:
    """LoRAs added to a quantized base, rounded to the nearest step of its grid."""
    stored = onto_grid(folder, truth, orders.nearest)
    return lossy("quantize -> LoRAs, nearest rounding", truth, stored)


def stochastic(folder: Path, truth: Truth) -> OrderResult:
    """The same with stochastic rounding, which is what ComfyUI does with a LoRA on an fp8 model."""
    generator = torch.Generator().manual_seed(0)
    stored = onto_grid(folder, truth, partial(orders.stochastic, generator=generator))
    error, gains = truth.measure(stored)
    worse = error / truth.best - 1
    verdict = f"wrong: {worse:.0%} more weight error"
    return OrderResult("quantize -> LoRAs, stochastic rounding", verdict, worse > 0.1, error, gains)


def onto_grid(folder: Path, truth: Truth, rounding: orders.Rounding) -> Weights:
    """Quantize the bare base with the engine, then add the deltas and round back to its fp8 grid."""
    source = FileSource(bake_file(document(folder, "base_fp8", fuse="")))
    stored = {}
    for name, deltas in truth.sum.items():
        codes, scale = (source.read(f"{name}.{part}").double() for part in ("weight", "weight_scale"))
        rounded, _ = orders.quantized(codes * scale + deltas, rounding, scale)
        stored[name] = rounded.double() * scale
    return stored


def plain_cast(_: Path, truth: Truth) -> OrderResult:
    """fp8 by a bare cast (weight_dtype fp8 of a loader), then the LoRAs: they fall between its coarse steps."""
    cast = {name: orders.nearest(weight.float()).double() for name, weight in truth.base.items()}
    stored = {name: orders.nearest((weight + truth.sum[name]).float()).double() for name, weight in cast.items()}
    return lossy("fp8 cast without scale -> LoRAs", truth, stored)


def lossy(order: str, truth: Truth, stored: Weights) -> OrderResult:
    """The row of an order that loses a part of every LoRA."""
    error, gains = truth.measure(stored)
    kept = max(gains.values())
    return OrderResult(order, f"wrong: {1 - kept:.0%} or more of each LoRA lost", kept < 0.9, error, gains)


def alpha_ignored(folder: Path, truth: Truth) -> OrderResult:
    """The right order by a loader that does not know alpha: alpha 8 / rank 64 becomes 1."""
    path = document(folder, "alpha_ignored", fuse="lightning_without_alpha")
    error, gains = truth.measure(read_back(bake_file(path), truth.base))
    strong = gains["lightning"]
    verdict = f"wrong: Lightning {strong:.1f} times too strong"
    return OrderResult("alpha 8 / rank 64 ignored", verdict, abs(strong - 8) < 0.5, error, gains)


def quantized_base(folder: Path, _: Truth) -> OrderResult:
    """The finished file as the base of another bake."""
    return refused("quantized file -> bake", document(folder, "quantized_base", base="stack"), "LF201")


def other_family(folder: Path, _: Truth) -> OrderResult:
    """A FLUX LoRA in the stack of a Wan."""
    return refused("a FLUX LoRA on a Wan", document(folder, "other_family", extra=["flux_lora"]), "LF303")


def refused(order: str, path: Path, code: str) -> OrderResult:
    """The row of a document that the engine must not bake, and that must leave no file behind."""
    try:
        bake_file(path)
    except FoundryError as error:
        ok = error.code == code and not path.with_suffix(".safetensors").exists()
        return OrderResult(order, f"refused: {error.code}", ok, refusal=str(error))
    return OrderResult(order, f"not refused with {code}", False)


ORDERS = (right, nearest, stochastic, plain_cast, alpha_ignored, quantized_base, other_family)


# --- text -------------------------------------------------------------------------------------------------------------


def text(result: DemoJSON, room: int | None = None) -> str:
    """The table, the refusals in full, and what it comes to; verdicts are apart where they do not fit ``room``."""
    rows = [
        (
            order["order"],
            *(f"{order['gains'][lora]:.0%}" if order["gains"] else "-" for lora in NAMES),
            "-" if order["error"] is None else f"{order['error']:.2%}",
            order["verdict"],
        )
        for order in result["orders"]
    ]
    lines = [
        f"A tiny Wan: {result['weights']:,} weights under three LoRAs of about 1 % each, measured against float64.",
        _orders(rows, ("order", *(f"{name} kept" for name in NAMES.values()), "weight error", "verdict"), room),
        *(order["refusal"] for order in result["orders"] if order["refusal"]),
        "",
        "The formats, fused first. Output error: of inputs as layers have them, made up; by its inputs: calibrated.",
        table([cells(row) for row in result["formats"]], HEAD, room),
        "",
    ]
    if "kept" in result:
        kept = Path(result["kept"])
        lines.append(f"The files are in {kept}. Try: lora-foundry check {typed(kept / 'stack.json')}")
    return "\n".join([*lines, conclusion(result)])


def _orders(rows: list[tuple[str, ...]], head: tuple[str, ...], room: int | None) -> str:
    whole = table(rows, head)
    if room is None or len(whole.split("\n")[1]) <= room:
        return whole
    verdicts = (f"{order}: {verdict}" for order, *_, verdict in rows)
    return "\n".join([table([row[:-1] for row in rows], head[:-1], room), "", *verdicts, ""])


def conclusion(result: DemoJSON) -> str:
    """The last line: OK with the numbers, or which rows are not as they should be."""
    first, *others = result["orders"]
    failed = [order["order"] for order in result["orders"] if not order["ok"]]
    worse = (row for row in result["formats"] if row["calibrated_output_error"] >= row["output_error"])
    failed += [f"{row['format']} by its inputs" for row in worse]
    if failed:
        return f"FAILED: not as expected: {'; '.join(failed)}."
    kept = " to ".join(dict.fromkeys(f"{bound(first['gains'].values()):.0%}" for bound in (min, max)))
    refused = sum(bool(order["refusal"]) for order in others)
    return (
        f"OK: the right order kept {kept} of every LoRA; {len(others)} wrong orders were caught or measured "
        f"({refused} refused, {len(others) - refused} measured) in {result['seconds']:.1f} s."
    )
