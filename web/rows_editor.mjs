// The rows editor on LoRA Stack: a header, a list of rows, and the text behind them. The text is the value of the node.
// @ts-check

import { announce, element } from "./dom.mjs"
import { tell } from "./host.mjs"
import * as rows from "./rows.mjs"
import { Chooser } from "./rows_chooser.mjs"
import { openBlocks } from "./rows_blocks_view.mjs"
import { everyLora } from "./rows_client.mjs"
import { Drag } from "./rows_drag.mjs"
import { Drop } from "./rows_drop.mjs"
import { Header } from "./rows_header.mjs"
import { openPresets } from "./rows_presets.mjs"
import { ROW, RowView } from "./rows_row.mjs"
import { filesNamed } from "./rows_search.mjs"
import { word } from "./texts.mjs"

const MOST_SHOWN = 10 // rows; more scroll
const NOTE = 36 // px of the sentence in place of rows
const TEXT = 132 // px of the text

/**
 * @typedef {object} Owner the node, as far as the editor knows it
 * @property {() => string} text its value
 * @property {(text: string) => void} write
 * @property {() => void} ended a gesture ended
 * @property {() => boolean} wired the text comes from another node
 * @property {(path: string) => object | undefined} facts
 * @property {(path: string) => object[]} findings of a check, about this LoRA
 * @property {() => string} base the name of the base that is wired, empty for none
 * @property {(paths: string[]) => void} folded the rows whose second line is open now
 * @property {() => void} resized the editor is higher or lower than before
 * @property {(paths: string[]) => void} wants facts about these
 */

/** Puts elements in an order without moving one that is held: it keeps its focus, its drag and its scroll. */
export function arrange(parent, wanted, held) {
  for (const child of [...parent.children]) if (!wanted.includes(child)) child.remove()
  const at = held?.parentElement === parent ? wanted.indexOf(held) : -1
  const put = (element, next) => element.nextElementSibling === next && element.parentElement === parent || parent.insertBefore(element, next)
  for (let each = at - 1; each >= 0; each--) put(wanted[each], wanted[each + 1])
  for (let each = wanted.length - 1; each > at; each--) put(wanted[each], wanted[each + 1] ?? null)
}

export class Editor {
  /** @param {Owner} owner */
  constructor(owner) {
    this.owner = owner
    this.views = new Map() // row id -> RowView
    this.state = null
    this.asText = false // by the user's wish
    this.text = undefined
    this.actions = {
      change: (id, what, live) => this.commit(rows.change(this.state, id, what), live),
      toggle: (id) => this.commit(rows.toggle(this.state, id)),
      solo: (id) => this.solo(id),
      folded: (id) => (this.measure(), this.reveal(id), this.owner.folded(this.open)),
      blocks: (id, anchor) => this.openBlocks(id, anchor),
      remove: (id) => this.remove(id),
      shift: (id, by) => this.shift(id, by),
    }
    this.header = new Header(this)
    this.list = element("ul", "lf-rows-list", [])
    this.list.setAttribute("aria-label", word("rows.label"))
    this.note = element("div", "lf-rows-note", "")
    this.area = element("textarea", "lf-rows-text", [])
    Object.assign(this.area, { spellcheck: false, autocomplete: "off" })
    this.area.setAttribute("aria-label", word("rows.text"))
    this.area.addEventListener("input", () => this.take(this.area.value))
    this.area.addEventListener("change", () => this.owner.ended())
    this.root = element("div", "lf-rows", [this.header.root, this.note, this.area, this.list])
    this.list.addEventListener("keydown", (event) => this.key(event))
    this.list.addEventListener("focusin", (event) => this.roam(event.target.closest(".lf-row")))
    this.root.addEventListener("keydown", (event) => this.own(event))
    this.root.addEventListener("paste", (event) => this.paste(event))
    this.drag = new Drag(this)
    new Drop(this)
  }

  /** Rows are shown, not the text and not what comes by wire. */
  get listed() {
    return Boolean(this.state) && !this.asText && !this.owner.wired()
  }

  get height() {
    const rowsHeight = [...this.views.values()].reduce((all, view) => all + view.height, 0)
    const listed = this.list.hidden ? 0 : Math.min(rowsHeight, MOST_SHOWN * ROW)
    return ROW + 8 + (this.note.hidden ? 0 : NOTE) + (this.area.hidden ? 0 : TEXT) + listed
  }

