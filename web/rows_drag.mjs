// A row dragged to another place by its grip: rows follow the pointer, and the text changes once, when it is let go.
// @ts-check

import { move, write } from "./rows.mjs"
import { ROW } from "./rows_row.mjs"

export class Drag {
  /** @param {import("./rows_editor.mjs").Editor} editor */
  constructor(editor) {
    this.editor = editor
    this.view = null // of the row that is held
    const { list } = editor
    list.addEventListener("pointerdown", (event) => this.begin(event))
    list.addEventListener("pointermove", (event) => this.view && this.to(event.clientY))
    list.addEventListener("pointerup", () => this.drop(true))
    list.addEventListener("pointercancel", () => this.drop(false))
  }

  begin(event) {
    const grip = event.target.closest(".lf-grip")
    if (!grip || event.button !== 0) return
    event.preventDefault()
    event.stopPropagation()
    this.view = this.editor.viewOf(Number(grip.closest(".lf-row").dataset.id))
    this.before = this.editor.state
    this.view.root.classList.add("lf-dragged")
    this.editor.list.setPointerCapture(event.pointerId)
  }

  to(y) {
    const { editor, view } = this
    const { list, state } = editor
    const box = list.getBoundingClientRect()
    const scale = box.height / list.offsetHeight || 1 // the canvas may be zoomed
    if (y < box.top + 8) list.scrollTop -= ROW / 2
    if (y > box.bottom - 8) list.scrollTop += ROW / 2
    const within = (y - box.top) / scale + list.scrollTop
    const at = state.rows.findIndex((row) => row.id === view.id)
    // Rows may be of different heights: the edge of this one counts against the middles of the others.
    const passed = ({ id }, place) => {
      const { offsetTop, offsetHeight } = editor.viewOf(id).root
      return place !== at && offsetTop + offsetHeight / 2 < within + (place > at ? ROW : -ROW) / 2
    }
    const to = state.rows.filter(passed).length
    if (to === at) return
    editor.state = move(state, view.id, to)
    editor.drawRows(editor.state)
  }

  drop(keep) {
    const { editor, view, before } = this
    if (!view) return
    view.root.classList.remove("lf-dragged")
    this.view = null
    const [state, moved] = [editor.state, write(editor.state) !== write(before)]
    if (keep && moved) editor.commit(state)
    else if (moved) {
      editor.state = before
      editor.drawRows(before)
    }
    view.root.focus()
  }
}
