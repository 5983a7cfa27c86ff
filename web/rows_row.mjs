// One row of the editor as an element. It is made once and then filled again: focus and a drag survive.
// @ts-check

import { announce, button, element, line, place, popover } from "./dom.mjs"
import { onLine, strong, told } from "./rows.mjs"
import { previewOf } from "./rows_client.mjs"
import { chipsOf, strengthSentence } from "./rows_facts.mjs"
import { NumberField } from "./rows_number.mjs"
import { ends, parts } from "./rows_search.mjs"
import { SecondLine } from "./rows_second.mjs"
import { word } from "./texts.mjs"

export const ROW = 28 // px, as in rows.css

function chip([kind, text, sentence]) {
  const made = element("span", `lf-chip lf-chip-${kind}`, text)
  made.title = sentence
  return made
}

/** A control that a roving focus reaches. */
function stop(made) {
  made.tabIndex = -1
  return made
}

/**
 * @typedef {object} Actions
 * @property {(id: number, what: object, live?: boolean) => void} change `live`: the gesture goes on
 * @property {(id: number) => void} toggle
 * @property {(id: number) => void} solo
 * @property {(id: number) => void} remove
 * @property {(id: number, by: number) => void} shift
 * @property {(id: number) => void} folded a row is higher or lower than before
 * @property {(id: number, anchor: HTMLElement) => void} blocks open the factors by block
 */

export class RowView {
  /** @param {number} id @param {Actions} actions */
  constructor(id, actions) {
    this.id = id
    this.actions = actions
    this.open = false
    this.broken = "" // the LoRA whose picture cannot be shown
    /** @type {SecondLine | null} made when it is opened for the first time */
    this.second = null
    this.grip = element("span", "lf-grip", "⠿")
    this.grip.title = word("rows.grip")
    this.grip.setAttribute("aria-hidden", "true") // Alt and the arrows do the same
    this.box = stop(element("input", "lf-box", []))
    this.box.type = "checkbox"
    this.box.addEventListener("change", () => actions.toggle(id))
    this.picture = stop(button("", () => this.look()))
    this.picture.classList.add("lf-preview")
    this.folder = element("span", "lf-folder", "")
    this.start = element("span", "lf-start", "")
    this.end = element("span", "lf-end", "")
    this.name = element("span", "lf-name", [this.folder, this.start, this.end])
    this.fold = stop(button("", () => this.unfold(!this.open)))
    this.fold.classList.add("lf-chips")
    this.fold.title = word("rows.details.key")
    this.number = new NumberField({
      value: () => told(this.row).strength,
      usual: () => 1,
      reset: 1,
      set: (strength, live) => actions.change(id, { strength }, live),
      ended: () => actions.change(id, {}),
      leave: () => this.root.focus(),
    })
    this.strength = stop(this.number.root)
    this.more = stop(button("⋯", () => this.menu()))
    this.more.classList.add("lf-dots")
    this.more.setAttribute("aria-haspopup", "dialog")
    this.main = element("div", "lf-row-main", [this.grip, this.box, this.picture, this.name, this.fold, this.strength, this.more])
    this.root = element("li", "lf-row", [this.main])
    this.root.tabIndex = -1
    this.root.dataset.id = String(id)
    this.name.addEventListener("dblclick", () => this.menu())
  }

  /** Its controls from left to right, as the arrows reach them. */
  get stops() {
    const all = [this.root, this.box, this.picture, this.fold, this.strength, this.more]
    return all.filter((each) => !each.hidden)
  }

  get height() {
    return ROW + (this.open && this.second ? this.second.height : 0)
  }

  /** Whether its line was filled with these: an edit changes one row of many. Findings are told below it. */
  shows(row, about) {
    return row === this.row && ["facts", "silent", "place", "count"].every((name) => about[name] === this.about[name])
  }

  /**
   * @param {import("./rows.mjs").Row} row
   * @param {{facts: object | undefined, findings: object[], silent: boolean, place: number, count: number}} about
   */
  fill(row, about) {
    const shown = this.shows(row, about)
    this.row = row
    this.about = about
    if (shown) this.number.fill()
    else this.fillLine()
    if (this.open) this.second.fill(row, about)
  }

