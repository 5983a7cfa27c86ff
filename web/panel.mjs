// One node's findings: a line on the node, and all of them in a popover that the line opens. Nothing to say: no line.
// @ts-check

import { purposeButton } from "./declare.mjs"
import { announce, button, element, line, passThrough, place, popover } from "./dom.mjs"
import { ICONS, headline, worst } from "./findings.mjs"
import { fixButton } from "./fixing.mjs"
import { called, countLink } from "./links.mjs"
import { picturesOf } from "./pictures.mjs"
import { translate, word } from "./texts.mjs"

const EVIDENCE_WORTH_SAYING = ["declared", "guessed"] // derived is the rule, unknown says nothing
export const LINE = 28 // px, as in panel.css

function icon(severity) {
  const made = element("span", "lf-icon", ICONS[severity])
  made.setAttribute("aria-hidden", "true") // the word beside it says the same
  return made
}

/** @param {import("./findings.mjs").Finding} raw @param {HTMLElement} [where] the way to the node it is about, where that is not obvious */
export function card(raw, where) {
  const found = translate(raw)
  const evidence = EVIDENCE_WORTH_SAYING.includes(found.evidence) ? word(`evidence.${found.evidence}`) : ""
  const title = element("div", "lf-title", [
    icon(found.severity),
    element("strong", "lf-word", word(`severity.${found.severity}`)),
    found.code && element("span", "lf-code", found.code),
    evidence && element("span", "lf-evidence", evidence),
    where,
  ])
  const made = element("li", "lf-finding", [
    title,
    line("lf-subject", found.subject && !found.seen.includes(found.subject) ? found.subject : ""),
    line("lf-seen", found.seen),
    line("lf-why", found.why),
    line("lf-fix", found.fix),
    fixButton(found),
    purposeButton(found),
  ])
  made.dataset.severity = found.severity
  return made
}

/** How many there are of what, with the icon of the worst. */
export function summary(findings) {
  const made = element("div", "lf-title lf-head", [icon(worst(findings)), element("strong", "", headline(findings))])
  made.dataset.severity = worst(findings)
  return made
}

const items = (className, list) => list.length > 0 && element("ul", className, list)

/**
 * @typedef {object} Content
 * @property {import("./findings.mjs").Report | null} report of the last run
 * @property {import("./findings.mjs").Finding[]} found by a check of the graph, without what the report says too
 * @property {{place: string, findings: import("./findings.mjs").Finding[], before: boolean}[]} elsewhere told at other nodes,
 *   before a run or by one
 * @property {{lora: string}[]} asked questions of declare.mjs
 */

export class Panel {
  /**
   * @param {{canvas: () => object, isVue: () => boolean, nodeOf: (place: string) => any}} host
   * @param {(question: object) => HTMLElement} rowOf a question as an element
   * @param {() => void} onShown called when the line comes or goes
   */
  constructor(host, rowOf, onShown) {
    this.host = host
    this.rowOf = rowOf
    this.onShown = onShown
    this.shown = this.old = false
    this.drawn = "" // what is on the page, as a text
    this.head = button("", () => this.open())
    this.head.className = "lf-line"
    this.head.setAttribute("aria-haspopup", "dialog")
    this.root = element("div", "lf-panel", [this.head])
    this.root.dataset.severity = "none"
    this.root.hidden = true
    passThrough(this.root, host.canvas, () => !host.isVue())
  }

  get height() {
    return this.shown ? LINE : 0
  }

  /** @param {Content} content the same as before costs nothing */
  show(content) {
    const drawn = JSON.stringify([content, this.old])
    if (drawn === this.drawn) return
    this.drawn = drawn
    this.content = content
    const { report, found, elsewhere, asked } = content
    const own = [...found, ...(report?.findings ?? [])]
    const findings = [...own, ...elsewhere.flatMap((each) => each.findings)]
    this.root.dataset.severity = report || findings.length ? worst(findings) : "none"
    this.root.classList.toggle("lf-stale", Boolean(this.old && report))
    this.label(findings, own, asked)
    this.fill()
    const shown = Boolean(findings.length || report || asked.length)
    this.root.hidden = !shown
    if (shown === this.shown) return
    this.shown = shown
    this.onShown()
  }

