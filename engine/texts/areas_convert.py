"""Why a workflow, or a part of it, was not converted. A row: severity, what was seen, why it matters, what to do."""

from __future__ import annotations

_AS_IT_IS = "It stays as it is, with all LoRAs of the same model."

CONVERT: dict[str, tuple[str, ...]] = {
    "convert.nothing": (
        "note",
        "No LoRA loader here can be converted.",
        "A chain of Load LoRA nodes, a Power Lora Loader or a stacker on a model is looked for.",
        "Nothing to do, or build the graph with the nodes of LoRA Foundry.",
    ),
    "convert.same": (
        "error",
        "{out} is the workflow that is read.",
        "It is never overwritten: it is the way back.",
        "Name another file for the result.",
    ),
    "convert.deep": (
        "error",
        "The workflow is nested beyond what can be copied.",
        "No frontend saves such a file.",
        "Look for a value with hundreds of brackets around it.",
    ),
    "convert.document": (
        "error",
        "--apply-fixes is for workflows.",
        "",
        "Change the stack document by hand: the findings say how.",
    ),
    "convert.kind": (
        "note",
        "{at} loads {loras} in a way that cannot be taken apart.",
        "It does more than to put LoRAs on a model, or it is a kind of node that is not known here.",
        "Load the model and its LoRAs with nodes of their own, then convert again.",
    ),
    "convert.outputs": (
        "note",
        "Output {output} of {at} is in use.",
        "Our nodes have no such output, so it cannot be replaced. " + _AS_IT_IS,
        "Take what that output brings from another node, then convert again.",
    ),
    "convert.encodes": (
        "note",
        "{at} encodes its prompt itself, with a CLIP that {lora} changes.",
        "What a LoRA does to a prompt inside a loader cannot be done outside of it; a file that is not seen may do so. "
        + _AS_IT_IS,
        "Set its strength on CLIP to 0 if that is meant, or name the models' folder if it has no text-encoder parts.",
    ),
    "convert.pipe": (
        "note",
        "The pipe of {at} leads to {by}.",
        "It carries the model with its LoRAs there, and another model cannot be put in its place. " + _AS_IT_IS,
        "Take model and prompts out of the pipe before it, then convert again.",
    ),
    "convert.wired": (
        "note",
        "{inputs} of {at} is set from elsewhere.",
        "What it says is only known at run time, or would lose its control. " + _AS_IT_IS,
        "Type the value into the node, then convert again.",
    ),
    "convert.unread": (
        "note",
        "The LoRAs of {at} cannot be read before a run.",
        _AS_IT_IS,
        "Name its LoRAs in a LoRA Stack, then convert again.",
    ),
    "convert.unwired": (
        "note",
        "No model comes to {at}.",
        "Nothing is wired to it, or that is muted or drawn by another pack. " + _AS_IT_IS,
        "Wire the model, then convert again.",
    ),
    "convert.circle": (
        "note",
        "The model of {at} comes from itself, round a circle.",
        "No model comes in, and ComfyUI would refuse to run it. " + _AS_IT_IS,
        "Wire a model loader into it, then convert again.",
    ),
    "convert.unused": (
        "note",
        "Nobody takes the model of {at}.",
        "It is not clear what it is for. " + _AS_IT_IS,
        "Remove it or wire it, then convert again.",
    ),
    "convert.strength": (
        "note",
        "{at} loads {lora} at a strength beyond {most}.",
        "Rows of a stack go from -{most} to {most}. " + _AS_IT_IS,
        "Lower the strength, then convert again.",
    ),
    "convert.pickle": (
        "note",
        "{at} loads {lora}, which is no .safetensors file.",
        "Other files can run programs when they are opened, so they are never read here. " + _AS_IT_IS,
        "Convert the file to .safetensors first.",
    ),
    "convert.clips": (
        "note",
        "CLIP is taken at several places of the chain that ends at {at}, with different LoRAs on it.",
        "One stack makes one CLIP. " + _AS_IT_IS,
        "Take all CLIP from the last LoRA loader, if that is meant, then convert again.",
    ),
    "convert.clip": (
        "note",
        "The CLIP of {at} went through other LoRAs than its model, or comes from nowhere.",
        "One stack puts its LoRAs on both. " + _AS_IT_IS,
        "Lead model and CLIP through the same loaders, then convert again.",
    ),
    "convert.between": (
        "note",
        "{at} stands among LoRA loaders that lead to several models.",
        "It cannot come after all of them. " + _AS_IT_IS,
        "Put it after the last LoRA loader, then convert again.",
    ),
    "convert.before": (
        "note",
        "{at} comes before the LoRAs.",
        "It makes another model, or holds on to the weights it was given, so that stages must not follow it. "
        + _AS_IT_IS,
        "Put it after the last LoRA loader where that is possible, then convert again.",
    ),
    "convert.below": (
        "note",
        "The model carries {loras} already, by nodes that cannot be converted along.",
        "A base LoRA belongs below all others, and one stack holds them all. " + _AS_IT_IS,
        "Put all LoRA loaders one after the other, then convert again.",
    ),
    "convert.above": (
        "note",
        "LoRAs above these (nodes {nodes}) cannot be converted.",
        "Half of them in a stack and half above it would be harder to follow than before. " + _AS_IT_IS,
        "See what is said of those.",
    ),
    "convert.quantized": (
        "note",
        "{base} is quantized already ({how}).",
        "LoRAs belong into the weights before they are quantized. " + _AS_IT_IS,
        "Take the file with 16 bits in its loader, then convert again.",
    ),
}
