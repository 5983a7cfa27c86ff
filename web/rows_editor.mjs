// The rows editor on LoRA Stack: a header, a list of rows, and the text behind them. The text is the value of the node.

import { announce, button, element } from "./dom.mjs"
import * as rows from "./rows.mjs"
import { Chooser } from "./rows_chooser.mjs"
import { everyLora } from "./rows_client.mjs"
import { RowView } from "./rows_row.mjs"
import { parts } from "./rows_search.mjs"
import { word } from "./texts.mjs"

export const ROW = 28 // px, as in rows.css
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
      remove: (id) => this.remove(id),
      shift: (id, by) => this.shift(id, by),
    }
    this.all = element("input", "lf-box", [])
    this.all.type = "checkbox"
    this.all.setAttribute("aria-label", word("rows.all"))
    this.all.addEventListener("change", () => this.commit(rows.toggleAll(this.state)))
    this.count = element("span", "lf-count", "")
    this.total = element("span", "lf-sum", "")
    this.add = button("+", () => this.choose())
    this.add.classList.add("lf-add")
    this.add.title = word("rows.add")
    this.add.setAttribute("aria-label", word("rows.add"))
    this.braces = button("{ }", () => this.toText(!this.asText))
    this.header = element("div", "lf-rows-head", [this.all, this.count, this.total, this.add, this.braces])
    this.list = element("ul", "lf-rows-list", [])
    this.list.setAttribute("aria-label", word("rows.label"))
    this.note = element("div", "lf-rows-note", "")
    this.area = element("textarea", "lf-rows-text", [])
    Object.assign(this.area, { spellcheck: false, autocomplete: "off" })
    this.area.setAttribute("aria-label", word("rows.text"))
    this.area.addEventListener("input", () => this.take(this.area.value))
    this.area.addEventListener("change", () => this.owner.ended())
    this.root = element("div", "lf-rows", [this.header, this.note, this.area, this.list])
    this.list.addEventListener("keydown", (event) => this.key(event))
    this.list.addEventListener("focusin", (event) => this.roam(event.target.closest(".lf-row")))
    this.root.addEventListener("keydown", (event) => this.own(event))
    this.root.addEventListener("paste", (event) => this.paste(event))
    this.dragging()
  }

  get height() {
    const shown = Math.min(this.state?.rows.length ?? 0, MOST_SHOWN)
    return ROW + 8 + (this.note.hidden ? 0 : NOTE) + (this.area.hidden ? 0 : TEXT) + (this.list.hidden ? 0 : shown * ROW)
  }

  /** The LoRAs that are shown. */
  get paths() {
    return this.state && !this.asText && !this.owner.wired() ? this.state.rows.map((row) => rows.told(row).path) : []
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
    const listed = Boolean(state) && !this.asText && !wired
    this.list.hidden = !listed || !state.rows.length
    this.all.disabled = this.add.disabled = !listed
    this.area.hidden = listed || wired
    if (!listed && this.area.value !== this.text) this.area.value = this.text
    this.note.hidden = !wired && Boolean(state && (this.asText || state.rows.length))
    if (wired) this.note.textContent = word("rows.wired")
    else this.note.textContent = state ? word("rows.none") : this.fault.line ? word("rows.broken", this.fault) : word("rows.other")
    const label = listed ? word("rows.text") : word("rows.back")
    this.braces.title = label
    this.braces.setAttribute("aria-label", label)
    this.braces.setAttribute("aria-pressed", String(!listed))
    this.braces.disabled = !state || wired
    if (listed) this.drawRows(state)
    else if (!state || wired) this.count.textContent = this.total.textContent = ""
    this.owner.wants(this.paths)
    if (this.height === this.lastHeight) return
    this.lastHeight = this.height
    this.owner.resized()
  }

  drawRows(state) {
    const on = rows.countOn(state)
    this.all.checked = on > 0 && on === state.rows.length
    this.all.indeterminate = on > 0 && on < state.rows.length
    this.count.textContent = word("rows.count", { on, count: state.rows.length })
    this.total.textContent = word("rows.sum", { sum: rows.sum(state) })
    const views = state.rows.map((row) => this.views.get(row.id) ?? new RowView(row.id, this.actions))
    this.views = new Map(views.map((view) => [view.id, view]))
    views.forEach((view, at) => view.fill(state.rows[at], this.owner.facts(rows.told(state.rows[at]).path), at + 1, views.length))
    const held = this.dragged?.root ?? document.activeElement?.closest?.(".lf-row")
    arrange(this.list, views.map((view) => view.root), held)
    if (!views.some((view) => view.root.tabIndex === 0) && views.length) views[0].root.tabIndex = 0
  }

  /** Something else is known of the LoRAs. */
  told() {
    if (this.paths.length) this.drawRows(this.state)
  }

  toText(asText) {
    this.asText = asText
    this.draw()
    ;(asText ? this.area : this.braces).focus()
  }

  // --- gestures

  viewOf(id) {
    return this.views.get(id)
  }

  remove(id) {
    const at = this.state.rows.findIndex((row) => row.id === id)
    announce(word("rows.removed", { name: this.viewOf(id).title }))
    this.commit(rows.remove(this.state, id))
    const next = this.state.rows[Math.min(at, this.state.rows.length - 1)]
    if (next) this.viewOf(next.id).root.focus()
    else this.add.focus()
  }

  shift(id, by) {
    const at = this.state.rows.findIndex((row) => row.id === id)
    const to = Math.max(0, Math.min(at + by, this.state.rows.length - 1))
    if (to === at) return
    this.commit(rows.move(this.state, id, to))
    this.viewOf(id).root.scrollIntoView({ block: "nearest" })
    announce(word("rows.moved", { name: this.viewOf(id).title, place: to + 1, count: this.state.rows.length }))
  }

  append(items) {
    if (!items.length) return
    this.commit(rows.add(this.state, items))
    announce(word("rows.added", { count: items.length }))
    this.list.lastElementChild.scrollIntoView({ block: "nearest" })
  }

  choose() {
    void new Chooser((names) => this.append(names)).open(this.add)
  }

  /** A prompt's `<lora:name:0.7>` pasted over the rows; a field keeps its own paste. */
  async paste(event) {
    const text = event.clipboardData?.getData("text") ?? ""
    if (!this.state || this.asText || event.target.matches("input[type=text]") || !/<lora:/i.test(text)) return
    event.preventDefault()
    event.stopPropagation()
    const names = await everyLora().catch(() => [])
    this.append(rows.rowsOfTags(text, names))
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
    const does = this.keys(view, event.target)[event.key]
    if (!does) return
    event.preventDefault()
    does()
  }

  keys(view, target) {
    const row = target === view.root
    const walk = (to) => () => (to?.classList?.contains("lf-row") ? to : null)?.focus()
    const stops = [view.root, view.box, view.strength, view.more]
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
      ...(row && { " ": () => this.actions.toggle(view.id), Enter: () => (view.strength.focus(), view.strength.select()) }),
    }
  }

  // --- drag

  /** Rows follow the pointer while it is held; the text changes once, when it is let go. */
  dragging() {
    this.list.addEventListener("pointerdown", (event) => {
      const grip = event.target.closest(".lf-grip")
      if (!grip || event.button !== 0) return
      event.preventDefault()
      event.stopPropagation()
      this.dragged = this.viewOf(Number(grip.parentElement.dataset.id))
      this.before = this.state
      this.dragged.root.classList.add("lf-dragged")
      this.list.setPointerCapture(event.pointerId)
    })
    this.list.addEventListener("pointermove", (event) => this.dragged && this.dragTo(event.clientY))
    this.list.addEventListener("pointerup", () => this.drop(true))
    this.list.addEventListener("pointercancel", () => this.drop(false))
  }

  dragTo(y) {
    const box = this.list.getBoundingClientRect()
    const scale = box.height / this.list.offsetHeight || 1 // the canvas may be zoomed
    if (y < box.top + 8) this.list.scrollTop -= ROW / 2
    if (y > box.bottom - 8) this.list.scrollTop += ROW / 2
    const to = Math.floor(((y - box.top) / scale + this.list.scrollTop) / ROW)
    const at = this.state.rows.findIndex((row) => row.id === this.dragged.id)
    const within = Math.max(0, Math.min(to, this.state.rows.length - 1))
    if (within === at) return
    this.state = rows.move(this.state, this.dragged.id, within)
    this.drawRows(this.state)
  }

  drop(keep) {
    const { dragged, before } = this
    if (!dragged) return
    dragged.root.classList.remove("lf-dragged")
    this.dragged = null
    const [state, moved] = [this.state, rows.write(this.state) !== rows.write(before)]
    if (keep && moved) this.commit(state)
    else if (moved) {
      this.state = before
      this.drawRows(before)
    }
    dragged.root.focus()
  }
}
