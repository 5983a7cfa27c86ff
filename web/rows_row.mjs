// One row of the editor as an element. It is made once and then filled again: focus and a drag survive.

import { button, element, line, place, popover } from "./dom.mjs"
import { MOST_STRENGTH, NOTED, stepOf, tidy, told } from "./rows.mjs"
import { ends, parts } from "./rows_search.mjs"
import { word } from "./texts.mjs"

const PER_STEP = 5 // px of a drag over the strength
const CHIPS = { fits: "clear", part: "warning", other: "error" }

/** What is known of a LoRA as chips: [class, text, sentence]. */
export function chipsOf(facts) {
  if (!facts) return []
  if (facts.error) return [["error", facts.missing ? word("rows.missing") : word("rows.damaged"), facts.error]]
  const chips = []
  if (facts.role && facts.role !== "unknown") {
    const key = facts.role.replace(" ", "_")
    const role = word(`role.${key}`)
    chips.push(["role", role, word("rows.role", { role, why: facts.role_why })])
  }
  const span = (values) => (values ? [...new Set(values)].join("-") : "?")
  if (facts.rank) chips.push(["rank", `r${span(facts.rank)}`, word("rows.rank", { rank: span(facts.rank), alpha: span(facts.alpha) })])
  if (facts.fit) chips.push([CHIPS[facts.fit], `${facts.matched}/${facts.modules}`, fitSentence(facts)])
  return chips
}

function fitSentence(facts) {
  if (facts.fit === "fits") return word("rows.fits", facts)
  if (facts.fit === "part") return word("rows.part", facts)
  return facts.matched ? word("rows.foreign", facts) : word("rows.unfit", facts)
}

function chip([kind, text, sentence]) {
  const made = element("span", `lf-chip lf-chip-${kind}`, text)
  made.title = sentence
  return made
}

/** A control that a roving focus reaches. */
function stop(made, tag) {
  made.tabIndex = -1
  made.dataset.stop = tag
  return made
}

/**
 * @typedef {object} Actions
 * @property {(id: number, what: object, live?: boolean) => void} change `live`: the gesture goes on
 * @property {(id: number) => void} toggle
 * @property {(id: number) => void} remove
 * @property {(id: number, by: number) => void} shift
 */

export class RowView {
  /** @param {number} id @param {Actions} actions */
  constructor(id, actions) {
    this.id = id
    this.actions = actions
    this.grip = element("span", "lf-grip", "⠿")
    this.grip.title = word("rows.grip")
    this.grip.setAttribute("aria-hidden", "true") // Alt and the arrows do the same
    this.box = stop(element("input", "lf-box", []), "box")
    this.box.type = "checkbox"
    this.box.addEventListener("change", () => actions.toggle(id))
    this.folder = element("span", "lf-folder", "")
    this.start = element("span", "lf-start", "")
    this.end = element("span", "lf-end", "")
    this.name = element("span", "lf-name", [this.folder, this.start, this.end])
    this.chips = element("span", "lf-chips", [])
    this.strength = this.strengthField()
    this.more = stop(button("⋯", () => this.open()), "more")
    this.more.classList.add("lf-dots")
    this.more.setAttribute("aria-haspopup", "dialog")
    this.root = element("li", "lf-row", [this.grip, this.box, this.name, this.chips, this.strength, this.more])
    this.root.tabIndex = -1
    this.root.dataset.id = String(id)
    this.root.addEventListener("dblclick", (event) => this.name.contains(event.target) && this.open())
  }

  /** @param {import("./rows.mjs").Row} row @param {object | undefined} facts @param {number} place @param {number} count */
  fill(row, facts, place, count) {
    this.row = row
    this.facts = facts
    const { path, on, strength, clip, blocks } = told(row)
    const { folder, name } = parts(path)
    this.title = name
    this.folder.textContent = folder
    ;[this.start.textContent, this.end.textContent] = ends(name)
    this.name.title = path
    this.box.checked = on
    this.box.setAttribute("aria-label", word("rows.toggle", { name }))
    if (document.activeElement !== this.strength) this.strength.value = String(strength)
    this.strength.setAttribute("aria-label", word("rows.strength", { name }))
    this.strength.setAttribute("aria-valuenow", String(strength))
    const strong = Math.abs(strength) > NOTED
    this.strength.classList.toggle("lf-strong", strong)
    this.strength.title = strong ? word("rows.strong") : ""
    this.more.setAttribute("aria-label", word("rows.menu", { name }))
    this.more.classList.toggle("lf-set", clip !== null || blocks !== "")
    this.root.classList.toggle("lf-off", !on)
    const state = on ? word("rows.on") : word("rows.off")
    this.root.setAttribute("aria-label", word("rows.row", { name, state, strength, place, count }))
    const chips = JSON.stringify(chipsOf(facts))
    if (chips === this.shownChips) return
    this.shownChips = chips
    this.chips.replaceChildren(...chipsOf(facts).map(chip))
  }

