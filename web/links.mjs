// The way to the node where something is repaired: a click goes there and opens what is said of it.
// @ts-check

import { button, closePopovers, element } from "./dom.mjs"
import { goTo } from "./host.mjs"
import { ICONS, headline, worst } from "./findings.mjs"
import { word } from "./texts.mjs"

let arrived = (_node) => {}

/** @param {(node: any) => void} listener called when the user came to a node */
export const whenArrived = (listener) => { arrived = listener }

function go(node, from) {
  from.closest("dialog")?.close()
  closePopovers()
  goTo(node)
  requestAnimationFrame(() => requestAnimationFrame(() => arrived(node))) // it is drawn there by then
}

/** A node as a user finds it. */
export const called = ({ title, id }) => word("check.at", { title, id })

/** The place of a finding, as a way there. @param {any} node */
export function placeLink(node) {
  const made = button(called(node), () => go(node, made))
  made.className = "lf-where lf-link"
  return made
}

/** How many findings are shown at another node, and the way there. @param {any} node @param {import("./findings.mjs").Finding[]} findings */
export function countLink(node, findings) {
  const severity = worst(findings)
  const codes = [...new Set(findings.map(({ code }) => code))].join(", ")
  const icon = element("span", "lf-icon", ICONS[severity])
  icon.setAttribute("aria-hidden", "true")
  const made = button("", () => go(node, made))
  made.className = "lf-link"
  made.append(element("span", "", word("panel.elsewhere", { count: headline(findings), codes, place: called(node) })))
  const item = element("li", "lf-elsewhere", [icon, made])
  item.dataset.severity = severity
  return item
}
