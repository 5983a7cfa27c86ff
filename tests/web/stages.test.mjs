// A colour for each stage: on the canvas by the class of a node, in Nodes 2.0 by its id.

import assert from "node:assert/strict"
import { test } from "node:test"
import { mix, sheetOf, tint } from "../../web/stages.mjs"

test("two colours in one", () => {
  assert.equal(mix("#ffffff", "#000000", 0.5), "#808080")
  assert.equal(mix("#e5663b", "#2a2a2a", 1), "#e5663b")
  assert.equal(mix("#0a0000", "#000000", 1), "#0a0000")
})

test("the stages' classes differ, others keep the host's colour", () => {
  const titles = ["FoundryLoadBase", "FoundryFuseBaseLoRA", "FoundryLoRAStack", "FoundryStackLoRAs", "FoundryStackValidator", "FoundryQuantizeFP8"].map((kind) => {
    const nodeType = {}
    tint(nodeType, kind)
    assert.ok(nodeType.bgcolor && nodeType.bgcolor !== nodeType.color)
    return nodeType.color
  })
  assert.equal(new Set(titles).size, titles.length)
  const native = {}
  tint(native, "KSampler")
  assert.deepEqual(native, {})
})

test("the sheet names our nodes by id, and leaves out what the user coloured", () => {
  const sheet = sheetOf([
    { id: 1, comfyClass: "FoundryLoadBase" },
    { id: 2, comfyClass: "FoundryLoadCheckpoint" },
    { id: 3, comfyClass: "FoundryFuseBaseLoRA", color: "#123456" },
    { id: 4, comfyClass: "KSampler" },
    { id: '"]{}', comfyClass: "FoundryApply" },
  ])
  assert.match(sheet, /:is\(\[data-node-id="1"\],\[data-node-id="2"\]\)/)
  assert.doesNotMatch(sheet, /node-id="[34]"/)
  assert.match(sheet, /\[data-node-id="\\"\]\{\}"\]/)
  assert.equal(sheetOf([{ id: 4, comfyClass: "KSampler" }]), "")
})