  /** The LoRAs that are shown. */
  get paths() {
    return this.listed ? this.state.rows.map((row) => rows.told(row).path) : []
  }

  /** The LoRAs whose second line is open. */
  get open() {
    return this.paths.filter((_, at) => this.viewOf(this.state.rows[at].id)?.open)
  }

  /** Second lines as they were: an undo makes the node anew, and its height is part of what is undone. */
  restore(open) {
    for (const { id } of this.paths.length ? this.state.rows : []) {
      const view = this.viewOf(id)
      if (!view.open && open.includes(rows.told(view.row).path)) view.setOpen(true)
    }
  }

  /** The node's text may be another one now. */
  refresh() {
    const text = this.owner.text()
    if (text === this.text) return
    this.understand(text)
    this.draw()
  }

  understand(text) {
    this.text = text
    const { state, fault } = rows.read(text)
    this.fault = fault
    this.asText ||= !state // until the user goes back to rows
    this.state = state && this.state ? rows.recognise(state, this.state) : state
  }

  /** What is typed into the text is the node's value at once, understood or not. */
  take(text) {
    this.understand(text)
    this.owner.write(text)
    this.draw()
  }

  /** A gesture's new state becomes the node's text. */
  commit(state, live = false) {
    this.state = state
    this.text = rows.write(state)
    this.owner.write(this.text)
    this.draw()
    if (!live) this.owner.ended()
  }

  // --- what is shown

  draw() {
    const { state } = this
    const wired = this.owner.wired()
    const { listed } = this
    this.list.hidden = !listed || !state.rows.length
    this.header.draw(listed, Boolean(state) && !wired)
    this.area.hidden = listed || wired
    if (!listed && this.area.value !== this.text) this.area.value = this.text
    this.note.hidden = !wired && Boolean(state && (this.asText || state.rows.length))
    if (wired) this.note.textContent = word("rows.wired")
    else this.note.textContent = state ? word("rows.none") : this.fault.line ? word("rows.broken", this.fault) : word("rows.other")
    if (listed) this.drawRows(state)
    this.owner.wants(this.paths)
    this.measure()
  }

  /** Scrolls the list alone: what is around it may be a canvas that must not move. */
  reveal(id) {
    const { list } = this
    const { offsetTop: top, offsetHeight: height } = this.viewOf(id).root
    if (top + height > list.scrollTop + list.clientHeight) list.scrollTop = top + height - list.clientHeight
    if (top < list.scrollTop) list.scrollTop = top
  }

  measure() {
    if (this.height === this.lastHeight) return
    this.lastHeight = this.height
    this.owner.resized()
  }

  drawRows(state) {
    this.header.fill(state)
    const views = state.rows.map((row) => this.views.get(row.id) ?? new RowView(row.id, this.actions))
    this.views = new Map(views.map((view) => [view.id, view]))
    const active = new Set(rows.active(state))
    views.forEach((view, at) => {
      const { path } = rows.told(state.rows[at])
      const known = { facts: this.owner.facts(path), findings: this.owner.findings(path) }
      view.fill(state.rows[at], { ...known, silent: !active.has(state.rows[at]), place: at + 1, count: views.length })
    })
    const held = this.drag.view?.root ?? document.activeElement?.closest?.(".lf-row")
    arrange(this.list, views.map((view) => view.root), held)
    if (!views.some((view) => view.root.tabIndex === 0) && views.length) views[0].root.tabIndex = 0
  }

  /** Something else is known of the LoRAs. */
  told() {
    if (!this.paths.length) return
    this.drawRows(this.state)
    this.measure()
  }

  toText(asText) {
    this.asText = asText
    this.draw()
    ;(asText ? this.area : this.header.braces).focus()
  }

  // --- gestures

  viewOf(id) {
    return this.views.get(id)
  }

  solo(id) {
    this.commit(rows.solo(this.state, id))
    const { name, on, count } = { name: this.viewOf(id).title, on: rows.countOn(this.state), count: this.state.rows.length }
    announce(word("rows.heard", { name, on, count }))
  }

  openBlocks(id, anchor) {
    const row = () => this.state?.rows.find((each) => each.id === id)
    openBlocks({
      anchor,
      title: this.viewOf(id).title,
      base: this.owner.base(),
      told: () => rows.told(row()),
      change: (what) => row() && this.actions.change(id, what),
    })
  }