  /** All findings in one line; of none, the questions. */
  label(findings, own, asked) {
    const { report } = this.content
    const count = asked.filter((each) => !each.all && each.said === undefined).length
    const open = count > 0 && word("declare.open", { count })
    const clear = report?.solved ? "" : headline([])
    const text = findings.length ? this.sentence(findings, own) : open || clear || report?.facts[0] || ""
    const severity = findings.length ? worst(findings) : open ? "question" : "clear"
    const age = this.old && report ? element("span", "lf-age", word("panel.earlier")) : null
    const parts = [icon(severity), element("span", "lf-summary", text), age, element("span", "lf-more", "▸")]
    this.head.dataset.severity = severity
    this.head.replaceChildren(...parts.filter(Boolean))
    this.head.setAttribute("aria-label", word("panel.more", { line: `${word(`severity.${severity}`)}: ${text}` }))
  }

  /** One finding of this node speaks for itself; all others are counted, and where one other node tells them, it is named. */
  sentence(findings, own) {
    if (findings.length === 1 && own.length === 1) return translate(own[0]).seen
    const [other, ...more] = this.content.elsewhere
    const node = other && !more.length && !own.length && this.host.nodeOf(other.place)
    return node ? word("panel.at", { count: headline(findings), place: called(node) }) : headline(findings)
  }

  /** The details, open or not. */
  fill() {
    const body = this.body
    if (!body) return
    const { activeElement } = document
    const held = body.contains(activeElement) && activeElement.closest("[data-lora]")?.getAttribute("data-lora")
    body.replaceChildren(...this.details())
    const row = held && [...body.querySelectorAll("[data-lora]")].find((each) => each.getAttribute("data-lora") === held)
    if (row) (row.querySelector("button") ?? row).focus()
  }

  details() {
    const { report, found, elsewhere, asked } = this.content
    const rows = items("lf-asks", asked.map(this.rowOf))
    const ways = (before) => elsewhere.filter((each) => each.before === before).map((each) => this.way(each)).filter(Boolean)
    const run = report && this.run(report, ways(false), found.length + elsewhere.length > 0)
    const parts = [this.check(found, ways(true)), run, rows].filter(Boolean)
    return parts.length ? parts : [line("lf-hint", word("panel.none"))]
  }

  way({ place, findings }) {
    const node = this.host.nodeOf(place)
    return node && countLink(node, findings)
  }

  open() {
    this.body = element("div", "lf-body", [])
    this.fill()
    const made = popover(word("panel.label"), [this.body])
    document.body.append(made)
    made.showPopover()
    place(made, this.head)
    made.addEventListener("toggle", ({ newState }) => {
      if (newState === "closed" && made.contains(this.body)) this.body = null
    })
    announce(this.head.textContent)
  }

  check(found, ways) {
    if (!found.length && !ways.length) return null
    const list = items("lf-list", [...found.map((each) => card(each)), ...ways])
    return element("div", "lf-before", [line("lf-when", word("panel.before")), list])
  }

  /** One finding speaks for itself; none or several get a headline, unless "No findings" would mislead by now. */
  run(/** @type {import("./findings.mjs").Report} */ { findings, facts, numbers, solved }, ways, others) {
    const head = findings.length !== 1 && (findings.length || !(solved || others)) && summary(findings)
    const told = facts.map((fact) => element("li", "", fact))
    const age = this.old ? element("span", "lf-age", word("panel.earlier")) : null
    const list = items("lf-list", [...findings.map((each) => card(each)), ...ways])
    return element("div", "lf-run", [age, head, list, ...picturesOf(numbers), items("lf-facts", told)])
  }

  /** Says that the report that is shown is not from the newest run. */
  stale(yes) {
    if (this.old === Boolean(yes)) return
    this.old = Boolean(yes)
    if (this.content) this.show(this.content)
  }
}
