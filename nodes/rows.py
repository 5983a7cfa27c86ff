"""The weighted list of LoRAs: typed rows, and a text of rows. Its value is the LORA_STACK other packs use."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import Any

from ..engine.errors import FoundryError
from ..engine.texts.say import refuse
from ..loaders.disk.header import read_header
from ..loaders.disk.process import PROMPT
from ..loaders.disk.text import too_much_together
from ..loaders.documents.document import parse_rows
from ..loaders.evidence.triggers import trigger_words
from ..loaders.workflows.lora_kinds import NO_LORA
from . import folders
from .common import FoundryNode, check_file, check_files, file_state, file_states
from .refusals import refusal
from .remotes import lora_copy
from .sockets import LORA_STACK, check_links

BLOCKS = "Factors of the strength by block, such as double=1,single=0.5 or double.0-9=0.3; empty: all alike."
STRENGTH = {"default": 1.0, "min": -10.0, "max": 10.0, "step": 0.01}
WORDS = "The trigger words of these LoRAs, each once, with commas as in a prompt: from their metadata and sidecars."


class StackRow(tuple[str, float, float]):
    """``(name, model_strength, clip_strength)``, the row of a LORA_STACK; ``blocks`` are factors of it by block.

    Other packs take a row for three values, so that is what it is; a row that one of them made has no ``blocks``.
    """

    blocks: str

    def __new__(cls, name: str, model_strength: float, clip_strength: float, blocks: str = "") -> StackRow:
        row = super().__new__(cls, (name, model_strength, clip_strength))
        row.blocks = blocks
        return row

    def __getnewargs__(self) -> tuple[Any, ...]:
        """Lets other packs copy and pickle a stack."""
        return (*self, self.blocks)


def read_stack(stack: Iterable[Any] | None) -> list[StackRow]:
    """The rows of a LORA_STACK from any pack; rows without a LoRA or without strength are left out."""
    if not isinstance(stack, list | tuple | None):
        raise refuse("stack.no_list", stack=repr(stack))
    rows = (read_row(row, number) for number, row in enumerate(stack or (), 1))
    return [row for row in rows if row is not None and (row[1] or row[2])]


def read_row(row: Any, number: int) -> StackRow | None:
    """A row of 2 or 3 (and more) fields, or None when it names no LoRA; FoundryError ``stack`` for anything else."""
    try:
        name, model_strength, clip_strength = (None, 0, 0) if row is None else (*row, row[1])[:3]
        if name is None or name.strip().lower() in NO_LORA:
            return None
        blocks = row.blocks if isinstance(row, StackRow) else ""
        return StackRow(name, float(model_strength), float(clip_strength), blocks)
    except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
        raise refuse("stack.row", number=number, row=repr(row)) from error


def words_of(rows: Iterable[StackRow]) -> str:
    """The trigger words of all rows that act, each once, with commas; of a LoRA that cannot be read there are none.

    One from elsewhere that is not here yet is loaded, as it would be to apply it.
    """
    found: list[str] = []
    for name in dict.fromkeys(row[0] for row in rows if row[1] or row[2]):
        with suppress(FoundryError):  # who applies the rows says what is wrong with it
            path = lora_copy(name)
            found += trigger_words(path, read_header(path).metadata)
    return ", ".join(dict.fromkeys(found))


def lora_choices() -> list[str]:
    """The LoRA files ComfyUI knows."""
    return folders.model_files("loras")


class FoundryLoRA(FoundryNode):
    """One LoRA at one strength; chain several into a stack."""

    DESCRIPTION = "One row of a LoRA stack. Chain rows, then connect the last one to Stack LoRAs."
    SEARCH_ALIASES = ["lora loader", "load lora", "lora weights", "trigger words"]
    RETURN_TYPES = (LORA_STACK, "STRING")
    RETURN_NAMES = (LORA_STACK, "trigger_words")
    OUTPUT_TOOLTIPS = ("The rows so far, this one last.", WORDS)

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        """ComfyUI's V1 declaration of inputs."""
        return {
            "required": {
                "lora_name": (lora_choices(), {"tooltip": "A file of the loras folder, in any dialect."}),
                "strength_model": ("FLOAT", {**STRENGTH, "tooltip": "Times alpha / rank: what the weights get."}),
                "strength_clip": ("FLOAT", {**STRENGTH, "tooltip": "For the LoRA's text-encoder parts, if any."}),
                "enabled": ("BOOLEAN", {"default": True, "tooltip": "Off leaves the row out."}),
            },
            "optional": {
                "lora_stack": (LORA_STACK, {"tooltip": "Rows that come before this one."}),
                "blocks": ("STRING", {"default": "", "tooltip": BLOCKS}),
            },
        }

    @classmethod
    def VALIDATE_INPUTS(cls, input_types: Mapping[str, Any], lora_name: Any = None) -> bool | str:
        """Wires, and that the LoRA exists."""
        return check_file(lora_name, "loras") or check_links(cls.INPUT_TYPES(), input_types)

    @classmethod
    def IS_CHANGED(cls, lora_name: str = "", **_: Any) -> str:
        """Runs again when the file was replaced."""
        return file_state(lora_name, "loras")

    def run(
        self,
        lora_name: str,
        strength_model: float,
        strength_clip: float,
        enabled: bool,
        lora_stack: Iterable[Any] | None = None,
        blocks: str = "",
    ) -> tuple[list[StackRow], str]:
        """(the stack with this row added, the trigger words of all its rows)."""
        row = [StackRow(lora_name, strength_model, strength_clip, blocks.strip())] if enabled else []
        rows = [*read_stack(lora_stack), *row]
        return rows, words_of(rows)


