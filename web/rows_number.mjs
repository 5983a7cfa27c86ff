// A field for a number: typed, dragged sideways, stepped by the arrows, reset by a double click.
// @ts-check

import { element } from "./dom.mjs"
import { MOST_STRENGTH, stepOf, tidy, typed } from "./rows.mjs"

const PER_STEP = 5 // px of a drag

export class NumberField {
  /**
   * @param {object} owner
   * @param {() => number | null} owner.value null: none is set
   * @param {(value: number | null, live: boolean) => void} owner.set `live`: the gesture goes on
   * @param {() => void} owner.ended a drag ended
   * @param {() => void} owner.leave where the focus goes after Enter and Escape
   * @param {number | null} owner.reset what a double click makes it
   * @param {() => number} owner.usual what holds where none is set
   */
  constructor(owner) {
    this.owner = owner
    const field = element("input", "lf-strength", [])
    this.root = field
    Object.assign(field, { type: "text", inputMode: "decimal", autocomplete: "off", spellcheck: false })
    const limits = { role: "spinbutton", "aria-valuemin": -MOST_STRENGTH, "aria-valuemax": MOST_STRENGTH }
    for (const [name, value] of Object.entries(limits)) field.setAttribute(name, String(value))
    field.addEventListener("change", () => this.take())
    field.addEventListener("keydown", (event) => this.key(event))
    field.addEventListener("dblclick", () => this.set(owner.reset, false))
    this.drag(field)
  }

  get text() {
    return String(this.owner.value() ?? "")
  }

  get number() {
    return this.owner.value() ?? this.owner.usual()
  }

  /** Shows the value, unless something is being typed. */
  fill() {
    if (document.activeElement !== this.root) this.root.value = this.text
    const now = String(this.number)
    if (this.root.getAttribute("aria-valuenow") !== now) this.root.setAttribute("aria-valuenow", now)
  }

  set(value, live) {
    this.root.value = String(value ?? "")
    this.owner.set(value, live)
  }

  /** What was typed, if it is a number; an empty field where a number may be missing. */
  take() {
    const value = typed(this.root.value)
    if (value !== null || (this.owner.reset === null && !this.root.value.trim())) this.set(value, false)
    else this.root.value = this.text
  }

  key(event) {
    const way = { ArrowUp: 1, ArrowDown: -1 }[event.key]
    if (way) {
      event.preventDefault()
      event.stopPropagation()
      this.set(tidy(this.number + way * stepOf(event)), false)
    } else if (event.key === "Enter" || event.key === "Escape") {
      event.stopPropagation()
      if (event.key === "Enter") this.take()
      else this.root.value = this.text
      this.owner.leave()
    }
  }

  /** Sideways over the field: steps. A press without a move is a click into it. */
  drag(field) {
    let [from, start, moved] = [null, 0, false]
    field.addEventListener("pointerdown", (event) => {
      event.stopPropagation()
      if (event.button !== 0 || document.activeElement === field) return
      event.preventDefault()
      field.setPointerCapture(event.pointerId)
      ;[from, start, moved] = [event.clientX, this.number, false]
    })
    field.addEventListener("pointermove", (event) => {
      if (from === null) return
      const steps = Math.trunc((event.clientX - from) / PER_STEP)
      moved ||= steps !== 0
      if (moved) this.set(tidy(start + steps * stepOf(event)), true)
    })
    const end = () => {
      if (from === null) return
      from = null
      if (moved) return this.owner.ended()
      field.focus()
      field.select()
    }
    field.addEventListener("pointerup", end)
    field.addEventListener("pointercancel", end)
  }
}