  strengthField() {
    const field = stop(element("input", "lf-strength", []), "strength")
    Object.assign(field, { type: "text", inputMode: "decimal", autocomplete: "off", spellcheck: false })
    const limits = { role: "spinbutton", "aria-valuemin": -MOST_STRENGTH, "aria-valuemax": MOST_STRENGTH }
    for (const [name, value] of Object.entries(limits)) field.setAttribute(name, String(value))
    field.addEventListener("change", () => this.typed(field))
    field.addEventListener("keydown", (event) => this.strengthKey(event, field))
    field.addEventListener("dblclick", () => this.set(1, field))
    this.dragStrength(field)
    return field
  }

  set(value, field, live = false) {
    field.value = String(tidy(value))
    this.actions.change(this.id, { strength: tidy(value) }, live)
  }

  /** What was typed, if it is a number: a comma is a point. */
  typed(field) {
    const value = Number(field.value.trim().replace(",", "."))
    if (field.value.trim() && Number.isFinite(value)) this.set(value, field)
    else field.value = String(told(this.row).strength)
  }

  strengthKey(event, field) {
    const way = { ArrowUp: 1, ArrowDown: -1 }[event.key]
    if (way) {
      event.preventDefault()
      event.stopPropagation()
      this.set(told(this.row).strength + way * stepOf(event), field)
    } else if (event.key === "Enter" || event.key === "Escape") {
      event.stopPropagation()
      if (event.key === "Enter") this.typed(field)
      else field.value = String(told(this.row).strength)
      this.root.focus()
    }
  }

  /** Sideways over the field: steps. A press without a move is a click into it. */
  dragStrength(field) {
    let [from, start, moved] = [null, 0, false]
    field.addEventListener("pointerdown", (event) => {
      event.stopPropagation()
      if (event.button !== 0 || document.activeElement === field) return
      event.preventDefault()
      field.setPointerCapture(event.pointerId)
      ;[from, start, moved] = [event.clientX, told(this.row).strength, false]
    })
    field.addEventListener("pointermove", (event) => {
      if (from === null) return
      const steps = Math.trunc((event.clientX - from) / PER_STEP)
      moved ||= steps !== 0
      if (moved) this.set(start + steps * stepOf(event), field, true)
    })
    const end = () => {
      if (from === null) return
      from = null
      if (moved) return this.actions.change(this.id, {})
      field.focus()
      field.select()
    }
    field.addEventListener("pointerup", end)
    field.addEventListener("pointercancel", end)
  }

  /** All of the row that does not fit into a line. */
  open() {
    const { clip, blocks } = told(this.row)
    const { facts, id, actions } = this
    const clipField = this.field(word("rows.clip"), clip === null ? "" : String(clip), word("rows.clip.hint"))
    clipField.inputMode = "decimal"
    const blocksField = this.field(word("rows.blocks"), blocks, word("rows.blocks.hint"))
    const closing = (act) => () => (made.hidePopover(), act())
    const act = (label, does) => button(label, closing(does))
    const words = facts?.trigger_words
    const made = popover(word("rows.menu", { name: this.title }), [
      line("lf-subject", told(this.row).path),
      ...chipsOf(facts).map(([kind, , sentence]) => line(`lf-said lf-said-${kind}`, sentence)),
      words && element("div", "lf-words", [
        element("span", "", `${word("rows.words")}: ${words}`),
        act(word("rows.copy"), () => navigator.clipboard?.writeText(words)),
      ]),
      facts?.text_encoder || clip !== null ? clipField.parentElement : null,
      blocksField.parentElement,
      element("div", "lf-buttons", [
        act(word("rows.up"), () => actions.shift(id, -1)),
        act(word("rows.down"), () => actions.shift(id, 1)),
        act(word("rows.remove"), () => actions.remove(id)),
      ]),
    ])
    made.classList.add("lf-menu")
    clipField.addEventListener("change", () => this.clipTyped(clipField))
    blocksField.addEventListener("change", () => actions.change(id, { blocks: blocksField.value.trim() }))
    document.body.append(made)
    made.showPopover()
    place(made, this.more)
    made.querySelector("input, button")?.focus()
  }

  clipTyped(field) {
    const value = Number(field.value.trim().replace(",", "."))
    if (!Number.isFinite(value)) return (field.value = "")
    this.actions.change(this.id, { clip: field.value.trim() ? tidy(value) : null })
  }

  field(label, value, placeholder) {
    const made = element("input", "lf-input", [])
    Object.assign(made, { type: "text", value, placeholder, autocomplete: "off", spellcheck: false })
    element("label", "lf-field", [element("span", "", label), made])
    return made
  }
}
