// All nodes that show findings, and which of them shows which finding.

import { app } from "../../scripts/app.js"
import { readFindings, readLoras, without } from "./findings.mjs"
import { View } from "./view.mjs"

const VALIDATOR = "FoundryStackValidator"
const STACK = "FoundryStackLoRAs"
const FINISHING = ["FoundryQuantizeFP8", "FoundryApply", "FoundrySaveModel"]
const REPORTING = ["FoundryFuseBaseLoRA", STACK, VALIDATOR, ...FINISHING, "FoundryMergeLoRAs", "FoundryLoRAConflicts"]
const OFTEN_NAMED = /lora|loader/i // kinds of other packs: a badge must be there before the node is drawn

/** node -> its View. Weak: a removed node takes its report along. */
const views = new WeakMap()
let before = [] // what the newest check found

export const isOurs = (node) => Boolean(node.comfyClass?.startsWith("Foundry"))

const isValidator = (node) => node.comfyClass === VALIDATOR

/** The View of a node, made on first use. */
export function viewOf(node) {
  if (!views.has(node)) views.set(node, new View(node, REPORTING.includes(node.comfyClass), () => asks(node)))
  return views.get(node)
}

/** Whether a node asks what LoRAs were trained with: a validator; a stack where no validator is below. */
function asks(node) {
  return isValidator(node) || (node.comfyClass === STACK && !readers(node).some((view) => isValidator(view.node)))
}

/** A new node: ours, subgraphs, and those that findings often name, get their View at once. */
export function adopt(node) {
  if (isOurs(node) || node.subgraph || OFTEN_NAMED.test(node.comfyClass ?? node.type)) viewOf(node)
}

const rootGraph = () => app.graph?.rootGraph ?? app.graph

/** @param {string} id "12", or "3:12" for node 12 inside the subgraph node 3 @returns {object[]} the nodes on the way */
function wayTo(id) {
  const way = []
  for (const part of String(id).split(":")) {
    const owner = way.at(-1)?.subgraph ?? (way.length ? null : rootGraph())
    const node = owner?.getNodeById?.(part)
    if (!node) return []
    way.push(node)
  }
  return way
}

/** The View of a node by its id, if it has one. */
export const viewById = (id) => views.get(wayTo(id).at(-1))

/** What a person calls a node: its title and id; empty for none. */
export const placeOf = (id) => ({ id, title: wayTo(id).at(-1)?.title ?? "" })

/** What a node shows, panel or not. */
export const shownOn = (node) => views.get(node)?.findings ?? []

export function allViews() {
  const root = rootGraph()
  const nodes = [root, ...(root?.subgraphs?.values() ?? [])].flatMap((graph) => graph?.nodes ?? [])
  return nodes.map((node) => views.get(node)).filter(Boolean)
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

/** Who shows what is said about a node: itself, the subgraphs around it, the panels below it; else any panel. */
function audience(id) {
  const way = wayTo(id)
  if (way.length) return [...new Set([...way.map(viewOf), ...readers(way.at(-1))])]
  return allViews().filter((view) => view.panel).slice(0, 1)
}

/** Hand each node its part of the answer to a check. */
export function showCheck(answer) {
  const [found, loras] = [new Map(), new Map()]
  const give = (to, view, part) => to.set(view, [...(to.get(view) ?? []), ...part])
  const findings = readFindings(answer.findings)
  for (const finding of findings) for (const view of audience(finding.node)) give(found, view, [finding])
  for (const stack of answer.stacks ?? []) {
    const all = readLoras(stack.loras)
    const reading = all.flatMap((lora) => wayTo(lora.node).slice(-1).flatMap(readers))
    for (const view of new Set(reading)) give(loras, view, all)
  }
  const solved = without(before, findings)
  before = findings
  for (const view of allViews()) view.checked(found.get(view) ?? [], solved, loras.get(view))
}

/** Another graph: what was found in the last one says nothing about this one. */
export const forgetCheck = () => (before = [])
