// Reports by workflow and node, for the host makes new nodes of all at every undo. Plain data, no page.
// @ts-check

import { without } from "./findings.mjs"
import { distinct } from "./owners.mjs"

const MOST = 20 // workflows
const MOST_FOUND = 500 // findings of one

const linked = (link) => (Array.isArray(link) ? [link[0], link[1]] : [link.id, link.origin_id])
const inside = (graph) => graph.nodes.map(({ id, type, mode, widgets_values }) => [id, type, mode, widgets_values])

/** A graph with its nodes by id and its links by theirs: asked for many times. */
function indexed(graph) {
  const nodes = new Map(graph.nodes.map((node) => [String(node.id), node]))
  return { graph, nodes, holders: grouped(graph.nodes), from: new Map((graph.links ?? []).map(linked)) }
}

function grouped(nodes) {
  const found = new Map()
  for (const node of nodes) found.set(node.type, [...(found.get(node.type) ?? []), node])
  return found
}

/** Notes a node and all above it; out of a subgraph the way goes on above every node that holds it. */
function walk(graphs, owner, id, seen) {
  const key = `${owner}:${id}`
  const level = graphs.get(owner)
  if (!level || seen.has(key)) return
  const node = level.nodes.get(String(id))
  const above = (node?.inputs ?? []).map(({ link }) => level.from.get(link))
  const held = graphs.get(node?.type)
  seen.set(key, node ? [node.type, node.mode, node.widgets_values, above, held && inside(held.graph)] : [])
  for (const other of above) if (other !== undefined) walk(graphs, owner, other, seen)
  if (node) return
  for (const [name, outer] of graphs) for (const holder of outer.holders.get(owner) ?? []) walk(graphs, name, holder.id, seen)
}

/**
 * What reports on nodes speak of: a node and everything above it, as one text.
 * @param {object} workflow as the host saves it @returns {(locator: string) => string} locator "12", or "<subgraph>:12"
 */
export function printerOf(workflow) {
  const levels = [["", workflow], ...(workflow.definitions?.subgraphs ?? []).map((graph) => [graph.id, graph])]
  const graphs = new Map(levels.map(([name, graph]) => [name, indexed(graph)]))
  return (locator) => {
    const [id, owner = ""] = locator.split(":").reverse()
    const seen = new Map()
    walk(graphs, owner, id, seen)
    return JSON.stringify([...seen].sort(([a], [b]) => (a < b ? -1 : 1)))
  }
}

/** What checks found in each workflow so far: what the newest finds no longer is solved, whenever a run said it. */
export class Found {
  constructor() {
    this.workflows = new Map()
  }

  /** @param {import("./findings.mjs").Finding[]} findings of the newest check @returns {import("./findings.mjs").Finding[]} what is solved */
  solved(workflow, findings) {
    const before = this.workflows.get(workflow) ?? []
    this.workflows.delete(workflow)
    this.workflows.set(workflow, distinct([...before, ...findings]).slice(-MOST_FOUND))
    if (this.workflows.size > MOST) this.workflows.delete(this.workflows.keys().next().value)
    return without(before, findings)
  }

  forget(workflow) {
    this.workflows.delete(workflow)
  }
}

export class Kept {
  constructor() {
    this.workflows = new Map()
  }

  /** @param {import("./findings.mjs").Report | null} report null forgets it @param {string} print of what it speaks of */
  put(workflow, locator, report, print) {
    const reports = this.workflows.get(workflow) ?? new Map()
    this.workflows.delete(workflow)
    this.workflows.set(workflow, reports)
    if (report) reports.set(locator, { report, print })
    else reports.delete(locator)
    if (this.workflows.size > MOST) this.workflows.delete(this.workflows.keys().next().value)
  }

  /** @returns {{report: import("./findings.mjs").Report, print: string} | undefined} */
  get(workflow, locator) {
    return this.workflows.get(workflow)?.get(locator)
  }
}
