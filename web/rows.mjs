// The text of LoRA Stack as rows, and what each gesture makes of it. Pure: no page, nothing is changed in place.
// @ts-check
// A text is JSON: a list of rows, or a document with a list of them; what is not understood is kept as it is.

const LISTS = ["stack", "lora_paths", "lora_path"]
const KNOWN = { strength: ["strength", "weight"], clip: ["clip_strength", "clip_weight"] } // the first is what we write
export const MOST_STRENGTH = 10
export const NOTED = 2 // beyond, a strength is worth a word

/**
 * @typedef {{id: number, data: string | object}} Row `data` as the text has it
 * @typedef {{rows: Row[], document: object | null, list: string}} State of a text that is rows
 * @typedef {{line: number, column: number}} Fault where a text is no JSON; 0: it is, but no rows
 */

let ids = 0
const row = (data) => ({ id: ++ids, data })
const isObject = (value) => value !== null && typeof value === "object" && !Array.isArray(value)
const isNumber = (value) => typeof value !== "number" || Number.isFinite(value) // 1e400 would be written as null: 1.0
const isRow = (data) => typeof data === "string" || (isObject(data) && typeof data.path === "string" && Object.values(data).every(isNumber))

const SPACE = /[ \t\n\r]*/y
const SCALAR = /"(?:[^"\\\u0000-\u001f]|\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4}))*"|-?(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][+-]?\d+)?|true|false|null/y

/** Where a text stops being JSON: browsers no longer tell. Follows the grammar, and keeps nothing of it. */
function faultAt(text) {
  let at = 0
  const take = (pattern) => {
    pattern.lastIndex = at
    const found = pattern.exec(text)
    at += found?.[0].length ?? 0
    return Boolean(found)
  }
  const sign = (wanted) => take(SPACE) && text[at] === wanted && Boolean(++at)
  const key = () => take(SPACE) && text[at] === '"' && take(SCALAR) && sign(":") && value()
  const all = (one, end) => {
    if (sign(end)) return true
    while (one()) if (!sign(",")) return sign(end)
    return false
  }
  const value = () => (sign("[") ? all(value, "]") : sign("{") ? all(key, "}") : take(SCALAR))
  if (value()) take(SPACE)
  return at
}

function faultOf(text) {
  const before = text.slice(0, faultAt(text)).split("\n")
  return { line: before.length, column: before.at(-1).length + 1 }
}

/** @returns {{state: State | null, fault: Fault | null}} */
export function read(text) {
  const none = (fault) => ({ state: null, fault })
  let data = []
  try {
    if (text.trim()) data = JSON.parse(text)
  } catch {
    return none(faultOf(text))
  }
  const list = Array.isArray(data) ? "" : LISTS.find((name) => isObject(data) && name in data)
  if (list === undefined || (isObject(data) && "model" in data)) return none({ line: 0, column: 0 })
  const rows = list ? data[list] : data
  if (!Array.isArray(rows) || !rows.every(isRow)) return none({ line: 0, column: 0 })
  return { state: { rows: rows.map(row), document: list ? data : null, list }, fault: null }
}

/** The same text read again: rows keep their ids, so that what shows them stays. @param {State} state @param {State} before */
export function recognise(state, before) {
  const same = (each, at) => ({ ...each, id: before.rows[at]?.id ?? each.id })
  return { ...state, rows: state.rows.map(same) }
}

const inline = (value) => {
  if (Array.isArray(value)) return `[${value.map(inline).join(", ")}]`
  if (!isObject(value)) return JSON.stringify(value)
  return `{${Object.entries(value).map(([key, part]) => `${JSON.stringify(key)}: ${inline(part)}`).join(", ")}}`
}

const lines = (rows, indent) => (rows.length ? `[\n${rows.map(({ data }) => `${indent}  ${inline(data)}`).join(",\n")}\n${indent}]` : "[]")

/** The text of a state: a row a line. @param {State} state */
export function write({ rows, document, list }) {
  if (!document) return lines(rows, "")
  const parts = Object.entries(document).map(([key, part]) => `  ${JSON.stringify(key)}: ${key === list ? lines(rows, "  ") : inline(part)}`)
  return `{\n${parts.join(",\n")}\n}`
}

// --- one row

const named = (data, names) => names.find((name) => data[name] !== undefined && data[name] !== null)

/**
 * What a row says, with what holds where it says nothing.
 * @returns {{path: string, on: boolean, solo: boolean, strength: number, clip: number | null, blocks: string}}
 */
export function told({ data }) {
  if (typeof data === "string") return { path: data, on: true, solo: false, strength: 1, clip: null, blocks: "" }
  const number = (names, other) => (named(data, names) ? Number(data[named(data, names)]) : other)
  return {
    path: data.path,
    on: data.on ?? true,
    solo: data.solo ?? false,
    strength: number(KNOWN.strength, 1),
    clip: number(KNOWN.clip, null),
    blocks: data.blocks ?? "",
  }
}

/** A row with something else in it; the words it uses for it stay, and so does all that is not ours. */
function changed(data, change) {
  const made = typeof data === "string" ? { path: data } : { ...data }
  for (const [what, value] of Object.entries(change)) {
    const names = KNOWN[what] ?? [what]
    if (value === null || value === "") for (const name of names) delete made[name]
    else made[named(made, names) ?? names[0]] = value
  }
  return made
}

/** A strength within bounds, without the dust of adding steps. */
export const tidy = (value) => Number(Math.max(-MOST_STRENGTH, Math.min(MOST_STRENGTH, value)).toFixed(4))

