"""Merging LoRAs into one: what LF501 to LF503 say. A row: severity, what was seen, why it matters, what to do.

The figures are relative errors to the exact weighted sum, and shares of a method's own energy that are left after it is
saved as a LoRA, on seeded synthetic LoRAs.
"""

from __future__ import annotations

_TAKE = "Take one of: {methods}."
_TAKE_EXACT = "Take exact, with a rank, an error or a size if the file is to be smaller."
_OTHER_MODEL = "LoRAs that are merged must be made for one model."

MERGING: dict[str, tuple[str, ...]] = {
    "LF501.unknown": ("error", "There is no merge method '{method}'.", "", _TAKE),
    "LF501.exact": (
        "error",
        "There is no merge method '{method}': the weighted sum is called exact here.",
        "It puts the ranks side by side, which loses nothing.",
        "Take exact; weights that add up to 1 make it an average.",
    ),
    "LF501.svd": (
        "error",
        "There is no merge method '{method}': shrinking is not a method here, it can follow every one.",
        "",
        _TAKE_EXACT,
    ),
    "LF501.apart": (
        "error",
        "'{method}' is not offered: it merges up and down apart, which is not the sum of what the LoRAs do.",
        "Its result is 0.85 to 1.9 times the whole sum away from the sum.",
        _TAKE_EXACT,
    ),
    "LF501.dare": (
        "error",
        "'{method}' is not offered: it drops numbers of each LoRA and scales up the others.",
        "At density 0.5 it is 100% off the sum, and saving as a LoRA removes most of that as the noise it is: 44% of "
        "its energy is left at the rank of one LoRA, 64% at the rank of all three.",
        "Take tsv or ties to reduce interference, else exact.",
    ),
    "LF501.prune": (
        "error",
        "'{method}' is not offered: it drops the small numbers of each LoRA.",
        "A LoRA has few directions, not few numbers: the result has full rank, and saved as a LoRA it moves back "
        "towards the plain sum (24.5% off it at density 0.5 before, 14% after).",
        _TAKE_EXACT,
    ),
    "LF501.slerp": (
        "error",
        "'{method}' is not offered: on two LoRAs it is their sum with another length, on more it is not defined.",
        "It has no meaning for negative weights: at 1 and -0.6 its result was 1.3 times the whole sum away from the "
        "sum.",
        "Take exact, and set the length by the weights.",
    ),
    "LF501.iso": (
        "error",
        "'{method}' is not offered: it makes all directions equally strong.",
        "As published, 87% of its result lies outside of what the LoRAs do; kept inside, 33% of its energy is left at "
        "the rank of one LoRA, and it wants a strength tuned on data.",
        "Take tsv to reduce interference, else exact.",
    ),
    "LF501.training": ("error", "'{method}' is not offered: it needs training or example data.", "", _TAKE),
    "LF501.sampling": (
        "error",
        "'{method}' is not offered: it decides at each step of sampling, so that no file can hold it.",
        "",
        _TAKE,
    ),
    "LF502.nothing": (
        "error",
        "There is nothing to merge: {loras} change no module at a weight other than 0.",
        "",
        "Give a LoRA, and a weight other than 0.",
    ),
    "LF502.zeros": (
        "error",
        "There is nothing to merge: {loras} hold zeros only.",
        "The file would do nothing.",
        "Look for later checkpoints: a training that never began saves such files.",
    ),
    "LF502.weight": ("error", "{lora}: the weight is {weight}.", "", "Give a number such as 0.8."),
    "LF502.shapes": (
        "error",
        "{one} and {other} are made for two models: module '{module}' is {one_shape} in one and {other_shape} in the "
        "other.",
        "",
        _OTHER_MODEL,
    ),
    "LF502.nan": (
        "error",
        "{lora}: module '{module}' holds NaN or Inf.",
        "Merged, it would turn every picture black.",
        "Leave this LoRA out, or download it again.",
    ),
    "LF502.base": (
        "error",
        "'{module}' is of the kind {kind}, whose change depends on the base model.",
        "Without the base there is no exact merge of it.",
        "Name the base the LoRAs are used on, or leave this LoRA out.",
    ),
    "LF502.equal": (
        "error",
        "There is nothing to extract: the two models are equal in every weight they share.",
        "",
        "Name the tuned model and the base it was made from.",
    ),
    "LF502.two_sets": (
        "error",
        "Two LoRAs replace the same weight of the shape {shape}.",
        "It cannot hold both.",
        "Leave one of them out.",
    ),
    "LF502.part_set": (
        "error",
        "A LoRA replaces {rows} of the {all} rows of a weight.",
        "A merged file cannot replace a part of a weight.",
        "Leave this LoRA out.",
    ),
    "LF503.range": (
        "error",
        "The merged numbers do not fit {dtype}.",
        "Numbers above its largest would become Inf, and every picture black.",
        "Save as bf16 or fp32, or lower the weights.",
    ),
    "LF503.rank": ("error", "The rank is {amount}.", "", "Give a whole number from 1 on."),
    "LF503.energy": ("error", "The share of energy is {amount}.", "", "Give a number above 0 and at most 1, as 0.99."),
    "LF503.error": ("error", "The error allowed is {amount}.", "", "Give a number from 0 to below 1, as 0.02."),
    "LF503.size": ("error", "The size asked for is {amount} bytes.", "", "Give a number of bytes, as 200MB."),
    "LF503.clamp": ("error", "The quantile to clamp at is {amount}.", "", "Give a number between 0 and 1, as 0.99."),
    "LF503.layer_rank": ("error", "The rank given for '{module}' is {rank}.", "", "Give a whole number from 1 on."),
    "LF503.no_layer": (
        "error",
        "A rank is given for '{module}', which is no module with factors in this merge.",
        "",
        "Take a name the LoRAs have.",
    ),
    "LF503.above": (
        "error",
        "The rank given for '{module}' is {rank}; a weight of {rows} x {columns} has no more than the smaller of "
        "the two.",
        "",
        "Give a smaller rank, or none for this module.",
    ),
    "LF503.above_all": (
        "error",
        "The rank is {rank}, and no weight that these LoRAs change has more than {most}.",
        "",
        "Give a smaller rank, or none: nothing is shrunk then.",
    ),
    "LF503.too_small": (
        "error",
        "The size asked for is {size} bytes; the smallest file with anything in it has {least}.",
        "",
        "Give a larger size.",
    ),
}