  fillLine() {
    const { row, about } = this
    const { facts, silent, place: at, count } = about
    const { path, on, solo, strength, clip, blocks } = told(row)
    const { folder, name } = parts(path)
    this.title = name
    this.folder.textContent = folder
    ;[this.start.textContent, this.end.textContent] = ends(name)
    this.name.title = path
    this.box.checked = on
    this.box.setAttribute("aria-label", word("rows.toggle", { name }))
    this.number.fill()
    this.strength.setAttribute("aria-label", word("rows.strength", { name }))
    this.fillRange(strength, facts)
    this.more.setAttribute("aria-label", word("rows.menu", { name }))
    this.more.classList.toggle("lf-set", clip !== null || blocks !== "")
    this.root.classList.toggle("lf-off", silent)
    const state = !on ? word("rows.off") : solo ? word("rows.alone") : silent ? word("rows.silent") : word("rows.on")
    this.root.setAttribute("aria-label", word("rows.row", { name, state, strength, place: at, count }))
    this.fillChips(facts, solo)
    this.fillPicture(path, facts)
  }

  fillRange(strength, facts) {
    const span = facts?.recommended
    const far = strong(strength, span)
    this.strength.classList.toggle("lf-strong", far)
    this.strength.classList.toggle("lf-ranged", Boolean(span))
    this.strength.title = strengthSentence(facts, far)
    if (!span) return
    for (const [name, value] of Object.entries(onLine(strength, span))) this.strength.style.setProperty(`--lf-${name}`, `${value}%`)
  }

  fillChips(facts, solo) {
    const chips = [...(solo ? [["solo", "S", word("rows.solo")]] : []), ...chipsOf(facts)]
    this.fold.setAttribute("aria-expanded", String(this.open))
    const sentences = chips.map(([, text]) => text).join(", ")
    this.fold.setAttribute("aria-label", word("rows.details", { name: this.title, chips: sentences }))
    const drawn = JSON.stringify([chips, this.open])
    if (drawn === this.drawn) return
    this.drawn = drawn
    this.fold.replaceChildren(...chips.map(chip), element("span", "lf-more", this.open ? "▾" : "▸"))
  }

  fillPicture(path, facts) {
    const address = facts?.preview ? previewOf(path) : ""
    this.picture.hidden = !address || this.broken === path
    if (!address || this.picture.dataset.of === path) return
    this.picture.dataset.of = path
    this.picture.setAttribute("aria-label", word("rows.picture", { name: this.title }))
    const image = element("img", "", [])
    Object.assign(image, { loading: "lazy", decoding: "async", alt: "", draggable: false, src: address })
    image.addEventListener("error", () => {
      this.broken = path
      this.picture.hidden = true
    })
    this.picture.replaceChildren(image)
  }

  /** The picture as large as it is, within the page. */
  look() {
    const image = element("img", "lf-large", [])
    Object.assign(image, { alt: word("rows.picture", { name: this.title }), src: previewOf(told(this.row).path) })
    this.show(word("rows.picture", { name: this.title }), [image], this.picture, "lf-look")
    image.addEventListener("load", () => place(image.parentElement, this.picture))
  }

  unfold(open) {
    this.setOpen(open)
    announce(open ? this.second.spoken : word("rows.folded", { name: this.title }))
  }

  setOpen(open) {
    this.open = open
    if (open) {
      this.second ??= new SecondLine(this.id, this.actions, () => this.root.focus())
      this.root.append(this.second.root)
      this.second.fill(this.row, this.about)
    } else {
      this.second?.root.remove()
    }
    this.fillChips(this.about.facts, told(this.row).solo)
    this.actions.folded(this.id)
  }

  show(label, content, anchor, kind) {
    const made = popover(label, content)
    made.classList.add(kind)
    document.body.append(made)
    made.showPopover()
    place(made, anchor)
    return made
  }

  /** What is done with the row as a whole. */
  menu() {
    const { id, actions } = this
    const act = (label, does) => button(label, () => (made.hidePopover(), does()))
    const { solo } = told(this.row)
    const made = this.show(word("rows.menu", { name: this.title }), [
      line("lf-subject", told(this.row).path),
      ...chipsOf(this.about.facts).map(([kind, , sentence]) => line(`lf-said lf-said-${kind}`, sentence)),
      element("div", "lf-buttons", [
        act(solo ? word("rows.solo.end") : word("rows.solo"), () => actions.solo(id)),
        act(word("rows.blocks"), () => actions.blocks(id, this.more)),
        act(word("rows.up"), () => actions.shift(id, -1)),
        act(word("rows.down"), () => actions.shift(id, 1)),
        act(word("rows.remove"), () => actions.remove(id)),
      ]),
    ], this.more, "lf-menu")
    made.querySelector("button")?.focus()
  }
}
