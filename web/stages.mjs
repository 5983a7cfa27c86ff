// A colour for each stage's nodes, so that the order is seen from afar. Nothing of it is saved, and a colour of the user's
// wins: the canvas takes it from the node's class, Nodes 2.0 from a style sheet of node ids.
// @ts-check

import { COLOURS } from "./sockets.mjs"

const FINISHED = "#b39ddb" // as the host's MODEL
const CHECKED = "#6fbf83"
const OF_KIND = {
  FoundryLoadBase: COLOURS.FOUNDRY_BASE,
  FoundryLoadCheckpoint: COLOURS.FOUNDRY_BASE,
  FoundryFuseBaseLoRA: COLOURS.FOUNDRY_FUSED,
  FoundryLoRA: COLOURS.LORA_STACK,
  FoundryLoRAStack: COLOURS.LORA_STACK,
  FoundryMergeLoRAs: COLOURS.LORA_STACK,
  FoundryLoRAConflicts: COLOURS.LORA_STACK,
  FoundryExtractLoRA: COLOURS.LORA_STACK,
  FoundryStackLoRAs: COLOURS.FOUNDRY_STACKED,
  FoundryStackValidator: CHECKED,
  FoundryQuantizeFP8: FINISHED,
  FoundryApply: FINISHED,
  FoundrySaveModel: FINISHED,
}
const TITLE = 0.28 // share of the colour in the title bar, beside the host's grey
const BODY = 0.16

/** Two colours "#rrggbb" in one: `share` of the first. */
export function mix(colour, ground, share) {
  const parts = (text) => [1, 3, 5].map((at) => parseInt(text.slice(at, at + 2), 16))
  const [over, under] = [parts(colour), parts(ground)]
  const mixed = over.map((part, at) => Math.round(part * share + under[at] * (1 - share)))
  return `#${mixed.map((part) => part.toString(16).padStart(2, "0")).join("")}`
}

/** The canvas: what every node of this class without a colour of its own is drawn in; the host lightens it in a light theme. */
export function tint(nodeType, kind) {
  const colour = OF_KIND[kind]
  if (!colour) return
  nodeType.color = mix(colour, "#2a2a2a", TITLE)
  nodeType.bgcolor = mix(colour, "#353535", BODY)
}

/** Nodes 2.0: the style sheet for the nodes that are on the page. @param {{id: any, comfyClass?: string, color?: string, bgcolor?: string}[]} nodes */
export function sheetOf(nodes) {
  const byColour = new Map()
  for (const { id, comfyClass, color, bgcolor } of nodes) {
    const colour = OF_KIND[comfyClass]
    if (!colour || color || bgcolor) continue
    if (!byColour.has(colour)) byColour.set(colour, [])
    byColour.get(colour).push(`[data-node-id=${JSON.stringify(String(id))}]`)
  }
  return [...byColour].map(([colour, ids]) => rules(colour, `:is(${ids.join(",")})`)).join("\n")
}

const ground = (name, colour, share) => `background-color: color-mix(in srgb, ${colour} ${share * 100}%, var(${name}))`

/** Frontends such as 1.32 colour the node and its title bar; such as 1.58 a wrapper, and the node's body in it. */
function rules(colour, nodes) {
  const wrapper = '[data-testid="node-inner-wrapper"]'
  const plain = `${nodes}:not(:has(> ${wrapper}))`
  return `${plain} .lg-node-header { ${ground("--node-component-header-surface", colour, TITLE)} }
${plain}.lg-node { ${ground("--component-node-background", colour, BODY)} }
${nodes} > ${wrapper} { ${ground("--node-header", colour, TITLE)} }
${nodes} [data-testid^="node-body-"] { ${ground("--node", colour, BODY)} }`
}
