// Saved stacks: the rows of a list under a name in the user's folder, and back again.
// @ts-check

import { announce, button, element, line, place, popover } from "./dom.mjs"
import { savedStacks, saveStack, stackNamed } from "./rows_client.mjs"
import { word } from "./texts.mjs"

/**
 * @param {HTMLElement} anchor
 * @param {() => object[]} rows what is saved
 * @param {(rows: object[]) => void} load takes the place of the rows: one gesture
 */
export async function openPresets(anchor, rows, load) {
  const field = element("input", "lf-input", [])
  Object.assign(field, { type: "text", autocomplete: "off", spellcheck: false, placeholder: word("stacks.name") })
  field.setAttribute("aria-label", word("stacks.name"))
  const save = button(word("stacks.save"))
  const list = element("ul", "lf-stacks", [])
  const said = line("lf-said lf-said-error", " ")
  said.setAttribute("role", "status")
  said.hidden = true
  const form = element("div", "lf-words", [field, save])
  const made = popover(word("stacks.open"), [element("strong", "lf-subject", word("stacks.open")), list, form, said])
  let names = []
  const tell = (sentence) => {
    said.hidden = !sentence
    said.textContent = sentence
  }
  const fail = ({ message }) => tell(message)
  const label = () => {
    save.textContent = names.includes(field.value.trim()) ? word("stacks.replace") : word("stacks.save")
    save.disabled = !field.value.trim()
  }
  const choose = (name) => async () => {
    try {
      load(await stackNamed(name))
      made.hidePopover()
      announce(word("stacks.loaded", { name }))
    } catch (error) {
      fail(error)
    }
  }
  const show = (found) => {
    names = found
    const items = names.map((name) => element("li", "", [button(name, choose(name))]))
    list.replaceChildren(...(items.length ? items : [element("li", "lf-hint", word("stacks.none"))]))
    label()
    place(made, anchor)
  }
  const keep = async () => {
    const name = field.value.trim()
    if (!name) return
    try {
      show(await saveStack(name, rows(), names.includes(name)))
      tell("")
      announce(word("stacks.saved", { name }))
    } catch (error) {
      fail(error)
    }
  }
  field.addEventListener("input", label)
  field.addEventListener("keydown", (event) => event.key === "Enter" && void keep())
  save.addEventListener("click", keep)
  made.classList.add("lf-menu")
  document.body.append(made)
  made.showPopover()
  place(made, anchor)
  field.focus()
  await savedStacks().then(show, fail)
}
