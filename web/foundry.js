// LoRA Foundry in the browser: findings on the node, before a run and after it; a colour for each stage; no wire past the
// quantizer. The nodes work without any of this. Entry file: the host runs every .js, so all else is .mjs.
// @ts-check

import { whenBadgeClicked } from "./badges.mjs"
import { convertOpen } from "./convert.mjs"
import { turnAsking, whenDeclared, whenSilenced } from "./declare.mjs"
import { ask, button, closePopovers, element } from "./dom.mjs"
import { isAbsent, readError, readFindings, readRefusal, without } from "./findings.mjs"
import { ofWhole } from "./fixes.mjs"
import { onConvert } from "./fixing.mjs"
import {
  chain,
  colourTables,
  drawn,
  fetchApi,
  isVue,
  nodesShown,
  on,
  onGraphShown,
  pause,
  post,
  promptOf,
  register,
  setSetting,
  settingOf,
  tell,
} from "./host.mjs"
import { placeLink, whenArrived } from "./links.mjs"
import { Linter } from "./lint.mjs"
import {
  adopt,
  allViews,
  endChecks,
  factsLearnt,
  forgetCheck,
  isOurs,
  openAt,
  placeOf,
  restoreReports,
  reused,
  runStarted,
  showCheck,
  shownOn,
  viewById,
} from "./nodes.mjs"
import { card, summary } from "./panel.mjs"
import { recall } from "./recall.mjs"
import { forgetFacts, whenLearnt } from "./rows_client.mjs"
import { adoptRows, importItems, readRows, remountRows, watchFiles } from "./rows_node.mjs"
import { colour, pastTheEnd, stageTypes } from "./sockets.mjs"
import { sheetOf, tint } from "./stages.mjs"
import { learn, word } from "./texts.mjs"

const ASKING = "LoRAFoundry.Ask"
const linter = new Linter({ drawn, promptOf, post, pause }, showCheck)

function refuse() {
  tell("warn", word("wire.title"), word("wire.detail"))
  return false
}

// --- runs

/** The reused nodes whose panel has nothing to show, and the run that reused them. */
let blank = { promptId: "", ids: [] }

function fromCache({ prompt_id: promptId, nodes }) {
  const cached = (nodes ?? []).filter((id) => viewById(id)?.panel)
  cached.forEach(reused)
  blank = { promptId, ids: cached.filter((id) => !viewById(id).report) }
}

async function fillBlanks({ promptId, ids }) {
  if (!ids.length) return
  const history = await (await fetchApi("/history?max_items=100")).json()
  for (const [id, output] of recall(history, promptId, ids)) viewById(id)?.executed(output)
}

/** The text of the newest refusal that came as data: ComfyUI says it again, in English. */
let told = ""

/** A file that is not there is told better by the check, which knows what is near. */
function refused({ node, message, findings }) {
  told = message.trim()
  const view = viewById(node)
  if (!view) return
  const report = readRefusal(findings)
  const left = without(report.findings, view.found.filter(isAbsent))
  if (left.length) view.show({ ...report, findings: left })
}

function failed({ node_id: id, exception_message: message }) {
  if (message.trim() === told) return
  const view = viewById(id)
  const report = view && readError(message, isOurs(view.node))
  if (report) view.show(report)
}

/** The user wants to be asked nothing more about what LoRAs were trained with. */
function silenced() {
  closePopovers()
  setSetting(ASKING, false)
  tell("info", word("declare.silent"))
}

/** The user did something that changed the graph. @param {any} saved the graph as the host saved it to find that out */
function changed(saved) {
  readRows()
  paint()
  linter.touch(undefined, saved)
}

/** LoRAs came or went, or more is told of them: what was found before may be otherwise now. */
function filesChanged() {
  linter.forget()
  linter.touch()
}

function reconnected() {
  forgetFacts()
  linter.reconnected()
}

function listen() {
  on("execution_start", runStarted)
  on("execution_cached", fromCache)
  on("lora_foundry.refused", refused)
  on("execution_error", failed)
  on("executing", (node) => node === null && fillBlanks(blank)) // the run has ended and is in the history
  on("status", (status) => linter.busy(status?.exec_info?.queue_remaining > 0))
  on("graphChanged", changed)
  on("reconnected", reconnected)
}

// --- checks

/** All that a check finds, or what one node shows, to read at leisure. */
function report(title, findings, note) {
  const way = (node) => node && placeLink(node)
  const cards = findings.map((found) => card(found, way(placeOf(found))))
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
    tell("error", word("check.failed"), error.message)
  }
}

