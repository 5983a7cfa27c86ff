// All nodes that show findings, and which of them shows which finding.
// @ts-check

import { learnBases, learnFits } from "./declare.mjs"
import { announce } from "./dom.mjs"
import { headline, readFindings, readLoras } from "./findings.mjs"
import { allNodes, drawn, locatorOf, nodeAt, openWorkflow, outputOf, remount, wayTo } from "./host.mjs"
import { Found, Kept, printerOf } from "./keep.mjs"
import { distinct, ownerOf, shared } from "./owners.mjs"
import { checkedRows } from "./rows_node.mjs"
import { View } from "./view.mjs"

const VALIDATOR = "FoundryStackValidator"
const STACK = "FoundryStackLoRAs"
const FINISHING = ["FoundryQuantizeFP8", "FoundryApply", "FoundrySaveModel"]
const MERGING = ["FoundryMergeLoRAs", "FoundryLoRAConflicts", "FoundryExtractLoRA"]
const REPORTING = ["FoundryFuseBaseLoRA", STACK, VALIDATOR, ...FINISHING, ...MERGING]
const OFTEN_NAMED = /lora|loader/i // kinds of other packs: a badge must be there before the node is drawn

/** node -> its View. Weak: a removed node takes its report along. */
const views = new WeakMap()
const kept = new Kept()
const ever = new Found()
let before = [] // what the newest check found
let tellRows = () => {} // what it said of the rows of LoRA Stacks
let print = null // tells what a report speaks of, in the graph as it was when the newest run began

export const isOurs = (node) => Boolean(node.comfyClass?.startsWith("Foundry"))

const isValidator = (node) => node.comfyClass === VALIDATOR

/** The View of a node, made on first use. */
export function viewOf(node) {
  const known = views.get(node)
  if (known) return known
  const made = new View(node, REPORTING.includes(node.comfyClass), { asks: () => asks(node), owner, reported })
  views.set(node, made)
  return made
}

const owner = (finding, shownOn) => ownerOf(finding, shownOn, nodeAt)

/** The node where a finding is told whole; none where it names no node that is here. */
export function placeOf(finding) {
  const named = finding.node && nodeAt(finding.node)
  return named && owner(finding, named)
}

/** Whether a node asks what LoRAs were trained with: a validator; a stack where no validator is below. */
function asks(node) {
  return isValidator(node) || (node.comfyClass === STACK && !readers(node).some((view) => isValidator(view.node)))
}

/** A new node: ours, subgraphs, and those that findings often name, get their View at once. */
export function adopt(node) {
  if (isOurs(node) || node.subgraph || OFTEN_NAMED.test(node.comfyClass ?? node.type)) viewOf(node)
}

/** The View of a node by its id, if it has one. */
export const viewById = (id) => views.get(wayTo(id).at(-1))

/** What a node shows, panel or not. */
export const shownOn = (node) => views.get(node)?.findings ?? []

/** What a node's badge says, and where the canvas drew it. */
export const badgeOn = (node) => ({ text: views.get(node)?.badgeText() ?? "", box: views.get(node)?.box ?? null })

export const allViews = () => allNodes().map((node) => views.get(node)).filter(Boolean)

/** A run began: its reports speak of the graph as it is now. */
export function runStarted() {
  print = printerOf(drawn())
  for (const view of allViews()) view.runStarted()
}

/** A report outlives its node: every undo makes all nodes anew. */
function remember(view) {
  const locator = locatorOf(view.node)
  kept.put(openWorkflow(), locator, view.report, view.report ? (print ?? printerOf(drawn()))(locator) : "")
}

/** Another report: what it says is told where it is repaired. */
function reported(view) {
  remember(view)
  handOut()
}

/** Each node gets what the reports of other nodes say that is repaired there. */
function handOut() {
  const given = new Map()
  for (const view of allViews()) {
    const { others } = shared(view.report?.findings ?? [], view.node, owner)
    for (const [node, findings] of others) given.set(viewOf(node), [...(given.get(viewOf(node)) ?? []), ...findings])
  }
  for (const view of allViews()) view.receive(given.get(view) ?? [])
  tellRows()
}

/** The user followed a link to a node. */
export const openAt = (node) => viewOf(node).open()

