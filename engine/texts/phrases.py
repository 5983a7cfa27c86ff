"""English that fills blanks of texts: ``its file name`` and the like, for translators.

A finding says such a phrase as one of its ``values``; the browser knows it by its words and says it in the user's
language (``loraFoundry.phrases`` in ``locales/<language>/main.json``). What is none of them, a name or a number, stays.
"""

PHRASES = {
    # for many blanks
    "none": "none",
    "nothing": "nothing",
    "more": "{names} and {count} more",
    "node": "{title} (node {id})",
    "node_of_kind": "{title} ({kind}, node {id})",
    # who says what a LoRA was trained with
    "file_name": "its file name",
    "file_name_is": "its file name is {name}",
    "file_name_says": "its file name says {name}",
    "metadata": "'{key}' in its metadata",
    "metadata_is": "'{key}' in its metadata is {name}",
    "metadata_says": "'{key}' in its metadata says {name}",
    "in_header": "'{key}' in its header",
    "header": "its header",
    "lineage_file": "its lineage file",
    "beside": "{file} beside it",
    "by_user": "declared by the user",
    "merged": "what was merged into it",
    "workflow_inside": "the ComfyUI workflow in its header",
    "ledger": "LoRA Foundry's record on the MODEL",
    "ledger_patched": "LoRA Foundry's record on the MODEL, and other nodes patched it",
    "no_lora_seen": "no LoRA was on the MODEL",
    "magnitudes": "DoRA magnitudes",
    "compared": "its weights, compared with {name}",
    "of_another": "a record in {where} that is of another file, {name}",
    "of_none": "a record in {where} that is of no certain file",
    "tensors_hash": "its tensors have the sha256 {digest} of {name}",
    "file_hash": "it has the sha256 {digest} of {name}",
    "effect": "it changes a model as {name} does, within 1 %",
    "structure": "it has {modules} modules of rank {rank} and alpha {alpha} named as in {name}",
    # what a LoRA is by itself
    "no_sign": "neither its name nor its structure tells",
    "captions": "it was trained on captions or trigger words: a style, a character or an object",
    "distilled": (
        "LoRAs of all linear layers with differences of norms and biases, as extracted step distillations have"
    ),
    # what is missing without a stage of ours
    "not_fused": "its base LoRA is not fused",
    "not_applied": "its LoRAs are not applied",
    "not_checked": "nothing is checked there",
    "not_quantized": "the model is not quantized",
    "no_model": "its plan is not made into a MODEL",
    "not_saved": "nothing is saved",
    # what a check left out
    "left_models": "{count} of {all} models",
    "left_loras": "{count} LoRAs of models that have more than a stack may have",
    "left_stages": "{count} stages, as to what stands above them",
    "left_nodes": "{count} nodes that too many models pass",
    "left_followed": "{count} nodes with LoRAs that lead to no model",
    "left_findings": "{count} findings like these",
    # how weights are stored, and what they are
    "scaled_fp8": "scaled fp8",
    "scaled_fp8_by": "scaled fp8 ({sign})",
    "scales": "{dtype} with weight_scale",
    "no_scales": "{dtype} without scales",
    "text_encoder": "{dtype} in a text encoder",
    "oft_inputs": "OFT of the inputs",
    "boft_inputs": "BOFT of the inputs",
    "difference": "difference",
    "replaced": "replaced weight",
    "old_oft": "OFT as an older PEFT stores it",
    "embedding": "embedding LoRA",
    # why a module finds no weight
    "no_weight": "no weight of this name",
    "no_bias": "its layer has no bias here",
    "shape": "shape {mine} for {weight} of shape {theirs}",
    "unrecognised": "not recognised",
    "folders": "diffusion_models or checkpoints",
    # what a model makes of what
    "image_to_video": "image to video",
    "text_to_video": "text to video",
    "text_to_image": "text to image",
    "text_and_image": "text and image",
    "task_not": "task: {lora}, not {base}",
    "size_not": "size: {lora}, not {base}",
    "version_not": "version: {lora}, not {base}",
    # why a server gives nothing
    "answered": "it answered {status}",
    "too_long": "it took too long",
    "refused": "nothing listens there",
    "broke_off": "it broke off",
    "unknown_host": "its name is not known here",
    "certificate": "its certificate is not valid",
    "silent": "no answer came",
    "bad_address": "no server can have such an address",
    "offline": "HF_HUB_OFFLINE is set",
    "own_region": "the bucket's own",
}
