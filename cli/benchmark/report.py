"""What a benchmark found, in words: the columns of its table, the sentences under it, the whole as Markdown."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ...engine.json_demo import FormatJSON, MachineJSON, SaidJSON
from ...engine.units import size

Row = Mapping[str, Any]
Result = Mapping[str, Any]
REFERENCE = "fused_quantized"  # what the other 8-bit orders are held against
LOST, WORSE = 0.9, 1.05  # below this gain an effect counts as lost; above this ratio an error as larger
NEAR = 1.1  # up to this ratio two times or sizes are not told apart
BUSY, WAITED = 0.25, 1.1  # load per core at the start, and time over CPU time, above which times mean little
STREAMED = ("low_memory", "low_memory_fused")  # these may wait for the disk


@dataclass(frozen=True)
class Column:
    """One measured quantity: ``value`` is what a bar shows (None: not measured), ``text`` what is written."""

    title: str
    note: str
    value: Callable[[Row], float | None]
    text: Callable[[Row], str]


def seconds(value: float) -> str:
    """``12.3 ms`` or ``1.23 s``: three digits."""
    return f"{value * 1e3:#.3g} ms".replace(". ", " ") if value < 1 else f"{value:#.3g} s".replace(". ", " ")


def kept(row: Row) -> str:
    """``100%``, or ``43 to 57%``: how much of the LoRAs is in the weights."""
    gains = [round(100 * gain["gain"]) for gain in row["gains"]]
    low, high = min(gains), max(gains)
    return f"{low}%" if low == high else f"{low} to {high}%"


def least_kept(row: Row) -> float | None:
    """The gain of the LoRA that lost most; None without LoRAs."""
    return min((gain["gain"] for gain in row["gains"]), default=None)


def _column(title: str, note: str, key: str, written: Callable[[Any], str]) -> Column:
    return Column(title, note, lambda row: row[key], lambda row: written(row[key]))


COLUMNS = (
    _column("first step", "lower is better", "first_step_s", seconds),
    _column("each step", "lower is better", "step_s", seconds),
    _column("memory", "peak, lower is better", "memory_bytes", size),
    _column("GPU memory", "peak, lower is better", "device_memory_bytes", lambda count: size(count or 0)),
    _column("weight error", "lower is better", "weight_error", "{:.2%}".format),
    Column("LoRA kept", "100% is right", least_kept, kept),
)
FORMAT_COLUMNS = (
    _column("bytes/weight", "lower is better", "bytes", "{:.2f}".format),
    _column("weight error", "lower is better", "weight_error", "{:.2%}".format),
    _column("output error", "lower is better", "output_error", "{:.2%}".format),
    _column("by its inputs", "calibrated, lower is better", "calibrated_output_error", "{:.2%}".format),
    _column("CPU time", "per 10^9, lower is better", "seconds", lambda value: f"{value:.0f} s"),
    _column("LoRA kept", "100% is right", "gain", lambda gain: "-" if gain is None else f"{gain:.0%}"),
)


def columns(result: Result) -> tuple[Column, ...]:
    """The columns that this machine has."""
    rows = list(filter(is_measured, result["rows"]))
    return tuple(column for column in COLUMNS if any(column.value(row) is not None for row in rows))


def is_measured(row: Row) -> bool:
    """Whether there are numbers; else a sentence says why not."""
    return bool(row["state"] == "measured")


def markdown_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table whose columns are aligned in the source as well; numbers (all but the first) to the right."""
    widths = [max(len(row[at]) for row in (head, *rows)) for at in range(len(head))]

    def line(cells: Sequence[str]) -> str:
        _, *rest = (cell.rjust(width) for cell, width in zip(cells, widths, strict=True))
        return f"| {' | '.join([cells[0].ljust(widths[0]), *rest])} |"

    rule = "|".join("-" * (width + 1) + ("-" if at == 0 else ":") for at, width in enumerate(widths))
    return "\n".join([line(head), f"|{rule}|", *map(line, rows)])


def table(result: Result) -> str:
    """The strategies as Markdown."""
    shown = columns(result)
    cells = ([column.text(row) if is_measured(row) else "-" for column in shown] for row in result["rows"])
    rows = [[row["name"], *texts] for row, texts in zip(result["rows"], cells, strict=True)]
    return markdown_table(["strategy", *(column.title for column in shown)], rows)


def format_table(rows: Sequence[FormatJSON]) -> str:
    """The formats as Markdown."""
    shown = [[row["format"], *(column.text(row) for column in FORMAT_COLUMNS)] for row in rows]
    return markdown_table(["format", *(column.title for column in FORMAT_COLUMNS)], shown)


def findings(rows: Sequence[Row], machine: MachineJSON) -> list[SaidJSON]:
    """What the numbers say: kind, strategy and a sentence each."""
    measured = list(filter(is_measured, rows))
    best = next((row["weight_error"] for row in measured if row["strategy"] == REFERENCE), None)
    found = [_finding(row["state"], row, f"{row['name']}: {row['sentence']}") for row in rows if not is_measured(row)]
    for row in measured:
        found += [_finding(kind, row, said) for kind, said in _verdicts(row, best) if row["strategy"] != "base"]
    if is_busy(measured, machine):
        said = "Other programs kept the machine busy, so times are not compared; the JSON has the CPU times."
        return [*found, *_best(measured, {"Least memory": COLUMNS[2]}), _finding("busy", {"strategy": ""}, said)]
    firsts = ("Soonest first step", "Fastest step", "Least memory")
    return [*found, *_best(measured, dict(zip(firsts, COLUMNS, strict=False)))]


