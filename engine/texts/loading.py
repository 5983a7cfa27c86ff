"""What stops a run while files are read, merged and written: the sentences of ``loaders`` under the area of the fault.

A row: severity, what was seen, why it matters, what to do. ``what`` in a blank is a few words that say which part of a
file is wrong.
"""

from __future__ import annotations

_LOST = "It would be lost."
_OTHER_NAME = "Choose another name for the result."
_MISSING = "'{file}' does not exist (looked for {path})."
_WITHOUT_CACHE = "Bake without the cache."

LOADING: dict[str, tuple[str, ...]] = {
    "blocks.wrong": ("error", "blocks: '{text}' cannot be used: {why}.", "", "Write for example: {instead}."),
    "blocks.of_lora": ("error", "{lora}: blocks: '{text}' cannot be used: {why}.", "", "Write for example: {instead}."),
    "cache.too_large": (
        "error",
        "The result takes {size} and the bake cache holds {limit}.",
        "It was not stored: everything else would have to go, and it would still not fit.",
        "Raise the limit of the cache, or bake without it.",
    ),
    "cache.refused": (
        "error",
        "The bake cache in {folder} cannot be written: {reason}.",
        "Nothing was stored.",
        "Name another folder for it, or bake without it.",
    ),
    "cache.removed": ("error", "The result was removed from the cache at once.", "", _WITHOUT_CACHE),
    "document.no_base": ("error", "The document names no base.", "", "Add `base: FILE`, the model to start from."),
    "document.family": (
        "error",
        "The model block says that {base} is {stated}, and it is {family}.",
        "Its LoRAs would not fit.",
        "Name the model they were trained on.",
    ),
    "file.calibration": (
        "error",
        "There is no calibration {name}; there are: {known}.",
        "",
        "Sample the model through Calibrate, or name its file.",
    ),
    "file.damaged": (
        "error",
        "{base}: {what}.",
        "With a wrong scale the layer would be noise.",
        "Download the file again, or start from the bf16 or fp16 file of this model.",
    ),
    "file.scale": (
        "error",
        "{base}: {what}.",
        "One number is understood, or one per row; not one per block.",
        "Download the file again, or start from the bf16 or fp16 file of this model.",
    ),
    "file.dtype": ("error", "Tensor '{tensor}' is {dtype}, which safetensors cannot store.", "", ""),
    "file.header": ("error", "The header would be {bytes} bytes; readers accept {most}.", "", ""),
    "file.merged_of": (
        "error",
        "{file}, of which the file was merged, is not found.",
        "",
        "Put it beside the merged file, or name it as well.",
    ),
    "file.missing": ("error", _MISSING, "", "Check the name and the folder."),
    "file.missing_folder": ("error", _MISSING, "", "Its folder {folder} does not exist either."),
    "file.missing_near": ("error", _MISSING, "", "Did you mean {near}?"),
    "file.no_preview": ("error", "{lora} has no preview.", "", ""),
    "file.preview_kind": ("error", "The preview in {file} is no PNG, JPEG or WebP.", "", ""),
    "file.preview_size": ("error", "The preview in {file} is larger than {most} MiB.", "", ""),
    "file.sidecar": ("error", "{file} is larger than {most} bytes.", "", ""),
    "file.stack_missing": ("error", "There is no saved stack {name}.", "", "These are there: {known}."),
    "file.stack_there": ("error", "There is a saved stack {name} already.", "", "Choose another name, or replace it."),
    "file.stack_unwritten": ("error", "The stack {name} cannot be written to the user's folder.", "", ""),
    "file.stored": ("error", "These tensors cannot be stored as safetensors: {reason}.", "", ""),
    "file.twice": ("error", "Two tensors would be stored as '{tensor}'.", "", ""),
    "file.windows": ("error", "'{file}' is a path of a Windows machine.", "", "Name the file here."),
    "file.written": ("error", "{file} cannot be written.", "", "Choose another folder."),
    "lineage.long": ("error", "It is longer than {most} characters.", "", ""),
    "registry.wrong": (
        "error",
        "{file} in {folder} cannot be used: {what}.",
        "The registry tells accelerators from other LoRAs.",
        "Mend it, or move it away: all other entries are used meanwhile, the built-in ones too.",
    ),
    "usage.stack": (
        "error",
        "A stack cannot be called {name}: {fault}.",
        "",
        "Give it a plain name.",
    ),
    "usage.calibration": (
        "error",
        "A calibration cannot be called {name}: {fault}.",
        "",
        "Give it a plain name, such as qwen_portraits.",
    ),
    "usage.input": ("error", "{out} is an input of the document itself ({file}).", _LOST, _OTHER_NAME),
    "usage.merged": ("error", "{out} is one of the LoRAs to be merged.", _LOST, _OTHER_NAME),
    "usage.no_cache": ("error", "A result without a file needs a cache.", "", "Name one of the two."),
    "usage.size": (
        "error",
        "'{text}' is not a size.",
        "",
        "Write a number of bytes, or one with KB, MB, GB, KiB, MiB or GiB: 5GB.",
    ),
    "workflow.damaged": (
        "error",
        "The workflow in {file} cannot be read: {what}.",
        "A picture that was cut off or edited may have lost it.",
        "Take the picture as ComfyUI saved it, or the workflow's JSON file.",
    ),
    "workflow.endless": (
        "error",
        "{file} cannot be unfolded: {what}.",
        "ComfyUI cannot run it either.",
        "Open it in ComfyUI and replace the inner subgraph, or check a version that runs.",
    ),
    "workflow.none": (
        "error",
        "{file} holds no workflow: {what}.",
        "Without a graph there is nothing to check.",
        "Give a workflow saved or exported by ComfyUI (JSON in either form), or a picture it saved.",
    ),
}
