// A click on a badge of ours opens what it means, on our nodes and on all others, in both renderers.
// @ts-check

import { graphPoint, isVue, nodesShown } from "./host.mjs"
import { badgeOn } from "./nodes.mjs"

/** Whether a point of the graph is on the badge that was drawn at `box` beside its node. */
export function isInside([x, y], [left, top], box) {
  if (!box) return false
  const [dx, dy, width, height] = box
  return x >= left + dx && x <= left + dx + width && y >= top + dy && y <= top + dy + height
}

/** The canvas draws its badges itself: the node whose badge lies under the pointer. */
function underPointer(event) {
  const at = graphPoint(event)
  return nodesShown().find((node) => badgeOn(node).text && isInside(at, node.pos, badgeOn(node).box))
}

/** Nodes 2.0: the host's badge is an element with our text, the one of panel.css stands above its node. */
function inPage({ target, clientY }) {
  const shown = target.closest?.("[data-node-id]")
  const node = shown && nodesShown().find(({ id }) => String(id) === shown.dataset.nodeId)
  const text = node && badgeOn(node).text
  if (!text) return undefined
  const styled = target === shown && clientY < shown.getBoundingClientRect().top
  return styled || target.textContent.trim() === text ? node : undefined
}

/** @param {(node: object) => void} open shows what a node's badge means */
export function whenBadgeClicked(open) {
  const press = (event) => {
    const node = event.button === 0 && event.target?.tagName === "CANVAS" && !isVue() && underPointer(event)
    if (!node) return
    event.stopImmediatePropagation() // the canvas would begin a selection
    open(node)
  }
  const click = (event) => {
    const node = isVue() && inPage(event)
    if (node) open(node)
  }
  window.addEventListener("pointerdown", press, true)
  window.addEventListener("click", click, true)
}
