"""The JSON that leaves this pack, as types: ``docs/findings.schema.json`` says the same to programs.

Null is what was not looked at. A key that only sometimes is there stands in a class with ``total=False``.
"""

from __future__ import annotations

from typing import TypedDict


class FindingJSON(TypedDict):
    """One verdict: what was seen, why it matters, what to do."""

    code: str
    severity: str
    seen: str
    why: str
    fix: str
    evidence: str
    subject: str
    node: str
    text: str
    values: dict[str, str]


class LineageJSON(TypedDict):
    """What is known of a LoRA's training, in short; see lineage.schema.json for all of it."""

    level: str
    trained_with: list[str] | None
    use_with: list[str] | None
    role: str
    accelerator: str | None


class UnmatchedJSON(TypedDict):
    """A module of a LoRA that found no weight, and why."""

    module: str
    reason: str


class CoverageJSON(TypedDict):
    """How much of a LoRA found its weight."""

    modules: int
    matched: int
    unmatched: list[UnmatchedJSON]
    text_encoder: int


class BlocksJSON(TypedDict, total=False):
    """What a row has where block weights are given."""

    blocks: str


class PlannedJSON(CoverageJSON, BlocksJSON):
    """A LoRA of a plan."""

    path: str
    sha256: str
    stage: str
    weight: float
    rounding: str
    dialect: str
    family: str | None
    scale: list[float] | None
    gain: float | None
    lineage: LineageJSON


class LoRAJSON(TypedDict):
    """A LoRA of a model that was checked, with the same keys in documents and workflows."""

    path: str
    stage: str
    weight: float
    node: str | None
    sha256: str | None
    blocks: str | None
    rounding: str | None
    dialect: str | None
    family: str | None
    modules: int | None
    matched: int | None
    unmatched: list[UnmatchedJSON] | None
    text_encoder: int | None
    scale: list[float] | None
    gain: float | None
    lineage: LineageJSON


class BaseJSON(TypedDict):
    """What the LoRAs go into."""

    name: str
    family: str | None
    vanilla: bool
    contains: list[str]


class SamplingJSON(TypedDict):
    """How a workflow samples a model."""

    steps: int | None
    cfg: float | None
    node: str


class ModelJSON(TypedDict):
    """One model: what it is, how it is sampled, its LoRAs in the order they are applied, bottom first."""

    base: BaseJSON
    sampling: list[SamplingJSON] | None
    loras: list[LoRAJSON]


class CheckJSON(TypedDict):
    """What a check tells, of documents and workflows alike."""

    schema: int
    ok: bool
    findings: list[FindingJSON]
    models: list[ModelJSON]


class DocumentJSON(CheckJSON):
    """A checked document; ``base`` and ``loras`` are its one model as it was told before ``models``."""

    base: BaseJSON
    loras: list[PlannedJSON]


class StackLoRAJSON(TypedDict):
    """A LoRA of a workflow, as it was told before ``models``."""

    path: str
    stage: str
    weight: float
    node: str
    lineage: LineageJSON


class StackJSON(TypedDict):
    """A model of a workflow, as it was told before ``models``."""

    base: str
    family: str | None
    sampling: list[SamplingJSON]
    loras: list[StackLoRAJSON]


class WorkflowJSON(CheckJSON):
    """A checked workflow; ``stacks`` are its models as they were told before ``models``."""

    stacks: list[StackJSON]


class ReportJSON(TypedDict):
    """A stack that was planned: the Stack Validator's ui.foundry entry."""

    schema: int
    base: BaseJSON
    loras: list[PlannedJSON]
    findings: list[FindingJSON]
