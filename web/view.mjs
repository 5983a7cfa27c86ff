// What one node shows of its last run and of the check of its graph: a panel, a badge, the colour of its title.

import { app } from "../../scripts/app.js"
import { declarations } from "./declare.mjs"
import { ICONS, readReport, without, worst } from "./findings.mjs"
import { Panel } from "./panel.mjs"
import { word } from "./texts.mjs"

const TITLE_COLOURS = { error: "#5a2626", warning: "#54441c" }
const MAX_HEIGHT = 340 // as in panel.css
const MARGIN = 10
const EMPTY = 51 // height of a panel with its hint alone, margins included
const WIDTH = 320

/** Calls `extra(result, ...args)` after whatever `target[name]` did before, and returns what it returns. */
export function chain(target, name, extra) {
  const before = target[name]
  target[name] = function (...args) {
    return extra.call(this, before?.apply(this, args), ...args)
  }
}

export class View {
  /**
   * @param {object} node a LiteGraph node @param {boolean} reporting whether it gets a panel
   * @param {() => boolean} asks whether it asks in its panel what LoRAs were trained with
   */
  constructor(node, reporting, asks) {
    this.node = node
    this.report = null
    this.found = []
    this.loras = []
    this.asks = asks
    this.grown = 0 // by how much the node is higher than with an empty panel
    this.ownColour = this.shownColour = node.color
    this.panel = reporting ? this.addPanel() : null
    node.badges?.push(() => this.badge())
    chain(node, "onExecuted", (result, output) => (this.executed(output), result))
    chain(node, "onSerialize", (result, saved) => (this.keepOwnLooks(saved), result))
  }

  /** All there is to say, once. @returns {import("./findings.mjs").Finding[]} */
  get findings() {
    return [...this.found, ...(this.report?.findings ?? [])]
  }

  /** What a run said takes the place of what was found before it. @param {import("./findings.mjs").Report | null} report */
  show(report) {
    this.report = report
    this.found = []
    if (report?.loras.length) this.loras = report.loras
    this.panel?.stale(false)
    this.update()
  }

  /**
   * What a check of the graph found for this node.
   * @param {import("./findings.mjs").Finding[]} found @param {import("./findings.mjs").Finding[]} solved what it no longer finds
   * @param {import("./findings.mjs").Lora[]} [loras] those of its stack; without them the ones known stay
   */
  checked(found, solved, loras) {
    if (this.report) this.solve(without(this.report.findings, solved))
    this.found = without(found, this.report?.findings ?? [])
    this.loras = loras ?? this.loras
    this.update()
  }

  /** Part of what the run said holds no longer: the rest is marked as old. */
  solve(left) {
    if (left.length === this.report.findings.length) return
    this.report = { ...this.report, findings: left, solved: true }
    this.panel?.stale(true)
  }

  update() {
    const rows = this.panel && this.asks() ? declarations(this.loras, this.findings) : []
    this.panel?.show({ report: this.report, found: this.found, rows })
    this.mark()
  }

  /** @param {object | undefined} output the node's `ui`; one without a report changes nothing */
  executed(output) {
    const report = readReport(output)
    if (report) this.show(report)
  }

  /** A new run: what a panel shows stays, marked as old until the run reaches or reuses the node; an error goes. */
  runStarted() {
    if (this.panel) return this.panel.stale(true)
    this.report = null
    this.update()
  }

  addPanel() {
    const { node } = this
    let height = 0
    const panel = new Panel(
      () => app.canvas,
      (content) => {
        const before = height
        height = Math.min(content + 2, MAX_HEIGHT) + 2 * MARGIN
        this.grown = Math.max(height - EMPTY, 0)
        this.fit(before ? height - before : 0) // a loaded node's saved size has room for an empty panel
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

  /** Where no panel says which, the badge does. */
  badge() {
    const { findings } = this
    const severity = worst(findings)
    const codes = this.panel ? [] : new Set(findings.filter((found) => found.severity === severity).map((found) => found.code))
    const text = severity === "clear" ? "" : [ICONS[severity], word(`severity.${severity}`), ...codes].join(" ")
    return new window.LGraphBadge({ text, fgColor: "#fff", bgColor: TITLE_COLOURS[severity] ?? "#33404d" })
  }

  mark() {
    const { node } = this
    if (node.color !== this.shownColour) this.ownColour = node.color // the user chose one meanwhile
    node.color = this.shownColour = TITLE_COLOURS[worst(this.findings)] ?? this.ownColour
    node.badges = [...(node.badges ?? [])] // some frontends watch for an assignment
    requestAnimationFrame(() => this.badgeByStyle())
    node.setDirtyCanvas(true, true)
  }

  /** Nodes 2.0 of some frontends (1.45) looks at badges only once: there panel.css shows ours. */
  badgeByStyle() {
    const shown = window.LiteGraph.vueNodesMode && document.querySelector(`[data-node-id="${this.node.id}"]`)
    if (!shown) return
    const { text } = this.badge()
    const needed = text && !shown.innerText.includes(text)
    if (needed) shown.dataset.lfBadge = text
    else delete shown.dataset.lfBadge
  }

  /** Our colour and the room for what is shown are only on screen: the saved workflow keeps the user's. */
  keepOwnLooks(saved) {
    if (this.grown && !window.LiteGraph.vueNodesMode) saved.size = [saved.size[0], saved.size[1] - this.grown]
    if (this.node.color !== this.shownColour || this.ownColour === this.shownColour) return
    if (this.ownColour) saved.color = this.ownColour
    else delete saved.color
  }
}
