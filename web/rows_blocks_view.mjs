// The popover of a row's factors by block: a bar for each block of the base, presets, and the text beside them.
// @ts-check

import { announce, button, element, line, place, popover } from "./dom.mjs"
import { stepOf, tidy } from "./rows.mjs"
import { partsOf, presets, textOf } from "./rows_blocks.mjs"
import { blocksOf } from "./rows_client.mjs"
import { errorOf } from "./rows_facts.mjs"
import { word } from "./texts.mjs"

const TOP = 2 // the factor of a bar as high as it gets

class Bars {
  /** @param {(factors: [string, number][]) => void} changed a gesture ended */
  constructor(changed) {
    this.changed = changed
    this.root = element("div", "lf-bars", [])
    this.root.addEventListener("keydown", (event) => this.key(event))
    this.root.addEventListener("pointerdown", (event) => this.begin(event))
    this.root.addEventListener("pointermove", (event) => this.held && this.paint(event))
    for (const end of ["pointerup", "pointercancel"]) this.root.addEventListener(end, () => this.end())
    this.root.addEventListener("dblclick", (event) => this.put(this.at(event), 1, true))
  }

  /** @param {[string, number][]} factors */
  fill(factors) {
    if (factors.map(([block]) => block).join() !== this.factors?.map(([block]) => block).join()) this.make(factors)
    /** @type {[string, number][]} */
    this.factors = factors.map(([block, factor]) => [block, factor])
    this.factors.forEach(([, factor], at) => this.draw(at, factor))
  }

  make(factors) {
    let before = ""
    this.bars = factors.map(([block], at) => {
      const [kind, number] = partsOf(block)
      const made = element("div", "lf-bar", [element("span", "lf-bar-fill", ""), element("span", "lf-bar-name", String(number ?? kind))])
      const limits = { role: "slider", "aria-orientation": "vertical", "aria-valuemin": "0", "aria-valuemax": String(TOP), "aria-label": block }
      for (const [name, value] of Object.entries(limits)) made.setAttribute(name, value)
      made.title = block
      made.tabIndex = at ? -1 : 0
      if (kind !== before) made.dataset.kind = kind // the first of its kind
      before = kind
      return made
    })
    this.root.replaceChildren(...this.bars)
  }

  draw(at, factor) {
    const bar = this.bars[at]
    bar.style.setProperty("--lf-factor", `${Math.max(0, Math.min(factor / TOP, 1)) * 100}%`)
    bar.classList.toggle("lf-beyond", factor < 0 || factor > TOP)
    bar.setAttribute("aria-valuenow", String(factor))
    bar.title = `${this.factors[at][0]}: ${factor}`
  }

  put(at, factor, ended) {
    if (at < 0) return
    this.factors[at][1] = tidy(factor)
    this.draw(at, tidy(factor))
    if (ended) this.changed(this.factors)
  }

  at({ target }) {
    return this.bars.indexOf(target.closest(".lf-bar"))
  }

  key(event) {
    const at = this.at(event)
    if (at < 0 || event.ctrlKey || event.metaKey) return
    const to = { ArrowLeft: at - 1, ArrowRight: at + 1, Home: 0, End: this.bars.length - 1 }[event.key]
    const way = { ArrowUp: 1, ArrowDown: -1 }[event.key]
    const value = { 0: 0, 1: 1, Delete: 0 }[event.key]
    if (to === undefined && !way && value === undefined) return
    event.preventDefault()
    if (to !== undefined) return this.focus(Math.max(0, Math.min(to, this.bars.length - 1)))
    this.put(at, value ?? Math.max(0, this.factors[at][1] + way * stepOf(event)), true)
  }

  focus(at) {
    this.bars.forEach((bar, each) => (bar.tabIndex = each === at ? 0 : -1))
    this.bars[at].focus()
  }

  /** Bars are painted: each gets the height at which the pointer crosses it. */
  begin(event) {
    if (event.button !== 0 || this.at(event) < 0) return
    event.preventDefault()
    this.focus(this.at(event))
    this.held = true
    this.root.setPointerCapture(event.pointerId)
    this.paint(event)
  }

  paint({ clientX, clientY }) {
    const at = this.bars.findIndex((bar) => clientX <= bar.getBoundingClientRect().right)
    const bar = this.bars[at < 0 ? this.bars.length - 1 : at]
    const { top, bottom } = bar.firstElementChild.getBoundingClientRect()
    const share = Math.max(0, Math.min((bottom - clientY) / (bottom - top), 1))
    this.put(this.bars.indexOf(bar), Math.round(share * TOP * 20) / 20, false)
  }

  end() {
    if (!this.held) return
    this.held = false
    this.changed(this.factors)
  }
}

/**
 * @param {object} row
 * @param {HTMLElement} row.anchor @param {string} row.title @param {string} row.base
 * @param {() => {blocks: string, clip: number | null, strength: number}} row.told
 * @param {(what: object) => void} row.change one gesture
 */
export function openBlocks(row) {
  const field = element("input", "lf-input", [])
  Object.assign(field, { type: "text", value: row.told().blocks, placeholder: word("rows.blocks.hint"), autocomplete: "off", spellcheck: false })
  const said = line("lf-said lf-said-error", " ")
  said.setAttribute("role", "status")
  const choices = element("div", "lf-buttons", [])
  let forText = 1 // the factor for CLIP, which only a list of numbers has
  const write = (factors) => {
    const clip = forText === 1 ? {} : { clip: tidy((row.told().clip ?? row.told().strength) * forText) }
    forText = 1
    field.value = textOf(factors)
    said.hidden = true
    row.change({ blocks: field.value, ...clip })
  }
  const bars = new Bars(write)
  const tell = (sentence, tone) => {
    said.hidden = !sentence
    said.textContent = sentence
    said.className = `lf-said lf-said-${tone}`
  }
  const preset = ([name, kind, factors]) => button(word(`rows.blocks.${name}`, { kind }), () => {
    bars.fill(factors)
    write(factors)
    announce(field.value || word("rows.blocks.all"))
  })
  const ask = async () => {
    if (!row.base) return tell(word("rows.blocks.none"), "note")
    try {
      const found = await blocksOf(row.base, field.value)
      forText = found.text_encoder
      if (!found.blocks.length) return tell(word("rows.blocks.failed"), "note")
      bars.fill(found.blocks)
      tell(errorOf(found), "error")
      choices.replaceChildren(...presets(found.blocks).map(preset))
    } catch {
      tell(word("rows.blocks.failed"), "note")
    }
    place(made, row.anchor)
  }
  field.addEventListener("change", () => {
    row.change({ blocks: field.value.trim() })
    void ask()
  })
  const asText = element("label", "lf-field", [element("span", "", word("rows.blocks.text")), field])
  const title = word("rows.blocks.title", { name: row.title })
  const made = popover(title, [element("strong", "lf-subject", title), bars.root, choices, asText, said])
  made.classList.add("lf-menu", "lf-blocks")
  said.hidden = true
  document.body.append(made)
  made.showPopover()
  place(made, row.anchor)
  field.focus()
  void ask()
}
