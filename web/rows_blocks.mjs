// Factors by block: bars become a text as short as people write it, and presets. Pure.
// @ts-check

/** @typedef {[string, number]} Factor a block such as "double.3" and its factor */

const OTHER = "other"

/** "double.3" as kind and number; one without a number is its kind alone. @returns {[string, number | null]} */
export function partsOf(block) {
  const [kind, number] = block.split(".")
  return [kind, number === undefined ? null : Number(number)]
}

/** The kinds of blocks in their order. @param {Factor[]} factors */
export const kindsOf = (factors) => [...new Set(factors.map(([block]) => partsOf(block)[0]))]

const ofKind = (factors, kind) => factors.filter(([block]) => partsOf(block)[0] === kind)

const shown = (factor) => String(Number(factor.toFixed(4)))

/** Runs of blocks one after the other with the same factor, those of `usual` left out. */
function runs(kind, factors, usual) {
  const found = []
  let open = null
  for (const [block, factor] of factors) {
    const number = partsOf(block)[1]
    if (open && factor === open.factor && number === open.last + 1) open.last = number
    else found.push((open = { first: number, last: number, factor }))
  }
  const name = ({ first, last }) => (first === null ? kind : `${kind}.${first === last ? first : `${first}-${last}`}`)
  return found.filter(({ factor }) => factor !== usual).map((run) => `${name(run)}=${shown(run.factor)}`)
}

/** A kind's factors: run by run, or one for the kind and then what differs, whichever is shorter. */
function textOfKind(kind, factors) {
  const counts = new Map()
  for (const [, factor] of factors) counts.set(factor, (counts.get(factor) ?? 0) + 1)
  const [usual] = [...counts].sort(([, a], [, b]) => b - a)[0]
  const plain = runs(kind, factors, 1)
  const whole = usual === 1 ? plain : [`${kind}=${shown(usual)}`, ...runs(kind, factors, usual)]
  return whole.join().length < plain.join().length ? whole : plain
}

/** Factors as a text that the server reads as the same; empty where all are 1. @param {Factor[]} factors */
export const textOf = (factors) => kindsOf(factors).flatMap((kind) => textOfKind(kind, ofKind(factors, kind))).join(",")

/** The factors with some of another value. @param {Factor[]} factors @param {(block: string, at: number) => number} factor */
export const withFactors = (factors, factor) => factors.map(([block], at) => [block, factor(block, at)])

/** What a preset makes of them: [name, kind of blocks it keeps or "", factors]. What is in no block stays at 1. @param {Factor[]} factors */
export function presets(factors) {
  const kinds = kindsOf(factors).filter((kind) => kind !== OTHER)
  const share = new Map()
  for (const kind of kinds) ofKind(factors, kind).forEach(([block], at, all) => share.set(block, (at + 0.5) / all.length))
  const keep = (wanted) => withFactors(factors, (block) => (!share.has(block) || wanted(share.get(block), partsOf(block)[0]) ? 1 : 0))
  const only = kinds.length > 1 ? kinds.map((kind) => ["only", kind, keep((_, own) => own === kind)]) : []
  return [
    ["all", "", keep(() => true)],
    ["first", "", keep((at) => at < 0.5)],
    ["middle", "", keep((at) => at >= 0.25 && at <= 0.75)],
    ["last", "", keep((at) => at > 0.5)],
    ...only,
  ]
}
