// All that these files know of ComfyUI's frontend, public or not: no other file imports from it or reads its globals.
// @ts-check

import { api } from "../../scripts/api.js"
import { app } from "../../scripts/app.js"

const TIME_LIMIT = 120_000 // ms for one answer: a LoRA that was never hashed is hashed once

// --- the graph

export const rootGraph = () => app.graph?.rootGraph ?? app.graph

/** The graph as it is saved. Not the prompt: making that has effects of its own (a webcam takes its picture then). */
export const drawn = () => rootGraph()?.serialize() ?? null

/** The prompt: some packs draw wires that are only in it. */
export const promptOf = async () => (await app.graphToPrompt()).output

/** Which workflow is open, as one text. */
export const openWorkflow = () => `${app.extensionManager?.workflow?.activeWorkflow?.path ?? ""}|${rootGraph()?.id ?? ""}`

/** All nodes, those inside subgraphs too. */
export function allNodes() {
  const root = rootGraph()
  return [root, ...(root?.subgraphs?.values() ?? [])].flatMap((graph) => graph?.nodes ?? [])
}

/** @param {string} id "12", or "3:12" for node 12 inside the subgraph node 3 @returns {object[]} the nodes on the way */
export function wayTo(id) {
  const way = []
  for (const part of String(id).split(":")) {
    const owner = way.at(-1)?.subgraph ?? (way.length ? null : rootGraph())
    const node = owner?.getNodeById?.(part)
    if (!node) return []
    way.push(node)
  }
  return way
}

export const nodeAt = (id) => wayTo(id).at(-1)

/** The node of a locator, if it is there. @param {string} locator @returns {any} */
export const nodeOfLocator = (locator) => allNodes().find((node) => locatorOf(node) === locator)

/** A node's name that holds in subgraphs too: "12", or the subgraph's id and "12". */
export function locatorOf(node) {
  const { graph } = node
  return graph && graph !== rootGraph() ? `${graph.id}:${node.id}` : String(node.id)
}

/** What the host remembers that a node put out. */
export const outputOf = (node) => app.nodeOutputs?.[locatorOf(node)]

/** Calls `extra(result, ...args)` after whatever `target[name]` did before, and returns what it returns. */
export function chain(target, name, extra) {
  const before = target[name]
  target[name] = function (...args) {
    return extra.call(this, before?.apply(this, args), ...args)
  }
}

/** A gesture of ours ended: the host looks whether the graph changed, and keeps it as one step of its undo. */
export function gestureEnded() {
  app.extensionManager?.workflow?.activeWorkflow?.changeTracker?.checkState?.()
}

/** A node's height follows what we show on it: the host takes the new one as the one it knows, not as a step of its undo. */
export function heightFollows(node) {
  const saved = app.extensionManager?.workflow?.activeWorkflow?.changeTracker?.activeState
  const inside = saved?.definitions?.subgraphs ?? []
  const owner = node.graph === rootGraph() ? saved : inside.find(({ id }) => id === node.graph?.id)
  const known = owner?.nodes?.find(({ id }) => id === node.id)
  if (known) known.size = [...node.size]
}

/** Puts another graph in the place of the one that is open, as one step of the host's undo. */
export async function replaceGraph(saved) {
  const root = rootGraph()
  if (app.canvas.graph !== root) app.canvas.setGraph?.(root)
  gestureEnded() // what was changed before is a step of its own
  root.configure(structuredClone(saved))
  for (const node of root.nodes) {
    const [width, height] = node.computeSize()
    node.setSize([Math.max(node.size[0], width), Math.max(node.size[1], height)])
  }
  app.canvas.setDirty(true, true)
  if (!isVue()) return gestureEnded()
  for (let frame = 0; frame < 3; frame++) await new Promise(requestAnimationFrame) // the page finds out the nodes' heights
  gestureEnded()
}

/** Ends when other tasks of the page had their turn. @param {boolean} idle when it has nothing to do, or after a second @returns {Promise<void>} */
export function pause(idle) {
  const turn = idle && window.requestIdleCallback ? (go) => window.requestIdleCallback(go, { timeout: 1000 }) : setTimeout
  return new Promise((resolve) => void turn(() => resolve()))
}

// --- what is drawn

export const isVue = () => Boolean(window.LiteGraph?.vueNodesMode)

export const canvas = () => app.canvas

