"""The stack validator: says what is wrong with a stack before it costs anything."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..engine.findings import stops, worst_first
from ..engine.guard import raise_first
from ..engine.report import plan_json, plan_sentences
from ..loaders.lineage.probes import Probed, probe
from ..loaders.loras.verify import verify
from ..loaders.plans.loudness import loudness
from ..loaders.plans.strength import with_energy
from ..loaders.workflows.reading import graph_of_prompt
from ..loaders.workflows.sampling import sampled_below
from ..validator.rules import check
from ..validator.stacks import ALLOW, POLICIES
from . import host
from .common import HIDDEN, StageNode, picture_of, reply, stage_input
from .news import JUDGED, changes, known_now
from .sockets import ANY, STACKED
from .sources import plan_of


class FoundryStackValidator(StageNode):
    """Reads every LoRA of the plan, and reports order, quantization, coverage, family and damaged tensors."""

    DESCRIPTION = "Checks the plan so far and shows the findings here, in the report output and in /history."
    SEARCH_ALIASES = ["check loras", "lora compatibility"]
    RETURN_TYPES = (STACKED, "STRING", "BOOLEAN", "IMAGE")
    RETURN_NAMES = (STACKED, "report", "ok", "image")
    OUTPUT_TOOLTIPS = (
        "The same plan.",
        "The findings as text.",
        "True when nothing stops a run: no error, and in strict mode no warning.",
        "Which modules fit, and where each LoRA is strong.",
    )
    OUTPUT_NODE = True
    INPUTS = {
        "required": {
            "model": stage_input(ANY, "The plan to check."),
            "policy": (
                list(POLICIES),
                {"default": ALLOW, "tooltip": "allow accelerators: a Lightning LoRA on vanilla-trained LoRAs is fine."},
            ),
            "strict": ("BOOLEAN", {"default": False, "tooltip": "Stop the run at the first error or warning."}),
        },
        "hidden": HIDDEN,
    }

    @classmethod
    def IS_CHANGED(cls, unique_id: str | None = None, **_: Any) -> int:
        """Runs again when something else is known of LoRAs it looked at: no input tells, for plans are kept."""
        return changes(JUDGED, str(unique_id))

    def run(
        self,
        model: Any,
        policy: str,
        strict: bool,
        prompt: Mapping[str, Any] | None = None,
        unique_id: str | None = None,
        **_: Any,
    ) -> dict[str, Any]:
        """(the same plan, report, ok, image [1, height, width, 3])."""
        plan = known_now(plan_of(model), str(unique_id))
        damaged = verify(plan)
        loud = () if damaged else loudness(plan, host.progress())
        probed = Probed() if damaged else probe(plan, host.progress())
        plan = plan.with_claims(probed.claims)
        sampling = sampled_below(graph_of_prompt(prompt or {}), str(unique_id))
        findings = worst_first([*check(plan, policy, sampling), *damaged, *loud, *probed.findings])
        if strict:
            raise_first(findings, strict=True)
        lines, told = plan_sentences(plan, findings), plan_json(plan, findings)
        told = told if damaged else with_energy(told, plan)  # how strong they are is known by now
        outputs = (plan, "\n".join(lines), not stops(findings, strict), picture_of(told, plan))
        return reply(outputs, lines, told)
