"""LoRAs without a meaning, alone or here: what LF304 says. A row: severity, what was seen, why, what to do."""

from __future__ import annotations

_AGAIN = "The file is damaged or was converted wrongly: download it again, or export it again from the trainer."
_ANOTHER = "The file is damaged or made for another model: download it again, or choose another one."
_UNDEFINED = "What it would do to the model is not defined."
_NO_BASE = "Use a LoRA and a base made for each other."
_NOT_WHOLE = "This is not supported yet, and the rest of the file without it would not be what its author made."
_OWN_LOADER = "Load this file with ComfyUI's own LoRA loader for now."
_IN_ONE_PIECE = "Use a base that has this weight in one piece, or leave this LoRA out."
_PART_OF_WEIGHT = "{lora}: '{module}' ({kind}) is made for one weight, and {weight} is only a part of it."


def _broken(seen: str, why: str) -> tuple[str, ...]:
    """A LoRA file that has no meaning."""
    return ("error", "{lora}: " + seen, why, _AGAIN)


def _misfit(why: str) -> tuple[str, ...]:
    """Parts of one adapter whose shapes contradict each other."""
    return _broken("{tensors} do not fit together.", why)


MEANING: dict[str, tuple[str, ...]] = {
    # as a file
    "LF304.empty": ("error", "{lora} contains no tensors.", "There is nothing in it to apply.", _AGAIN),
    "LF304.no_lora": ("error", "{lora} contains no LoRA tensors: it starts with {tensors}.", "", "Choose a LoRA file."),
    "LF304.model": (
        "error",
        "{lora} looks like a whole model or a part of one: none of its {all} tensors ({tensors}, ...) is a LoRA part.",
        "",
        "Load it as the base, and choose a LoRA here.",
    ),
    "LF304.model_of_family": (
        "error",
        "{lora} looks like a whole {family} model: none of its {all} tensors ({tensors}, ...) is a LoRA part.",
        "",
        "Load it as the base, and choose a LoRA here.",
    ),
    "LF304.foreign": (
        "error",
        "{lora} holds parts of another kind of adapter ({kinds}): {tensors}.",
        _NOT_WHOLE,
        "ComfyUI cannot load it either: ask its author for a LoRA extracted from it, or for the merged model.",
    ),
    "LF304.beside": (
        "error",
        "{lora} holds a part of no known adapter beside those of one: {tensors}.",
        _NOT_WHOLE,
        _OWN_LOADER,
    ),
    "LF304.rejoined": (
        "warning",
        "{lora}: q, k and v of {layers} attention layers were split wrongly and are put together again.",
        "Their common down factor was cut into three; each of them needs all of it. No number is lost.",
        "Nothing needs to be done; other programs refuse this file or apply it wrongly.",
    ),
    "LF304.residual": (
        "error",
        "{lora}: {source} says that it was started with {start}.",
        "Such a LoRA belongs to a base from which a part was taken out; on the usual base that part counts twice.",
        "Export it from PEFT as a plain LoRA first (save_pretrained, path_initial_model_for_weight_conversion).",
    ),
    "LF304.diverged": (
        "warning",
        "{bad} of {all} tensors of {lora} hold NaN or Inf.",
        "The training diverged.",
        "Train with a lower learning rate.",
    ),
    "LF304.nan": _broken(
        "'{tensor}' holds {bad} NaN or Inf of {all} numbers.",
        "Added to a model they would turn every picture black.",
    ),
    "LF304.pattern": _broken(
        "{source} names modules by the pattern '{pattern}'.",
        "Which modules it means is not clear, and so their scale is not.",
    ),
    "LF304.scale_shape": _broken(
        "'{scale}' of shape {scale_shape} is beside '{tensor}' {shape}.",
        "A scale is one number, or one per row.",
    ),
    "LF304.alpha_type": _broken("'{tensor}' is {dtype} of shape {shape}.", "An alpha is one real number."),
    "LF304.alpha_value": _broken("'{tensor}' is {alpha}.", "No scale can be computed from it."),
    "LF304.dense_scale": (
        "error",
        "{lora}: '{module}' is a LoKr of whole factors, and {source} states a scale of {scale}.",
        "It is of a text encoder: ComfyUI, which puts it there, would use 1.",
        "Set alpha to r in {source}, and use the LoRA at {scale} times the strength you want.",
    ),
    "LF304.attached_to_none": _broken(
        "'{tensor}' needs one adapter to belong to, and has none.",
        "A magnitude or a new shape alone has no meaning.",
    ),
    "LF304.attached_to_many": _broken(
        "'{tensor}' needs one adapter to belong to, and has more than one.",
        "A magnitude or a new shape alone has no meaning.",
    ),
    "LF304.alpha_alone": _broken("'{tensor}' has no factors beside it.", "An alpha alone changes nothing."),
    "LF304.half": _broken("'{tensor}' has no '{part}' factor beside it.", "Half a {kind} has no meaning."),
    "LF304.codes": _broken(
        "'{tensor}' is stored as {dtype}.",
        "Without a scale beside it its numbers mean nothing.",
    ),
    "LF304.part_shape": _broken("'{tensor}' has the shape {shape}.", "That is no '{part}' part of a {kind}."),
    "LF304.unknown_part": (
        "error",
        "{lora}: '{tensor}' is no known part of a {kind}.",
        "The rest of it without this part would not be what its author made.",
        _OWN_LOADER,
    ),
    "LF304.magnitude": _broken(
        "'{tensor}' has the shape {shape} for a weight of {weight_shape}.",
        "A DoRA magnitude is one number per row or per column.",
    ),
    "LF304.widened": _broken(
        "'{tensor}' says {stated}, the factors make {made}.",
        "The shape that the weight is widened to is not known.",
    ),
    "LF304.whole_and_split": _broken(
        "'{tensor}' is stored whole and split as well.",
        "Which of the two counts is not known.",
    ),
    "LF304.tucker": _misfit("The middle of a Tucker LoRA must be [rank, rank, kernel], its rank {rank}."),
    "LF304.core": _misfit("A core for {rows} rows may have {most} of its own: more make a product larger than memory."),
    "LF304.rank": _misfit("The second size of up must be the rank, {rank}."),
    "LF304.kernel": _misfit("An up factor has no kernel of its own."),
    "LF304.bias": _misfit("A bias has one number per row."),
    "LF304.products": _misfit("One makes {one}, the other {other}."),
    "LF304.ranks": _misfit("Their ranks differ."),
    "LF304.glora_kernel": _misfit("Only the inner factor of b has the kernel of a convolution."),
    "LF304.glora_sizes": _misfit("Their ranks or widths differ."),
    "LF304.product": (
        "error",
        "{lora}: '{tensor}' and what belongs to it make a weight of {made}, more than {most} numbers.",
        "No model in use has a weight of this size. Looking at it would take minutes and gigabytes.",
        "The file is damaged or was made to do harm: do not use it.",
    ),
    "LF304.oft_large": _misfit(
        "Blocks may have {most} rows: solving for larger ones takes minutes and gigabytes for a single weight."
    ),
    "LF304.oft_numbers": _misfit("An OFT of the inputs has the numbers above the diagonal of a square matrix."),
    "LF304.oft_square": _misfit("Each block must be square."),
    "LF304.boft_stages": _misfit("{stages} stages of blocks of {size} do not go into {rows} rows."),
    "LF304.boft_inputs": _misfit("{stages} stages of blocks of {size} do not go into {columns} columns."),
    "LF304.rescale": _misfit("One number per row."),
    # on this base, or beside these LoRAs
    "LF304.misfit": (
        "error",
        "{matched} of {modules} modules of {lora} fit {base}: '{module}' has {reason}.",
        "It is made for another size or variant of the model{variant}, or split or merged wrongly.",
        _NO_BASE,
    ),
    "LF304.misfit_quantized": (
        "error",
        "{matched} of {modules} modules of {lora} fit {base}: '{module}' has {reason}.",
        "The base is quantized ({quantized}), which may pack several numbers into one: nothing is known of the fit.",
        "Start from the bf16 or fp16 file of this base.",
    ),
    "LF304.strength": ("error", "{lora}: the strength is {strength}.", "", "Give a number such as 0.8."),
    "LF304.same_part": (
        "error",
        "{lora}: '{one}' and '{other}' are the same part of one layer.",
        "ComfyUI would use one of them only.",
        "Set its CLIP strength to 0.",
    ),
    "LF304.two_shapes": (
        "error",
        "One LoRA wants {weight} as {one}, another as {other}.",
        "A weight has one shape.",
        "Use one of the two LoRAs.",
    ),
    "LF304.shrinks": (
        "error",
        "A LoRA is made for {weight} of shape {wanted}; here it is {stored}.",
        "A weight can grow but not shrink.",
        "Choose a LoRA for this base.",
    ),
    "LF304.part_of_grown": (
        "error",
        "'{weight}' is made larger by one LoRA, and another changes only a part of it.",
        "Which part is meant then is not known.",
        "Use one of the two LoRAs.",
    ),
    "LF304.two_sets": (
        "error",
        "{one} and {other} both replace {weight}.",
        "Only one of them could have its way, whatever their strengths are.",
        "Leave one out, or put one into the fuse stage and the other on top of it.",
    ),
    "LF304.untrained": (
        "error",
        "{lora}: 'match training' is for plain LoRAs, and '{module}' is a {kind}.",
        "How its trainer would have rounded it is not known.",
        "Choose rounding 'once' for this LoRA.",
    ),
    "LF304.mixes_rows": ("error", _PART_OF_WEIGHT, "It turns all rows of that weight together.", _IN_ONE_PIECE),
    "LF304.norms_of_columns": (
        "error",
        _PART_OF_WEIGHT,
        "Its magnitudes are norms over all rows of that weight.",
        _IN_ONE_PIECE,
    ),
    "LF304.kind": ("error", "'{module}' is an adapter of an unknown kind, '{kind}'.", _UNDEFINED, _ANOTHER),
    "LF304.parts": ("error", "'{module}', a {kind}, has no {parts}.", _UNDEFINED, _ANOTHER),
    "LF304.size": (
        "error",
        "A change of {rows} x {columns} numbers does not fit {weight_rows} x {weight_columns}.",
        _UNDEFINED,
        _ANOTHER,
    ),
    "LF304.shapes": ("error", "Shapes {one} and {other} do not fit together.", _UNDEFINED, _ANOTHER),
    "LF304.result": (
        "error",
        "{weight} would hold {bad} NaN or Inf of {all} values.",
        "Storing them would hide the fault in a broken image.",
        "Check the base and the LoRAs; lower the strength if the factors are very large.",
    ),
}
