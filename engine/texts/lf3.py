"""Files and how they match: what LF301 to LF306 say; LF304 has a table of its own, ``lf304.py``.

A row: severity, what was seen, why it matters, what to do.
"""

from __future__ import annotations

_READ_WITHOUT = "The prompt will be read without them."
_WIRE_CLIP = "Wire the CLIP that belongs to the base into Stack LoRAs and on to the prompts."
_LEFT_OUT = "ComfyUI refuses the workflow, or a loader of another pack leaves the file out without a word."
_VARIANT = (
    "{lora} is made for another {family} than {base} ({differences}).",
    "It may do little, or something else than on its own base.",
    "Choose the base it was made for.",
)

FILES: dict[str, tuple[str, ...]] = {
    # LF301: nothing of it applies
    "LF301.no_names": (
        "error",
        "{matched} of {modules} modules of {lora} fit {base}.",
        "They have no names in common: the LoRA has {mine}; the base has {theirs}. "
        "LoRA family: {lora_family}, base family: {base_family}.",
        "Check that the LoRA was made for this model.",
    ),
    "LF301.no_names_alike": (
        "error",
        "{matched} of {modules} modules of {lora} fit {base}.",
        "All its names begin with '{common}', which is nothing the base has: the LoRA has {mine}; the base has "
        "{theirs}. LoRA family: {lora_family}, base family: {base_family}.",
        "Check that the LoRA was made for this model, and what wrote '{common}' into its names.",
    ),
    "LF301.affix": (
        "note",
        "{lora}: the names of its modules have {affix} that no known trainer writes.",
        "Without it all {modules} modules fit by name and by shape, so it is taken off.",
    ),
    "LF301.by_head": (
        "note",
        "{lora}: the rows of {modules} fused q, k and v are put in the order of the base.",
        "By its names DiffSynth-Studio trained it: it has the rows of each head together, files of the model in one "
        "piece have all of q first.",
        "Nothing must be done, unless the base was merged by hand from the shards of MiniMaxAI: take one in one piece.",
    ),
    "LF301.text_encoder_only": (
        "error",
        "{lora} has text-encoder parts only ({modules} modules), none for the diffusion model.",
        "Nothing of it applies here.",
        "Use it in the stack, with a CLIP wired in.",
    ),
    # LF302: a part of it does not apply, or applies twice
    "LF302.partly": (
        "warning",
        "{lora}: {matched} of {modules} modules found their weight, {lost} of its energy did not; not used: {reasons}.",
        "A part of the LoRA has no effect.",
        "Check that it was made for this very model.",
    ),
    "LF302.mostly": (
        "error",
        "{lora}: {lost} of its energy finds no weight in {base}: {matched} of {modules} modules fit; not {reasons}.",
        "What is left is another LoRA than its author made.",
        "Choose the base it was made for, or let a part of it do: allow_partial (an input of the node, "
        "`allow_partial: true` in a document, --allow-partial).",
    ),
    "LF302.twice": (
        "warning",
        "{lora}: {count} weights are changed more than once by this file, the first by {modules}.",
        "All are added up: where one is a copy of another, the effect is doubled.",
        "Look for a clean file.",
    ),
    "LF302.copies": (
        "note",
        "{lora}: {count} changes are in the file twice, number for number, under other names or as parts of another.",
        "Each is applied once, as other programs do.",
    ),
    "LF302.whole": (
        "error",
        "{lora} holds layers that were trained whole and that {base} does not have: {tensors}.",
        "Without them the rest would not be what its author made.",
        "Choose the base it was made for, or leave them out: allow_partial (an input of the node, "
        "`allow_partial: true` in a document, --allow-partial).",
    ),
    "LF302.embeddings": (
        "warning",
        "{lora}: {count} embeddings are bundled into the file and are not used: {names}.",
        "Their words in a prompt mean nothing to the text encoder without them.",
        "Ask its author for them as files of their own, and put these into ComfyUI's embeddings folder.",
    ),
    "LF302.frozen": (
        "note",
        "{lora}: {count} tensors are layers of the model it was trained on, kept by PEFT beside its own: {names}.",
        "They are what they were before the training, so nothing is lost without them, and they are not used.",
        "Nothing is to be done.",
    ),
    "LF302.unused": (
        "warning",
        "{lora}: {unused} of {all} tensors belong to no known adapter: {tensors}.",
        "They are not used, unless the base has a parameter of that name and shape; everything else is.",
        "If the result lacks something, load the file with ComfyUI's own LoRA loader.",
    ),
    "LF302.parameters": (
        "note",
        "{lora} holds {count} parameters of the model itself: {tensors}.",
        "They replace the model's at any strength, and are not among the modules that are counted.",
    ),
    "LF302.zeros": (
        "warning",
        "{lora}: all its {modules} modules are zeros.",
        "It changes nothing; a training that never began saves such a file.",
        "Look for a later checkpoint, or leave it out.",
    ),
    "LF302.grown": (
        "note",
        "{lora} gives {weight} ({stored}) {inputs} inputs.",
        "The new ones are zeros to which it adds its own: the model then takes a wider picture, as control LoRAs want.",
    ),
    "LF302.document_without_clip": (
        "note",
        "{lora}: {modules} text-encoder modules are left out: a document has no CLIP.",
        "The prompt will be read as without this LoRA.",
        "In ComfyUI, Stack LoRAs gives them to a CLIP.",
    ),
    "LF302.no_clip": (
        "note",
        "{modules} text-encoder modules of {lora} are left out: no CLIP is wired.",
        _READ_WITHOUT,
        _WIRE_CLIP,
    ),
    "LF302.another_clip": (
        "warning",
        "{matched} of {modules} text-encoder modules of {lora} fit this CLIP.",
        _READ_WITHOUT,
        _WIRE_CLIP,
    ),
    # LF303: made for another model
    "LF303.family": (
        "error",
        "{matched} of {modules} modules of {lora} fit {base}; not {reasons}.",
        "The LoRA is made for {lora_family}, the base is {base_family}.",
        "Choose a {base_family} LoRA, or a {lora_family} base.",
    ),
    "LF303.family_fits": (
        "question",
        "Is {lora} a {lora_family} LoRA? It looks like one, and {base} is a {base_family} model.",
        "All {modules} modules fit, for the two have names and shapes in common; their numbers differ.",
        "If it was not trained on {base_family}, choose a LoRA that was.",
    ),
    "LF303.task": (
        "question",
        "Is {lora} meant for this model? By its name it is for {then}; {base} is a model for {now}.",
        "The LoRAs of both have the same layers, so all of it fits, but it was made on other weights.",
        "Choose the LoRA for {now}.",
    ),
    "LF303.variant": ("note", *_VARIANT),
    "LF303.variant_partly": ("warning", *_VARIANT),
    # LF305: its scale is in doubt
    "LF305.scale": (
        "warning",
        "{lora}: effective scale (strength * alpha / rank) outside {least} to {most} in {odd} of {modules} modules, "
        "first '{module}' with {scale}.",
        "Its effect is almost nothing or far too strong.",
        "Check the strength and the file's alpha.",
    ),
    "LF305.loud": (
        "warning",
        "{lora} at strength {now} changes its weights by {total} of their size in all, and by over a third in {loud} "
        "of {layers} layers looked at, most in '{module}': {most}.",
        "LoRAs change weights by 0.5% to 10%: more drowns the model. A lost alpha, or factors that grew, do that.",
        "At strength {strength} it would be 3%. Check the file's alpha.",
    ),
    "LF305.replaced": (
        "warning",
        "{lora} replaces layers by numbers that have nothing of those before them: {count}, first '{module}', whose "
        "change is {most} of its size.",
        "A layer that was trained on stays near the one it began as; this one may be of another model.",
        "Check that the LoRA was made for this very model.",
    ),
    "LF305.dense_noted": (
        "warning",
        "{lora}: {modules} LoKr modules of two whole factors state alpha {alpha}, its metadata dim {rank}.",
        "Alpha is no scale of whole factors for LyCORIS and ComfyUI, but this file was made for alpha / dim: it comes "
        "out {times} times too strong.",
        "Use it at {strength} times the strength you want.",
    ),
    "LF305.split_qkv": (
        "warning",
        "{lora}: its metadata says split_qkv with rank {rank}, and {modules} modules have a rank of {wide} at the same "
        "alpha {alpha}.",
        "Parts were merged without raising alpha with the rank: these modules act {times} times too weakly.",
        "Convert it again with a tool that raises alpha with the rank.",
    ),
    "LF305.ignored": (
        "warning",
        "{lora}: alpha of {count} of {modules} modules is ignored, first '{module}' with alpha / rank {scale}.",
        "'match training' does what its trainer does with lora_A and lora_B, which knows no alpha; most other programs "
        "count it.",
        "If your training run counted it, choose rounding 'once'.",
    ),
    "LF305.no_magnitudes": (
        "warning",
        "{lora}: it was trained as DoRA, but holds no magnitudes.",
        "Someone took them out or a conversion lost them: what is left is another LoRA than was trained.",
        "Look for the original file.",
    ),
    "LF305.no_json": (
        "warning",
        "{lora}: {source} cannot be read as JSON.",
        "A scale may be written there; without it the scale of every module without an alpha is 1.0.",
        "Get it again from where the LoRA came from.",
    ),
    "LF305.dense": (
        "note",
        "{lora}: {modules} LoKr modules are of two whole factors; their alpha is not applied.",
        "LyCORIS and ComfyUI do the same, but some files were made for alpha / dim and come out too strong.",
        "If the effect is far too strong, lower the strength.",
    ),
    "LF305.two_alphas": (
        "warning",
        "{lora}: '{module}' has alpha {used}, but {source} states {stated}.",
        "{used} is used: it is nearer to the factors.",
    ),
    "LF305.other_ranks": (
        "warning",
        "{lora}: {source} states other ranks than the factors have.",
        "It belongs to another file, or the LoRA was resized: the scale in it is not used.",
        "Ask the author for the scale, and set the strength by it.",
    ),
    "LF305.perhaps": (
        "warning",
        "{lora}: {source} beside it states a scale of {scale}; it is not used.",
        "There are other LoRAs in the folder that it may belong to.",
        "If it is of this file, give both a folder of their own, or use the strength {scale}.",
    ),
    "LF305.zero": (
        "warning",
        "{lora}: alpha is 0 in {count} of {modules} modules, first '{module}'.",
        "These modules have no effect.",
    ),
    "LF305.negative": (
        "warning",
        "{lora}: alpha is negative in {count} of {modules} modules, first '{module}'.",
        "These modules subtract what was trained; no trainer writes that.",
        "Look for the original file. To subtract a LoRA on purpose, give it a negative strength.",
    ),
    "LF305.some_without": (
        "warning",
        "{lora}: {count} of {modules} modules state no alpha, first '{module}'.",
        "Scale 1.0 is used for them, and alpha/rank for the others.",
        "Ask the author which is meant.",
    ),
    "LF305.none": (
        "note",
        "{lora}: no alpha: scale 1.0 used for all {modules} modules.",
        "Most trainers that write these names write an alpha too; extracted LoRAs are made for 1.0.",
    ),
    "LF305.no_config": (
        "note",
        "{lora}: a PEFT file without its {config}: scale 1.0 used for all {modules} modules.",
        "PEFT writes the scale only into {config}, and that gives none here.",
        "If you have it, put {config} into the folder of the LoRA.",
    ),
    "LF305.noted": (
        "warning",
        "{lora}: its metadata says alpha {alpha} at rank {rank}, its tensors state no alpha.",
        "Scale 1.0 is used: metadata is often copied from one file to another.",
        "If it is too strong, use it at strength {strength}.",
    ),
    # LF306: not there
    "LF306.missing": (
        "error",
        "{name} (node {at}) is not in the folder {folder}.",
        _LEFT_OUT,
        "Download it, or choose another one.",
    ),
    "LF306.near": (
        "error",
        "{name} (node {at}) is not in the folder {folder}.",
        _LEFT_OUT,
        "Did you mean {near}?",
    ),
}
