// The button on a finding that settles it: one step of the host's undo.
// @ts-check

import { button } from "./dom.mjs"
import { changesOf, ofWhole } from "./fixes.mjs"
import { gestureEnded, nodeAt } from "./host.mjs"
import { parts } from "./rows_search.mjs"
import { word } from "./texts.mjs"

let convert = (_actions) => {}

/** Says what changes the open graph as a whole. @param {(actions: object[]) => void} action */
export const onConvert = (action) => { convert = action }

/** What a click would do, in a few words. */
function label(actions) {
  const [first] = actions
  const whole = ofWhole(actions)
  if (whole) return word(`fix.${whole}`, { name: parts(first.lora ?? "").name })
  if (first.action === "replace") return word("fix.replace", { name: parts(first.to).name })
  return word("fix.set", { settings: actions.map(({ input, value }) => `${input} ${value}`).join(", ") })
}

function change(actions) {
  for (const { node, widget, value } of changesOf(actions, nodeAt) ?? []) {
    widget.value = value
    widget.callback?.(value)
    node.setDirtyCanvas(true, true)
  }
  gestureEnded()
}

/** @param {import("./findings.mjs").Finding} finding @returns {HTMLButtonElement | null} null where nothing can be done for it here */
export function fixButton({ actions }) {
  const whole = ofWhole(actions)
  if (!whole && !changesOf(actions, nodeAt)) return null
  const made = button(label(actions), () => {
    whole ? convert(actions) : change(actions)
    made.disabled = true
  })
  made.classList.add("lf-fixing")
  return made
}
