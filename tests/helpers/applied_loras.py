"""What a prompt puts on the models and CLIPs of its nodes, worked out by hand: the referee of conversions.

Written apart from the code it judges. Names are compared without folder and ending; sums of LoRAs have no order.
"""

from __future__ import annotations

import json
import re
from typing import Any

Prompt = dict[str, dict[str, Any]]
Lora = tuple[str, Any]  # name, strength: a number, or the link that brings it
FP8 = ("fp8_e4m3fn", "fp8_e4m3fn_fast", "fp8_e5m2")
FORMATS = {("float8_e4m3fn", "full precision"): FP8[0], ("float8_e4m3fn", "fp8"): FP8[1]}
LOADERS = {"UNETLoader": "unet_name", "FoundryLoadBase": "base_name", "CheckpointLoaderSimple": "ckpt_name",
           "FoundryLoadCheckpoint": "ckpt_name"}  # fmt: skip
OWN = re.compile(r"Foundry\w+")


class Seen:
    """A model or CLIP: where it comes from, its LoRAs in their order, nodes passed, how it is quantized."""

    def __init__(
        self, origin: Any, loras: list[Lora] | None = None, passed: tuple[str, ...] = (), fp8: str = ""
    ) -> None:
        self.origin, self.loras, self.passed, self.fp8 = origin, loras or [], passed, fp8

    def plus(self, rows: list[Lora]) -> Seen:
        return Seen(self.origin, [*self.loras, *rows], self.passed, self.fp8)

    def key(self) -> Any:
        loras = sorted((name, str(s) if is_link(s) else f"{s:g}") for name, s in self.loras if s)
        return json.dumps([self.origin, loras, self.passed, self.fp8])


def plain(name: Any) -> str:
    name = name["content"] if isinstance(name, dict) else name
    return str(name).replace("\\", "/").rpartition("/")[2].removesuffix(".safetensors")


