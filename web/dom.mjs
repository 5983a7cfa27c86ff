// Elements. All text goes in through textContent; looks come from panel.css and the host's theme.

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
  document.body.append(dialog)
  dialog.showModal()
  if (!content.some((part) => part.contains(document.activeElement))) buttons[0]?.focus()
  return new Promise((resolve) =>
    dialog.addEventListener("close", () => {
      dialog.remove()
      resolve(dialog.returnValue)
    }),
  )
}
