// What one node shows of its last run and of the check of its graph: a line that opens its findings, and a badge.
// @ts-check

import { isShown, questionsOf, rowOf } from "./declare.mjs"
import { element, place, popover } from "./dom.mjs"
import { ICONS, readReport, without, worst } from "./findings.mjs"
import { boxOf, canvas, chain, elementOf, heightFollows, isVue, locatorOf, newBadge, nodeOfLocator } from "./host.mjs"
import { distinct, filesAbove, shared } from "./owners.mjs"
import { Panel, card } from "./panel.mjs"
import { word } from "./texts.mjs"

const BADGES = { error: "#5a2626", warning: "#54441c" }
const WIDTH = 320
const subjectsOf = (findings) => [...new Set(findings.map(({ subject }) => subject).filter(Boolean))]
const SETTLES = 500 // ms in which a node's height has followed its panel

export class View {
  /**
   * @param {any} node a LiteGraph node @param {boolean} reporting whether it gets a panel
   * @param {object} graph
   * @param {() => boolean} graph.asks whether it asks in its panel what LoRAs were trained with
   * @param {(finding: import("./findings.mjs").Finding, node: any) => any} graph.owner the node that tells it
   * @param {(view: View) => void} graph.reported called when there is another report, which outlives this node
   */
  constructor(node, reporting, { asks, owner, reported }) {
    this.node = node
    this.report = null
    this.found = []
    this.received = [] // what reports of other nodes say that is repaired here
    this.loras = []
    this.asks = asks
    this.owner = owner
    this.reported = reported
    this.marked = ""
    this.box = null // of the badge on the canvas: [x, y, width, height] beside the node's place
    this.fitting = false // its panel came or went, and its height has not followed yet
    this.panel = reporting ? this.addPanel() : null
    node.badges?.push(() => this.badge())
    chain(node, "onExecuted", (result, output) => (this.executed(output), result))
  }

  /** What runs said. @returns {import("./findings.mjs").Finding[]} */
  get told() {
    const own = this.report?.findings ?? []
    return [...own, ...without(this.received, own)]
  }

  /** All there is to say, once. @returns {import("./findings.mjs").Finding[]} */
  get findings() {
    const { told } = this
    return [...without(this.found, told), ...told].filter(isShown)
  }

  /** What a run said takes the place of what was found before it. @param {import("./findings.mjs").Report | null} report */
  show(report) {
    this.report = report && { ...report, files: filesAbove(this.node, subjectsOf(report.findings)) }
    this.found = []
    if (report?.loras.length) this.loras = report.loras
    this.panel?.stale(false)
    this.update()
    this.reported(this)
  }

  /** What other nodes were told in a run, and is repaired here. @param {import("./findings.mjs").Finding[]} findings */
  receive(findings) {
    const received = distinct(findings)
    if (JSON.stringify(received) === JSON.stringify(this.received)) return
    this.received = received
    this.update()
  }

  /** A report from before this node was made again. @param {boolean} old it speaks of another graph */
  restore(report, old) {
    this.report = report
    if (report.loras.length) this.loras = report.loras
    this.panel?.stale(old)
    this.update()
  }

  /**
   * What a check of the graph found for this node.
   * @param {import("./findings.mjs").Finding[]} found @param {import("./findings.mjs").Finding[]} solved what it no longer finds
   * @param {import("./findings.mjs").Lora[]} [loras] those of its stack; without them the ones known stay
   */
  checked(found, solved, loras) {
    if (this.report) {
      const replaced = this.replaced()
      this.solve(without(this.report.findings, solved).filter(({ subject }) => !replaced.includes(subject)))
    }
    this.found = found
    this.loras = loras ?? this.loras
    this.update()
  }

  /** The files that were here or above when the run spoke of them, and are not any more. @returns {string[]} */
  replaced() {
    const { files = [] } = this.report
    const left = filesAbove(this.node, files)
    return files.filter((file) => !left.includes(file))
  }

  /** Part of what the run said holds no longer: the rest is marked as old. */
  solve(left) {
    if (left.length === this.report.findings.length) return
    this.report = { ...this.report, findings: left, solved: true }
    this.panel?.stale(true)
  }

  update() {
    this.panel?.show(this.content())
    this.mark()
  }

  /** What it asks. @returns {ReturnType<typeof questionsOf>} */
  questions() {
    return this.loras.length && this.asks() ? questionsOf(this.loras, this.findings) : []
  }

