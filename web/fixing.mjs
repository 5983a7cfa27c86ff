// The button on a finding that settles it: one step of the host's undo.

import { button } from "./dom.mjs"
import { changesOf } from "./fixes.mjs"
import { gestureEnded, nodeAt } from "./host.mjs"
import { parts } from "./rows_search.mjs"
import { word } from "./texts.mjs"

/** What a click would do, in a few words. */
function label(actions) {
  const [first] = actions
  if (first.action === "replace") return word("fix.replace", { name: parts(first.to).name })
  return word("fix.set", { settings: actions.map(({ input, value }) => `${input} ${value}`).join(", ") })
}

/** @param {import("./findings.mjs").Finding} finding @returns {HTMLButtonElement | null} null where nothing can be done for it here */
export function fixButton({ actions }) {
  if (!changesOf(actions, nodeAt)) return null
  const made = button(label(actions), () => {
    for (const { node, widget, value } of changesOf(actions, nodeAt) ?? []) {
      widget.value = value
      widget.callback?.(value)
      node.setDirtyCanvas(true, true)
    }
    gestureEnded()
    made.disabled = true
  })
  made.classList.add("lf-fixing")
  return made
}
