// Asks the server what it finds in the open graph: a moment after the last change, never while a run is under way.
// Knows no page: what it needs of the host is handed to it.
// @ts-check

import { problemOf } from "./texts.mjs"

export const QUIET = 800 // ms after the last change
export const RETRY = [5_000, 15_000, 60_000, 300_000] // ms after a check that failed; the last again and again
const PATH = "/lora_foundry/lint"
const CONCERNS_US = /^Foundry|lora/i // kinds of nodes
const NOTHING = { findings: [], stacks: [] }
// What may change in a saved graph without another answer.
const LOOKS = new Set([
  ...["pos", "size", "order", "color", "bgcolor", "flags", "groups", "bounding"],
  ...["extra", "config", "state", "version", "revision", "last_node_id", "last_link_id"],
])

const PLACED = ["nodes", "inputs", "outputs", "reroutes"] // lists of a level whose entries lie somewhere
const ENDS = ["inputNode", "outputNode"] // of a subgraph

function bare(data) {
  const kept = {}
  for (const name of Object.keys(data)) if (!LOOKS.has(name)) kept[name] = data[name]
  return kept
}

/** A graph, or a subgraph, without what only looks; values of widgets are taken as they are. */
function level(graph) {
  const kept = bare(graph)
  for (const name of PLACED) if (Array.isArray(kept[name])) kept[name] = kept[name].map(bare)
  for (const name of ENDS) if (kept[name]) kept[name] = bare(kept[name])
  const inside = kept.definitions?.subgraphs
  return inside ? { ...kept, definitions: { ...kept.definitions, subgraphs: inside.map(level) } } : kept
}

/** A graph as a text that tells whether another answer is due. */
export const keyOf = (workflow) => JSON.stringify(level(workflow))

/** Whether there is a model path to judge, here or in a subgraph. */
function concernsUs(workflow) {
  const levels = [workflow, ...(workflow.definitions?.subgraphs ?? [])]
  return levels.some((level) => level.nodes?.some((node) => CONCERNS_US.test(node.type)))
}

/**
 * @typedef {object} Host
 * @property {() => object | null} drawn the open graph as it is saved
 * @property {() => Promise<object>} promptOf the same as a prompt
 * @property {(path: string, body: object, signal: AbortSignal) => Promise<Response>} post
 * @property {(idle: boolean) => Promise<void>} [pause] lets the page have its turn; idle: until it has nothing to do
 */

export class Linter {
  /** @param {Host} host @param {(answer: {findings: object[], stacks: object[]}) => void} show */
  constructor(host, show) {
    this.host = host
    this.show = show
    this.on = true // the user's setting
    this.absent = false // the server has no such route
    this.running = false // a run is under way
    this.answered = "" // the graph the newest answer is about; one that failed is no answer
    this.question = null // {key, stop}: the one under way
    this.failures = 0 // in a row
    this.turn = Promise.resolve() // one question at a time
    this.edits = 0
    /** @type {{edits: number, workflow: any, key: string} | null} the graph as it was after so many edits */
    this.taken = null
  }

  /** The open graph: saved once for a burst of edits, however often it is asked for, unless the host has saved it. */
  save() {
    if (this.taken?.edits !== this.edits) this.taken = { edits: this.edits, workflow: this.host.drawn(), key: "" }
    return this.taken
  }

  /** The same with its key. */
  take() {
    const taken = this.save()
    if (taken.workflow) taken.key ||= keyOf(taken.workflow)
    return taken
  }

  async pause(idle = false) {
    await this.host.pause?.(idle)
  }

  /** Something may have changed. @param {any} [workflow] the graph as it is now, where the host has saved it just now */
  touch(delay = QUIET, workflow = null) {
    this.edits++
    if (Array.isArray(workflow?.nodes)) this.taken = { edits: this.edits, workflow, key: "" }
    if (!this.on || this.absent) return
    clearTimeout(this.timer)
    this.timer = setTimeout(() => this.running || this.check().catch(() => {}), delay) // told by complain()
  }

  /** A run began or ended; what changed meanwhile is looked at after it. */
  busy(running) {
    const ended = this.running && !running
    this.running = running
    if (ended) this.touch()
  }

  /** The server is back, perhaps another one: what it did not answer is asked again. */
  reconnected() {
    this.absent = this.running = false
    this.failures = 0
    this.forget()
    this.touch()
  }

  /** Switched on or off by the user. */
  turned(on) {
    this.on = on
    clearTimeout(this.timer)
    this.forget()
    if (on) this.touch()
  }

  /** Another graph, or another lineage: no answer holds any more. */
  forget() {
    this.edits++
    this.answered = ""
    this.question?.stop.abort()
  }

  /** Ask if the graph changed since the last answer; a question about a graph that is gone is given up. */
  async check() {
    await this.pause(true)
    this.save()
    await this.pause() // a large graph takes a while: its key is a task of its own
    if (this.question && this.take().key !== this.question.key) this.question.stop.abort()
    return this.inTurn(async () => {
      const { workflow, key } = this.take()
      await this.pause()
      if (workflow && key !== this.answered) await this.ask(workflow, key)
    })
  }

  /** Ask now, with the prompt too: some packs draw wires that are only in it. @returns {Promise<object | null>} */
  now() {
    return this.inTurn(async () => {
      const prompt = await this.host.promptOf()
      this.edits++ // nothing may have told of the last one
      const { workflow, key } = this.take()
      return this.ask(workflow, key, prompt)
    })
  }

  inTurn(question) {
    const answer = this.turn.then(question)
    this.turn = answer.catch((error) => this.complain(error))
    return answer
  }

  async ask(workflow, key, prompt) {
    const stop = new AbortController()
    this.question = { key, stop }
    try {
      const answer = concernsUs(workflow) ? await this.post({ workflow, prompt }, stop.signal) : NOTHING
      await this.pause()
      const current = this.take().key === key
      if (answer && current && this.on) {
        this.answered = key
        this.show(answer)
      }
      if (!current) this.touch() // it is about a graph that is gone
      return answer
    } finally {
      this.question = null
    }
  }

  async post(body, signal) {
    const answer = await this.host.post(PATH, body, signal)
    if (answer.ok) {
      this.failures = 0
      return answer.json()
    }
    this.absent = answer.status === 404 || answer.status === 405 // 405: only GET is served there
    if (this.absent) return null
    throw new Error(await problemOf(answer))
  }

  /** The first failure goes to the console, the next ones would say the same; what was given up is none. All are asked again. */
  complain(error) {
    if (error?.name === "AbortError") return
    if (!this.failures) console.warn("[LoRAFoundry] the check of this workflow failed:", error)
    this.touch(RETRY[Math.min(this.failures++, RETRY.length - 1)])
  }
}