/** The nodes were made again, by an undo, or on the way back to a workflow's tab: so are their reports. */
export function restoreReports() {
  const [workflow, printNow] = [openWorkflow(), printerOf(drawn())]
  for (const view of allViews()) {
    if (view.panel) remount(view.node, view.panel.root)
    const locator = locatorOf(view.node)
    const found = kept.get(workflow, locator)
    if (found) view.restore(found.report, found.print !== printNow(locator))
    else view.executed(outputOf(view.node)) // a run while another tab was open
  }
  handOut()
}

/** What a run reused still holds. @param {string} id */
export function reused(id) {
  const view = viewById(id)
  view?.panel?.stale(false)
  if (view?.report) remember(view)
}

/** The panels that speak for a node: the first on each way down through our nodes, and every validator. */
function readers(node) {
  const found = new Set()
  const queue = [{ node, passed: false }]
  for (const at of queue) {
    const view = views.get(at.node)
    if (view?.panel && (!at.passed || isValidator(at.node))) found.add(view)
    const below = (at.node.outputs ?? []).flatMap((_, slot) => at.node.getOutputNodes(slot) ?? [])
    const known = (other) => queue.some((each) => each.node === other)
    const next = below.filter((other) => (isOurs(other) || other.type === "Reroute") && !known(other))
    queue.push(...next.map((other) => ({ node: other, passed: at.passed || Boolean(view?.panel) })))
  }
  return [...found]
}

/** What the first node says that a node's output leads to; empty where none does. @param {Map<object, string>} says */
function below(node, says) {
  const queue = [node]
  for (const at of queue) {
    if (says.has(at)) return says.get(at)
    const next = (at.outputs ?? []).flatMap((_, slot) => at.getOutputNodes(slot) ?? [])
    queue.push(...next.filter((other) => !queue.includes(other)))
  }
  return ""
}

/** Who shows a finding about a node: it, the row it belongs to, the subgraphs around it, the panels below; else any panel. */
function audience(finding, reading) {
  const way = wayTo(finding.node)
  if (way.length) return [...new Set([...way, owner(finding, way.at(-1))].map(viewOf).concat(reading(way.at(-1))))]
  return allViews().filter((view) => view.panel).slice(0, 1)
}

/** Hand each node its part of the answer to a check. */
export function showCheck(answer) {
  const [found, loras] = [new Map(), new Map()]
  const give = (to, view, part) => to.set(view, [...(to.get(view) ?? []), ...part])
  const findings = readFindings(answer.findings)
  const ways = new Map() // each node's readers, looked for once
  const reading = (node) => ways.get(node) ?? ways.set(node, readers(node)).get(node)
  for (const finding of findings) for (const view of audience(finding, reading)) give(found, view, [finding])
  for (const stack of answer.stacks ?? []) {
    const all = readLoras(stack.loras)
    const panels = all.flatMap((lora) => wayTo(lora.node).slice(-1).flatMap(reading))
    for (const view of new Set(panels)) give(loras, view, all)
  }
  const applied = (answer.stacks ?? []).flatMap(({ base, loras }) => loras.map(({ node }) => [wayTo(node).at(-1), base]))
  const bases = new Map(applied)
  const said = new Map(applied.map(([to]) => [to, findings.filter((each) => wayTo(each.node).at(-1) === to)]))
  tellRows = () => checkedRows((node) => below(node, bases), (node) => distinct([...viewOf(node).findings, ...below(node, said)]))
  learnBases((answer.stacks ?? []).map(({ base, loras: all }) => ({ base, loras: readLoras(all) })))
  const solved = ever.solved(openWorkflow(), findings)
  if (headline(before) !== headline(findings)) announce(headline(findings))
  before = findings
  for (const view of allViews()) view.checked(found.get(view) ?? [], solved, loras.get(view))
  handOut()
  learnFits(allViews().flatMap((view) => view.questions()))
}

/** More is known of LoRAs: some need not be asked about any more. */
export function factsLearnt() {
  for (const view of allViews()) if (view.loras.length || view.found.length) view.update()
}

/** All nodes are other ones, of this workflow or another. */
export function forgetCheck() {
  before = []
  tellRows = () => {}
}

/** Nothing is checked any more: what a run says is not solved by that. */
export function endChecks() {
  forgetCheck()
  ever.forget(openWorkflow())
  showCheck({ findings: [] })
}
