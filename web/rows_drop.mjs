// LoRAs dropped onto the rows: out of the host's list of models, as names or tags in a text, or as files the server has too.
// @ts-check

import { modelDragged } from "./host.mjs"

const NAMES = /\.safetensors["']?\s*$|<lora:/im

export class Drop {
  /** @param {import("./rows_editor.mjs").Editor} editor */
  constructor(editor) {
    this.editor = editor
    const { root } = editor
    root.addEventListener("dragover", (event) => this.over(event))
    root.addEventListener("dragleave", (event) => root.contains(event.relatedTarget) || this.mark(false))
    root.addEventListener("drop", (event) => this.drop(event))
  }

  mark(over) {
    this.editor.root.classList.toggle("lf-drop", over)
  }

  /** What a text or a file is called is told only when it is let go; of files a picture has a kind that is known. */
  over(event) {
    const { types, items } = event.dataTransfer
    const file = [...items].some(({ kind, type }) => kind === "file" && !type)
    if (!this.editor.listed || !(modelDragged("loras") || types.includes("text/plain") || file)) return
    event.preventDefault()
    event.stopPropagation()
    event.dataTransfer.dropEffect = "copy"
    this.mark(true)
  }

  drop(event) {
    this.mark(false)
    const { dataTransfer: data } = event
    const text = modelDragged("loras") || data.getData("text/plain") || [...data.files].map(({ name }) => name).join("\n")
    if (!this.editor.listed || !NAMES.test(text)) return // a picture or a workflow is the host's
    event.preventDefault()
    event.stopPropagation()
    void this.editor.appendNamed(text)
  }
}
