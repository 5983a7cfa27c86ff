"""What is wrong with a file, by its name: the sentences of whoever reads, writes and copies files.

A row: severity, what was seen, why it matters, what to do.
"""

from __future__ import annotations

_AGAIN = "Download or copy it again."
_WHOLE_FOLDER = "Download the whole folder again."
_CALIBRATE = "Calibrate again."

DISK: dict[str, tuple[str, ...]] = {
    # names and folders
    "file.absent": ("error", "{file} does not exist.", "", "Check the name and the folder."),
    "file.absent_near": ("error", "{file} does not exist.", "", "Did you mean {near}?"),
    "file.absent_lora": (
        "error",
        "{file} does not exist.",
        "",
        "Correct the path, or give the bare name of a LoRA you do not have.",
    ),
    "file.refused": ("error", "{file} cannot be used: {reason}.", "", ""),
    "file.impossible": ("error", "{file} is not a possible file name.", "", ""),
    "file.irregular": ("error", "{file} is not a regular file.", "", "Name the file itself."),
    "file.several": ("error", "{file} holds several models: {models}.", "", "Name one of them."),
    "file.no_model": (
        "error",
        "{file} holds no .safetensors model, only: {names}.",
        "",
        "Name the folder the weights are in (in a diffusers model: transformer or unet).",
    ),
    # headers
    "file.suffix": ("error", "{file} is not a {suffix} file by its name.", "", "Only safetensors files are read."),
    "file.empty": ("error", "{file} is empty (0 bytes).", "", _AGAIN),
    "file.incomplete": (
        "error",
        "{file} is incomplete: its header says {said} bytes, the file has {there}.",
        "",
        _AGAIN,
    ),
    "file.longer": (
        "error",
        "{file} has bytes after its last tensor: its header says {said} bytes, the file has {there}.",
        "",
        _AGAIN,
    ),
    "file.no_header": (
        "error",
        "{file} is not a safetensors file or is damaged: it has only {there} bytes (at most {most} are accepted).",
        "",
        _AGAIN,
    ),
    "file.long_header": (
        "error",
        "{file} is not a safetensors file or is damaged: its header would be {said} bytes, the file has {there} "
        "(at most {most} are accepted).",
        "",
        _AGAIN,
    ),
    "file.bad_header": ("error", "{file} has a damaged header: {reason}.", "", _AGAIN),
    "file.bad_metadata": ("error", "{file} has a damaged header: its metadata is not a list of texts.", "", _AGAIN),
    "file.bad_tensor": ("error", "{file} has a damaged header: tensor '{tensor}' {what}.", "", _AGAIN),
    "file.crowd": (
        "error",
        "{file} lists more than {most} tensors in its header.",
        "",
        "No model has that many: do not use it.",
    ),
    "file.pickle": (
        "error",
        "{file} is a pickle file: refused, it could run code; convert it first.",
        "",
        "Convert it to .safetensors first, on a machine that may be lost.",
    ),
    "file.pointer": (
        "error",
        "{file} is a Git LFS pointer of {there} bytes, not the file itself.",
        "Its repository was cloned without Git LFS, which fetches large files.",
        "Run `git lfs pull` in its folder, or download this file alone.",
    ),
    "file.page": (
        "error",
        "{file} is a web page, not a safetensors file.",
        "The site answered the download with a page, often one that asks to log in.",
        "Download it in a browser, logged in, or with a token.",
    ),
    "file.gguf": (
        "error",
        "{file} is a GGUF file: refused.",
        "GGUF weights are already quantized, and LoRAs go in before quantization.",
        "Use the unquantized .safetensors model.",
    ),
    "file.no_tensors": ("error", "{file} contains no tensors.", "", _AGAIN),
    "file.in_two": ("error", "{file} holds the tensor '{tensor}', and so does {other}.", "", ""),
    # what kind of file it is
    "file.is_lora": (
        "error",
        "{file} is a LoRA, not a model: it holds '{tensor}' and {more} more LoRA parts.",
        "",
        "Name the model as base and this file in fuse or stack.",
    ),
    "file.is_base": ("error", "{file} is a base model, not a LoRA.", "", "Name a LoRA file."),
    "file.no_calibration": (
        "error",
        "{file} is no calibration, or one of another version.",
        "",
        "Choose a file Calibrate wrote.",
    ),
    "file.calibration_form": ("error", "{file} holds a calibration that cannot be read ({reason}).", "", _CALIBRATE),
    "file.calibration_numbers": (
        "error",
        "{file} holds a calibration with impossible numbers or shapes.",
        "",
        _CALIBRATE,
    ),
    # shards
    "file.shard": (
        "error",
        "{file} does not hold the tensor '{tensor}', which the index says it does.",
        "",
        "Download the shards and the index again, from one place.",
    ),
    "file.shards_missing": (
        "error",
        "{file} needs {count} files and {missing} are missing: {names}.",
        "",
        _WHOLE_FOLDER,
    ),
    "file.index_large": ("error", "{file} is larger than {most} bytes.", "", "That is no index."),
    "file.index_damaged": ("error", "{file} is a damaged index: {reason}.", "", _WHOLE_FOLDER),
    "file.index_none": (
        "error",
        "{file} has no weight_map, so it is not the index of a model.",
        "",
        _WHOLE_FOLDER,
    ),
    "file.index_outside": (
        "error",
        "{file} names the shard '{shard}', which is outside its folder.",
        "",
        "Do not use it.",
    ),
    "file.many_shards": ("error", "{file} would be {count} files.", "", "Allow larger ones: {most} are the limit."),
    "file.other_save": (
        "error",
        "{file} would be {count} files, and {other} is there from another save.",
        "Beside each other they would be two models under one name.",
        "Choose another name, or delete the old files first, with their index.",
    ),
    "file.other_shards": (
        "error",
        "{file} would be one file, and {other} is there from another save.",
        "Beside each other they would be two models under one name.",
        "Choose another name, or delete the old files first, with their index.",
    ),
    # reading
    "file.changed": (
        "error",
        "{file} changed during read.",
        "Half of it would come from one file and half from another.",
        "Wait until nothing writes to it, then run again.",
    ),
    "file.changed_copy": ("error", "{file} changed while it was copied.", "", "Run again."),
    "file.not_mapped": ("error", "{file} cannot be mapped: {reason}.", "", ""),
    "file.not_read": ("error", "{file} cannot be read: {reason}.", "", ""),
    "file.no_rows": (
        "error",
        "{file} has no rows {first} to {stop} in the tensor '{tensor}' of shape {shape}.",
        "",
        "",
    ),
    # writing
    "file.target_suffix": (
        "error",
        "{file} would not be read by any loader.",
        "",
        "Let the name end in {suffix}.",
    ),
    "file.target_name": ("error", "{file} is no possible name: {fault}.", "", "Choose another one."),
    "file.target_path": (
        "error",
        "{file} cannot be written: {fault}.",
        "",
        "Choose a shorter folder, or switch on long paths.",
    ),
    "file.target_folder": ("error", "{file} is a folder.", "", "Name a file in it."),
    "file.target_device": ("error", "{file} is a pipe or a device.", "", "Name a file."),
    "file.target_link": (
        "error",
        "{file} is a link to {target}, which a new file would take the place of.",
        "",
        "Name the file that it leads to.",
    ),
    "file.target_nowhere": (
        "error",
        "{file} cannot be written: its folder does not exist.",
        "",
        "Make {folder} first.",
    ),
    "file.space": (
        "error",
        "{file} needs {size} and {free} are free in {folder}.",
        "",
        "Make room or write elsewhere; nothing was written.",
    ),
    "file.writing": (
        "error",
        "{file} could not be written: {reason}.",
        "",
        "It needs {size} in {folder}, and nothing else may hold the old file open.",
    ),
    "file.ends_early": (
        "error",
        "{file} could not be copied together: the earlier result ends within '{tensor}'.",
        "",
        "Run again; it will be made anew.",
    ),
    # what a writer was given, which nobody but a developer sees
    "file.room": ("error", "{file} has {bytes} bytes too little room for its metadata.", "", ""),
    "file.given_after_rows": (
        "error",
        "{file} was given the tensor '{tensor}' whole after some of its rows.",
        "",
        "",
    ),
    "file.given_number": ("error", "{file} was given rows of '{tensor}', which is a single number.", "", ""),
    "file.given_again": (
        "error",
        "{file} was given rows {first} to {stop} of the tensor '{tensor}', but some of them came before.",
        "",
        "",
    ),
    "file.given_beyond": (
        "error",
        "{file} was given rows {first} to {stop} of the tensor '{tensor}', but it has {rows}.",
        "",
        "",
    ),
    "file.given_bytes": (
        "error",
        "{file} was given {given} bytes for '{tensor}', which has {bytes}.",
        "",
        "",
    ),
    "file.given_twice": ("error", "{file} was given the tensor '{tensor}' twice or unannounced.", "", ""),
    "file.given_unknown": ("error", "{file} was given the tensor '{tensor}' unannounced.", "", ""),
    "file.given_other": (
        "error",
        "{file} was given the tensor '{tensor}' as {given} instead of {announced}.",
        "",
        "",
    ),
    "file.lacks": (
        "error",
        "{file} lacks {count} announced tensors, the first is '{tensor}'{part}.",
        "",
        "",
    ),
}
