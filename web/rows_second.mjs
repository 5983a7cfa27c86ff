// The second line of a row, opened on demand: solo, CLIP strength, blocks, trigger words, and what is said of its LoRA.
// @ts-check

import { announce, button, element } from "./dom.mjs"
import { told } from "./rows.mjs"
import { hasClip, linesOf } from "./rows_facts.mjs"
import { NumberField } from "./rows_number.mjs"
import { word } from "./texts.mjs"

const CONTROLS = 28 // px, as in rows.css
const LINE = 24

/** Puts a text where it can be pasted; browsers keep the clipboard from pages that come over plain http. */
export async function copy(text) {
  try {
    await navigator.clipboard.writeText(text)
  } catch {
    const area = element("textarea", "lf-live", [])
    area.value = text
    document.body.append(area)
    area.select()
    document.execCommand("copy")
    area.remove()
  }
  announce(word("rows.copied"))
}

export class SecondLine {
  /** @param {number} id @param {import("./rows_row.mjs").Actions} actions @param {() => void} leave */
  constructor(id, actions, leave) {
    this.lines = []
    this.solo = button(word("rows.solo"), () => actions.solo(id))
    this.clip = new NumberField({
      value: () => told(this.row).clip,
      usual: () => told(this.row).strength,
      reset: null,
      set: (clip, live) => actions.change(id, { clip }, live),
      ended: () => actions.change(id, {}),
      leave,
    })
    this.clip.root.placeholder = word("rows.clip.hint")
    this.clipLabel = element("label", "lf-clip", [element("span", "", word("rows.clip")), this.clip.root])
    this.blocks = button(word("rows.blocks"), () => actions.blocks(id, this.blocks))
    this.blocks.setAttribute("aria-haspopup", "dialog")
    this.words = element("span", "lf-line-text", "")
    this.copy = button(word("rows.copy"), async () => {
      await copy(this.about.facts?.trigger_words ?? "")
      this.copy.focus()
    })
    this.wordsLine = element("div", "lf-words", [this.words, this.copy])
    this.said = element("ul", "lf-said-list", [])
    const controls = element("div", "lf-second-main", [this.solo, this.clipLabel, this.blocks])
    this.root = element("div", "lf-second", [controls, this.wordsLine, this.said])
  }

  /** @param {import("./rows.mjs").Row} row @param {{facts: object | undefined, findings: object[]}} about */
  fill(row, about) {
    this.row = row
    this.about = about
    const { facts, findings } = about
    const words = facts?.trigger_words ?? ""
    this.solo.setAttribute("aria-pressed", String(told(row).solo))
    this.clipLabel.hidden = !hasClip(facts, told(row))
    this.clip.fill()
    this.blocks.setAttribute("aria-pressed", String(told(row).blocks !== ""))
    this.blocks.title = told(row).blocks
    this.wordsLine.hidden = !words
    this.words.textContent = this.words.title = words && `${word("rows.words")}: ${words}`
    this.lines = linesOf(facts, findings)
    const drawn = JSON.stringify(this.lines)
    if (drawn === this.drawn) return
    this.drawn = drawn
    this.said.replaceChildren(...this.lines.map(([kind, sentence]) => {
      const made = element("li", `lf-said lf-said-${kind} lf-line-text`, sentence)
      made.title = sentence
      return made
    }))
  }

  /** What it says to those who listen. */
  get spoken() {
    return [this.words.textContent, ...this.lines.map(([, sentence]) => sentence)].filter(Boolean).join(". ")
  }

  get height() {
    return CONTROLS + LINE * (this.lines.length + (this.wordsLine.hidden ? 0 : 1))
  }
}