class FoundryLoRAStack(FoundryNode):
    """Many LoRAs as a text of rows, for scripts and for people who keep stacks in files."""

    DESCRIPTION = (
        "A list of LoRAs as rows with switches, strengths and trigger words, as Power Lora Loader has it. Scripts send "
        "the same rows as JSON, or a stack document."
    )
    SEARCH_ALIASES = [
        "power lora loader",
        "lora stacker",
        "lora manager",
        "multi lora",
        "lora weights",
        "trigger words",
    ]
    RETURN_TYPES = (LORA_STACK, "STRING")
    RETURN_NAMES = (LORA_STACK, "trigger_words")
    OUTPUT_TOOLTIPS = ("The rows of the text, after those of the input.", WORDS)
    INPUTS = {
        "required": {
            "loras": (
                "STRING",
                {
                    "multiline": True,
                    "default": "[]",
                    "placeholder": '[{"path": "style.safetensors", "strength": 0.7}]',
                    "tooltip": 'JSON rows: "path", "strength", "clip_strength", "on", "solo", "blocks"; or a document.',
                },
            )
        },
        "optional": {"lora_stack": (LORA_STACK, {"tooltip": "Rows that come before these."})},
    }

    @classmethod
    def VALIDATE_INPUTS(cls, input_types: Mapping[str, Any], loras: Any = None) -> bool | str:
        """Wires, and with a typed-in text also its rows: a bad row or a missing file is refused when queued."""
        if isinstance(loras, str):
            try:
                rows, prompt = rows_of_text(loras), PROMPT.get()
                if prompt is not None and not prompt.spend(len(rows)):
                    raise too_much_together("loras")
            except FoundryError as error:
                return refusal(error)
            if fault := check_files([name for name, _, _ in rows], "loras"):
                return fault
        return check_links(cls.INPUT_TYPES(), input_types)

    @classmethod
    def IS_CHANGED(cls, loras: Any = None, **_: Any) -> str:
        """Runs again when one of the files was replaced."""
        rows = rows_of_text(loras) if isinstance(loras, str) else []
        return file_states([name for name, _, _ in rows], "loras")

    def run(self, loras: str, lora_stack: Iterable[Any] | None = None) -> tuple[list[StackRow], str]:
        """(the stack with the rows of the text added, the trigger words of all its rows)."""
        rows = [*read_stack(lora_stack), *rows_of_text(loras)]
        return rows, words_of(rows)


def rows_of_text(text: str) -> list[StackRow]:
    """The enabled rows of a JSON list or stack document."""
    rows = (row for row in parse_rows(text, "loras") if row.on)
    return [
        StackRow(row.path, row.strength, row.strength if row.clip_strength is None else row.clip_strength, row.blocks)
        for row in rows
    ]
