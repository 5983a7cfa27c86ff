"""The user's own word on a LoRA, as a node: what it was trained with, what it is to be used with, what it is for."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from ..engine.lineage import ROLES, UNKNOWN
from ..engine.texts.say import refuse
from . import host
from .common import FoundryNode, check_files, file_state, reply
from .lineage import Declaration, NamedLoRAs, claim_sentence, declare, declared_before
from .rows import STRENGTH, lora_choices, read_stack
from .sockets import LORA_STACK, check_links

NOT_KNOWN, VANILLA, AS_TRAINED = "unknown", "vanilla base", "as trained"
NOTHING_SAID = "nothing is written down"


class FoundryDeclareLineage(FoundryNode):
    """Writes a lineage record by the contents of the file: it holds wherever the LoRA is, and whatever it is called."""

    DESCRIPTION = (
        "Says what a LoRA was trained with, once and for all: the Stack Validator and the lint go by it. With "
        "everything unknown it takes back what you said before."
    )
    SEARCH_ALIASES = ["lora metadata", "trained with"]
    RETURN_TYPES = ("STRING",)
    RETURN_NAMES = ("report",)
    OUTPUT_TOOLTIPS = ("What is written down about this LoRA.",)
    OUTPUT_NODE = True

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        """ComfyUI's V1 declaration of inputs."""
        loras = lora_choices()
        return {
            "required": {
                "lora_name": (loras, {"tooltip": "The LoRA you know something about."}),
                "trained_with": (
                    [NOT_KNOWN, VANILLA, *loras],
                    {"tooltip": "The base LoRA that was fused while it was trained; vanilla base: none was."},
                ),
                "use_with": (
                    [AS_TRAINED, VANILLA, *loras],
                    {"tooltip": "Its maker says to use it on something else than it was trained on: choose that."},
                ),
                "role": (list(ROLES), {"default": UNKNOWN, "tooltip": "What the LoRA is for."}),
            },
            "optional": {
                "strength": ("FLOAT", {**STRENGTH, "tooltip": "Of the base LoRA while it was trained."}),
                "lora_stack": (LORA_STACK, {"tooltip": "More base LoRAs that it was trained with."}),
                "note": ("STRING", {"default": "", "tooltip": "How you know; kept with the record."}),
            },
        }

    @classmethod
    def VALIDATE_INPUTS(
        cls, input_types: Mapping[str, Any], lora_name: Any = None, trained_with: Any = None, use_with: Any = None
    ) -> bool | str:
        """Wires, and that the LoRAs exist."""
        named = {lora_name, trained_with, use_with} - {NOT_KNOWN, VANILLA, AS_TRAINED, None}
        return check_files(sorted(named, key=str), "loras") or check_links(cls.INPUT_TYPES(), input_types)

    @classmethod
    def IS_CHANGED(cls, lora_name: str = "", trained_with: str = "", use_with: str = "", **_: Any) -> str:
        """Runs again when one of the files was replaced, or what is written down is no longer what it wrote."""
        states = [file_state(name, "loras") for name in (lora_name, trained_with, use_with)]
        return " ".join([*states, declared_before(lora_name)])

    def run(
        self,
        lora_name: str,
        trained_with: str,
        use_with: str,
        role: str,
        strength: float = 1.0,
        lora_stack: Iterable[Any] | None = None,
        note: str = "",
    ) -> dict[str, Any]:
        """(report,)."""
        more = [(row[0], row[1]) for row in read_stack(lora_stack)]
        declaration = Declaration(trained_rows(trained_with, strength, more), used_rows(use_with), role, note.strip())
        record = declare(lora_name, declaration, host.progress())
        claims = record.claims if record else ()
        lines = [f"{lora_name}:", *map(claim_sentence, claims)] if claims else [f"{lora_name}: {NOTHING_SAID}"]
        data: dict[str, Any] = {"findings": [], "lora": lora_name, "lineage": record.to_json() if record else None}
        return reply(("\n".join(lines),), lines, data)


def trained_rows(chosen: str, strength: float, more: NamedLoRAs) -> NamedLoRAs | None:
    """What it was trained with. FoundryError ``lineage`` for more base LoRAs beside ``unknown`` or ``vanilla base``."""
    if chosen not in (NOT_KNOWN, VANILLA):
        return [(chosen, strength), *more]
    if more:
        raise refuse("lineage.stack_beside", chosen=repr(chosen))
    return () if chosen == VANILLA else None


def used_rows(chosen: str) -> NamedLoRAs | None:
    """What it is to be used with; None: as it was trained."""
    return {AS_TRAINED: None, VANILLA: ()}.get(chosen, [(chosen, None)])
