"""What is wrong in a text that somebody wrote: stack documents, lineage records, and what trainers leave behind.

A row: severity, what was seen, why it matters, what to do. ``where`` is the file, or the node, the text stands in.
"""

from __future__ import annotations

_UNBELIEVED = "Nothing in it is believed."
_UNWRITTEN = "Nothing was written down."
_FEW_LINES = "A stack document is a few lines."
_SWITCH = "Use true or false."

DOCUMENTS: dict[str, tuple[str, ...]] = {
    # as a text
    "document.large": ("error", "{where}: it is larger than {most} bytes.", "", _FEW_LINES),
    "document.long": ("error", "{where}: it is longer than {most} characters.", "", _FEW_LINES),
    "document.encoding": ("error", "{where}: byte {place} is not UTF-8 text.", "", "Save it as UTF-8."),
    "document.deep": ("error", "{where}: it is nested too deeply.", "", ""),
    "document.json": ("error", "{where}: line {line}: {reason}.", "", "Correct the JSON."),
    "document.repeated": ("error", "{where}: {reason}.", "", ""),
    "document.no_yaml": (
        "error",
        "{where}: YAML needs PyYAML.",
        "",
        "Run: pip install pyyaml (or write the document as JSON).",
    ),
    "document.together": (
        "error",
        "{where}: with this text the lists of the prompt have more than {most} words, signs and rows together.",
        "",
        "Use fewer nodes with lists, or write them as JSON, which is read at once.",
    ),
    "document.tokens": ("error", "{where}: it has more than {most} words and signs.", "", "A list is a few lines."),
    "document.yaml": ("error", "{where}: {reason}.", "", "Correct the YAML (spaces, never tabs)."),
    "document.yaml_line": (
        "error",
        "{where}: line {line}: {reason}.",
        "",
        "Correct the YAML (spaces, never tabs).",
    ),
    "document.scalar": ("error", "{where}: it holds a value that cannot be read ({kind}).", "", ""),
    "document.aliases": (
        "error",
        "{where}: it holds more than {most} values with its aliases written out.",
        "",
        "",
    ),
    "document.key_twice": ("error", "{where}: line {line}: '{name}' is listed twice.", "", ""),
    # as a document
    "document.weights": (
        "error",
        "{where}: it holds weights and is no stack document.",
        "",
        "Write a YAML file that names it: `base: FILE` for a model, `stack: [FILE]` for a LoRA.",
    ),
    "document.empty": ("error", "{where}: it is empty.", "", "Write at least `base: FILE` and `stack: [FILE]`."),
    "document.no_settings": (
        "error",
        "{where}: settings were expected, not {given}.",
        "",
        "Write `key: value` lines.",
    ),
    "document.workflow": (
        "error",
        "{where}: it is a ComfyUI workflow and no stack document.",
        "",
        "Run it in ComfyUI, or write a document of its files: lora-foundry init. lora-foundry check reads both.",
    ),
    "document.unknown": ("error", "{where}: unknown setting '{name}'.", "", "Known are: {known}."),
    "document.unknown_near": ("error", "{where}: unknown setting '{name}'.", "", "Did you mean '{near}'?"),
    "document.both": (
        "error",
        "{where}: both '{one}' and '{other}' are given.",
        "",
        "They mean the same; keep one.",
    ),
    "document.twice": (
        "error",
        "{where}: '{name}' is given twice, in the model block and beside it.",
        "",
        "Keep one.",
    ),
    "document.model_settings": (
        "error",
        "{where}: the model block has {count} settings.",
        "",
        "{most} are the limit.",
    ),
    "document.model_choice": (
        "error",
        "{where}: model: {name} is '{given}', which this pack does not make.",
        "",
        "Known are: {known}.",
    ),
    "document.model_switch": ("error", "{where}: model: {name} is '{given}'.", "", _SWITCH),
    "document.switch": ("error", "{where}: {name} is '{given}'.", "", _SWITCH),
    "document.rounding": ("error", "{where}: rounding is '{given}'.", "", "Use '{once}' or '{trained}'."),
    "document.on_quantized": (
        "error",
        "{where}: on_quantized_base is '{given}'.",
        "",
        "Use '{refuse}' or '{dequantize}'.",
    ),
    "document.quantize": (
        "error",
        "{where}: quantize is '{given}'.",
        "",
        "Use true, false, none, fp8, {formats}.",
    ),
    "document.fuse_rows": (
        "error",
        "{where}: this list goes on top of the model, but it has 'fuse' rows.",
        "",
        "Fuse them before.",
    ),
    "document.lone_weight": (
        "error",
        "{where}: 'lora_weight' is given without 'lora_path'.",
        "",
        "Write the strength into its row.",
    ),
    "document.no_list": (
        "error",
        "{where}: a list of {label}s was expected, not {given}.",
        "",
        "Write it as [ ... ].",
    ),
    "document.many_rows": ("error", "{where}: the list has {count} {label}s.", "", "{most} are the limit."),
    "document.row": ("error", "{where}: {label}: a path or settings were expected, not {given}.", "", ""),
    "document.row_path": ("error", "{where}: {label}: path is missing.", "", "Every row names its file."),
    "document.row_blocks": (
        "error",
        "{where}: {label}: blocks is '{given}'.",
        "",
        "Write factors as text, such as 'double=1,single=0.5'.",
    ),
    "document.row_switch": ("error", "{where}: {label}: {name} is '{given}'.", "", _SWITCH),
    "document.row_strength": (
        "error",
        "{where}: {label}: {name} is '{given}'.",
        "",
        "Give a number from {least} to {most}, such as 0.8.",
    ),
    "document.row_file": ("error", "{where}: {label}: a file name was expected, not '{given}'.", "", ""),
    "document.row_hash": (
        "error",
        "{where}: {label}: sha256 is '{given}'.",
        "",
        "Write its 64 hex digits, in quotes.",
    ),
    # lineage records
    "lineage.deep": ("error", "{where}: it is nested too deeply.", _UNBELIEVED, ""),
    "lineage.form": ("error", "{where}: {reason}.", _UNBELIEVED, ""),
    "lineage.large": ("error", "{where}: it is larger than {most} bytes.", _UNBELIEVED, ""),
    "lineage.elsewhere": ("error", "{where}: it is about another file than its name says.", _UNBELIEVED, ""),
    "lineage.import_large": (
        "error",
        "{where}: it is larger than {most} bytes.",
        _UNBELIEVED,
        "Export fewer records at once.",
    ),
    "lineage.no_export": (
        "error",
        "{where}: it is no export of lineage records.",
        _UNBELIEVED,
        "Make one: lora-foundry lineage export.",
    ),
    "lineage.nothing": (
        "error",
        "{where}: nothing was declared.",
        "",
        "Say what it was trained with, or what it is for.",
    ),
    "lineage.nothing_known": ("error", "{where}: nothing is known of its training.", "", "Declare it first."),
    "lineage.many": (
        "error",
        "{where}: it would hold more than {most} claims.",
        _UNWRITTEN,
        "Forget the record first.",
    ),
    "lineage.no_hash": (
        "error",
        "{where}: it has no hash of the tensors to file it under.",
        _UNWRITTEN,
        "Name the file itself.",
    ),
    "lineage.unwritten": (
        "error",
        "{where}: its record cannot be written to {folder}.",
        _UNWRITTEN,
        "Make room there, or name a folder in LORA_FOUNDRY_HOME.",
    ),
    # training scripts, configs and logs
    "evidence.no_toml": (
        "error",
        "{where}: reading TOML needs the package tomli on Python 3.10.",
        "",
        "Run: pip install tomli (Python 3.11 and newer need nothing).",
    ),
    "evidence.toml": ("error", "{where}: it is not TOML ({reason}).", "", "Correct the file."),
    "evidence.json": (
        "error",
        "{where}: it is not JSON or is nested too deeply.",
        "",
        "Get or save the file again.",
    ),
    "evidence.unclosed": ("error", "{where}: line {line}: {what} is never closed.", "", "Correct the script."),
    "evidence.long": (
        "error",
        "{where}: it is longer than {most} characters, which no script or config is.",
        "",
        "",
    ),
    "evidence.large": (
        "error",
        "{where}: it is larger than {most} bytes, which no script or config is.",
        "",
        "",
    ),
    "evidence.grows": ("error", "{where}: its variables grow beyond {most} characters.", "", ""),
    "evidence.runs": (
        "error",
        "{where}: {count} runs say different things, and it is not told which wrote {lora}.",
        "",
        "Say which with --run: {runs}.",
    ),
    "evidence.no_run": (
        "error",
        "{where}: no one run of it is '{run}'.",
        "",
        "Say which with --run: {runs}.",
    ),
    "evidence.kind": (
        "error",
        "{where}: evidence of this kind is not read.",
        "",
        "Name a training script (.sh), a config (.yaml, .toml, .json) or a log (.log, .txt).",
    ),
    "evidence.no_text": (
        "error",
        "{where}: it is not text.",
        "",
        "Name the file that a person or a trainer wrote as text.",
    ),
}
