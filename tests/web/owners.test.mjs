// Which node a finding belongs to, and what the others count.

import assert from "node:assert/strict"
import { test } from "node:test"
import { distinct, filesAbove, ownerOf, shared } from "../../web/owners.mjs"

const node = (id, values, ...above) => ({
  id,
  widgets: values.map((value) => ({ name: "w", value })),
  inputs: above.map((each) => ({ type: [1, 2].includes(each.id) ? "LORA_STACK" : "MODEL" })),
  getInputNode: (slot) => above[slot],
})
const row = node(1, ["style/ink.safetensors", 0.7])
const rows = node(2, [JSON.stringify([{ path: "a.safetensors" }, "folder\\b.safetensors"])], row)
const load = node(3, ["wan.safetensors"])
const stack = node(4, [true], load, rows)
const check = node(5, ["allow accelerators", 1.5, null], stack)
const all = [row, rows, load, stack, check]
const nodeAt = (id) => all.find((each) => String(each.id) === id)
const found = (subject, more) => ({ code: "LF302", seen: "x", subject, node: "", ...more })

test("a finding is of the node that it names, or of the row that leads to it", () => {
  assert.equal(ownerOf(found("a.safetensors", { node: "3" }), check, nodeAt), load)
  assert.equal(ownerOf(found("a.safetensors", { node: "4" }), check, nodeAt), rows)
  assert.equal(ownerOf(found("style/ink.safetensors", { node: "4" }), check, nodeAt), row)
  assert.equal(ownerOf(found("wan.safetensors", { node: "4" }), check, nodeAt), stack) // not over the model's wire
  assert.equal(ownerOf(found("a.safetensors", { node: "5" }), stack, nodeAt), check) // as a sampler's steps
  assert.equal(ownerOf(found("a.safetensors", { node: "99" }), check, nodeAt), check)
})

test("a finding of a run is of the nearest node above that has its file, in a widget or in rows", () => {
  assert.equal(ownerOf(found("style/ink.safetensors"), check, nodeAt), row)
  assert.equal(ownerOf(found("ink.safetensors"), stack, nodeAt), row)
  assert.equal(ownerOf(found("folder/b.safetensors"), check, nodeAt), rows)
  assert.equal(ownerOf(found("wan.safetensors"), check, nodeAt), load)
})

test("a row of another pack, in a list or in a value of its own, is where a finding belongs", () => {
  for (const value of [[{ name: "ink", strength: 1 }], { on: true, lora: "ink", strength: 1 }, "<lora:ink:0.7>"]) {
    const stacker = node(1, [value])
    const applier = node(4, [true], load, stacker)
    assert.equal(ownerOf(found("ink", { node: "4" }), check, () => applier), stacker)
  }
})

test("a finding about nothing that is above stays where it was told", () => {
  assert.equal(ownerOf(found("nk.safetensors"), check, nodeAt), check)
  assert.equal(ownerOf(found(""), check, nodeAt), check)
})

test("a node keeps its own findings and counts the others by their node", () => {
  const own = found("")
  const theirs = [found("a.safetensors"), found("a.safetensors", { code: "LF305" })]
  const { mine, others } = shared([own, ...theirs], check, (finding, at) => ownerOf(finding, at, nodeAt))
  assert.deepEqual(mine, [own])
  assert.deepEqual([...others], [[rows, theirs]])
})

test("what several nodes of a run say is told once; two things of one code are two", () => {
  const [one, other] = [found("a"), found("a", { seen: "y" })]
  assert.deepEqual(distinct([one, { ...one }, other]), [one, other])
})

test("files that a node or one above it has, over every wire", () => {
  const files = ["ink.safetensors", "folder/b.safetensors", "wan.safetensors", "gone.safetensors"]
  assert.deepEqual(filesAbove(check, files), files.slice(0, 3))
  assert.deepEqual(filesAbove(row, files), ["ink.safetensors"])
  assert.deepEqual(filesAbove(check, []), [])
})