  /** What the panel shows whole, and what it counts because another node shows it. @returns {import("./panel.mjs").Content} */
  content() {
    const { findings, told, report } = this
    const of = (part) => shared(part, this.node, this.owner)
    const [run, check] = [of(told.filter(isShown)), of(findings.filter((each) => !told.includes(each)))]
    const counted = ({ others }, before) => [...others].map(([node, all]) => ({ place: locatorOf(node), findings: all, before }))
    const asked = this.questions()
    const said = report || run.mine.length ? { facts: [], loras: [], ...report, findings: run.mine } : null
    return { report: said, found: check.mine, elsewhere: [...counted(check, true), ...counted(run, false)], asked }
  }

  /** Shows what is said here, beside the node. */
  open() {
    if (this.panel?.shown) return this.panel.open()
    const cards = shared(this.findings, this.node, this.owner).mine.map((each) => card(each))
    if (!cards.length) return
    const made = popover(word("panel.label"), [element("div", "lf-body", [element("ul", "lf-list", cards)])])
    document.body.append(made)
    made.showPopover()
    place(made, { getBoundingClientRect: () => boxOf(this.node) })
  }

  /** @param {object | undefined} output the node's `ui`; one without a report changes nothing */
  executed(output) {
    const report = readReport(output)
    if (report) this.show(report)
  }

  /** A new run: what a panel shows stays, marked as old until the run reaches or reuses the node; an error goes. */
  runStarted() {
    if (this.panel) return this.panel.stale(true)
    if (this.report) this.show(null)
  }

  addPanel() {
    const { node } = this
    const panel = new Panel({ canvas, isVue, nodeOf: nodeOfLocator }, rowOf, () => this.fit())
    const height = () => panel.height
    // serialize twice: the option keeps the widget out of the prompt, its own property out of the workflow
    const options = { serialize: false, margin: 0, getMinHeight: height, getMaxHeight: height }
    this.widget = node.addDOMWidget("foundry_findings", "foundry_findings", panel.root, options)
    this.widget.serialize = false
    this.widget.hidden = true
    node.setSize([Math.max(node.size[0], WIDTH), node.size[1]])
    chain(node, "onResize", (result) => (this.resized(), result))
    return panel
  }

  /** The node makes room for the line, and takes back what it made; in Nodes 2.0 the browser's own layout does that. */
  fit() {
    const { node } = this
    this.widget.hidden = !this.panel.shown
    this.fitting = true
    if (isVue()) return
    const [width, height] = node.size
    const least = node.computeSize()[1]
    const room = this.panel.shown ? Math.max(least - height, 0) : -(this.room ?? 0)
    this.room = Math.max(room, 0)
    node.setSize([width, Math.max(least, height + room)])
    node.setDirtyCanvas(true, true)
  }

  resized() {
    if (!this.fitting) return
    heightFollows(this.node)
    clearTimeout(this.settling)
    this.settling = setTimeout(() => { this.fitting = false }, SETTLES)
  }

  /** Where no panel says which, the badge does. */
  badgeText() {
    const { findings } = this
    const severity = worst(findings)
    const codes = this.panel ? [] : new Set(findings.filter((found) => found.severity === severity).map((found) => found.code))
    return severity === "clear" ? "" : [ICONS[severity], word(`severity.${severity}`), ...codes].join(" ")
  }

  badge() {
    const made = newBadge(this.badgeText(), BADGES[worst(this.findings)] ?? "#33404d")
    const { draw } = made
    made.draw = (context, x, y) => {
      this.box = [x, y, made.getWidth(context), made.height]
      draw.call(made, context, x, y)
    }
    return made
  }

  mark() {
    const text = this.badgeText()
    if (text === this.marked) return
    this.marked = text
    const { node } = this
    node.badges = [...(node.badges ?? [])] // some frontends watch for an assignment
    requestAnimationFrame(() => this.badgeByStyle())
    node.setDirtyCanvas(true, true)
  }

  /** Nodes 2.0 of some frontends (1.45) looks at badges only once: there panel.css shows ours. */
  badgeByStyle() {
    const shown = elementOf(this.node)
    if (!shown) return
    const text = this.badgeText()
    const needed = text && !shown.textContent.includes(text)
    if (needed) shown.dataset.lfBadge = text
    else delete shown.dataset.lfBadge
  }
}
