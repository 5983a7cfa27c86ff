"""The JSON of ``lora-foundry demo`` and ``benchmark``, as types: orders and formats, compared."""

from __future__ import annotations

from typing import Annotated, TypedDict

from .json_bake import Error
from .json_types import Count, Findings, MeasuredJSON, Stage

Seconds = Annotated[float, ("minimum", 0)]
Share = Annotated[float, "Of a LoRA's effect that is in the weights; 1 is all of it."]


class FormatJSON(TypedDict):
    """One quantization format on some weights with LoRAs."""

    format: str
    bytes: Annotated[float, "Of one weight, with its share of the scales."]
    weight_error: Error
    gain: Annotated[float | None, "The least share that is left of a LoRA; null: no LoRA is on these weights."]
    output_error: Annotated[Error, "Of products with made-up inputs."]
    calibrated_output_error: Annotated[Error, "The same, rounded by what is known of such inputs."]
    seconds: Annotated[float, "CPU time per 10^9 weights."]
    calibrated_seconds: Annotated[float, "The same with what is known of the inputs."]


class OrderJSON(TypedDict):
    """One order of fusing, stacking and quantizing, and what it leaves of the LoRAs."""

    order: str
    verdict: str
    ok: Annotated[bool, "It came out as expected: whole, wrong by as much as it has to be, or refused."]
    error: Annotated[Error | None, "Of the weights against float64; null: refused."]
    gains: Annotated[dict[str, Share], "By LoRA; empty: refused."]
    refusal: Annotated[str, "The sentence it was refused with, or empty."]


class LeftJSON(TypedDict, total=False):
    """What is there where files are left."""

    kept: Annotated[str, "With --out: the folder with the files."]


class DemoJSON(LeftJSON):
    """What `lora-foundry demo --json` prints."""

    ok: Annotated[bool, "Every order and format came out as expected."]
    orders: Annotated[list[OrderJSON], "The right one first."]
    formats: list[FormatJSON]
    weights: Annotated[Count, "That the orders were measured on."]
    seconds: Seconds


class HostJSON(TypedDict):
    """The ComfyUI that was used."""

    path: str
    version: str


class AnsweredJSON(TypedDict):
    """What ComfyUI answered to a wrong wire."""

    status: Annotated[int, "Of HTTP; 400 is right."]
    message: str


class HostDemoJSON(TypedDict):
    """What `lora-foundry demo --host --json` prints."""

    ok: Annotated[bool, "The LoRAs are whole, the model is quantized, a picture was made, the wrong wire refused."]
    host: HostJSON
    loras: list[MeasuredJSON]
    findings: Findings
    report: Annotated[list[str], "What 3 Quantize showed on its node."]
    image: Annotated[str, "The picture."]
    wrong: AnsweredJSON
    seconds: Seconds


class MachineJSON(TypedDict):
    """The machine, in facts that may be shown to others."""

    cpu: str
    cores: int | None
    threads: int
    load: Annotated[float | None, "Of the last minute, before the first strategy; null where nobody tells."]
    free_memory_bytes: int | None
    device: Annotated[str, "cpu, or the name of the GPU."]
    device_memory_bytes: Annotated[int | None, "Null without a GPU."]
    os: str
    python: str
    torch: str


class BenchedLoRAJSON(TypedDict):
    """A LoRA of the model."""

    name: str
    weight: Annotated[float, "Its strength."]
    stage: Stage


class BenchedModelJSON(TypedDict):
    """What the strategies were measured with."""

    name: str
    family: str | None
    weights: Count
    matrices: Count
    bytes: Count
    loras: list[BenchedLoRAJSON]
    tokens: Annotated[Count, "Rows of activations of a step."]
    dtype: Annotated[str, "Of the products."]


class GainJSON(TypedDict):
    """How much of a LoRA is in the weights."""

    lora: str
    gain: Share


class TimesJSON(TypedDict, total=False):
    """Seconds until the model was ready, to the end of the first step, of a further step: by the clock, of CPU time."""

    ready_s: Seconds
    first_step_s: Seconds
    step_s: Annotated[Seconds, "Median of the further steps."]
    ready_cpu_s: Annotated[Seconds, "cpu: of CPU time, of all threads."]
    first_step_cpu_s: Seconds
    step_cpu_s: Seconds


class QualityJSON(TypedDict, total=False):
    """How near the weights are to the exact ones."""

    weight_error: Annotated[Error | None, "Null: there are no weights with LoRAs or in fp8."]
    gains: Annotated[list[GainJSON], "Of every LoRA that changes a weight."]


class RunNumbersJSON(TimesJSON, QualityJSON, total=False):
    """The numbers of a strategy that was measured, the sentence of one that was not."""

    memory_bytes: Annotated[int, "Peak of its process, less what torch took before."]
    device_memory_bytes: Annotated[int | None, "Null without a GPU."]
    sentence: Annotated[str, "Why there are no numbers."]


class OutcomeJSON(RunNumbersJSON):
    """What became of a strategy."""

    state: Annotated[str, ("enum", ("measured", "failed", "does not fit"))]


class StrategyJSON(OutcomeJSON):
    """One strategy."""

    strategy: str
    name: str
    does: str
    ours: Annotated[bool, "Through this pack's own engine."]


class SaidJSON(TypedDict):
    """What the numbers say."""

    kind: Annotated[str, ("enum", ("failed", "does not fit", "lost effect", "more error", "busy", "best"))]
    strategy: Annotated[str, "Whose, or empty."]
    text: str


class WrittenJSON(TypedDict, total=False):
    """What is there where files were written."""

    out: Annotated[str, "With --out: the folder with benchmark.md, .json and .svg."]


class BenchmarkJSON(WrittenJSON):
    """What `lora-foundry benchmark --json` prints, and `benchmark.json`."""

    ok: Annotated[bool, "No strategy failed."]
    machine: MachineJSON
    model: BenchedModelJSON
    definitions: Annotated[dict[str, str], "What the words of the table mean."]
    rows: list[StrategyJSON]
    formats: list[FormatJSON]
    findings: list[SaidJSON]
    seconds: Seconds
