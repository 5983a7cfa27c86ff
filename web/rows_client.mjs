// What the server tells of LoRAs, for the rows editor: names, never paths. Each is asked once for each base.
// @ts-check

import { addressOf, drawn, fetchApi, post } from "./host.mjs"
import { problemOf } from "./texts.mjs"

/** base -> LoRA -> its facts, or the promise of them */
const known = new Map()
const old = new Set() // base and LoRA of which there may be more to tell by now
const keyOf = (base, name) => `${base}\n${name}`

/** The list as it came last, and its ETag: it stays this object until the server has another one. */
let listed = { tag: "", names: [] }
let changed = () => {}
const listeners = []
const learnt = () => listeners.forEach((handle) => handle())

/** The LoRAs of the last list. @returns {string[]} */
export const listedLoras = () => listed.names

/** @param {() => void} handle called when there may be more to tell of LoRAs: files, what lies beside them or records are others */
export const whenChanged = (handle) => (changed = handle)

/** @param {() => void} handle called when there is something new about a LoRA, whoever asked: a chooser asks for rows too */
export const whenLearnt = (handle) => void listeners.push(handle)

/** @type {Promise<string[]> | null} the question on its way: on a slow disk several would wait for each other */
let asking = null

/** @returns {Promise<string[]>} the LoRAs the server lists now */
export const everyLora = () => (asking ??= askForList().finally(() => (asking = null)))

async function askForList() {
  const { tag } = listed
  // the browser's own cache would hide whether it is another list
  const answer = await fetchApi("/lora_foundry/loras", { cache: "no-store", headers: tag ? { "If-None-Match": tag } : {} })
  if (answer.status === 304) return listed.names
  if (!answer.ok) throw new Error(String(answer.status))
  const { loras } = await answer.json()
  const same = loras.length === listed.names.length && loras.every((name, at) => name === listed.names[at])
  listed = { tag: answer.headers.get("ETag") ?? "", names: same ? listed.names : loras }
  if (tag) {
    titles.clear()
    for (const [base, facts] of known) for (const name of facts.keys()) old.add(keyOf(base, name))
    changed()
  }
  return listed.names
}

const titles = new Map() // LoRA -> its title, empty for none
const AT_ONCE = 500 // LoRAs in one question

/** What people call a LoRA, where that is known by now. */
export const titleOf = (name) => titles.get(name) ?? ""

/**
 * Ask for the titles that are not known yet, some at a time, as long as somebody waits for them.
 * @param {string[]} names @param {() => boolean} wanted @param {() => void} handle called when there are some more
 */
export async function learnTitles(names, wanted, handle) {
  const open = names.filter((name) => !titles.has(name))
  for (let at = 0; at < open.length && wanted(); at += AT_ONCE) {
    const some = open.slice(at, at + AT_ONCE)
    const { titles: found } = await told(post("/lora_foundry/titles", { loras: some }))
    for (const name of some) titles.set(name, found[name] ?? "")
    if (wanted() && Object.keys(found).length) handle()
  }
}

/** The answer to a question, or its error as one sentence. */
async function told(asking) {
  const answer = await asking
  if (!answer.ok) throw new Error(await problemOf(answer))
  return answer.json()
}

/** @returns {Promise<string[]>} the names of saved stacks */
export const savedStacks = async () => (await told(fetchApi("/lora_foundry/stacks"))).stacks

/** @returns {Promise<object[]>} the rows of a saved stack */
export const stackNamed = async (name) => (await told(fetchApi(`/lora_foundry/stacks?name=${encodeURIComponent(name)}`))).rows

/** @returns {Promise<string[]>} the names that are there then */
export const saveStack = async (name, rows, replace) => (await told(post("/lora_foundry/stacks", { name, rows, replace }))).stacks

/** @returns {Promise<string[]>} the names that are left */
export const deleteStack = async (name) => (await told(post("/lora_foundry/stacks/delete", { name }))).stacks

/**
 * The LoRAs of another node of this workflow as rows. @param {string} id
 * @returns {Promise<{rows: object[], halves: Record<string, object[]>}>} `halves`: those for high and low noise, of a node for both
 */
export const rowsOfNode = (id) => told(post("/lora_foundry/foreign_rows", { workflow: drawn(), node: id }))

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
    if (facts?.hashed === false || facts?.missing) old.add(keyOf(base, name))
  }
}

/**
 * Ask about the LoRAs that nothing is known of yet, or something old, in one request.
 * @returns {Promise<boolean>} whether there is something new; a server that does not answer is asked again later
 */
export async function learnFacts(names, base) {
  const facts = known.get(base) ?? new Map()
  known.set(base, facts)
  const open = [...new Set(names)].filter((name) => !facts.has(name) || old.delete(keyOf(base, name)))
  if (!open.length) return false
  for (const name of open) facts.set(name, facts.get(name))
  try {
    const { rows } = await told(post("/lora_foundry/rows", { loras: open, base: base || null }))
    const others = Object.entries(rows).filter(([name, found]) => JSON.stringify(found) !== JSON.stringify(facts.get(name)))
    for (const [name, found] of others) facts.set(name, found) // what is told again stays the object it is
    if (others.length) learnt()
    return others.length > 0
  } catch {
    for (const name of open) if (!facts.get(name)) facts.delete(name)
    return false
  }
}
