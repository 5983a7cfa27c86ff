"""The JSON of plans and checks, as types: ``docs/findings.schema.json`` is made of them.

Null is what was not looked at. A key that only sometimes is there stands in a class with ``total=False``. In
``Annotated`` a text is the description of a key, a pair one more keyword of JSON Schema. The JSON of bakes is in
``json_bake.py``, that of lineage records in ``json_lineage.py``.
"""

from __future__ import annotations

from typing import Annotated, Any, TypedDict

LEVELS, CODES = ("declared", "derived", "guessed", "unknown"), "^(LF[1-5][0-9]{2}|[a-z]+)$"
Level = Annotated[
    str, ("enum", LEVELS), "How well it is known; only declared and derived evidence may raise a warning or an error."
]
Severity = Annotated[
    str,
    ("enum", ("error", "warning", "question", "note")),
    "error stops a run, and so does a warning in strict mode. question: it may be wrong, and only you know.",
]
Stage = Annotated[str, ("enum", ("fuse", "stack")), "fuse: into the base, before anything else. stack: on top of it."]
Rounding = Annotated[str, ("enum", ("once", "match training"))]
Count = Annotated[int, ("minimum", 0)]
Names = Annotated[list[str], "Names of LoRAs; null: nobody says; empty: the untouched base."]
Scale = Annotated[
    list[float], ("minItems", 2), ("maxItems", 2), "Effective scale (strength * alpha / rank): least, most."
]
Gain = Annotated[float, "Share of its effect that a bake kept; null before one."]
TextKey = Annotated[str, "Key of the template for translations, or empty."]
TextValues = Annotated[dict[str, str], "What fills the blanks of that template."]
Ok = Annotated[bool, "Whether nothing stops a run: no error, and in strict mode no warning."]


_Fix = TypedDict(
    "_Fix",
    {
        "input": Annotated[str, "set: which input."],
        "value": Annotated[float, "set: its new value."],
        "from": Annotated[str, "replace: the file name that is there."],
        "to": Annotated[str, "replace: the one to put in its place."],
        "lora": Annotated[str, "fuse, stack, remove: the LoRA's file name."],
    },
    total=False,
)


class FixJSON(_Fix):
    """One change of the graph. ``set``: an input gets a value; ``replace``: a file name, in the node or above it.
    ``convert``: the native LoRA loaders of the workflow become the stages of this pack. ``fuse``: a LoRA goes into
    1 Fuse Base LoRA below the node's stack; ``stack``: a native loader's goes into the stack; ``remove``: it goes.
    """

    action: Annotated[str, ("enum", ("set", "replace", "convert", "fuse", "stack", "remove"))]
    node: str


class FixableJSON(TypedDict, total=False):
    """What settles a finding."""

    fix_actions: Annotated[list[FixJSON], "Changes that settle it, all to be made together; absent where you choose."]


class FindingJSON(FixableJSON):
    """One verdict: what was seen, why it matters, what to do."""

    code: Annotated[
        str,
        ("pattern", CODES),
        "LF1xx order and base, LF2xx quantization, LF3xx files, LF4xx strengths and conflicts, LF5xx merges; or the "
        "area of an error, in lower case.",
    ]
    severity: Severity
    seen: Annotated[str, ("minLength", 1), "With names and numbers."]
    why: str
    fix: str
    evidence: Level
    subject: Annotated[str, "The file it is about, or empty."]
    node: Annotated[str, "The node of the workflow, '12' or '3:12' inside a subgraph, or empty."]
    text: TextKey
    values: TextValues


Findings = Annotated[list[FindingJSON], "Worst first."]


class LineageJSON(TypedDict):
    """What is known of a LoRA's training, in short; see lineage.schema.json for all of it."""

    level: Level
    trained_with: Names | None
    use_with: Names | None
    role: str
    accelerator: Annotated[str | None, "Its entry in the registry of accelerators."]


class UnmatchedJSON(TypedDict):
    """A module of a LoRA that found no weight, and why."""

    module: str
    reason: str


class CoverageJSON(TypedDict):
    """How much of a LoRA found its weight."""

    modules: Count
    matched: Annotated[Count, "How many of its modules found their weight."]
    unmatched: list[UnmatchedJSON]
    text_encoder: Count
    lost: Annotated[float, "Share of its sum of squares that lies in modules without a weight."]


class BlocksJSON(TypedDict, total=False):
    """What a row has where block weights are given."""

    blocks: Annotated[str, "Factors by block, where there are some."]


class PlannedJSON(CoverageJSON, BlocksJSON):
    """A LoRA of a plan."""

    path: str
    sha256: str
    stage: Stage
    weight: float
    rounding: Rounding
    dialect: str
    family: str | None
    scale: Scale | None
    gain: Gain | None
    lineage: LineageJSON


class MeasuredJSON(PlannedJSON, total=False):
    """The same, and what is known of it once it was measured."""

    energy: Annotated[dict[str, float], "Share of what it adds, as a sum of squares, by block of the model."]


