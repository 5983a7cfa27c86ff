"""Trainers' config files: AI Toolkit, kohya and musubi, SimpleTuner, OneTrainer, PEFT, and a README's front matter."""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Iterator, Mapping
from typing import Any

from ...engine.lineage import GUESSED, Claim, Ingredient
from ..disk.text import parse_text
from .claims import (
    MAX_WRITTEN,
    MOST_NAMED,
    Statement,
    base_name,
    checked,
    evidence,
    evidence_error,
    ingredient,
    number,
    options_statement,
    outputs_of,
    texts,
    touched_base,
)

TOML_READER = "tomllib" if sys.version_info >= (3, 11) else "tomli"
FENCE = "---"
Options = Mapping[str, Any]


def read_yaml(text: str, where: str) -> list[Statement]:
    """Claims of a YAML file: an AI Toolkit job; other YAML says nothing."""
    return list(_ai_toolkit(_mapping(parse_text(checked(text, where), where)), where))


def read_toml(text: str, where: str) -> list[Statement]:
    """Claims of a kohya or musubi config (``--config_file``, ``--output_config``); its sections count as one.

    That it names no base LoRA is no statement: the command line may have. Raises FoundryError ``evidence``, also on
    Python 3.10 without the package ``tomli``.
    """
    try:
        reader = importlib.import_module(TOML_READER)
    except ModuleNotFoundError as error:
        raise evidence_error(where, "evidence.no_toml") from error
    try:
        data = reader.loads(checked(text, where))
    except (ValueError, RecursionError) as error:
        raise evidence_error(where, "evidence.toml", reason=str(error)[:100]) from error
    statement = options_statement(_flat(data), where, "{} = {}")
    return [statement] if statement else []


def read_config(data: Options, where: str) -> list[Statement]:
    """Claims of parsed JSON from a trainer; nothing when it is of none that is known."""
    options = {key.removeprefix("--"): value for key, value in data.items()}
    if "assistant_lora_path" in options or "disable_assistant_lora" in options:
        return _simple_tuner(options, where)
    if "process" in _mapping(options.get("config")):
        return list(_ai_toolkit(options, where))
    if "peft_type" in options:
        return _guessed_base(options, "base_model_name_or_path", where)
    if "training_method" in options and "base_model_name" in options:  # OneTrainer
        return _guessed_base(options, "base_model_name", where)
    statement = options_statement(_flat(options), where, "{}: {}")
    return [statement] if statement else []


def read_readme(text: str, where: str) -> list[Statement]:
    """Claims of the front matter of a model card: ``base_model`` is a guess, whatever ``base_model_relation`` says."""
    lines = text[:MAX_WRITTEN].split("\n")
    ends = [number for number, line in enumerate(lines) if line.rstrip() == FENCE]
    if len(ends) < 2 or ends[0] != 0:
        return []
    return _guessed_base(_mapping(parse_text("\n".join(lines[1 : ends[1]]), where)), "base_model", where)


def parse_json(text: str, where: str) -> Any:
    """JSON data. Raises FoundryError ``evidence``."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise evidence_error(where, "evidence.json") from error


def _ai_toolkit(job: Options, where: str) -> Iterator[Statement]:
    """The claims of a job's trainings. AI Toolkit is told nothing else: a base LoRA that is not named was not there."""
    config = _mapping(job.get("config"))
    processes = config.get("process")
    for process in processes[:MOST_NAMED] if isinstance(processes, list) else ():
        kind = _mapping(process).get("type")
        if not isinstance(kind, str) or "train" not in kind or not isinstance(process.get("model"), Mapping):
            continue  # one that makes pictures, extracts or merges
        if claim := _ai_toolkit_model(process["model"], isinstance(process.get("network"), Mapping), where):
            yield Statement(claim, tuple(base_name(name) for name in texts(config.get("name"))))


def _ai_toolkit_model(model: Options, new_lora: bool, where: str) -> Claim | None:
    """``lora_path(s)`` are fused and stay in use; the assistant is for training only, the inference LoRA for use."""
    fused = _ai_toolkit_rows(model)
    assistant = [ingredient(name, 1.0) for name in texts(model.get("assistant_lora_path"))[:1]]
    after = [ingredient(name) for name in texts(model.get("inference_lora_path"))[:1]]
    keys = ("lora_path", "lora_paths", "lora_weight", "assistant_lora_path", "inference_lora_path")
    told = [f"{key}: {model[key]}" for key in keys if model.get(key)]
    if not told:
        told = [f"model: {model.get('name_or_path')} with no lora_path and no assistant_lora_path"]
        bases = [str(model.get("name_or_path") or "")]
        if not new_lora or touched_base(bases) or not all(bases):
            return None
    # After the "|" of a qtype stands an adapter that repairs the quantization: shown, but no base LoRA.
    told += [f"qtype: {text}" for text in texts(model.get("qtype")) if "|" in text]
    use_with = (*fused, *after) if fused or assistant or after else None
    return Claim(evidence(where, "; ".join(told)), trained_with=(*fused, *assistant), use_with=use_with)


def _ai_toolkit_rows(model: Options) -> list[Ingredient]:
    rows = model.get("lora_paths")
    one = texts(model.get("lora_path"))[:1]
    if one or not isinstance(rows, list):
        return [ingredient(name, number(model.get("lora_weight", 1.0))) for name in one]
    pairs = [row if isinstance(row, Mapping) else {"path": row} for row in rows[:MOST_NAMED]]
    return [ingredient(name, number(row.get("weight", 1.0))) for row in pairs for name in texts(row.get("path"))[:1]]


def _simple_tuner(options: Options, where: str) -> list[Statement]:
    """The assistant is merged for training and, unless a strength says otherwise, dropped afterwards."""
    names = texts(options.get("assistant_lora_path"))[:1]
    off = options.get("disable_assistant_lora") in (True, "true", "True")
    trains = number(options.get("assistant_lora_strength", 1.0))
    stays = number(options.get("assistant_lora_inference_strength", 0.0))
    if options.get("model_type", "lora") != "lora" or not (off or names):
        return []
    if off or trains == 0:
        quote = "disable_assistant_lora: true" if off else "assistant_lora_strength: 0"
        return [Statement(Claim(evidence(where, quote), trained_with=()), outputs_of(options))]
    name = "/".join([*names, *texts(options.get("assistant_lora_weight_name"))[:1]])
    quote = f"assistant_lora_path: {name}; assistant_lora_inference_strength: {stays if stays is not None else '?'}"
    use_with = None if stays is None else (ingredient(name, stays),) if stays else ()
    claim = Claim(evidence(where, quote), (ingredient(name, trains),), use_with, ask=stays is None)
    return [Statement(claim, outputs_of(options))]


def _guessed_base(options: Options, key: str, where: str) -> list[Statement]:
    """A base whose own name says that an accelerator was merged into it: no more than a guess that it is one."""
    name = touched_base(texts(options.get(key)))
    if not name:
        return []
    return [Statement(Claim(evidence(where, f"{key}: {name}", GUESSED), trained_with=(ingredient(name),)))]


def _flat(data: Options) -> dict[str, Any]:
    """Options of all sections as one mapping, as kohya reads them."""
    flat: dict[str, Any] = {}
    for key, value in data.items():
        flat.update(value if isinstance(value, Mapping) else {key: value})
    return flat


def _mapping(data: Any) -> dict[str, Any]:
    return {key: value for key, value in data.items() if isinstance(key, str)} if isinstance(data, Mapping) else {}
