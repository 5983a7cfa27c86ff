// A colour for each stage, so that the order can be seen. Nodes 2.0 takes its socket colours from panel.css instead.
// @ts-check

export const COLOURS = {
  FOUNDRY_BASE: "#8fa9bd", // cold steel
  FOUNDRY_FUSED: "#e5663b", // hot
  FOUNDRY_STACKED: "#2fb5a8", // set
  LORA_STACK: "#a9cf54",
}

const isStage = (type) => type in COLOURS || type.includes("FOUNDRY_")

/** The types of all sockets of all nodes that carry a stage, unions as they stand ("FOUNDRY_BASE,FOUNDRY_FUSED,MODEL"). */
export function stageTypes(nodeDefs) {
  const inputs = nodeDefs.flatMap((def) => Object.values({ ...def.input?.required, ...def.input?.optional }))
  const types = [...inputs.map((spec) => spec?.[0]), ...nodeDefs.flatMap((def) => def.output ?? [])]
  return [...new Set(types.filter((type) => typeof type === "string" && isStage(type)))]
}

/**
 * Gives `types` their colour in one of the canvas' tables. An accessor, because a change of theme blanks every type the
 * theme does not name; a theme that does name ours wins. A union takes the colour of its first type.
 */
export function colour(table, types) {
  for (const type of types) {
    const [first] = type.split(",")
    let themed = table[type]
    Object.defineProperty(table, type, {
      get: () => themed || COLOURS[first] || (first === type ? "" : table[first]),
      set: (value) => (themed = value),
      enumerable: true,
      configurable: true,
    })
  }
}

/** Quantized is the end: its MODEL would fit the socket of a stage, the order does not. The server refuses it too. */
export function pastTheEnd(accepted, arriving) {
  const [into, from] = [accepted, arriving].map((type) => String(type).split(","))
  return from.includes("FOUNDRY_QUANTIZED") && into.some((type) => type.startsWith("FOUNDRY_")) && !into.includes("FOUNDRY_QUANTIZED")
}
