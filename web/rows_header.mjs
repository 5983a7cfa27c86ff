// The line above the rows: all on or off, how many, their sum, the worst that is said of them, and what can be done.
// @ts-check

import { button, element, place, popover } from "./dom.mjs"
import { ICONS, worst } from "./findings.mjs"
import { tell } from "./host.mjs"
import { SORTS, active, countOn, sum, toggleAll, told, wordsOf } from "./rows.mjs"
import { errorOf } from "./rows_facts.mjs"
import { parts } from "./rows_search.mjs"
import { copy } from "./rows_second.mjs"
import { translate, word } from "./texts.mjs"

function labelled(sign, label, act) {
  const made = button(sign, act)
  made.title = label
  made.setAttribute("aria-label", label)
  return made
}

export class Header {
  /** @param {import("./rows_editor.mjs").Editor} editor */
  constructor(editor) {
    this.editor = editor
    this.all = element("input", "lf-box", [])
    this.all.type = "checkbox"
    this.all.setAttribute("aria-label", word("rows.all"))
    this.all.addEventListener("change", () => editor.commit(toggleAll(editor.state)))
    this.count = element("span", "lf-count", "")
    this.total = element("span", "lf-sum", "")
    this.worst = button("", () => this.showWorst())
    this.worst.classList.add("lf-worst")
    this.add = labelled("+", word("rows.add"), () => editor.choose())
    this.add.classList.add("lf-add")
    this.more = labelled("⇅", word("rows.sort"), () => this.openMenu())
    this.saved = labelled("★", word("stacks.open"), () => editor.openSaved())
    for (const each of [this.more, this.saved]) each.setAttribute("aria-haspopup", "dialog")
    this.braces = labelled("{ }", "", () => editor.toText(!editor.asText))
    this.root = element("div", "lf-rows-head", [this.all, this.count, this.total, this.worst, this.add, this.more, this.saved, this.braces])
  }

  /** @param {boolean} listed rows are shown @param {boolean} rows there are some, shown or not */
  draw(listed, rows) {
    for (const each of [this.all, this.add, this.more, this.saved]) each.disabled = !listed
    this.braces.title = listed ? word("rows.text") : word("rows.back")
    this.braces.setAttribute("aria-label", this.braces.title)
    this.braces.setAttribute("aria-pressed", String(!listed))
    this.braces.disabled = !rows
    this.worst.hidden = true
    if (!rows) this.count.textContent = this.total.textContent = ""
  }

  /** @param {import("./rows.mjs").State} state */
  fill(state) {
    const on = countOn(state)
    this.all.checked = on > 0 && on === state.rows.length
    this.all.indeterminate = on > 0 && on < state.rows.length
    this.count.textContent = word("rows.count", { on, count: state.rows.length })
    this.total.textContent = word("rows.sum", { sum: sum(state) })
    const found = this.worstOf(state)
    this.worst.hidden = !found
    if (!found) return
    const [severity, row, sentence] = found
    this.worst.dataset.severity = severity
    this.worst.textContent = ICONS[severity]
    this.worst.title = sentence
    this.worst.setAttribute("aria-label", `${word(`severity.${severity}`)}: ${parts(told(row).path).name}`)
  }

  /** The worst that is said of a row that counts: [severity, row, sentence]. */
  worstOf(state) {
    const { owner } = this.editor
    const said = active(state).flatMap((row) => {
      const { path } = told(row)
      const error = errorOf(owner.facts(path))
      const found = owner.findings(path).map((each) => [each.severity, row, translate(each).seen])
      return error ? [["error", row, error], ...found] : found
    })
    const severity = worst(said.map(([each]) => ({ severity: each })))
    return said.find(([each]) => each === severity)
  }

  showWorst() {
    const view = this.editor.viewOf(this.worstOf(this.editor.state)[1].id)
    if (!view.open) view.unfold(true)
    view.root.focus()
  }

  /** Sorting, and tags out of the clipboard for those who do not use keys. */
  openMenu() {
    const { editor } = this
    const act = (label, does) => button(label, () => (made.hidePopover(), does()))
    const sorts = SORTS.map((by) => act(word(`rows.sort.${by}`), () => editor.sort(by)))
    const words = wordsOf(editor.state, (path) => editor.owner.facts(path)?.trigger_words)
    const copyAll = words && act(word("rows.copy.all"), () => copy(words))
    const acts = [...sorts, act(word("rows.paste"), () => this.paste()), copyAll]
    const made = popover(word("rows.sort"), [element("div", "lf-buttons", acts)])
    made.classList.add("lf-menu")
    document.body.append(made)
    made.showPopover()
    place(made, this.more)
    made.querySelector("button").focus()
  }

  async paste() {
    const text = await navigator.clipboard?.readText().catch(() => "")
    if (/<lora:/i.test(text ?? "")) await this.editor.appendTags(text)
    else tell("warn", word("rows.paste"), word("rows.paste.none"))
  }
}
