// Elements. All text goes in through textContent; looks come from panel.css and the host's theme.
// @ts-check

/** An element with a class, text and children; null and empty text among the children are left out. */
export function element(tag, className, content) {
  const made = document.createElement(tag)
  made.className = className
  if (typeof content === "string") made.textContent = content
  else made.append(...content.filter(Boolean))
  return made
}

export const line = (className, content) => (content ? element("div", className, content) : null)

/** A button of the browser: the keyboard reaches it. */
export function button(label, onClick) {
  const made = element("button", "lf-button", label)
  made.type = "button"
  if (onClick) made.addEventListener("click", onClick)
  return made
}

/**
 * Shows a dialog of our own until it is closed.
 * @param {string} title
 * @param {Node[]} content
 * @param {HTMLButtonElement[]} buttons each closes it; the first has the focus
 * @returns {Promise<string>} the value of the button, empty for Escape
 */
export function ask(title, content, buttons) {
  const form = element("form", "lf-form", [
    element("strong", "lf-heading", title),
    element("div", "lf-content", content),
    element("div", "lf-buttons", buttons),
  ])
  form.method = "dialog"
  for (const made of buttons) made.type = "submit"
  const dialog = element("dialog", "lf-dialog", [form])
  dialog.setAttribute("aria-label", title)
  dialog.addEventListener("keydown", (event) => event.stopPropagation()) // a letter is no shortcut of the host here
  // Where the focus is lost (a button that went away), Escape would reach the host, which keeps it for itself.
  const escape = (event) => {
    if (event.key !== "Escape" || dialog.contains(event.target)) return
    event.stopImmediatePropagation()
    event.preventDefault()
    dialog.close()
  }
  window.addEventListener("keydown", escape, true)
  document.body.append(dialog)
  dialog.showModal()
  if (!content.some((part) => part.contains(document.activeElement))) buttons[0]?.focus()
  return new Promise((resolve) =>
    dialog.addEventListener("close", () => {
      window.removeEventListener("keydown", escape, true)
      dialog.remove()
      resolve(dialog.returnValue)
    }),
  )
}

let live = null

/** Says something to those who listen instead of looking: the one live region of this pack. */
export function announce(text) {
  live ??= document.body.appendChild(element("div", "lf-live", []))
  live.setAttribute("role", "status")
  live.textContent = text
}

/** Puts a popover beside its button and on the screen, whatever the canvas is scaled to. */
export function place(popover, anchor) {
  const at = anchor.getBoundingClientRect()
  const { offsetWidth: width, offsetHeight: height } = popover
  const below = at.bottom + 4
  const top = below + height <= window.innerHeight - 8 ? below : Math.max(8, at.top - height - 4)
  popover.style.left = `${Math.max(8, Math.min(at.left, window.innerWidth - width - 8))}px`
  popover.style.top = `${Math.min(top, Math.max(8, window.innerHeight - height - 8))}px`
}

/** A popover of ours on the page: closed by Escape, by a click elsewhere, and when the canvas under it is zoomed. */
export function popover(label, content) {
  const made = element("div", "lf-popover", content)
  made.popover = "auto"
  made.setAttribute("role", "dialog")
  made.setAttribute("aria-label", label)
  made.addEventListener("keydown", (event) => event.stopPropagation()) // a letter is no shortcut of the host here
  const away = (event) => made.contains(event.target) || made.hidePopover()
  // With the focus elsewhere Escape would reach the host, which keeps it for itself; of several the last one closes.
  const escape = (event) => {
    if (event.key !== "Escape" || made.contains(event.target)) return
    if ([...document.querySelectorAll(".lf-popover:popover-open")].at(-1) !== made) return
    event.stopImmediatePropagation()
    event.preventDefault()
    made.hidePopover()
  }
  made.addEventListener("toggle", ({ newState }) => {
    if (newState === "open") {
      window.addEventListener("wheel", away, true)
      window.addEventListener("keydown", escape, true)
      return
    }
    window.removeEventListener("wheel", away, true)
    window.removeEventListener("keydown", escape, true)
    made.remove()
  })
  return made
}

/** Another graph, or all nodes made anew: what is open speaks of nodes that are gone. */
export function closePopovers() {
  const open = /** @type {NodeListOf<HTMLElement>} */ (document.querySelectorAll(".lf-popover:popover-open"))
  for (const each of open) each.hidePopover()
}

/** The wheel and the middle button are the canvas', but a list that scrolls keeps the wheel. Nodes 2.0 hands them on by itself. */
export function passThrough(root, canvas, classic) {
  const middle = (handler) => (event) => {
    if (classic() && (event.button === 1 || event.buttons & 4)) canvas()[handler](event)
  }
  root.addEventListener("pointerdown", middle("processMouseDown"))
  root.addEventListener("pointermove", middle("processMouseMove"))
  root.addEventListener("pointerup", middle("processMouseUp"))
  root.addEventListener("wheel", (event) => {
    const list = event.ctrlKey ? null : event.target.closest("ul")
    if (list && list.scrollHeight > list.clientHeight + 1) return event.stopPropagation()
    if (!classic()) return
    event.preventDefault()
    canvas().processMouseWheel(event)
  })
}