/** The two tables of the canvas that colour wires and sockets. */
export function colourTables() {
  const { default_connection_color_byType: slots, constructor: kind } = app.canvas
  return [slots, kind.link_type_colors].filter(Boolean)
}

export const newBadge = (text, bgColor) => new window.LGraphBadge({ text, fgColor: "#fff", bgColor })

/** The element of a node, in Nodes 2.0 only. @returns {HTMLElement | null} */
export const elementOf = (node) => (isVue() ? document.querySelector(`[data-node-id="${node.id}"]`) : null)

/** Where a node is on the page, in pixels of the screen. */
export function boxOf(node) {
  const { ds, canvas: drawnOn } = app.canvas
  const { x, y } = drawnOn.getBoundingClientRect()
  const [left, top] = [0, 1].map((at) => (node.pos[at] + ds.offset[at]) * ds.scale)
  return new DOMRect(x + left, y + top, node.size[0] * ds.scale, node.size[1] * ds.scale)
}

/** Nodes 2.0 keeps what it showed of a node when an undo makes the node anew: puts our new element in its place. */
export function remount(node, element) {
  const stale = elementOf(node)?.querySelector(`.${element.classList[0]}`)
  if (stale && stale !== element) stale.replaceWith(element)
}

/** Where in the graph an event of the pointer is. @returns {[number, number]} */
export const graphPoint = (event) => app.canvas.convertEventToCanvasOffset(event)

/** The nodes of the graph that is on the page: of the workflow, or of the subgraph that was entered. */
export const nodesShown = () => app.canvas?.graph?.nodes ?? []

/** Calls `handle` when another graph is shown: a subgraph is entered or left. */
export const onGraphShown = (handle) => app.canvas?.canvas?.addEventListener("litegraph:set-graph", () => requestAnimationFrame(handle))

/** Brings a node into view, through the subgraphs on the way. */
export function goTo(node) {
  if (node.graph && app.canvas.graph !== node.graph) app.canvas.setGraph?.(node.graph)
  app.canvas.centerOnNode?.(node)
  app.canvas.selectNode?.(node)
}

// --- its list of models

/** What is dragged on this page: the host's drag out of its list of models carries nothing. @type {Element | null} */
let dragged = null
window.addEventListener("dragstart", ({ target }) => (dragged = target instanceof Element ? target : null), true)
window.addEventListener("dragend", () => (dragged = null), true)

/** The file of a folder of models that is dragged out of the host's list now, by its name in that folder; "" for any other drag. */
export function modelDragged(folder) {
  const way = []
  for (let item = dragged?.closest('[role="treeitem"]'); item; item = item.parentElement?.closest('[role="treeitem"]')) way.unshift(item.getAttribute("aria-label") ?? "")
  const [top, ...names] = way
  const label = names.pop()
  if (top !== folder || !label || !dragged?.querySelector(".tree-leaf")) return ""
  const above = names.map((name) => `${name}/`).join("")
  const called = ({ directory, normalized_file_name: file, simplified_file_name: name, title }) =>
    directory === folder && file.slice(0, file.lastIndexOf("/") + 1) === above && [title, name].includes(label)
  // The list shows a title where the file has one: which file that is only the host's own table tells.
  const found = app.extensionManager?._p?._s?.get("models")?.models?.find(called)
  return found?.normalized_file_name ?? `${above}${label}.safetensors`
}

// --- the server

export const addressOf = (path) => api.apiURL(path) // for elements that load by themselves

export const fetchApi = (path, options) => api.fetchApi(path, options)

/** @param {string} path @param {object} body @param {AbortSignal} [signal] given up */
export function post(path, body, signal) {
  const headers = { "Content-Type": "application/json" }
  const limit = AbortSignal.timeout(TIME_LIMIT)
  const either = signal ? AbortSignal.any([signal, limit]) : limit
  return api.fetchApi(path, { method: "POST", headers, body: JSON.stringify(body), signal: either })
}

/** @param {string} event of the server or of the frontend @param {(detail: any) => void} handle */
export const on = (event, handle) => api.addEventListener(event, ({ detail }) => handle(detail))

// --- the page

export const tell = (severity, summary, detail) => app.extensionManager?.toast?.add({ severity, summary, detail, life: 6000 })

export const settingOf = (name) => app.extensionManager?.setting?.get(name)

export const setSetting = (name, value) => app.extensionManager?.setting?.set(name, value)

export const register = (extension) => app.registerExtension(extension)