/** What is typed into a field as a number, a comma is a point; null: nothing, or no number. */
export function typed(text) {
  const value = Number(text.trim().replace(",", "."))
  return text.trim() && Number.isFinite(value) ? tidy(value) : null
}

/** Whether a strength is worth a word: outside what is recommended, or past 2 where nothing is. @param {[number, number] | null} [span] */
export function strong(value, span) {
  if (!span) return Math.abs(value) > NOTED
  return value < span[0] - 1e-3 || value > span[1] + 1e-3
}

/** Where a strength and the recommended ones lie on a line, in percent. @returns {{least: number, most: number, at: number}} */
export function onLine(value, [least, most]) {
  const [from, to] = [Math.min(0, least, value), Math.max(NOTED, most, value)]
  const place = (each) => Math.round(((each - from) / (to - from)) * 100)
  return { least: place(least), most: place(most), at: place(value) }
}

/** How far one step goes: Shift is fine, Alt is coarse. */
export const stepOf = ({ shiftKey, altKey }) => (shiftKey ? 0.01 : altKey ? 0.1 : 0.05)

// --- all rows: each takes a state and gives another

const withRows = (state, rows) => ({ ...state, rows })

export const change = (state, id, what) =>
  withRows(state, state.rows.map((each) => (each.id === id ? { ...each, data: changed(each.data, what) } : each)))

export const toggle = (state, id) => change(state, id, { on: !told(state.rows.find((each) => each.id === id)).on })

/** Only this row and others with solo count; again, and it is one among the others. */
export function solo(state, id) {
  const { solo: was, on } = told(state.rows.find((each) => each.id === id))
  return change(state, id, was && on ? { solo: null } : { solo: true, ...(on ? {} : { on: true }) })
}

/** All on, and none alone; where they are already, all off. */
export function toggleAll(state) {
  const on = countOn(state) < state.rows.length
  const other = (each) => told(each).on !== on || told(each).solo
  return withRows(state, state.rows.map((each) => (other(each) ? { ...each, data: changed(each.data, { on, solo: null }) } : each)))
}

/** The rows that count, as the server has it: those that are on, of them those with solo where there are any. */
export function active({ rows }) {
  const on = rows.filter((each) => told(each).on)
  const alone = on.filter((each) => told(each).solo)
  return alone.length ? alone : on
}

export const countOn = (state) => active(state).length

/** The trigger words of the rows that change something, each once, with commas, as the node's output has them. @param {(path: string) => string | undefined} known */
export function wordsOf(state, known) {
  const acting = active(state).map(told).filter(({ strength, clip }) => strength || clip)
  const found = acting.map(({ path }) => known(path)).filter(Boolean)
  return [...new Set(found.flatMap((each) => each.split(", ")))].join(", ")
}

/** What the strengths of the rows that count come to. */
export const sum = (state) => tidyOf(active(state).reduce((all, each) => all + told(each).strength, 0))
const tidyOf = (value) => Number(value.toFixed(4))

/** Put a row where another is; past either end it stays. */
export function move(state, id, to) {
  const from = state.rows.findIndex((each) => each.id === id)
  const rows = [...state.rows]
  const [taken] = rows.splice(from, 1)
  rows.splice(Math.max(0, Math.min(to, rows.length)), 0, taken)
  return withRows(state, rows)
}

/** Rows at the end: names, or rows with more than a name. */
export const add = (state, items) =>
  withRows(state, [...state.rows, ...items.map((item) => row(typeof item === "string" ? { path: item, strength: 1 } : item))])

export const SORTS = ["name", "strength", "on"]
const KEYS = {
  name: ({ path }) => path.replaceAll("\\", "/").toLowerCase(),
  strength: ({ strength }) => -Math.abs(strength),
  on: ({ on }) => (on ? 0 : 1),
}

/** Rows by name, the strongest first, or those that are on first; what is alike stays in its order. */
export function sorted(state, by) {
  const key = (each) => KEYS[by](told(each))
  return withRows(state, [...state.rows].sort((a, b) => (key(a) < key(b) ? -1 : key(a) > key(b) ? 1 : 0)))
}

/** Other rows in the place of all of them. */
export const replace = (state, items) => add(withRows(state, []), items)

export const remove = (state, id) => withRows(state, state.rows.filter((each) => each.id !== id))

/**
 * The rows in a text like `<lora:name:0.7:0.5>`, by names a server lists; a name that fits no file stays as written.
 * @param {string} text @param {string[]} names
 */
export function rowsOfTags(text, names) {
  const plain = (name) => name.replaceAll("\\", "/").replace(/\.(safetensors|pt|ckpt)$/i, "").toLowerCase()
  const number = (written) => tidy(Number(written.replace(",", ".")) || 0) // "0,5" and "1e-1" are numbers, as "0.5" is
  // lengths are limited, or a tag that never ends would be tried in as many ways as the square of its length
  const tags = /<lora:([^:<>]{1,500})(?::([+-]?[\d.,]{1,30}(?:e[+-]?\d{1,9})?))?(?::([+-]?[\d.,]{1,30}(?:e[+-]?\d{1,9})?))?[^<>]{0,100}>/gi
  return [...text.matchAll(tags)].map(([, name, strength, clip]) => {
    const wanted = plain(name.trim())
    const path = names.find((each) => plain(each) === wanted) ?? names.find((each) => plain(each).split("/").at(-1) === wanted)
    const made = { path: path ?? name.trim(), strength: number(strength ?? "1") }
    return clip === undefined ? made : { ...made, clip_strength: number(clip) }
  })
}
