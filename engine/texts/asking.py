"""What has no meaning as it was asked: the sentences of the command line and of the nodes' HTTP routes.

A row: severity, what was seen, why it matters, what to do.
"""

from __future__ import annotations

_LINEAGE = "See lora-foundry lineage --help."
_ONE_OBJECT = "Send one JSON object."
_IN_ORDER = "Give one for each, in their order: --strengths 1,0.7."

ASKING: dict[str, tuple[str, ...]] = {
    "body.choice": ("error", "{name} is {given}.", "", "It must be {wanted}."),
    "body.infinite": (
        "error",
        "The answer would hold an infinite number.",
        "No browser reads that.",
        "Look for 1e999 or NaN in the body.",
    ),
    "body.kind": ("error", "The body came as {kind}.", "", "Send {wanted}."),
    "body.no_json": ("error", "The body is no JSON: {reason}.", "", _ONE_OBJECT),
    "body.no_object": ("error", "The body is a {kind}.", "", _ONE_OBJECT),
    "body.nothing": ("error", "The body has neither a prompt nor a workflow.", "", "Send one of them, or both."),
    "busy.waiting": (
        "error",
        "{count} requests of {route} are waiting already.",
        "They are answered one after the other.",
        "Ask again in a moment.",
    ),
    "file.no_folder": ("error", "{folder} is no folder to write to: {reason}.", "", ""),
    "file.is_folder": ("error", "{path} is a folder.", "", "Choose another folder with --out."),
    "file.not_written": ("error", "{folder} could not be written to: {reason}.", "", ""),
    "host.ended": ("error", "ComfyUI ended with code {code}.", "", "{log}"),
    "host.failed": ("error", "The workflow failed in ComfyUI: {failure}.", "", "{log}"),
    "host.none": (
        "error",
        "No ComfyUI was found.",
        "",
        "Set COMFYUI_PATH to its folder, or install one: {install}.",
    ),
    "host.refused": ("error", "ComfyUI refused the workflow ({status}): {reason}.", "", ""),
    "host.silent": ("error", "ComfyUI gave no answer within {seconds} s.", "", "{log}"),
    "host.no_png": ("error", "{file} is no PNG.", "", ""),
    "host.no_tree": ("error", "COMFYUI_PATH is {path}, which holds no ComfyUI (main.py and comfy/).", "", ""),
    "lineage.no_record": (
        "error",
        "There is no record of {file}.",
        "",
        "Declare one: lineage declare FILE.",
    ),
    "size.body": ("error", "The body is larger than {most} MiB.", "No workflow is that large.", ""),
    "stack.empty": ("error", "The LoRA stack is empty: there is nothing to merge.", "", "Add a LoRA to it."),
    "stack.single": ("error", "The LoRA stack has {rows}.", "", "Two are needed to be compared."),
    "stopped.by": ("error", "Stopped by {by}.", "Nothing was changed; the unfinished file is removed.", ""),
    "system.refused": ("error", "{what}: {reason}.", "", ""),
    "usage.bake_both": (
        "error",
        "Both a document and --base, --fuse or --lora are there.",
        "",
        "Name a document, or --base with its --fuse and --lora.",
    ),
    "usage.bake_nothing": (
        "error",
        "Nothing to bake.",
        "",
        "Name a document, or --base with its --fuse and --lora.",
    ),
    "usage.bench_kinds": (
        "error",
        "{lora} is more than a plain LoRA of two factors ('{module}').",
        "The benchmark compares plain LoRAs only.",
        "Leave it out of the document.",
    ),
    "usage.bench_nothing": (
        "error",
        "The document has no LoRA with a weight, so there is nothing to compare.",
        "",
        "",
    ),
    "usage.bench_steps": ("error", "A benchmark needs at least one token and one step.", "", ""),
    "usage.check_one": ("error", "Check one thing.", "", "Name a file, or --base and its --fuse and --lora."),
    "usage.two_forms": ("error", "--json and --format are two forms of one report.", "", "Keep one."),
    "usage.fixes_of_one": (
        "error",
        "--apply-fixes writes one workflow, and goes with the plain check of one.",
        "",
        "Name one workflow, without --format.",
    ),
    "usage.pictures_of_one": (
        "error",
        "--pictures draws what a check measures, and goes with the plain check of one stack document.",
        "",
        "Name one stack document, without --format.",
    ),
    "usage.nothing_to_check": (
        "error",
        "There is no stack document and no workflow in {folders}.",
        "",
        "Name a file, or a folder with .yaml, .json or pictures of ComfyUI in it.",
    ),
    "usage.compare": ("error", "{count} LoRA is nothing to compare.", "", "Name two or more."),
    "usage.device": (
        "error",
        "There is no device '{device}' here: this torch ({torch}) sees {count} CUDA devices.",
        "",
        "Use cpu, or cuda or cuda:0 with a torch built for your GPU.",
    ),
    "usage.fuse_none": (
        "error",
        "--fuse none says that no LoRA is fused, and another is named.",
        "",
        "Keep one.",
    ),
    "usage.inspect": ("error", "Nothing to inspect.", "", "Name a file. See: lora-foundry inspect --help."),
    "usage.lineage_alone": ("error", "{none} and {same} stand alone.", "", _LINEAGE),
    "usage.lineage_contains": (
        "error",
        "--contains is for a base model, and everything else for a LoRA.",
        "",
        _LINEAGE,
    ),
    "usage.lineage_nothing": (
        "error",
        "Nothing was declared: say --trained-with, --use-with or --role.",
        "",
        _LINEAGE,
    ),
    "usage.lineage_same": ("error", "--use-with same needs --trained-with.", "", _LINEAGE),
    "usage.lineage_strength": ("error", "--strength needs --trained-with.", "", _LINEAGE),
    "usage.lineage_strengths": ("error", "{strengths} for {loras}: there is not one for each.", "", _LINEAGE),
    "usage.lineage_there": ("error", "{out} is there already: name another file with -o.", "", _LINEAGE),
    "usage.line": ("error", "{what}.", "", "See: {prog} --help."),
    "usage.line_near": ("error", "{what}, did you mean '{near}'?", "", "See: {prog} --help."),
    "usage.merge_both": (
        "error",
        "'{name}' is no .safetensors file: several names are LoRA files, a stack document stands alone.",
        "",
        "Write the name with .safetensors, or write the files into the document.",
    ),
    "usage.merge_strength": (
        "error",
        "'{given}' is a file with its strength; here names and strengths stand apart.",
        "",
        "Name {file}, and give its strength, {strength}, with the others in their order: --strengths 1,0.7.",
    ),
    "usage.no_base": ("error", "There are LoRAs and no base.", "", "Name the base model: --base model.safetensors."),
    "usage.no_out": ("error", "No file is named to merge into.", "", "Name one with -o."),
    "usage.one_out": (
        "error",
        "{count} documents would be written to {outs}.",
        "",
        "Name a folder with -o, and give the documents names of their own.",
    ),
    "usage.resize": (
        "error",
        "Nothing says how small it is to become.",
        "",
        "Give --rank, --energy, --size or --max-error.",
    ),
    "usage.shard_cache": ("error", "The cache keeps whole files, not shards.", "", "Leave one of the two out."),
    "usage.shard_size": ("error", "--max-shard-size is {size}, under 1 MB.", "", "Write 5GB, or 500MB."),
    "usage.strengths": ("error", "{strengths} for {loras}: there is not one for each.", "", _IN_ORDER),
    "usage.there": ("error", "'{out}' is there already.", "", "Name another file with -o, or remove it."),
}
