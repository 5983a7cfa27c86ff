// One node's findings as HTML. All text goes in through textContent; looks come from panel.css and the host's theme.

import { SEVERITIES } from "./findings.mjs"

const EVIDENCE_WORTH_SAYING = ["declared", "guessed"] // derived is the rule, unknown says nothing

/** An element with a class, text and children; empty text or no children give null, which `append` below leaves out. */
function element(tag, className, content) {
  const made = document.createElement(tag)
  made.className = className
  if (typeof content === "string") made.textContent = content
  else made.append(...content.filter(Boolean))
  return made
}

const line = (className, content) => (content ? element("div", className, content) : null)

function icon(severity) {
  const made = element("span", "lf-icon", SEVERITIES[severity].icon)
  made.setAttribute("aria-hidden", "true") // the word beside it says the same
  return made
}

/** @param {import("./findings.mjs").Finding} found */
function card(found) {
  const evidence = EVIDENCE_WORTH_SAYING.includes(found.evidence) ? found.evidence : ""
  const title = element("div", "lf-title", [
    icon(found.severity),
    element("strong", "lf-word", SEVERITIES[found.severity].word),
    found.code && element("span", "lf-code", found.code),
    evidence && element("span", "lf-evidence", evidence),
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

export class Panel {
  /** @param {() => object} canvas the graph canvas @param {(height: number) => void} onHeight called when the content's height changed */
  constructor(canvas, onHeight) {
    this.age = element("span", "lf-age", "")
    this.body = element("div", "lf-body", [])
    this.root = element("div", "lf-panel", [this.body])
    this.root.setAttribute("role", "status")
    this.root.setAttribute("aria-label", "LoRA Foundry findings")
    this.height = 0
    new ResizeObserver(() => {
      const height = Math.ceil(this.body.offsetHeight)
      if (height && height !== this.height) onHeight((this.height = height)) // 0: off screen, collapsed or zoomed out
    }).observe(this.body)
    passThrough(this.root, canvas)
    this.show(null)
  }

  /** @param {import("./findings.mjs").Report | null} report null before the first run */
  show(report) {
    this.report = report
    this.root.dataset.severity = report?.severity ?? "none"
    this.body.replaceChildren(...(report ? this.content(report) : [line("lf-hint", "Findings appear here after a run.")]))
    this.stale(false)
  }

  /** One finding speaks for itself; none or several get a headline. */
  content(report) {
    const single = report.findings.length === 1
    const head = element("div", "lf-title", [icon(report.severity), element("strong", "", report.headline)])
    const lists = { "lf-list": report.findings.map(card), "lf-facts": report.facts.map((fact) => element("li", "", fact)) }
    const shown = Object.entries(lists).filter(([, items]) => items.length)
    return [this.age, ...(single ? [] : [head]), ...shown.map(([name, items]) => element("ul", name, items))]
  }

  /** Says that what is shown is not from the newest run. */
  stale(yes) {
    this.root.classList.toggle("lf-stale", yes && this.report !== null)
    this.age.textContent = yes ? "from an earlier run" : ""
  }
}
