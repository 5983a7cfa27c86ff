// What the server tells of LoRAs, for the rows editor: names, never paths. Each is asked once for each base.
// @ts-check

import { addressOf, drawn, fetchApi, post } from "./host.mjs"

/** base -> LoRA -> its facts, or the promise of them */
const known = new Map()
const old = new Set() // names of which there may be more to tell by now

/** @returns {Promise<string[]>} the LoRAs the server lists now */
export async function everyLora() {
  const answer = await fetchApi("/lora_foundry/loras")
  if (!answer.ok) throw new Error(String(answer.status))
  return (await answer.json()).loras
}

/** The answer to a question, or its error as one sentence. */
async function told(asking) {
  const answer = await asking
  const found = await answer.json()
  if (!answer.ok) throw new Error([found.error.what, found.error.fix].filter(Boolean).join(" "))
  return found
}

/** @returns {Promise<string[]>} the names of saved stacks */
export const savedStacks = async () => (await told(fetchApi("/lora_foundry/stacks"))).stacks

/** @returns {Promise<object[]>} the rows of a saved stack */
export const stackNamed = async (name) => (await told(fetchApi(`/lora_foundry/stacks?name=${encodeURIComponent(name)}`))).rows

/** @returns {Promise<string[]>} the names that are there then */
export const saveStack = async (name, rows, replace) => (await told(post("/lora_foundry/stacks", { name, rows, replace }))).stacks

/** The LoRAs of another node of this workflow as rows. @param {string} id @returns {Promise<object[]>} */
export async function rowsOfNode(id) {
  return (await told(post("/lora_foundry/foreign_rows", { workflow: drawn(), node: id }))).rows
}

/** Where the picture of a LoRA is. */
export const previewOf = (name) => addressOf(`/lora_foundry/preview?lora=${encodeURIComponent(name)}`)

/**
 * Every block of a base and the factors that a text gives them.
 * @returns {Promise<{blocks: [string, number][], text_encoder: number, error: string}>}
 */
export async function blocksOf(base, text) {
  return told(post("/lora_foundry/blocks", { base, blocks: text }))
}

/** What is known of a LoRA by now. @param {string} base its name, empty: none is wired */
export const factsOf = (name, base) => known.get(base)?.get(name)

/** Another state of the files: everything is asked again. */
export const forgetFacts = () => known.clear()

/** A check hashed the files: what was told of them before that, and of files that were not there, is asked again. */
export function outdate(names, base) {
  for (const name of names) {
    const facts = factsOf(name, base)
    if (facts?.hashed === false || facts?.missing) old.add(name)
  }
}

/**
 * Ask about the LoRAs that nothing is known of yet, or something old, in one request.
 * @returns {Promise<boolean>} whether there is something new; a server that does not answer is asked again later
 */
export async function learnFacts(names, base) {
  const facts = known.get(base) ?? new Map()
  known.set(base, facts)
  const open = [...new Set(names)].filter((name) => !facts.has(name) || old.delete(name))
  if (!open.length) return false
  for (const name of open) facts.set(name, facts.get(name))
  try {
    const { rows } = await told(post("/lora_foundry/rows", { loras: open, base: base || null }))
    const before = open.map((name) => JSON.stringify(facts.get(name)))
    for (const [name, found] of Object.entries(rows)) facts.set(name, found)
    return open.some((name, at) => JSON.stringify(facts.get(name)) !== before[at])
  } catch {
    for (const name of open) if (!facts.get(name)) facts.delete(name)
    return false
  }
}
