// One node's findings as HTML: what a check of the graph says before a run, what the last run said, what is asked.

import { button, element, line } from "./dom.mjs"
import { ICONS, headline, worst } from "./findings.mjs"
import { translate, word } from "./texts.mjs"

const EVIDENCE_WORTH_SAYING = ["declared", "guessed"] // derived is the rule, unknown says nothing

function icon(severity) {
  const made = element("span", "lf-icon", ICONS[severity])
  made.setAttribute("aria-hidden", "true") // the word beside it says the same
  return made
}

/** @param {import("./findings.mjs").Finding} raw @param {string} [where] the node it is about, where that is not obvious */
export function card(raw, where) {
  const found = translate(raw)
  const evidence = EVIDENCE_WORTH_SAYING.includes(found.evidence) ? word(`evidence.${found.evidence}`) : ""
  const title = element("div", "lf-title", [
    icon(found.severity),
    element("strong", "lf-word", word(`severity.${found.severity}`)),
    found.code && element("span", "lf-code", found.code),
    evidence && element("span", "lf-evidence", evidence),
    where && element("span", "lf-where", where),
  ])
  const made = element("li", "lf-finding", [
    title,
    line("lf-subject", found.subject && !found.seen.includes(found.subject) ? found.subject : ""),
    line("lf-seen", found.seen),
    line("lf-why", found.why),
    line("lf-fix", found.fix),
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

/** The wheel scrolls a long panel. All else the classic canvas must hear of; Nodes 2.0 hands it on by itself. */
function passThrough(root, canvas) {
  const classic = () => !window.LiteGraph.vueNodesMode
  const middle = (handler) => (event) => {
    if (classic() && (event.button === 1 || event.buttons & 4)) canvas()[handler](event)
  }
  root.addEventListener("pointerdown", middle("processMouseDown"))
  root.addEventListener("pointermove", middle("processMouseMove"))
  root.addEventListener("pointerup", middle("processMouseUp"))
  root.addEventListener("wheel", (event) => {
    if (root.scrollHeight > root.clientHeight && !event.ctrlKey) return event.stopPropagation()
    if (!classic()) return
    event.preventDefault()
    canvas().processMouseWheel(event)
  })
}

/**
 * @typedef {object} Content
 * @property {import("./findings.mjs").Report | null} report of the last run
 * @property {import("./findings.mjs").Finding[]} found by a check of the graph, without what the report says too
 * @property {HTMLElement[]} rows of declare.mjs
 */

export class Panel {
  /** @param {() => object} canvas the graph canvas @param {(height: number) => void} onHeight called when the content's height changed */
  constructor(canvas, onHeight) {
    this.body = element("div", "lf-body", [])
    this.root = element("div", "lf-panel", [this.body])
    this.root.setAttribute("role", "status")
    this.root.setAttribute("aria-label", word("panel.label"))
    this.height = 0
    new ResizeObserver(() => {
      const height = Math.ceil(this.body.offsetHeight)
      if (height && height !== this.height) onHeight((this.height = height)) // 0: off screen, collapsed or zoomed out
    }).observe(this.body)
    passThrough(this.root, canvas)
    this.show({ report: null, found: [], rows: [] })
  }

  /** @param {Content} content */
  show({ report, found, rows }) {
    const held = this.root.contains(document.activeElement) && document.activeElement.closest("[data-lora]")?.dataset.lora
    const findings = [...found, ...(report?.findings ?? [])]
    this.report = report
    this.age = element("span", "lf-age", "")
    this.root.dataset.severity = report || found.length ? worst(findings) : "none"
    const hint = !report && !found.length && line("lf-hint", word("panel.hint"))
    const parts = [hint, this.check(found), report && this.run(report, found.length > 0), items("lf-asks", rows)]
    this.body.replaceChildren(...parts.filter(Boolean))
    this.stale(this.old)
    const row = held && rows.find((each) => each.dataset.lora === held)
    if (row) (row.querySelector("button") ?? row).focus()
  }

  check(found) {
    if (!found.length) return null
    return element("div", "lf-before", [line("lf-when", word("panel.before")), items("lf-list", found.map((each) => card(each)))])
  }

  /** One finding speaks for itself; none or several get a headline, unless "No findings" would mislead by now. */
  run({ findings, facts, solved }, found) {
    const head = findings.length !== 1 && (findings.length || !(solved || found)) && summary(findings)
    const told = facts.map((fact) => element("li", "", fact))
    return element("div", "lf-run", [this.age, head, items("lf-list", findings.map((each) => card(each))), items("lf-facts", told)])
  }

  /** Says that the report that is shown is not from the newest run. */
  stale(yes) {
    this.old = yes
    this.root.classList.toggle("lf-stale", Boolean(yes && this.report))
    this.age.textContent = yes ? word("panel.earlier") : ""
  }
}
