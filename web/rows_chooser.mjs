// The chooser: a search over all LoRAs of the server. A combobox with a list that only draws what is in view.
// @ts-check

import { announce, element, place, popover } from "./dom.mjs"
import { everyLora, factsOf, learnFacts, learnTitles, listedLoras, titleOf } from "./rows_client.mjs"
import { Folders } from "./rows_folders.mjs"
import { grouped, parts, samePlace, search, spelled, within } from "./rows_search.mjs"
import { word } from "./texts.mjs"

const ITEM = 28 // px, as in rows.css
const VIEW = 280 // px of list
const SPARE = 4 // items drawn beyond the view

const DELAY = 150 // ms before facts about what is in view are asked for

const RECENT = "LoRAFoundry.recent" // in the browser's own store
const MOST_RECENT = 8

/** The LoRAs that were added last, in this browser, the newest first, each in one spelling. */
function recent() {
  try {
    const kept = JSON.parse(localStorage.getItem(RECENT) ?? "[]")
    const names = Array.isArray(kept) ? kept.filter((each) => typeof each === "string").map(spelled) : []
    return [...new Set(names)].slice(0, MOST_RECENT)
  } catch {
    return []
  }
}

function remember(name) {
  const kept = [...new Set([spelled(name), ...recent()])].slice(0, MOST_RECENT)
  try {
    localStorage.setItem(RECENT, JSON.stringify(kept))
  } catch {
    // a browser that keeps nothing: then there are none
  }
}

export class Chooser {
  /**
   * @param {(names: string[]) => void} add called for each choice @param {string} base its name, empty for none
   * @param {string} [without] a LoRA that cannot be chosen, for its own base is: nothing is added, so nothing is remembered
   */
  constructor(add, base, without = "") {
    this.add = add
    this.base = base
    this.without = spelled(without)
    this.recent = without ? [] : recent()
    this.at = 0
    this.found = []
    this.names = listedLoras() // shown until the server has answered
    this.answered = false
    this.none = element("p", "lf-hint", word("chooser.found", { count: 0 })) // look() announces it
    this.none.setAttribute("aria-hidden", "true")
    this.folder = ""
    this.folders = new Folders((folder) => this.narrow(folder), () => this.input.focus())
    this.input = element("input", "lf-input lf-search", [])
    Object.assign(this.input, { type: "text", autocomplete: "off", spellcheck: false, placeholder: word("chooser.search") })
    const list = "lf-chooser-list"
    const roles = { role: "combobox", "aria-label": word("chooser.search"), "aria-expanded": "true", "aria-controls": list }
    for (const [name, value] of Object.entries({ ...roles, "aria-autocomplete": "list" })) this.input.setAttribute(name, value)
    this.space = element("div", "lf-space", [])
    this.space.setAttribute("role", "presentation")
    this.list = element("div", "lf-options", [this.space])
    this.list.id = list
    this.list.setAttribute("role", "listbox")
    this.list.setAttribute("aria-label", word("chooser.search"))
    this.hint = element("div", "lf-hint", word("chooser.hint"))
    this.input.addEventListener("input", () => this.look())
    this.input.addEventListener("keydown", (event) => this.key(event))
    this.list.addEventListener("scroll", () => this.draw())
    this.list.addEventListener("pointerdown", (event) => event.preventDefault()) // the focus stays in the field
    this.list.addEventListener("click", (event) => {
      const option = event.target.closest("[data-at]")
      if (option) this.choose(Number(option.dataset.at), event.shiftKey || event.ctrlKey || event.metaKey)
    })
  }

  /** @param {HTMLElement} anchor */
  open(anchor) {
    this.anchor = anchor
    this.box = popover(word("chooser.search"), [this.input, this.folders.root, this.list, this.hint])
    this.box.classList.add("lf-chooser")
    document.body.append(this.box)
    this.box.showPopover()
    this.show()
    this.input.focus()
    this.box.addEventListener("toggle", ({ newState }) => {
      const lost = document.activeElement === document.body || this.box.contains(document.activeElement)
      if (newState === "closed" && lost) anchor.focus()
    })
    return this.refresh()
  }

  async refresh() {
    try {
      const now = await everyLora()
      if (!this.box.isConnected) return
      this.answered = true
      if (now !== this.names) {
        this.names = now
        this.show(true)
      }
    } catch {
      this.hint.textContent = word("chooser.failed")
      return
    }
    const more = () => (this.input.value ? this.look(true) : this.draw())
    await learnTitles(this.names, () => this.box.isConnected, more).catch(() => {}) // names alone are searched then
  }

