// The editor on its node: a widget after the host's field for the text, which it stands for. Without it the field is there.
// @ts-check

import { ask, button, passThrough } from "./dom.mjs"
import { allNodes, canvas, chain, gestureEnded, isVue, locatorOf, openWorkflow, remount, rootGraph, tell } from "./host.mjs"
import { everyLora, factsOf, learnFacts, listedLoras, outdate, rowsOfNode, whenChanged, whenLearnt } from "./rows_client.mjs"
import { Editor } from "./rows_editor.mjs"
import { word } from "./texts.mjs"

const KIND = "FoundryLoRAStack"
const TEXT = "loras"
const WIDTH = 420
const DELAY = 150 // ms: many rows, one question

/** which node of which workflow -> the LoRAs whose second line is open there */
const folds = new Map()
const placeOf = (node) => `${openWorkflow()}|${locatorOf(node)}`

/** node -> its editor */
const editors = new WeakMap()

const slashed = (name) => name.replaceAll("\\", "/")

/** Whether a finding about a LoRA of this name is about this row; some name only its file. */
const isOf = (path, subject) => `/${slashed(path)}`.endsWith(`/${slashed(subject)}`)

class Rows {
  constructor(node, text) {
    this.node = node
    this.field = text
    this.base = ""
    this.findings = []
    this.editor = new Editor({
      text: () => String(text.value ?? ""),
      write: (value) => this.write(value),
      ended: () => this.ended(),
      wired: () => Boolean(node.inputs?.some((slot) => slot.widget?.name === TEXT && slot.link != null)),
      facts: (path) => factsOf(path, this.base),
      findings: (path) => this.findings.filter(({ subject }) => subject && isOf(path, subject)),
      base: () => this.base,
      folded: (paths) => folds.set(placeOf(node), paths),
      resized: () => this.fit(),
      wants: (paths) => this.learn(paths),
    })
    const height = () => this.editor.height
    const options = { serialize: false, margin: 0, getMinHeight: height, getMaxHeight: height }
    passThrough(this.editor.root, canvas, () => !isVue())
    node.addDOMWidget("foundry_rows", "foundry_rows", this.editor.root, options).serialize = false
    text.hidden = true
    Object.assign(text.options, { hidden: true, getMinHeight: () => 0, getMaxHeight: () => 0 }) // Nodes 2.0, the canvas
    const read = () => this.editor.refresh()
    chain(text, "callback", (result) => (read(), result))
    chain(node, "onConfigure", (result) => (read(), this.editor.restore(folds.get(placeOf(node)) ?? []), result))
    chain(node, "onConnectionsChange", (result) => (this.editor.draw(), result))
    this.editor.refresh()
    node.setSize([Math.max(node.size[0], WIDTH), node.computeSize()[1]])
  }

  write(value) {
    const { node, field } = this
    if (field.value === value) return
    field.value = value
    field.callback?.(value)
    node.setDirtyCanvas(true, true)
  }

  /** One step of the host's undo; in Nodes 2.0 the node's new height belongs to it, which the page finds out first. */
  ended() {
    if (!isVue()) return gestureEnded()
    requestAnimationFrame(() => requestAnimationFrame(gestureEnded))
  }

  /** The node is as high as its rows; in Nodes 2.0 the browser's own layout does that. */
  fit() {
    const { node } = this
    if (!isVue()) node.setSize([node.size[0], node.computeSize()[1]])
    node.setDirtyCanvas(true, true)
  }

  learn(paths) {
    clearTimeout(this.timer)
    if (!paths.length) return
    const { base } = this
    this.timer = setTimeout(() => void learnFacts(paths, base), DELAY)
  }

  /** @param {string} base the name of the one that is wired @param {object[]} findings of a check, about this node */
  checked(base, findings) {
    const same = base === this.base && JSON.stringify(findings) === JSON.stringify(this.findings)
    if (!same) {
      this.base = base
      this.findings = findings
      this.editor.told()
    }
    outdate(this.editor.paths, base)
    this.learn(this.editor.paths)
  }
}

/** A new node: LoRA Stack gets its editor. */
export function adoptRows(node) {
  if (node.comfyClass !== KIND || editors.has(node)) return
  const text = node.widgets?.find((widget) => widget.name === TEXT)
  if (!text) return
  editors.set(node, new Rows(node, text))
  if (!listedLoras().length) look() // a first chooser opens with them
}

/** Ask whether the list of LoRAs is still the one that is known. */
const look = () => void everyLora().catch(() => {}) // without an answer it is asked again

/** Somebody may come back to the page with new files. @param {() => void} changed the list was found to be another one */
export function watchFiles(changed) {
  window.addEventListener("focus", () => all().length && look())
  whenLearnt(() => all().forEach((rows) => rows.editor.told()))
  whenChanged(() => {
    all().forEach((rows) => rows.learn(rows.editor.paths))
    changed()
  })
}

const all = () => allNodes().map((node) => editors.get(node)).filter(Boolean)

/** What the menu of a LoRA Stack offers: the rows of each other node that loads LoRAs. @returns {{content: string, callback: () => void}[]} */
export function importItems(node) {
  const editor = editors.get(node)?.editor
  if (!editor?.state) return []
  const others = (rootGraph()?.nodes ?? []).filter(({ type }) => /lora/i.test(type) && !type.startsWith("Foundry"))
  return others.map(({ id, title, type }) => ({
    content: word("rows.import", { title: title || type, id }),
    callback: () => void importRows(editor, String(id), title || type),
  }))
}

/** The rows of another node; of one for both models of Wan 2.2 those that the user wants. */
async function importRows(editor, id, title) {
  try {
    const { rows, halves } = await rowsOfNode(id)
    const choices = Object.keys(halves).map((half) => Object.assign(button(word(`rows.import.${half}`)), { value: half }))
    const half = choices.length && (await ask(word("rows.import.half", { title }), [], choices))
    if (half !== "") editor.append(half ? halves[half] : rows)
  } catch (error) {
    tell("warn", word("rows.import.failed"), error.message)
  }
}

/** The graph changed: a text may be another one, written by someone else. */
export const readRows = () => all().forEach((rows) => rows.editor.refresh())

/** All nodes were made anew. */
export const remountRows = () => all().forEach((rows) => remount(rows.node, rows.editor.root))

/**
 * What a check says: rows are told by the base their node goes to.
 * @param {(node: object) => string} baseOf its name @param {(node: object) => object[]} findingsOf
 */
export const checkedRows = (baseOf, findingsOf) => all().forEach((rows) => rows.checked(baseOf(rows.node), findingsOf(rows.node)))
