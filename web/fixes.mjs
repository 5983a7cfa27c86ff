// What a fix of a finding comes to in the open graph: which widget gets which value. Knows nodes as plain objects.
// @ts-check

import { read, told } from "./rows.mjs"

/** A name as it is written everywhere: with slashes. */
export const plain = (name) => String(name).replaceAll("\\", "/")

/**
 * A node and what is above it, nearest first.
 * @param {any} node @param {(input: any) => boolean} [through] the inputs to follow; all without it
 * @returns {any[]}
 */
export function above(node, through = () => true) {
  const queue = [node]
  for (const at of queue) {
    const next = (at.inputs ?? []).map((input, slot) => through(input) && at.getInputNode?.(slot)).filter(Boolean)
    queue.push(...next.filter((other) => !queue.includes(other)))
  }
  return queue
}

const ROW_NAMES = ["lora", "lora_name", "name", "low_variant_name"] // of a row of other packs
const WRAPPED = "__value__" // a list, apart from links
const TAG = /<lora:([^:<>]+)(?=[:>])/g
const STRING = /"(?:[^"\\]|\\.)*"(\s*:)?/g // of JSON; a key with its colon
const isObject = (value) => value !== null && typeof value === "object"

/**
 * A value with one file name for another: the name itself, a row or rows that have it, a text with `<lora:name:1>`.
 * @returns {any} null where it is not there
 */
export function renamed(value, from, to) {
  if (typeof value === "string") return plain(value) === plain(from) ? to : renamedText(value, from, to)
  if (Array.isArray(value)) {
    const rows = value.map((row) => (isObject(row) && !Array.isArray(row) ? renamed(row, from, to) : null))
    return rows.some((row) => row !== null) ? value.map((row, at) => rows[at] ?? row) : null
  }
  if (!isObject(value)) return null
  const names = ROW_NAMES.filter((name) => typeof value[name] === "string" && plain(value[name]) === plain(from))
  const wrapped = renamed(value[WRAPPED], from, to)
  if (!names.length && wrapped === null) return null
  return { ...value, ...Object.fromEntries(names.map((name) => [name, to])), ...(wrapped === null ? {} : { [WRAPPED]: wrapped }) }
}

function renamedText(text, from, to) {
  const tagged = text.replace(TAG, (tag, name) => (plain(name) === plain(from) ? `<lora:${to}` : tag))
  if (tagged !== text) return tagged
  const { state } = /^\s*[[{]/.test(text) ? read(text) : { state: null }
  if (!state?.rows.some((row) => plain(told(row).path) === plain(from))) return null
  const isIt = (token, key) => key === undefined && plain(JSON.parse(token)) === plain(from)
  return text.replace(STRING, (token, key) => (isIt(token, key) ? JSON.stringify(to) : token))
}

/**
 * All of a finding's fixes as changes of widgets; null where one cannot be made here (its input is wired, say).
 * @param {object[]} actions @param {(id: string) => object | undefined} nodeOf
 * @returns {{node: object, widget: object, value: any}[] | null}
 */
export function changesOf(actions, nodeOf) {
  const changes = actions.map((action) => changeOf(action, nodeOf(action.node)))
  return changes.length && changes.every(Boolean) ? changes : null
}

const WHOLE = ["convert", "fuse", "stack", "remove"]

/** Whether the fixes of a finding move nodes and wires, which the server does: what is to be done, "" where they do not. */
export const ofWhole = (actions) => WHOLE.find((name) => name === actions[0]?.action) ?? ""

function changeOf(action, node) {
  if (!node) return null
  if (action.action === "set") return setting(action, node)
  if (action.action !== "replace") return null
  for (const owner of above(node))
    for (const widget of owner.widgets ?? []) {
      const value = renamed(widget.value, action.from, action.to)
      if (value !== null) return { node: owner, widget, value }
    }
  return null
}

function setting({ input, value }, node) {
  const widget = node.widgets?.find(({ name }) => name === input)
  const wired = node.inputs?.some((slot) => slot.widget?.name === input && slot.link != null)
  return widget && !wired ? { node, widget, value } : null
}
