// Saved stacks: the rows of a list under a name in the user's folder, back again, and away.
// @ts-check

import { announce, button, element, line, place, popover } from "./dom.mjs"
import { deleteStack, savedStacks, saveStack, stackNamed } from "./rows_client.mjs"
import { word } from "./texts.mjs"

/**
 * @param {HTMLElement} anchor
 * @param {() => object[]} rows what is saved
 * @param {(rows: object[]) => void} load takes the place of the rows: one gesture
 */
export const openPresets = (anchor, rows, load) => new Presets(anchor, rows, load).open()

class Presets {
  constructor(anchor, rows, load) {
    this.anchor = anchor
    this.rows = rows
    this.load = load
    /** @type {string[]} */
    this.names = []
    this.field = element("input", "lf-input", [])
    Object.assign(this.field, { type: "text", autocomplete: "off", spellcheck: false, placeholder: word("stacks.name") })
    this.field.setAttribute("aria-label", word("stacks.name"))
    this.field.addEventListener("input", () => this.label())
    this.field.addEventListener("keydown", (event) => event.key === "Enter" && void this.keep())
    this.save = button(word("stacks.save"), () => void this.keep())
    this.list = element("ul", "lf-stacks", [])
    this.said = line("lf-said lf-said-error", " ")
    this.said.setAttribute("role", "status")
    this.said.hidden = true
    const form = element("div", "lf-words", [this.field, this.save])
    const title = element("strong", "lf-subject", word("stacks.open"))
    this.box = popover(word("stacks.open"), [title, this.list, form, this.said])
    this.box.classList.add("lf-menu")
  }

  async open() {
    document.body.append(this.box)
    this.box.showPopover()
    place(this.box, this.anchor)
    this.field.focus()
    await this.ask(async () => this.show(await savedStacks()))
  }

  /** Asks the server; what it refuses is said. */
  async ask(act) {
    try {
      await act()
      this.tell("")
    } catch (error) {
      this.tell(error.message)
    }
  }

  tell(sentence) {
    this.said.hidden = !sentence
    this.said.textContent = sentence
  }

  label() {
    const name = this.field.value.trim()
    this.save.textContent = this.names.includes(name) ? word("stacks.replace") : word("stacks.save")
    this.save.disabled = !name
  }

  show(names) {
    this.names = names
    const items = names.map((name) => this.fill(element("li", "lf-stack", []), name))
    this.list.replaceChildren(...(items.length ? items : [element("li", "lf-hint", word("stacks.none"))]))
    this.label()
    place(this.box, this.anchor)
  }

  fill(item, name) {
    const away = button("×", () => this.question(item, name))
    away.title = word("stacks.delete")
    away.setAttribute("aria-label", word("stacks.delete.of", { name }))
    item.replaceChildren(button(name, () => void this.choose(name)), away)
    return item
  }

  /** Nothing brings a deleted stack back, so it is asked; a double click on × hits what keeps it. */
  question(item, name) {
    const keep = button(word("stacks.keep"), () => {
      this.fill(item, name)
      item.lastElementChild.focus()
    })
    const away = button(word("stacks.delete"), () => void this.remove(name))
    item.replaceChildren(element("span", "lf-question", word("stacks.delete.sure", { name })), away, keep)
    keep.focus()
  }

  choose(name) {
    return this.ask(async () => {
      this.load(await stackNamed(name))
      this.box.hidePopover()
      announce(word("stacks.loaded", { name }))
    })
  }

  keep() {
    const name = this.field.value.trim()
    if (!name) return
    return this.ask(async () => {
      this.show(await saveStack(name, this.rows(), this.names.includes(name)))
      announce(word("stacks.saved", { name }))
    })
  }

  remove(name) {
    return this.ask(async () => {
      this.show(await deleteStack(name))
      announce(word("stacks.deleted", { name }))
      this.field.focus()
    })
  }
}