def _finding(kind: str, row: Row, said: str) -> SaidJSON:
    return {"kind": kind, "strategy": row["strategy"], "text": said}


def is_busy(measured: Sequence[Row], machine: MachineJSON) -> bool:
    """Whether the times are those of a machine that had other work, before or while it was measured."""
    if machine["load"] is not None and machine["load"] > BUSY * (machine["cores"] or 1):
        return True
    held = [row for row in measured if row["strategy"] not in STREAMED]
    return machine["device"] == "cpu" and any(row["step_s"] > WAITED * row["step_cpu_s"] for row in held)


def _verdicts(row: Row, best: float | None) -> Iterator[tuple[str, str]]:
    gain = least_kept(row)
    if gain is not None and gain < LOST:
        yield "lost effect", f"{row['name']}: {kept(row)} of the LoRAs is left."
    if best and row["weight_error"] > WORSE * best:
        yield "more error", f"{row['name']}: {row['weight_error'] / best - 1:.0%} more weight error than fused first."


def _best(measured: Sequence[Row], kinds: Mapping[str, Column]) -> Iterator[SaidJSON]:
    """Who is first, among the orders that keep the LoRAs."""
    whole = [row for row in measured if (least_kept(row) or 0.0) >= LOST]
    if not whole:
        return
    for what, column in kinds.items():
        first, *others = sorted(whole, key=lambda row: column.value(row) or 0.0)
        near = [row["name"] for row in others if (column.value(row) or 0.0) <= NEAR * (column.value(first) or 0.0)]
        also = f"; no clear difference: {', '.join(near)}" if near else ""
        yield _finding("best", first, f"{what}: {first['name']}, {column.text(first)}{also}.")


def markdown(result: Result) -> str:
    """Title, machine, table, findings, and what the words mean."""
    model, machine = result["model"], result["machine"]
    where = machine["cpu"] if machine["device"] == "cpu" else f"{machine['device']}, {machine['cpu']}"
    loras = ", ".join(f"{lora['name']} x {lora['weight']:g}" for lora in model["loras"])
    lines = [
        "# LoRA strategies, measured",
        "",
        f"{where}; {machine['threads']} threads, {machine['cores']} cores; torch {machine['torch']}, {machine['os']}.",
        f"{model['name']}: {model['weights']:,} weights ({size(model['bytes'])}) in {model['matrices']} matrices;"
        f" LoRAs: {loras}.",
        "",
        table(result),
        "",
        *(f"- {finding['text']}" for finding in result["findings"]),
        "",
        *(("## The formats", "", format_table(result["formats"]), "") if result["formats"] else ()),
        "## What was measured",
        "",
        *(f"- **{word}**: {meaning}" for word, meaning in result["definitions"].items()),
        "",
        "## The strategies",
        "",
        *(f"- **{row['name']}**: {row['does']}" for row in result["rows"]),
    ]
    return "\n".join(lines) + "\n"


def definitions(tokens: int, dtype: str, steps: int) -> dict[str, str]:
    """What the numbers are, and what they are not."""
    return {
        "step": f"every weight matrix of the model, multiplied once with {tokens} tokens of activations in {dtype}; "
        "fp8 weights are dequantized for each use, as ComfyUI does with full precision products. No attention, no "
        "norms, no sampler: it is the moving and multiplying of weights, **not the time of a picture**.",
        "first step": "from the files on disk (page cache as it is; torch loaded, its threads and kernels warm) to the "
        "end of the first step, with all reading, adding, quantizing and baking. The fp8 file of strategy 2 is there "
        "before, as if downloaded; the file of strategy 7 is made within, and would be there the next time.",
        "each step": f"median of {steps} further steps. The JSON has the CPU times beside these times (`_cpu_s`).",
        "memory": "highest resident memory of the strategy's own process, less what torch took before it began; "
        "mapped pages of files count.",
        "weight error": "rms of (weight as multiplied - exact) over rms of exact, where exact is base + LoRAs in "
        "float64; all weights with a LoRA or in fp8, on sampled rows.",
        "formats": "each bakes some of the weights with LoRAs into nothing; output error: |(stored - exact) x| over "
        "|exact x| with made-up inputs x (64 strong directions, six channels 20 times as loud), by its inputs: rounded "
        "with error feedback from other such inputs; CPU time of one bake with its measures, per 10^9 weights.",
        "LoRA kept": "1 + <weight - exact, delta> / <delta, delta>, per LoRA; lowest to highest.",
        "strategies": "4, 5 and 7 are this pack's own engine; the others are worked out in plain torch by their "
        "arithmetic, without overhead of a host. benchmarks/ compares with ComfyUI's own code.",
    }