class LoRAJSON(TypedDict):
    """A LoRA of a model that was checked, with the same keys in documents and workflows; null: not looked at."""

    path: str
    stage: Stage
    weight: float
    node: Annotated[str | None, "The node of the workflow that applies it."]
    sha256: str | None
    blocks: Annotated[str | None, "Factors by block; empty where there are none."]
    rounding: Rounding | None
    dialect: str | None
    family: str | None
    modules: Count | None
    matched: Annotated[Count | None, "How many of its modules found their weight."]
    unmatched: list[UnmatchedJSON] | None
    text_encoder: Count | None
    lost: Annotated[float | None, "Share of its sum of squares that lies in modules without a weight."]
    scale: Scale | None
    gain: Gain | None
    lineage: LineageJSON


class BaseJSON(TypedDict):
    """What the LoRAs go into."""

    name: str
    family: str | None
    vanilla: Annotated[bool, "No base LoRA is fused, by an explicit choice."]
    contains: Annotated[list[str], "LoRAs known to be inside already."]


class SamplingJSON(TypedDict):
    """How a workflow samples a model."""

    steps: int | None
    cfg: float | None
    node: str


class ModelJSON(TypedDict):
    """One model: what it is, how it is sampled, its LoRAs."""

    base: BaseJSON
    sampling: Annotated[list[SamplingJSON] | None, "How a workflow samples it; null in a document."]
    loras: Annotated[list[LoRAJSON], "In the order they are applied, bottom first."]


class CheckJSON(TypedDict):
    """What a check tells, of documents and workflows alike."""

    schema: Annotated[int, ("const", 2)]
    ok: Ok
    findings: Findings
    models: Annotated[list[ModelJSON], "One for every model that is sampled or saved; a document has one."]


class DocumentJSON(CheckJSON):
    """A document: `lora-foundry check STACK --json`. `base` and `loras` are its model as told before `models`."""

    base: BaseJSON
    loras: list[PlannedJSON]
    memory_bytes: Annotated[int, "What a bake of it in files holds at most, by shapes alone."]


class StackLoRAJSON(TypedDict):
    """A LoRA of a workflow, as it was told before `models`."""

    path: str
    stage: Stage
    weight: float
    node: str
    lineage: LineageJSON


class StackJSON(TypedDict):
    """A model of a workflow, as it was told before `models`."""

    base: str
    family: str | None
    sampling: list[SamplingJSON]
    loras: Annotated[list[StackLoRAJSON], "In the order they are applied, bottom first."]


class LintJSON(CheckJSON):
    """A workflow: `lora-foundry check WORKFLOW --json` and POST /lora_foundry/lint."""

    stacks: Annotated[list[StackJSON], "The models as they were told before `models`."]


class ReportJSON(TypedDict):
    """A stack that was planned: the Stack Validator's ui.foundry entry."""

    schema: Annotated[int, ("const", 1)]
    base: BaseJSON
    loras: list[MeasuredJSON]
    findings: Findings
    memory_bytes: Annotated[int, "What a bake of it in files holds at most, by shapes alone."]


class ErrorJSON(TypedDict):
    """Why something cannot be done."""

    code: str
    what: str
    why: str
    fix: str
    text: TextKey
    values: TextValues


class CheckedJSON(TypedDict):
    """One of several files that were checked."""

    file: str
    ok: Ok
    findings: Findings
    error: Annotated[ErrorJSON | None, "Why it could not be checked."]


class ChecksJSON(TypedDict):
    """`lora-foundry check FILE FILE ... --json`, and that of a folder."""

    ok: Annotated[bool, "Whether nothing stops any of them."]
    files: list[CheckedJSON]


class FailureJSON(TypedDict):
    """What --json prints when a command cannot be done."""

    error: ErrorJSON
    findings: Findings


class ConvertedRowJSON(TypedDict, total=False):
    """A LoRA that moved."""

    path: str
    strength: float
    clip_strength: Annotated[float, "stacked: on the text encoders."]
    on: Annotated[bool, "stacked: whether it is switched on."]


class ConvertedJSON(TypedDict):
    """One model whose LoRAs are in nodes of ours now."""

    base: Annotated[str, "The name of its file, or empty."]
    fused: Annotated[list[ConvertedRowJSON], "Known accelerators, in their order."]
    stacked: Annotated[list[ConvertedRowJSON], "All other LoRAs, in their order."]
    finish: Annotated[str, ("enum", ("apply", "quantize"))]
    nodes: Annotated[list[str], "The new nodes."]


class ConvertJSON(TypedDict):
    """A workflow with our stages in place of native LoRA loaders."""

    schema: Annotated[int, ("const", 1)]
    form: Annotated[str, ("enum", ("workflow", "prompt")), "The form it came in, and `made` is in."]
    changed: Annotated[bool, "Whether anything was converted; if not, `made` is what was given."]
    converted: list[ConvertedJSON]
    left: Annotated[list[FindingJSON], "What stays as it was, and why."]
    made: Annotated[dict[str, Any], "The workflow."]
