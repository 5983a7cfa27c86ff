// What one node shows of its last run: a panel (reporting nodes), a badge and the colour of its title.

import { app } from "../../scripts/app.js"
import { SEVERITIES, readReport } from "./findings.mjs"
import { Panel } from "./panel.mjs"

const TITLE_COLOURS = { error: "#5a2626", warning: "#54441c" }
const MAX_HEIGHT = 340 // as in panel.css
const MARGIN = 10
const WIDTH = 320

/** Calls `extra(result, ...args)` after whatever `target[name]` did before, and returns what it returns. */
export function chain(target, name, extra) {
  const before = target[name]
  target[name] = function (...args) {
    return extra.call(this, before?.apply(this, args), ...args)
  }
}

export class View {
  /** @param {object} node a LiteGraph node @param {boolean} reporting whether it gets a panel */
  constructor(node, reporting) {
    this.node = node
    this.report = null
    this.ownColour = this.shownColour = node.color
    this.panel = reporting ? this.addPanel() : null
    node.badges?.push(() => this.badge())
    chain(node, "onExecuted", (result, output) => (this.executed(output), result))
    chain(node, "onSerialize", (result, saved) => (this.keepOwnColour(saved), result))
  }

  /** @param {import("./findings.mjs").Report | null} report */
  show(report) {
    this.report = report
    this.panel?.show(report)
    this.mark()
  }

  /** @param {object | undefined} output the node's `ui`; one without a report changes nothing */
  executed(output) {
    const report = readReport(output)
    if (report) this.show(report)
  }

  /** A new run: what a panel shows stays, marked as old until the run reaches or reuses the node; an error goes. */
  runStarted() {
    if (this.panel) this.panel.stale(true)
    else if (this.report) this.show(null)
  }

  addPanel() {
    const { node } = this
    let height = 0
    const panel = new Panel(
      () => app.canvas,
      (content) => {
        const before = height
        height = Math.min(content + 2, MAX_HEIGHT) + 2 * MARGIN
        this.fit(before ? height - before : 0) // a loaded node's saved size has room for its panel already
      },
    )
    // serialize twice: the option keeps the widget out of the prompt, its own property out of the workflow
    const options = { serialize: false, margin: MARGIN, getMinHeight: () => height, getMaxHeight: () => height }
    node.addDOMWidget("foundry_findings", "foundry_findings", panel.root, options).serialize = false
    node.setSize([Math.max(node.size[0], WIDTH), node.size[1]])
    return panel
  }

  /** The node grows and shrinks with its panel; in Nodes 2.0 the browser's own layout does that. */
  fit(delta) {
    const { node } = this
    if (window.LiteGraph.vueNodesMode) return
    node.setSize([node.size[0], Math.max(node.computeSize()[1], node.size[1] + delta)])
    node.setDirtyCanvas(true, true)
  }

  badge() {
    const severity = this.report?.severity ?? "ok"
    const text = severity === "ok" ? "" : `${SEVERITIES[severity].icon} ${SEVERITIES[severity].word}`
    return new window.LGraphBadge({ text, fgColor: "#fff", bgColor: TITLE_COLOURS[severity] ?? "#33404d" })
  }

  mark() {
    const { node } = this
    if (node.color !== this.shownColour) this.ownColour = node.color // the user chose one meanwhile
    node.color = this.shownColour = TITLE_COLOURS[this.report?.severity] ?? this.ownColour
    node.badges = [...(node.badges ?? [])] // newer frontends watch for an assignment
    node.setDirtyCanvas(true, true)
  }

  /** Our colour is only on screen: the saved workflow keeps the user's. */
  keepOwnColour(saved) {
    if (this.node.color !== this.shownColour || this.ownColour === this.shownColour) return
    if (this.ownColour) saved.color = this.ownColour
    else delete saved.color
  }
}