/** Make the LoRA loaders of this workflow into our stages, and say what stays as it is. */
async function convertNow(fixes) {
  closePopovers()
  try {
    const { changed, converted, left } = await convertOpen(fixes)
    if (fixes && ofWhole(fixes) !== "convert") return changed || tell("warn", word("fix.failed"))
    if (converted.length) tell("success", word("convert.title"), word("convert.done", { count: converted.length }))
    const findings = readFindings(left)
    if (findings.length || !converted.length) {
      await report(word("convert.title"), findings, findings.length ? "" : word("convert.nothing"))
    }
  } catch (error) {
    tell("error", word("convert.failed"), error.message)
  }
}

/** The user said what a LoRA was trained with: other findings, though the graph is the same. */
function declared(written) {
  allViews().forEach((view) => view.update())
  if (!written) return
  linter.forget()
  if (linter.on && !linter.absent) linter.check().catch(() => {}) // told by the linter
}

function addStyle() {
  for (const file of ["./panel.css", "./rows.css"]) {
    const link = document.createElement("link")
    link.rel = "stylesheet"
    link.href = new URL(file, import.meta.url).href
    document.head.append(link)
  }
  document.head.append(sheet)
}

const sheet = document.createElement("style")

/** Gives the nodes on the page their stage's colour, in Nodes 2.0. */
function paint() {
  const text = isVue() ? sheetOf(nodesShown()) : ""
  if (sheet.textContent !== text) sheet.textContent = text
}

let due = 0

/** Once for all nodes that are made in one go: their ids come with their graph. */
function paintSoon() {
  due ||= requestAnimationFrame(() => {
    due = 0
    paint()
  })
}

let types = []

/** The translations of the host's language, once. */
async function loadTexts() {
  const language = settingOf("Comfy.Locale") ?? "en"
  if (language === "en") return
  try {
    const languages = await (await fetchApi("/i18n")).json()
    learn(languages[language], languages.en)
  } catch {
    // English then
  }
}

register({
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
        if (!on) endChecks()
      },
    },
    {
      id: "LoRAFoundry.Ask",
      name: "LoRA Foundry: ask what LoRAs were trained with",
      category: ["LoRA Foundry", "Checks", "Ask"],
      tooltip: "Questions about LoRAs of which nobody says on which base they were trained.",
      type: "boolean",
      defaultValue: true,
      onChange(on) {
        turnAsking(on)
        allViews().forEach((view) => view.update())
      },
    },
  ],

  commands: [
    { id: "LoRAFoundry.Check", label: "LoRA Foundry: Check workflow", icon: "pi pi-check-circle", function: checkNow },
    { id: "LoRAFoundry.Convert", label: "LoRA Foundry: Convert LoRA loaders", icon: "pi pi-sitemap", function: () => convertNow() },
  ],

  menuCommands: [{ path: ["Extensions"], commands: ["LoRAFoundry.Check", "LoRAFoundry.Convert"] }],

  init() {
    addStyle()
    listen()
    watchFiles(filesChanged)
    whenLearnt(factsLearnt)
    whenDeclared(declared)
    whenSilenced(silenced)
    whenArrived(openAt)
    whenBadgeClicked((node) => void report(node.title, shownOn(node)))
    onConvert((fixes) => void convertNow(fixes))
  },

  addCustomNodeDefs(defs) {
    types = stageTypes(Object.values(defs))
  },

  beforeRegisterNodeDef(nodeType, { name }) {
    tint(nodeType, name)
  },

  async setup() {
    onGraphShown(paintSoon)
    for (const table of colourTables()) colour(table, types)
    await loadTexts()
  },

  nodeCreated(node) {
    adopt(node)
    adoptRows(node)
    linter.touch()
    if (!isOurs(node)) return
    paintSoon()
    chain(node, "onConnectInput", function (result, slot, type) {
      return pastTheEnd(this.inputs?.[slot]?.type, type) ? refuse() : result
    })
  },

  getNodeMenuItems(node) {
    const findings = shownOn(node)
    const check = { content: word("check.menu"), callback: () => void report(node.title, findings) }
    return [...(findings.length ? [check] : []), ...importItems(node)]
  },

  afterConfigureGraph() {
    closePopovers()
    forgetCheck()
    linter.forget()
    linter.touch()
    requestAnimationFrame(restoreReports) // just after this the host puts back the outputs of the tab's last run
    requestAnimationFrame(remountRows)
    paintSoon()
  },
})
