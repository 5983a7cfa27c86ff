// Asks the server what it finds in the open graph: a moment after the last change, never while a run is under way.

import { api } from "../../scripts/api.js"
import { app } from "../../scripts/app.js"

const QUIET = 800 // ms after the last change
const PATH = "/lora_foundry/lint"
const CONCERNS_US = /^Foundry|lora/i // kinds of nodes
// What may change in a saved graph without another answer.
const LOOKS = new Set([
  ...["pos", "size", "order", "color", "bgcolor", "flags", "groups", "bounding"],
  ...["extra", "config", "state", "version", "revision", "last_node_id", "last_link_id"],
])

const graph = () => app.graph?.rootGraph ?? app.graph

/** The graph as it is saved. Not the prompt: making that has effects of its own (a webcam takes its picture then). */
const drawn = () => graph().serialize()

const keyOf = (workflow) => JSON.stringify(workflow, (name, value) => (LOOKS.has(name) ? undefined : value))

/** Whether there is a model path to judge, here or in a subgraph. */
function concernsUs(workflow) {
  const levels = [workflow, ...(workflow.definitions?.subgraphs ?? [])]
  return levels.some((level) => level.nodes?.some((node) => CONCERNS_US.test(node.type)))
}

export class Linter {
  /** @param {(answer: {findings: object[], stacks: object[]}) => void} show */
  constructor(show) {
    this.show = show
    this.on = true // the user's setting
    this.absent = false // the server has no such route
    this.running = false // a run is under way
    this.asked = "" // the graph the newest answer is about
    this.turn = Promise.resolve() // one question at a time
  }

  /** Something may have changed. */
  touch() {
    if (!this.on || this.absent) return
    clearTimeout(this.timer)
    this.timer = setTimeout(() => this.running || this.check(), QUIET)
  }

  /** A run began or ended; what changed meanwhile is looked at after it. */
  busy(running) {
    const ended = this.running && !running
    this.running = running
    if (ended) this.touch()
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
    this.asked = ""
  }

  /** Ask if the graph changed since the last answer. */
  check() {
    return this.inTurn(async () => {
      if (!graph()) return
      const workflow = drawn()
      if (keyOf(workflow) !== this.asked) await this.ask(workflow)
    })
  }

  /** Ask now, with the prompt too: some packs draw wires that are only in it. @returns {Promise<object | null>} */
  now() {
    return this.inTurn(async () => {
      const { output } = await app.graphToPrompt()
      return this.ask(drawn(), output)
    })
  }

  inTurn(question) {
    const answer = this.turn.then(question)
    this.turn = answer.catch((error) => this.complain(error))
    return answer
  }

  async ask(workflow, prompt) {
    this.asked = keyOf(workflow)
    const answer = concernsUs(workflow) ? await this.post({ workflow, prompt }) : { findings: [], stacks: [] }
    const current = keyOf(drawn()) === this.asked
    if (answer && current && this.on) this.show(answer)
    if (!current) this.touch() // it is about a graph that is gone
    return answer
  }

  async post(body) {
    const answer = await api.fetchApi(PATH, {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify(body),
    })
    if (answer.ok) return answer.json()
    this.absent = answer.status === 404 || answer.status === 405 // 405: only GET is served there
    if (this.absent) return null
    throw new Error((await answer.text()).slice(0, 500))
  }

  /** The first failure goes to the console; the next ones would say the same. */
  complain(error) {
    if (!this.complained) console.warn("[LoRAFoundry] the check of this workflow failed:", error)
    this.complained = true
  }
}
