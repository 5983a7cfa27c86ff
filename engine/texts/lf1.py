"""Order and base LoRAs: what LF101 to LF107 say. A row: severity, what was seen, why it matters, what to do."""

from __future__ import annotations

_FORGET = "If a record is wrong, take it back with lora-foundry lineage forget."
_DECLARE = "say it once with Declare Lineage or lora-foundry lineage declare."

ORDER: dict[str, tuple[str, ...]] = {
    "LF101.applied": (
        "error",
        "{loras} was applied before the base fusion.",
        "A base LoRA belongs into the untouched weights; what was trained on top of it expects that state.",
        "Fuse the base LoRA first and move the other LoRAs into the stack.",
    ),
    "LF101.beside": (
        "note",
        "{lora} needs {base_lora} below it ({said}), which is stacked and not fused here.",
        "For LoRAs that only add, the sum is the same up to rounding; it is not bit for bit what was trained on.",
        "For the very state of training, fuse {base_lora} with 1 Fuse Base LoRA.",
    ),
    "LF101.beside_dependent": (
        "warning",
        "{lora} works on the values of the weights (as DoRA, OFT and set do) and needs {base_lora} below it ({said}), "
        "which is not below it here.",
        "LoRAs of one stage all see the same weights, so {lora} is worked out without {base_lora}: other numbers than "
        "in training.",
        "Fuse {base_lora} with 1 Fuse Base LoRA, and put {lora} into the stack.",
    ),
    "LF101.after": (
        "note",
        "{base_lora}, an accelerator, is applied after {loras}.",
        "An accelerator belongs right onto the base. For LoRAs that only add, the sum is the same up to rounding; "
        "DoRA, OFT and set give other numbers.",
        "Load {base_lora} first.",
    ),
    "LF101.after_trained": (
        "warning",
        "{base_lora} is applied after {lora}, which needs it below ({said}).",
        "The sum is the same up to rounding, but every state in between was never trained on: what is merged, saved, "
        "quantized or worked out there is wrong.",
        "Load {base_lora} before {lora}, or fuse it with 1 Fuse Base LoRA.",
    ),
    "LF101.after_dependent": (
        "error",
        "{base_lora} is applied after {lora}, which works on the values of the weights (as DoRA, OFT and set do) and "
        "needs it below ({said}).",
        "{lora} is worked out on weights without {base_lora}: other numbers than in training.",
        "Load {base_lora} before {lora}, or fuse it with 1 Fuse Base LoRA.",
    ),
    "LF101.lora_above": (
        "error",
        "LoRA {loras} was applied (node {at}) before the base fusion.",
        "A base LoRA belongs into the untouched weights; what was trained on top of it expects that state.",
        "Move the LoRA into a LoRA Stack after Fuse Base LoRA.",
    ),
    "LF101.stack_above": (
        "error",
        "The LoRA stack was applied (node {at}) before the base fusion.",
        "A base LoRA belongs into the untouched weights; what was trained on top of it expects that state.",
        "Fuse the base LoRA first, then stack, then quantize.",
    ),
    "LF102.missing": (
        "warning",
        "{lora} was trained with {base_lora} ({said}), which is not in this model.",
        "It was trained on other weights than these, so its effect will not be the one of training.",
        "Fuse {base_lora} first. If it is to be left out in use, " + _DECLARE,
    ),
    "LF102.stated": (
        "warning",
        "{lora} is to be used with {base_lora} ({said}), which is not in this model.",
        "Without it the effect will not be the one its maker had.",
        "Fuse {base_lora} first. " + _FORGET,
    ),
    "LF102.vanilla": (
        "warning",
        "You chose no base LoRA, but {lora} needs {base_lora} ({said}).",
        "It was made for other weights than these, so its effect will not be the one of training.",
        "Choose {base_lora} in 1 Fuse Base LoRA. If it is to be left out in use, " + _DECLARE,
    ),
    "LF102.guessed": (
        "question",
        "Does {lora} need {base_lora}? It looks so ({said}), and {base_lora} is not in this model.",
        "That is a guess. If it is right, the effect will not be the one of training.",
        "If it needs it, fuse {base_lora} first; either way " + _DECLARE,
    ),
    "LF102.ask": (
        "question",
        "{lora} was trained with {base_lora} ({said}), which is not in this model. Is it to be kept in use?",
        "The same option of a trainer serves base LoRAs that stay, and training adapters and differential LoRAs that "
        "are left out afterwards.",
        "If it stays, fuse {base_lora} first; either way " + _DECLARE,
    ),
    "LF102.conflict": (
        "question",
        "Which base LoRA does {lora} need? One source says {first} ({said}), another says {second} ({other_said}).",
        "Both are equally well known, so neither is believed and its base LoRAs are not checked.",
        "Correct the source that is wrong, or move it away from the LoRA. " + _FORGET,
    ),
    "LF103.trained": (
        "note",
        "{lora} was trained without a base LoRA ({said}), and {base_loras} is in this model.",
        "An accelerator on such LoRAs is often used on purpose; the weights are still not those of training, and the "
        "effect may differ.",
        "If the result is poor, leave {base_loras} out. If it is meant so, " + _DECLARE,
    ),
    "LF103.stated": (
        "note",
        "{lora} is to be used without a base LoRA ({said}), and {base_loras} is in this model.",
        "Its maker had no base LoRA below it, so the effect may differ.",
        "Leave {base_loras} out. " + _FORGET,
    ),
    "LF104.another": (
        "warning",
        "{lora} needs {base_lora} ({said}); {other} is in this model instead.",
        "Another file or version leaves other weights than those of training.",
        "Fuse {base_lora} instead of {other}.",
    ),
    "LF104.contents": (
        "warning",
        "{lora} needs {base_lora} ({said}); the file of that name in this model is another one.",
        "Their contents differ, and so do the weights they leave from those of training.",
        "Fuse the very file that was used in training: lora-foundry lineage show tells the hashes of both.",
    ),
    "LF104.undecided": (
        "question",
        "{lora} needs {base_lora} ({said}). Is {other} the same LoRA?",
        "Only the name of one is known, or they differ in modules or precision: that does not settle it.",
        "If it is another LoRA, fuse {base_lora} instead. If it is the same, " + _DECLARE,
    ),
    "LF104.strength": (
        "warning",
        "{lora} needs {base_lora} at strength {then} ({said}); here it is at {now}.",
        "Another strength leaves other weights than those of training.",
        "Set the strength of {base_lora} to {then}.",
    ),
    "LF104.coverage": (
        "warning",
        "{lora} was trained while {then} modules of {base_lora} were fused ({said}); here it is {now}.",
        "Trainers skip modules whose names they do not find. More or fewer of them are other weights than those of "
        "training.",
        "Compare the result with and without {base_lora}, and read the coverage of {base_lora} in the report.",
    ),
    "LF104.dtype": (
        "note",
        "{lora} needs {base_lora} fused in {then} ({said}); here that was done in {now}.",
        "Each format rounds the fused weights in its own way.",
        "Nothing to do unless the result is poor; then fuse in {then}.",
    ),
    "LF104.noise": (
        "question",
        "Is {lora} meant for this model? By its name it is for {then} noise; {base} is the model of {now} noise.",
        "Each of the two models does one part of the sampling, and a LoRA for one was never trained on the other.",
        "Load the LoRA for {now} noise here, and this one on the model of {then} noise.",
    ),
    "LF104.version": (
        "question",
        "Is {lora} meant for this model? By its name it is made for {then}; {base} is {now}.",
        "An accelerator is distilled from one version. On another all of it fits, and the image blurs or burns.",
        "Take the accelerator of {now}, if there is one.",
    ),
    "LF104.weights": (
        "question",
        "{lora} was distilled on {then} weights; those of {base} have 16 bits or more.",
        "It learned to work with the rounding of those weights, which is not there.",
        "Load the {then} file of this model, or take the LoRA that was distilled on bf16.",
    ),
    "LF105.twice": (
        "error",
        "{lora} is fused twice: at {first} and at {second}.",
        "Its effect is added twice, which no training ever saw.",
        "Leave one of the two out; one row takes any strength.",
    ),
    "LF105.contained": (
        "error",
        "{base} contains {lora} already ({source}), and it is fused again.",
        "Its effect is added twice, which no training ever saw.",
        "Leave {lora} out of the fusion. " + _FORGET,
    ),
    "LF105.contained_name": (
        "warning",
        "{base} contains a LoRA of the same name as {lora} already ({source}), and {lora} is fused again.",
        "If it is the same file, its effect is added twice. Their contents could not be compared.",
        "Leave {lora} out of the fusion, unless it is another file of that name. " + _FORGET,
    ),
    "LF105.contained_stacked": (
        "warning",
        "{base} contains {lora} already ({source}), and it is stacked on top.",
        "Its effect is added twice.",
        "Leave {lora} out of the stack. " + _FORGET,
    ),
    "LF105.contained_guessed": (
        "question",
        "Does {base} contain {lora} already? It looks so ({source}), and {lora} is added again.",
        "That is a guess. If it is right, its effect is added twice.",
        "If it is inside, leave {lora} out.",
    ),
    "LF105.fused_and_stacked": (
        "warning",
        "{lora} is fused at {first} and stacked at {second} as well.",
        "Its effect is added twice.",
        "Leave one of the two out.",
    ),
    "LF105.same_name": (
        "question",
        "Are {lora} and {other} the same file? Both are added, and only their folders differ.",
        "Their contents could not be compared. If they are the same, the effect is added twice.",
        "If they are the same, leave one out.",
    ),
    "LF105.stacked_twice": (
        "note",
        "{lora} is stacked twice: at {first} and at {second}.",
        "The strengths add up to {sum}.",
        "If that is not meant, leave one of the two out.",
    ),
    "LF105.merged": (
        "warning",
        "{lora} is in this model twice: merged into {merged} (at {strength}), and in {where}.",
        "Its effect is added twice.",
        "Leave one of the two out.",
    ),
    "LF105.weights": (
        "warning",
        "{upper} already contains {lower}: {share} of it, by their weights ({weights} compared).",
        "Used together they apply {lower} at a strength of {total} instead of {alone}.",
        "Leave {lower} out where {upper} is used, or use an {upper} without it.",
    ),
    "LF106.dropped": (
        "warning",
        "{base_lora} is in this model. {lora} was trained with it, and it is to be left out in use ({said}).",
        "It only helped the training; in use it pulls the model away from what was trained.",
        "Leave {base_lora} out. " + _FORGET,
    ),
    "LF106.adapter": (
        "warning",
        "{lora} is a training adapter, and it is in this model.",
        "Such a LoRA undoes the distillation of a base while others are trained; in use it is left out.",
        "Leave {lora} out. If it is none, " + _DECLARE,
    ),
    "LF106.adapter_guessed": (
        "question",
        "Is {lora} a training adapter? Its name or its metadata says so, and it is in this model.",
        "That is a guess. Such a LoRA only helps while others are trained; in use it is left out.",
        "If it is one, leave {lora} out; either way " + _DECLARE,
    ),
    "LF107.bypassed": (
        "note",
        "{stage} (node {at}) is bypassed: {missing}.",
        "The graph runs, but not with what that node was put there for.",
        "Delete the node if that is meant, or switch it on again.",
    ),
    "LF107.muted": (
        "warning",
        "{stage} (node {at}) is muted, but node {user} waits for what it gives: {missing}.",
        "A muted node gives nothing, so what hangs on it cannot run or runs without a model.",
        "Switch it on again, or bypass it.",
    ),
    "LF108.lost": (
        "note",
        "{loras} was not checked: {nodes} leads to {into}, and what becomes of a model there is not known here.",
        "Nothing is said of this LoRA, which does not mean that all is well with it.",
        "Check it by hand. A node of a common kind is a row of a table: please report its name.",
    ),
    "LF108.left_out": (
        "note",
        "Not everything of this workflow was checked; left out: {left}.",
        "A check may take a moment only, and this is more than anybody wires. Nothing is said of what was left out.",
        "Check the workflow in parts, or with fewer models at once.",
    ),
    "LF108.unread": (
        "note",
        "{nodes} brings LoRAs that cannot be read: which ones, is known only while the workflow runs, or its inputs "
        "are not known here.",
        "Nothing is said of these LoRAs, which does not mean that all is well with them.",
        "Check them by hand, or export the workflow in API form, which names every input.",
    ),
}
