// LoRA Foundry in the browser: findings on the node, before a run and after it; a colour for each stage; no wire past the
// quantizer. The nodes work without any of this. Entry file: the host runs every .js, so all else is .mjs.

import { api } from "../../scripts/api.js"
import { app } from "../../scripts/app.js"
import { whenDeclared } from "./declare.mjs"
import { ask, button, element } from "./dom.mjs"
import { readError, readFindings } from "./findings.mjs"
import { Linter } from "./lint.mjs"
import { adopt, allViews, forgetCheck, isOurs, placeOf, showCheck, shownOn, viewById } from "./nodes.mjs"
import { card, summary } from "./panel.mjs"
import { recall } from "./recall.mjs"
import { colour, pastTheEnd, stageTypes } from "./sockets.mjs"
import { loadTexts, word } from "./texts.mjs"
import { chain } from "./view.mjs"

const linter = new Linter(showCheck)

const tell = (severity, summary, detail) => app.extensionManager?.toast?.add({ severity, summary, detail, life: 6000 })

function refuse() {
  tell("warn", word("wire.title"), word("wire.detail"))
  return false
}

// --- runs

/** The reused nodes whose panel has nothing to show, and the run that reused them. */
let blank = { promptId: "", ids: [] }

function reused({ prompt_id: promptId, nodes }) {
  const cached = (nodes ?? []).filter((id) => viewById(id)?.panel)
  for (const id of cached) viewById(id).panel.stale(false)
  blank = { promptId, ids: cached.filter((id) => !viewById(id).report) }
}

async function fillBlanks({ promptId, ids }) {
  if (!ids.length) return
  const history = await (await api.fetchApi("/history?max_items=100")).json()
  for (const [id, output] of recall(history, promptId, ids)) viewById(id)?.executed(output)
}

function listen() {
  api.addEventListener("execution_start", () => allViews().forEach((view) => view.runStarted()))
  api.addEventListener("execution_cached", ({ detail }) => reused(detail))
  api.addEventListener("execution_error", ({ detail }) => viewById(detail.node_id)?.show(readError(detail.exception_message)))
  api.addEventListener("executing", ({ detail }) => {
    if (detail === null) fillBlanks(blank) // the run has ended and is in the history
  })
  api.addEventListener("status", ({ detail }) => linter.busy(detail?.exec_info?.queue_remaining > 0))
  api.addEventListener("graphChanged", () => linter.touch()) // the user did something that changed the graph
}

// --- checks

/** All that a check finds, or what one node shows, to read at leisure. */
function report(title, findings, note) {
  const cards = findings.map((found) => card(found, found.node && word("check.at", placeOf(found.node))))
  const head = findings.length !== 1 && summary(findings) // one finding speaks for itself
  const content = note ? [element("p", "lf-hint", note)] : [head, element("ul", "lf-list", cards)]
  return ask(title, content.filter(Boolean), [button(word("dialog.close"))])
}

async function checkNow() {
  try {
    const answer = await linter.now()
    if (!answer) return tell("warn", word("check.failed"))
    const nothing = !answer.stacks.length && !answer.findings.length
    await report(word("check.title"), readFindings(answer.findings), nothing ? word("check.nothing") : "")
  } catch (error) {
    tell("error", word("check.failed"), String(error))
  }
}

/** The user said what a LoRA was trained with: other findings, though the graph is the same. */
function declared(written) {
  allViews().forEach((view) => view.update())
  if (!written) return
  linter.forget()
  if (linter.on && !linter.absent) linter.check()
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

  settings: [
    {
      id: "LoRAFoundry.Lint",
      name: "LoRA Foundry: check workflows while you edit",
      category: ["LoRA Foundry", "Checks", "Lint"],
      tooltip: "Looks at the models and LoRAs of the open workflow after each change. Nothing runs, and no weight is read.",
      type: "boolean",
      defaultValue: true,
      onChange(on) {
        linter.turned(on)
        if (on) return
        forgetCheck()
        showCheck({ findings: [] })
      },
    },
  ],

  commands: [
    { id: "LoRAFoundry.Check", label: "LoRA Foundry: Check workflow", icon: "pi pi-check-circle", function: checkNow },
  ],

  menuCommands: [{ path: ["Extensions"], commands: ["LoRAFoundry.Check"] }],

  init() {
    addStyle()
    listen()
    whenDeclared(declared)
  },

  addCustomNodeDefs(defs) {
    types = stageTypes(Object.values(defs))
  },

  async setup() {
    const { default_connection_color_byType: slots, constructor: canvas } = app.canvas
    for (const table of [slots, canvas.link_type_colors]) if (table) colour(table, types)
    await loadTexts()
  },

  nodeCreated(node) {
    adopt(node)
    linter.touch()
    if (!isOurs(node)) return
    chain(node, "onConnectInput", function (result, slot, type) {
      return pastTheEnd(this.inputs?.[slot]?.type, type) ? refuse() : result
    })
  },

  getNodeMenuItems(node) {
    const findings = shownOn(node)
    return findings.length ? [{ content: word("check.menu"), callback: () => void report(node.title, findings) }] : []
  },

  afterConfigureGraph() {
    forgetCheck()
    linter.forget()
    linter.touch()
    // back in a workflow tab: just after this the host puts back the outputs of the tab's last run
    requestAnimationFrame(() => allViews().forEach((view) => view.executed(app.nodeOutputs?.[view.node.id])))
  },
})
