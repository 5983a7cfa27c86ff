// LoRA Foundry in the browser: findings on the node after a run, a colour for each stage, no wire past the quantizer.
// The nodes work without any of this. Entry file: the host runs every .js, so all else is .mjs.

import { api } from "../../scripts/api.js"
import { app } from "../../scripts/app.js"
import { readError } from "./findings.mjs"
import { recall } from "./recall.mjs"
import { colour, pastTheEnd, stageTypes } from "./sockets.mjs"
import { View, chain } from "./view.mjs"

const REPORTING = new Set([
  "FoundryFuseBaseLoRA",
  "FoundryStackLoRAs",
  "FoundryStackValidator",
  "FoundryQuantizeFP8",
  "FoundryApply",
  "FoundrySaveModel",
])

/** node -> its View. Weak: a removed node takes its report along. */
const views = new WeakMap()

function adopt(node) {
  views.set(node, new View(node, REPORTING.has(node.comfyClass)))
  chain(node, "onConnectInput", function (result, slot, type) {
    return pastTheEnd(this.inputs?.[slot]?.type, type) ? refuse() : result
  })
}

function refuse() {
  const detail = "This model is already quantized. Quantize last: connect a stage from before Quantize FP8."
  app.extensionManager?.toast?.add({ severity: "warn", summary: "LF201 Wrong order", detail, life: 6000 })
  return false
}

/** @param {string} id "12", or "3:12" for node 12 inside the subgraph node 3 */
function viewOf(id) {
  const node = String(id).split(":").reduce((owner, part) => (owner?.subgraph ?? owner)?.getNodeById?.(part), app.graph)
  return node && views.get(node)
}

function allViews() {
  const root = app.graph?.rootGraph ?? app.graph
  const nodes = [root, ...(root?.subgraphs?.values() ?? [])].flatMap((graph) => graph?.nodes ?? [])
  return nodes.map((node) => views.get(node)).filter(Boolean)
}

/** The reused nodes whose panel has nothing to show, and the run that reused them. */
let blank = { promptId: "", ids: [] }

function reused({ prompt_id: promptId, nodes }) {
  const cached = (nodes ?? []).filter((id) => viewOf(id)?.panel)
  for (const id of cached) viewOf(id).panel.stale(false)
  blank = { promptId, ids: cached.filter((id) => !viewOf(id).report) }
}

async function fillBlanks({ promptId, ids }) {
  if (!ids.length) return
  const history = await (await api.fetchApi("/history?max_items=100")).json()
  for (const [id, output] of recall(history, promptId, ids)) viewOf(id)?.executed(output)
}

function listen() {
  api.addEventListener("execution_start", () => allViews().forEach((view) => view.runStarted()))
  api.addEventListener("execution_cached", ({ detail }) => reused(detail))
  api.addEventListener("execution_error", ({ detail }) => viewOf(detail.node_id)?.show(readError(detail.exception_message)))
  api.addEventListener("executing", ({ detail }) => {
    if (detail === null) fillBlanks(blank) // the run has ended and is in the history
  })
}

function addStyle() {
  const link = document.createElement("link")
  link.rel = "stylesheet"
  link.href = new URL("./panel.css", import.meta.url).href
  document.head.append(link)
}

let types = []

app.registerExtension({
  name: "LoRAFoundry",

  init() {
    addStyle()
    listen()
  },

  addCustomNodeDefs(defs) {
    types = stageTypes(Object.values(defs))
  },

  setup() {
    const { default_connection_color_byType: slots, constructor: canvas } = app.canvas
    for (const table of [slots, canvas.link_type_colors]) if (table) colour(table, types)
  },

  nodeCreated(node) {
    if (node.comfyClass?.startsWith("Foundry")) adopt(node)
  },

  afterConfigureGraph() {
    // back in a workflow tab: just after this the host puts back the outputs of the tab's last run
    requestAnimationFrame(() => allViews().forEach((view) => view.executed(app.nodeOutputs?.[view.node.id])))
  },
})