def is_link(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 2 and isinstance(value[1], int)


def seen_by(prompt: Prompt) -> dict[tuple[str, str], str]:
    """(node, input) -> what arrives there, of every model and CLIP that another node than a LoRA loader takes.

    Nodes that only change how a model is run may stand before LoRAs or after: what comes out of them counts.
    """
    found = {}
    for key, node in prompt.items():
        if rows_of(prompt, node) is not None or OWN.fullmatch(node["class_type"]):
            continue
        if re.fullmatch("ModelSampling.*|CFGNorm", node["class_type"]):
            continue
        for name, value in node["inputs"].items():
            if is_link(value) and value[0] in prompt:
                found[key, name] = what(prompt, value).key()
    return found


def what(prompt: Prompt, link: list[Any]) -> Seen:
    """What comes out of an output."""
    node = prompt.get(link[0])
    if node is None:
        return Seen(["nothing"])
    kind, inputs = node["class_type"], node["inputs"]
    if kind in LOADERS and link[1] == 0:
        dtype = inputs.get("weight_dtype", "default")
        return Seen(["file", inputs[LOADERS[kind]] if not is_link(inputs[LOADERS[kind]]) else "wired"],
                    fp8=dtype.replace("e5m2", "e4m3fn") if dtype in FP8 else "")  # fmt: skip
    if kind in LOADERS:
        return Seen(["file", inputs[LOADERS[kind]], link[1]])
    if (rows := rows_of(prompt, node)) is not None:
        side = "clip" if link[1] == 1 else "model"
        source = inputs.get(side, inputs.get("optional_clip") if side == "clip" else None)
        return what(prompt, source).plus([(name, row[link[1]]) for name, *row in rows]) if source else Seen(["none"])
    if kind == "FoundryStackValidator" or kind == "FoundryApply":
        return what(prompt, inputs["model"])
    if kind == "FoundryQuantizeFP8":
        below = what(prompt, inputs["model"])
        return Seen(below.origin, below.loras, below.passed, FORMATS[inputs["format"], inputs["matmul"]])
    if is_link(inputs.get("model")) and link[1] == 0:
        below = what(prompt, inputs["model"])
        return Seen(below.origin, below.loras, (*below.passed, link[0]), below.fp8)
    return Seen(["node", *link])


def rows_of(prompt: Prompt, node: dict[str, Any]) -> list[tuple[str, Any, Any]] | None:
    """(name, strength on the model, on the CLIP) of the LoRAs a node puts on what it hands on; None: it does not."""
    kind, i = node["class_type"], node["inputs"]
    if kind in ("LoraLoader", "LoraLoader|pysssss"):
        return [(named(i["lora_name"]), i["strength_model"], i["strength_clip"])]
    if kind == "LoraLoaderModelOnly":
        return [(named(i["lora_name"]), i["strength_model"], 0)]
    if kind == "FoundryFuseBaseLoRA":
        return [(named(i["lora_name"]), i["strength"], 0)]
    if kind in ("FoundryStackLoRAs", "CR Apply LoRA Stack", "easy loraStackApply"):
        return listed(prompt, i.get("lora_stack"))
    if kind == "CR Load LoRA":
        return [(plain(i["lora_name"]), i["strength_model"], i["strength_clip"])] if i["switch"] == "On" else []
    if kind == "Power Lora Loader (rgthree)":
        rows = [row for row in i.values() if isinstance(row, dict) and row.get("on") and row["lora"] != "None"]
        twos = [row["strength"] if row.get("strengthTwo") is None else row["strengthTwo"] for row in rows]
        return [(plain(row["lora"]), row["strength"], two) for row, two in zip(rows, twos, strict=True)]
    if kind == "Lora Loader Stack (rgthree)":
        named_rows = [(i[f"lora_0{n}"], i[f"strength_0{n}"]) for n in range(1, 5) if i[f"lora_0{n}"] != "None"]
        return [(plain(name), strength, strength) for name, strength in named_rows]
    if kind == "LoadLoraModel":
        return [(plain(i[f"loras.{n}.lora_name"]), i[f"loras.{n}.strength"], 0) for n in range(2)]
    if kind == "Lora Loader (LoraManager)":
        return [*listed(prompt, i.get("lora_stack")), *managed(i)]
    if kind == "LoRA Text Loader (LoraManager)":
        tags = re.findall(r"<lora:([^:>]+):([\d.]+):?([\d.]*)>", i["lora_syntax"])
        return [(name, float(model), float(clip or model)) for name, model, clip in tags]
    return None


def named(name: Any) -> str:
    return f"wired {name}" if is_link(name) else plain(name)


def managed(i: dict[str, Any]) -> list[tuple[str, Any, Any]]:
    rows = i["loras"]["__value__"] if isinstance(i["loras"], dict) else i["loras"]
    return [(row["name"], float(row["strength"]), float(row["clipStrength"])) for row in rows if row["active"]]


def listed(prompt: Prompt, link: Any) -> list[tuple[str, Any, Any]]:
    """The rows of a list of LoRAs, those that are wired in first."""
    if link is None:
        return []
    node = prompt[link[0]]
    kind, i = node["class_type"], node["inputs"]
    before = listed(prompt, i.get("lora_stack"))
    if kind == "CR LoRA Stack":
        on = [n for n in range(1, 4) if i.get(f"switch_{n}") == "On" and i[f"lora_name_{n}"] != "None"]
        own = [(plain(i[f"lora_name_{n}"]), i[f"model_weight_{n}"], i[f"clip_weight_{n}"]) for n in on]
    elif kind == "easy loraStack":
        numbers = range(1, i["num_loras"] + 1)
        own = [
            (plain(i[f"lora_{n}_name"]), i[f"lora_{n}_model_strength"], i[f"lora_{n}_clip_strength"]) for n in numbers
        ]
    elif kind == "LoRA Stacker":
        numbers = range(1, i["lora_count"] + 1)
        own = [(plain(i[f"lora_name_{n}"]), i[f"model_str_{n}"], i[f"clip_str_{n}"]) for n in numbers]
    elif kind == "Lora Stacker (LoraManager)":
        own = managed(i)
    elif kind == "FoundryLoRA":
        own = [(named(i["lora_name"]), i["strength_model"], i["strength_clip"])] if i["enabled"] else []
    elif kind == "FoundryLoRAStack":
        rows = [row for row in json.loads(i["loras"]) if row.get("on", True)]
        rows = [row for row in rows if row.get("solo")] or rows
        own = [(plain(row["path"]), row["strength"], row.get("clip_strength", row["strength"])) for row in rows]
    else:
        raise AssertionError(f"{kind} lists LoRAs in a way this referee does not know")
    return [*before, *own]
