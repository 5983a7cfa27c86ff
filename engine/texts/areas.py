"""What stops a run and is no finding: the sentences of engine and nodes under the area of the fault.

A row: severity, what was seen, why it matters, what to do.
"""

from __future__ import annotations

_NO_LAYER = "No layer is called '{pattern}', which was to stay in high precision."
_PATTERNS = "Patterns are whole dotted parts of a layer's name, and * matches anything."

AREAS: dict[str, tuple[str, ...]] = {
    "batch.version": (
        "error",
        "A worker has version {ours} of LoRA Foundry, and the batch was begun with {theirs}.",
        "Results of two versions may differ, and are not mixed.",
        "Install one version on every machine.",
    ),
    "usage.keep_near": ("error", _NO_LAYER, _PATTERNS, "Did you mean {near}?"),
    "usage.keep_nothing": ("error", _NO_LAYER, _PATTERNS, "A layer of it is {layer}."),
    "usage.keep_many": (
        "error",
        "{count} patterns of layers to keep in high precision are given; {most} are the limit.",
        "",
        "Write fewer, with a star for what they have in common.",
    ),
    "usage.keep_long": (
        "error",
        "A pattern of layers to keep in high precision has {characters} characters and {stars} stars; "
        "{most_characters} and {most_stars} are the limit.",
        "",
        "Name the layers more plainly, such as *.ffn.2.",
    ),
    "usage.memory": ("error", "Unknown memory setting '{wanted}'.", "", "Use {modes}."),
    "usage.two_of_a_name": (
        "error",
        "{first} and {second} would both be written to {name}.safetensors.",
        "",
        "Give the documents names of their own, or run two batches into two folders.",
    ),
    "usage.address": (
        "error",
        "{address} cannot stand for {where}, which is a file of this machine.",
        "",
        "Name such a file; docs/remote.md says where addresses may stand.",
    ),
    "usage.no_models": ("error", "There is no folder {folder}.", "", "Name ComfyUI's models folder with --models."),
    "usage.comma": (
        "error",
        "The strength '{given}' of '{row}' is no number.",
        "Decimals are written with a point here.",
        "Write {meant}.",
    ),
    "usage.folder_of": (
        "error",
        "{folder} is a folder, and a batch is told its documents one by one.",
        "",
        "Name them, for instance {folder}/*.yaml.",
    ),
    "usage.no_folder": ("error", "{out} is a file, and the results of a batch go into a folder.", "", "Name a folder."),
    "usage.result_is_input": (
        "error",
        "{name} would take the place of a file that {document} reads.",
        "It would be lost.",
        "Name another folder for the results.",
    ),
    "usage.max_error": (
        "error",
        "max_error is {share}, but it is a share of the weights' rms.",
        "",
        "Give a number such as 0.02, which is 2 %.",
    ),
    "usage.max_error_alone": (
        "error",
        "max_error needs a quantized format.",
        "",
        "Choose one, or leave max_error out.",
    ),
    "usage.calibration_alone": (
        "error",
        "A calibration needs a quantized format.",
        "It tells how weights are rounded to few bits.",
        "Choose one, or leave the calibration out.",
    ),
    "usage.pre_quant_scale": (
        "error",
        "A pre_quant_scale needs nvfp4 and a calibration with `ranges and rounding`; the format is {format}.",
        "It evens out the columns of a weight by how loud their inputs are, and hosts apply it to nvfp4 alone.",
        "Choose both, or leave pre_quant_scale out.",
    ),
    "format.unknown": ("error", "Unknown quantization format '{format}'.", "", "Use none or {known}."),
    "format.no_fp8": (
        "error",
        "{device}, on which this ComfyUI samples, has no fp8, and {format} is one.",
        "The model would be made, and the first step of sampling would fail.",
        "Choose int8_convrot, or 3 Apply without quantization. The command line writes fp8 for another machine.",
    ),
    "format.not_loaded": (
        "error",
        "This ComfyUI cannot load {format}; it loads {known}.",
        "{format} came with ComfyUI {since}, so the result could not be used here.",
        "Choose another format or update ComfyUI. The command line writes it for another machine.",
    ),
    "format.no_pre_quant_scale": (
        "error",
        "This ComfyUI does not know pre_quant_scale.",
        "It came with ComfyUI {since}; an older one drops it and computes something else.",
        "Update ComfyUI, or leave pre_quant_scale out. The command line writes it for another machine.",
    ),
    "device.another": (
        "error",
        "A reproducible result in {wanted} was asked for, but sums are taken in {arithmetic} here.",
        "About one code of a thousand would be another one than its recipe says.",
        "Leave `reproducible` out, or choose the device or memory mode.",
    ),
    "file.record": (
        "error",
        "{name} could not be written in {folder}.",
        "What became of a document would be forgotten.",
        "Make room there, or see who may write.",
    ),
    "file.not_listed": (
        "error",
        "{name} is not in the folder {folders}.",
        "Nothing was computed.",
        "Put the file there, or choose one that is there.",
    ),
    "host.bypassed": (
        "error",
        "A bypass LoRA loader stands before this stage.",
        "Its LoRA is no part of the weights, so the result would be without it.",
        "Put that LoRA into the LoRA stack, or its loader after the last LoRA Foundry node.",
    ),
    "host.compiled": (
        "error",
        "TorchCompileModel stands before this stage.",
        "It holds on to the unfused weights, so the result would not be used.",
        "Put TorchCompileModel after the last LoRA Foundry node.",
    ),
    "host.patches": ("error", "ComfyUI took {taken} of {patches} patches.", "", "Please report this."),
    "host.unknown_model": (
        "error",
        "ComfyUI does not recognise {base} as a diffusion model.",
        "Its tensor names belong to no model this ComfyUI knows, or it is in the diffusers layout.",
        "Update ComfyUI, or load it with Load Diffusion Model and connect that MODEL instead.",
    ),
    "host.unknown_result": (
        "error",
        "ComfyUI did not recognise the finished model.",
        "",
        "Please report the recipe.",
    ),
    "lineage.own_base": (
        "error",
        "{lora} is named as its own base LoRA.",
        "No LoRA was there before it was trained.",
        "Choose the one that was fused while it was trained.",
    ),
    "lineage.stack_beside": (
        "error",
        "A LoRA stack is wired in while trained_with is {chosen}.",
        "Its LoRAs are further base LoRAs beside that one.",
        "Choose the first base LoRA in trained_with, or unplug the stack.",
    ),
    "lora.no_tensors": ("error", "The lora input is a {kind} without tensors.", "", "Connect Train LoRA's lora."),
    "cache.damaged": (
        "warning",
        "A finished model in the bake cache is no longer what was written: its bits changed on the disk ({place}).",
        "Nothing else shows that, and images made with it since this program was started may be wrong.",
        "It was thrown away and is made anew when it is asked for. Look after this disk.",
    ),
    "cache.unreadable": (
        "warning",
        "A finished model in the bake cache can no longer be read from the disk ({place}).",
        "",
        "It was thrown away and is made anew when it is asked for. Look after this disk.",
    ),
    "cache.earlier": (
        "warning",
        "The earlier result can no longer be read from the disk ({place}).",
        "",
        "Nothing was taken from it, and the new one takes its place. Look after this disk.",
    ),
    "memory.beyond": (
        "error",
        "This bake needs up to {needed} of memory, and {free} are free.",
        "The system would begin to swap or end the process; nothing was computed.",
        "Close other programs, keep the result in a file, or look at the LoRA that asks for so much.",
    ),
    "plan.not_ours": ("error", "This plan was not made in ComfyUI.", "", "Begin with Load Base Model."),
    "rounding.mixed": (
        "error",
        "{loras} is fused with another rounding than {rounding}.",
        "A fused base is either rounded as in training or once at the end.",
        "Set the same rounding on every Fuse Base LoRA.",
    ),
    "stack.no_list": ("error", "The LoRA stack is {stack}.", "", "It must be a list of rows."),
    "stack.row": (
        "error",
        "Row {number} of the LoRA stack is {row}.",
        "",
        "It must be (name, strength, clip strength).",
    ),
    "weigh.original": (
        "error",
        "{file} is a checkpoint, and nothing says what it was before.",
        "What was merged into it only shows as a difference from the original.",
        "Give the checkpoint it was made from: --original FILE.",
    ),
    "weigh.no_numbers": ("error", "'{weight}' is only a name here.", "", "Give the base: --original FILE."),
    "plan.without_file": ("error", "{lora}: this plan was made without its file.", "", "Plan it again."),
    "system.worker": (
        "error",
        "The process that worked on this document was started {times} times: {fault}.",
        "The other documents were worked on without it.",
        "Bake it alone with lora-foundry bake; with too little memory, add --memory lowest.",
    ),
    "system.workers": (
        "error",
        "Workers end before they begin with anything: {fault}.",
        "No document was touched.",
        "Run lora-foundry doctor, and lora-foundry bake with one of the documents.",
    ),
    "ray.address": (
        "error",
        "--ray auto would let a variable of the environment choose the cluster.",
        "Your models would go to whatever it names.",
        "Give its address, such as 10.0.0.5:6379, or local.",
    ),
    "ray.installed": (
        "error",
        "This command line is not installed, and the workers of Ray import lora_foundry by its name.",
        "",
        "Run pip install of this pack with its extra ray on every machine, then lora-foundry batch.",
    ),
    "ray.missing": ("error", "Ray is not installed here.", "", 'Run pip install "lora-foundry[ray]" on every machine.'),
    "ray.unreachable": (
        "error",
        "There is no Ray cluster at {address} that this program can use ({said}).",
        "",
        "Start one with ray start --head, and see docs/batch.md for what it opens; or leave --ray out.",
    ),
}