  remove(id) {
    const at = this.state.rows.findIndex((row) => row.id === id)
    announce(word("rows.removed", { name: this.viewOf(id).title }))
    this.commit(rows.remove(this.state, id))
    const next = this.state.rows[Math.min(at, this.state.rows.length - 1)]
    if (next) this.viewOf(next.id).root.focus()
    else this.header.add.focus()
  }

  shift(id, by) {
    const at = this.state.rows.findIndex((row) => row.id === id)
    const to = Math.max(0, Math.min(at + by, this.state.rows.length - 1))
    if (to === at) return
    this.commit(rows.move(this.state, id, to))
    this.reveal(id)
    announce(word("rows.moved", { name: this.viewOf(id).title, place: to + 1, count: this.state.rows.length }))
  }

  append(items) {
    if (!items.length) return
    this.commit(rows.add(this.state, items))
    announce(word("rows.added", { count: items.length }))
    this.reveal(this.state.rows.at(-1).id)
  }

  choose() {
    void new Chooser((names) => this.append(names), this.owner.base()).open(this.header.add)
  }

  openSaved() {
    const written = () => this.state.rows.map(({ data }) => data)
    void openPresets(this.header.saved, written, (items) => this.state && this.commit(rows.replace(this.state, items)))
  }

  /** A prompt's `<lora:name:0.7>` pasted over the rows; a field keeps its own paste. */
  async paste(event) {
    const text = event.clipboardData?.getData("text") ?? ""
    if (!this.state || this.asText || event.target.matches("input[type=text]") || !/<lora:/i.test(text)) return
    event.preventDefault()
    event.stopPropagation()
    await this.appendTags(text)
  }

  async appendTags(text) {
    const names = await everyLora().catch(() => [])
    this.append(rows.rowsOfTags(text, names))
  }

  /** A text that was dropped: tags, or names of files. */
  async appendNamed(text) {
    if (/<lora:/i.test(text)) return this.appendTags(text)
    const names = await everyLora().catch(() => null)
    if (!names) return tell("warn", word("rows.drop"), word("chooser.failed"))
    const { found, unknown } = filesNamed(text, names)
    this.append(found)
    if (unknown.length) tell("warn", word("rows.drop"), word("rows.drop.unknown", { names: unknown.join(", ") }))
  }

  sort(by) {
    this.commit(rows.sorted(this.state, by))
    announce(word(`rows.sort.${by}`))
  }

  // --- keyboard

  /** One row at a time is a stop of the Tab key. */
  roam(row) {
    if (row) for (const view of this.views.values()) view.root.tabIndex = view.root === row ? 0 : -1
  }

  /** Keys with a meaning here are no shortcuts of the host; those with Ctrl, such as undo, are. */
  own(event) {
    if (!event.ctrlKey && !event.metaKey && event.key !== "Tab") event.stopPropagation()
  }

  key(event) {
    const root = event.target.closest(".lf-row")
    const view = root && this.viewOf(Number(root.dataset.id))
    if (!view || event.ctrlKey || event.metaKey) return
    if (event.altKey && (event.key === "ArrowUp" || event.key === "ArrowDown")) {
      event.preventDefault()
      return this.shift(view.id, event.key === "ArrowUp" ? -1 : 1)
    }
    if (event.target.matches("input[type=text]")) return
    const does = this.keys(view, event.target)[event.key.length === 1 ? event.key.toLowerCase() : event.key]
    if (!does) return
    event.preventDefault()
    does()
  }

  keys(view, target) {
    const row = target === view.root
    const walk = (to) => () => (to?.classList?.contains("lf-row") ? to : null)?.focus()
    const { stops } = view
    const across = (by) => () => stops[Math.max(0, Math.min(stops.indexOf(target) + by, stops.length - 1))].focus()
    return {
      ArrowUp: walk(view.root.previousElementSibling),
      ArrowDown: walk(view.root.nextElementSibling),
      Home: walk(this.list.firstElementChild),
      End: walk(this.list.lastElementChild),
      ArrowLeft: across(-1),
      ArrowRight: across(1),
      Delete: () => this.remove(view.id),
      Backspace: () => this.remove(view.id),
      Escape: () => view.root.focus(),
      s: () => this.actions.solo(view.id),
      d: () => view.unfold(!view.open),
      ...(row && { " ": () => this.actions.toggle(view.id), Enter: () => (view.strength.focus(), view.strength.select()) }),
    }
  }
}
