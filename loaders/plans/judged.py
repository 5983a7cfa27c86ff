"""A stack document as a plan with everything that is to be said of it: what ``check``, ``bake`` and ``batch`` share."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from ...engine.errors import FoundryError
from ...engine.findings import Finding, worst_first
from ...engine.plan import Plan
from ...validator.rules import check
from ..bases.dequantize import DEQUANTIZE
from ..documents.document import Document, Row
from ..lineage.probes import Probed, probe
from ..loras.verify import verify
from ..remote.objects import ANYTHING, Asking
from .loud import kept, known_loudness
from .loudness import loudness
from .planner import plan_document

ANY = "allow accelerators"


@dataclass(frozen=True)
class Judged:
    """The plan of every row that can be planned; all findings, worst first; the error of a row that cannot be used.

    Such an error is about input that cannot be worked with; a verdict (LFxxx) is among the findings alone.
    """

    plan: Plan
    findings: tuple[Finding, ...]
    unusable: FoundryError | None = None


def judged(document: Document, policy: str = ANY, look_into_weights: bool = False, asking: Asking = ANYTHING) -> Judged:
    """Plan a document and judge it; FoundryError for a base that cannot be used.

    ``look_into_weights`` also compares the LoRAs with each other, as the Stack Validator does; ``asking``: how files
    from elsewhere are asked for.
    """
    failed: list[tuple[FoundryError, Finding]] = []
    plan = plan_document(document, lambda row, error: failed.append((error, error.finding(row.path))), asking)
    damaged = verify(plan)
    loud = () if damaged else loudness(plan)
    probed = probe(plan) if look_into_weights and not damaged else Probed()
    plan = plan.with_claims(probed.claims)
    told = [finding for _, finding in failed]
    findings = worst_first([*told, *check(plan, policy), *damaged, *loud, *probed.findings])
    unusable = (error for error, _ in failed if not error.code.startswith("LF"))
    return Judged(plan, findings, next(unusable, None))


def measured_loudness(base: Path, lora: Path) -> Callable[[str, float], tuple[Finding, ...]]:
    """LF305 of a LoRA file on a base file, by its name and strength; measured where nobody has, in seconds.

    Nothing for files that are no such, or do not fit: that is told elsewhere.
    """
    with suppress(FoundryError):
        if kept(base, lora) is None:
            rows = (Row(str(lora)),)
            loudness(plan_document(Document(str(base), stack=rows, on_quantized_base=DEQUANTIZE, allow_partial=True)))
    return known_loudness(base, lora)
