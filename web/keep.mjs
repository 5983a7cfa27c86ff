// Reports by workflow and node, for the host makes new nodes of all at every undo. Plain data, no page.

const MOST = 20 // workflows

const linked = (link) => (Array.isArray(link) ? [link[0], link[1]] : [link.id, link.origin_id])
const inside = (graph) => graph.nodes.map(({ id, type, mode, widgets_values }) => [id, type, mode, widgets_values])

/** Notes a node and all above it; out of a subgraph the way goes on above every node that holds it. */
function walk(graphs, owner, id, seen) {
  const key = `${owner}:${id}`
  const graph = graphs.get(owner)
  if (!graph || seen.has(key)) return
  const node = graph.nodes.find((each) => String(each.id) === String(id))
  const from = new Map((graph.links ?? []).map(linked))
  const above = (node?.inputs ?? []).map(({ link }) => from.get(link))
  const held = graphs.get(node?.type)
  seen.set(key, node ? [node.type, node.mode, node.widgets_values, above, held && inside(held)] : [])
  for (const other of above) if (other !== undefined) walk(graphs, owner, other, seen)
  if (node) return
  for (const [name, outer] of graphs)
    for (const holder of outer.nodes) if (holder.type === owner) walk(graphs, name, holder.id, seen)
}

/**
 * What a report on a node speaks of: the node and everything above it, as one text.
 * @param {object} workflow as the host saves it @param {string} locator "12", or "<subgraph>:12"
 */
export function printOf(workflow, locator) {
  const [id, owner = ""] = locator.split(":").reverse()
  const graphs = new Map([["", workflow], ...(workflow.definitions?.subgraphs ?? []).map((graph) => [graph.id, graph])])
  const seen = new Map()
  walk(graphs, owner, id, seen)
  return JSON.stringify([...seen].sort(([a], [b]) => (a < b ? -1 : 1)))
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