  /** Only what is in a folder, and below it. */
  narrow(folder) {
    this.folder = folder
    this.show()
    this.input.focus()
  }

  /** What can be chosen. */
  get offered() {
    return this.without ? this.names.filter((name) => spelled(name) !== this.without) : this.names
  }

  /** @param {boolean} [more] as look() has it */
  show(more = false) {
    this.folders.fill(this.offered, this.folder)
    this.look(more)
    place(this.box, this.anchor)
  }

  /** @param {boolean} [more] the same question, of which more is known: the choice stays, and what is in view */
  look(more = false) {
    const before = this.found
    const place = more ? { at: this.at, top: this.list.scrollTop / ITEM } : { at: 0, top: 0 }
    const found = search(within(this.offered, this.folder), this.input.value, titleOf)
    this.found = grouped(found, (name) => this.groupOf(name), this.recent)
    const { at, top } = samePlace(before, this.found, place, VIEW / ITEM)
    this.at = at
    this.space.style.height = `${this.found.length * ITEM}px`
    this.list.scrollTop = top * ITEM
    this.draw()
    announce(word("chooser.found", { count: this.found.length }))
  }

  /** What is known of a LoRA beside its name. */
  groupOf(name) {
    const fit = { fits: "fits", part: "fits", other: "other" }[factsOf(name, this.base)?.fit] ?? ""
    const isRecent = fit !== "other" && !this.input.value && this.recent.includes(spelled(name))
    return isRecent ? "recent" : fit
  }

  /** The ones in view are marked; the list keeps its order until something else is looked for. */
  learn(shown) {
    clearTimeout(this.timer)
    if (!this.base) return
    this.timer = setTimeout(async () => (await learnFacts(shown, this.base)) && this.draw(), DELAY)
  }

  draw() {
    const first = Math.max(0, Math.floor(this.list.scrollTop / ITEM) - SPARE)
    const shown = this.found.slice(first, first + Math.ceil(VIEW / ITEM) + 2 * SPARE)
    this.space.replaceChildren(...shown.map((name, at) => this.option(name, first + at)))
    if (!this.found.length && (this.answered || this.names.length)) this.space.append(this.none)
    this.learn(shown)
    const active = this.space.querySelector('[aria-selected="true"]')
    if (active) this.input.setAttribute("aria-activedescendant", active.id)
    else this.input.removeAttribute("aria-activedescendant")
  }

  option(path, at) {
    const { folder, name } = parts(path)
    const group = this.groupOf(path)
    const mark = group && element("span", `lf-chip lf-group-${group}`, word(`chooser.${group}`))
    const title = titleOf(path)
    const other = title && title !== name && element("span", "lf-option-title", title)
    const made = element("div", "lf-option", [element("span", "lf-option-name", name), other, element("span", "lf-folder", folder.slice(this.folder.length)), mark])
    made.classList.toggle("lf-dim", group === "other")
    made.setAttribute("role", "option")
    made.setAttribute("aria-selected", String(at === this.at))
    made.id = `lf-option-${at}`
    made.title = other ? `${path}\n${title}` : path
    made.dataset.at = String(at)
    made.style.top = `${at * ITEM}px`
    return made
  }

  key(event) {
    const page = Math.floor(VIEW / ITEM)
    const way = { ArrowDown: 1, ArrowUp: -1, PageDown: page, PageUp: -page }[event.key]
    if (way) {
      event.preventDefault()
      this.go(this.at + way)
    } else if (event.key === "Enter") {
      event.preventDefault()
      this.choose(this.at, event.shiftKey || event.ctrlKey)
    }
  }

  go(to) {
    this.at = Math.max(0, Math.min(to, this.found.length - 1))
    const top = this.at * ITEM
    const { scrollTop } = this.list
    if (top < scrollTop) this.list.scrollTop = top
    else if (top + ITEM > scrollTop + VIEW) this.list.scrollTop = top + ITEM - VIEW
    this.draw()
  }

  choose(at, stay) {
    const name = this.found[at]
    if (name === undefined) return
    this.add([name])
    if (!this.without) remember(name)
    this.at = at
    if (stay) return this.draw()
    this.box.hidePopover()
  }
}
