// The folders of the chooser as a bar: the way down to the one that is open, then those below it, each with its number of
// LoRAs. One stop of the Tab key; left and right go along it, Backspace goes up, down goes back to the search.
// @ts-check

import { button, element } from "./dom.mjs"
import { foldersOf, wayDown } from "./rows_search.mjs"
import { word } from "./texts.mjs"

export class Folders {
  /** @param {(folder: string) => void} open @param {() => void} leave back to the search */
  constructor(open, leave) {
    this.open = open
    this.leave = leave
    this.folder = ""
    this.names = []
    this.root = element("div", "lf-folders", [])
    this.root.setAttribute("role", "toolbar")
    this.root.setAttribute("aria-label", word("chooser.folders"))
    this.root.addEventListener("keydown", (event) => this.key(event))
    this.root.addEventListener("focusin", (event) => this.roam(event.target))
  }

  get stops() {
    return /** @type {HTMLButtonElement[]} */ ([...this.root.children])
  }

  /** @param {string[]} names all LoRAs @param {string} folder the one that is open */
  fill(names, folder) {
    if (names === this.names && folder === this.folder) return
    this.names = names
    this.folder = folder
    const below = foldersOf(names, folder).map((each) => this.below(each))
    const way = [{ name: word("chooser.all"), path: "" }, ...wayDown(folder)].map((each) => this.above(each))
    this.root.hidden = !below.length && !folder
    this.root.replaceChildren(...way, ...below)
    this.roam(this.stops[way.length - 1])
  }

  above({ name, path }) {
    const made = button(name, () => this.open(path))
    made.classList.add("lf-way")
    if (path === this.folder) made.setAttribute("aria-current", "true")
    return made
  }

  below({ name, path, count }) {
    const made = button("", () => this.open(path))
    made.append(element("span", "lf-folder-name", name), element("span", "lf-folder-count", String(count)))
    made.setAttribute("aria-label", word("chooser.folder", { name, count }))
    made.title = path
    return made
  }

  roam(stop) {
    for (const each of this.stops) each.tabIndex = each === stop ? 0 : -1
  }

  key(event) {
    const { stops } = this
    const last = stops.length - 1
    const at = stops.indexOf(event.target)
    const to = { ArrowRight: Math.min(at + 1, last), ArrowLeft: Math.max(at - 1, 0), Home: 0, End: last }[event.key]
    const does = { ArrowDown: this.leave, Backspace: () => this.folder && this.open(wayDown(this.folder).at(-2)?.path ?? "") }[event.key]
    if (to === undefined && !does) return
    event.preventDefault()
    if (does) does()
    else stops[to].focus()
  }
}
