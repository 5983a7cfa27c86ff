// What a report measured, as the few numbers that pictures are made of. No page.
// @ts-check

const BINS = 24

const number = (value) => (Number.isFinite(value) ? value : null)

/**
 * @typedef {{name: string, share: number}} Kept share of a LoRA's effect that the bake kept
 * @typedef {{name: string, matched: number, modules: number, energy: [string, number][]}} Fit energy: its share by block
 * @typedef {{bins: number[], most: number, total: number, limit: number | null, count: number}} Errors of layers
 * @typedef {{names: string[], cosine: number[][], blocks: {block: string, shares: number[]}[]}} Pairs cosines of LoRAs, each
 *   with each, and their energies by block, last that of all together
 * @typedef {{kept: Kept[], fit: Fit[], size: {before: number, after: number} | null, errors: Errors | null, pairs: Pairs | null}} Numbers
 */

/** The few numbers of a report that pictures are made of. @param {any} data its JSON @returns {Numbers} */
export function numbersOf(data) {
  const loras = Array.isArray(data.loras) ? data.loras.filter((lora) => typeof lora?.path === "string") : []
  const kept = loras.filter(({ gain }) => number(gain) !== null).map(({ path, gain }) => ({ name: path, share: gain }))
  const fit = loras.filter(({ modules }) => modules > 0).map(({ path, matched, modules, energy }) => ({
    name: path,
    matched: number(matched) ?? 0,
    modules,
    energy: Object.entries(energy ?? {}).filter(([, share]) => number(share) !== null),
  }))
  const { before, after } = data.size ?? {}
  return { kept, fit, size: before > 0 && after > 0 ? { before, after } : null, errors: errorsOf(data), pairs: pairsOf(data) }
}

/** @returns {Errors | null} null where fewer than two layers were rounded */
function errorsOf({ layers, relative_error: total, budget }) {
  const errors = Object.values(layers ?? {}).map((layer) => number(layer?.relative_error)).filter((error) => error !== null)
  const limit = number(budget?.max_error)
  const most = Math.max(...errors, limit ?? 0, number(total) ?? 0)
  if (errors.length < 2 || !(most > 0)) return null
  const bins = new Array(BINS).fill(0)
  for (const error of errors) bins[Math.min(BINS - 1, Math.floor((error / most) * BINS))]++
  return { bins, most, total: number(total) ?? 0, limit, count: errors.length }
}

/** @returns {Pairs | null} null where LoRAs were not compared */
function pairsOf({ loras, cosine, blocks }) {
  const names = Array.isArray(loras) ? loras.map((lora) => lora?.name) : []
  const whole = (rows) => Array.isArray(rows) && rows.length === names.length && rows.every((row) => number(row) !== null)
  const square = Array.isArray(cosine) && cosine.length === names.length && cosine.every(whole)
  if (names.length < 2 || !square || !names.every((name) => typeof name === "string")) return null
  const told = Array.isArray(blocks) ? blocks.filter((each) => whole(each?.loras) && number(each.stack) !== null) : []
  return { names, cosine, blocks: told.map(({ block, loras: each, stack }) => ({ block: String(block), shares: [...each, stack] })) }
}

/** "2.4 GB" */
export const bytes = (count) => {
  const [unit, size] = count >= 1e9 ? ["GB", 1e9] : count >= 1e6 ? ["MB", 1e6] : ["kB", 1e3]
  return `${(count / size).toPrecision(3)} ${unit}`
}

/** "2.65%" */
export const percent = (share) => `${Number((share * 100).toPrecision(3))}%`
