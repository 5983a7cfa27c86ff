"""What would settle a finding, as changes of the graph that anybody can make: browser buttons, and scripts."""

from __future__ import annotations

from collections.abc import Mapping

from .json_types import FixJSON

SAMPLING = ("steps", "cfg")  # inputs of a sampler that LF403 tells of
NEAR = "LF306.near"
NATIVE = "LF201.native"
FILES = (".safetensors", ".sft")
LATE = ("LF101.after", "LF101.after_trained", "LF101.after_dependent")  # an accelerator above other LoRAs, by loaders
NEEDED = ("LF102.missing", "LF102.stated", "LF102.vanilla", "LF101.beside", "LF101.beside_dependent")
CONTAINED = ("LF105.contained", "LF105.contained_stacked")
AFTER = ("LF201.after_quantize", "LF201.after_format", "LF201.after_smoothed")
OUTSIDE = ("LF101.lora_above", *AFTER)  # native loaders before our first stage, or after the last
CASTS = ("fp8_e4m3fn", "fp8_e4m3fn_fast", "fp8_e5m2")  # what ComfyUI's loader makes of a file with 16 bits


def fix_actions(text: str, node: str, values: Mapping[str, str]) -> list[FixJSON]:
    """The changes that the text of a finding names, all of them to be made together; none where a person must choose.

    ``set`` gives an input of a node a value; ``replace`` puts one file name for another, in the node or the first one
    above it that has it; ``convert`` makes the LoRA loaders of the workflow into our stages. ``fuse`` puts a LoRA into
    1 Fuse Base LoRA below the stack of the node, ``stack`` a native loader's into the stack, ``remove`` takes it away.
    """
    if not node:
        return []
    if text == NEAR:
        return [{"action": "replace", "node": node, "from": values["name"], "to": values["near"]}]
    if text in LATE or (text == NATIVE and values["quantized"] in CASTS):
        return [{"action": "convert", "node": node}]
    if text in NEEDED and values["base_lora"].endswith(FILES):
        return [{"action": "fuse", "node": node, "lora": values["base_lora"]}]
    if text in CONTAINED:
        return [{"action": "remove", "node": node, "lora": values["lora"]}]
    if text in OUTSIDE:
        return [{"action": "stack", "node": values["at"], "lora": values["loras"]}]
    if text.startswith("LF403."):
        wanted = {name: values[name] for name in SAMPLING if name in values}
        return [{"action": "set", "node": node, "input": name, "value": _least(told)} for name, told in wanted.items()]
    return []


def _least(told: str) -> float:
    """The first number of ``4`` or ``4 to 8``: what an accelerator is made for."""
    number = float(told.split(" to ")[0])
    return int(number) if number.is_integer() else number
