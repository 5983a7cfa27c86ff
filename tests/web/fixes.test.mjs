// What the fixes of findings come to in a graph.

import assert from "node:assert/strict"
import { test } from "node:test"
import { changesOf, ofWhole, renamed } from "../../web/fixes.mjs"
import { readFindings } from "../../web/findings.mjs"

const node = (widgets, above = []) => ({
  widgets: Object.entries(widgets).map(([name, value]) => ({ name, value })),
  inputs: above.map(() => ({})),
  getInputNode: (slot) => above[slot],
})
const USE = { action: "replace", node: "1", from: "a/old.safetensors", to: "b/new.safetensors" }

test("a file name is replaced in the node, or in the first above it that has it", () => {
  const rows = node({ loras: '[{"path": "a\\\\old.safetensors", "weight": 0.3, "mine": 1}, "x.safetensors"]' })
  const stack = node({}, [node({ base: "m.safetensors" }), rows])
  const [change] = changesOf([USE], () => stack)
  assert.equal(change.node, rows)
  assert.deepEqual(JSON.parse(change.value), [{ path: "b/new.safetensors", weight: 0.3, mine: 1 }, "x.safetensors"])
  assert.equal(changesOf([USE], () => node({ lora_name: "a\\old.safetensors" }))[0].value, "b/new.safetensors")
})

test("what is not there, is wired or unknown is not offered", () => {
  const sampler = node({ steps: 20, cfg: 4 })
  const set = (input, value) => ({ action: "set", node: "1", input, value })
  assert.deepEqual(changesOf([set("steps", 4), set("cfg", 1)], () => sampler).map(({ value }) => value), [4, 1])
  assert.equal(changesOf([set("steps", 4), set("other", 1)], () => sampler), null)
  assert.equal(changesOf([set("steps", 4)], () => ({ ...sampler, inputs: [{ widget: { name: "steps" }, link: 3 }] })), null)
  assert.equal(changesOf([USE], () => node({ lora_name: "z" })), null)
  assert.equal(changesOf([USE], () => undefined), null)
  assert.equal(changesOf([], () => sampler), null)
  assert.equal(changesOf([{ action: "explode", node: "1" }], () => sampler), null)
})

test("a name is no part of another one", () => {
  assert.equal(renamed("my a/old.safetensors", USE.from, USE.to), null)
  assert.equal(renamed(4, USE.from, USE.to), null)
})

test("a name in rows and texts of other packs is replaced, and all else of them stays", () => {
  const power = { on: true, lora: "a\\old.safetensors", strength: 0.7, strengthTwo: null }
  assert.deepEqual(renamed(power, USE.from, USE.to), { ...power, lora: USE.to })
  const rows = [{ name: "other", strength: 1 }, { name: "old", active: true }]
  const fixed = [rows[0], { name: "New", active: true }]
  assert.deepEqual(renamed(rows, "old", "New"), fixed)
  assert.deepEqual(renamed({ __value__: rows }, "old", "New"), { __value__: fixed })
  assert.deepEqual(rows[1], { name: "old", active: true }) // what is given is not changed
  assert.equal(renamed("a cat <lora:old:0.7> <lora:older:1> old", "old", "New$1"), "a cat <lora:New$1:0.7> <lora:older:1> old")
  for (const value of [null, undefined, true, [], {}, ["old"], [["old"]], { other: "old" }]) assert.equal(renamed(value, "old", "New"), null)
})

const ROWS_AS_TEXT = [ // as in tests/loaders/converting/test_fixing.py: the terminal and the editor write the same
  ['["a/x.sft"]', '["N"]'],
  [
    '[\n  "a\\\\x.sft",\n  {"on":false, "path":"a/x.sft" ,"strength":1.0}\n]\n',
    '[\n  "N",\n  {"on":false, "path":"N" ,"strength":1.0}\n]\n',
  ],
  [' [{"path" : "a\\/x.sft"}, "b/a/x.sft", "\\u00e9"]', ' [{"path" : "N"}, "b/a/x.sft", "\\u00e9"]'],
  ['{"stack": [{"path": "a/x.sft"}]}', '{"stack": [{"path": "N"}]}'],
  ['["y.sft"]', null],
  ['["a/x.sft", 1]', null],
  ["- a/x.sft", null],
  ['["a/x.sft"', null],
]

test("of rows as text only the name changes", () => {
  for (const [text, told] of ROWS_AS_TEXT) {
    assert.equal(renamed(text, "a/x.sft", "N"), told)
    assert.equal(renamed(text, "a\\x.sft", 'É"\\$&'), told && told.replaceAll('"N"', () => '"É\\"\\\\$&"'))
  }
  assert.equal(renamed('["style"]', "style", "style.sft"), '["style.sft"]')
})

test("findings keep their fixes, and need none", () => {
  const [with_, without] = readFindings([{ code: "LF306", severity: "error", fix_actions: [USE] }, { code: "LF302" }])
  assert.deepEqual([with_.actions, without.actions], [[USE], []])
})

test("fixes that move nodes and wires change no widget", () => {
  for (const action of ["convert", "fuse", "stack", "remove"]) {
    assert.equal(ofWhole([{ action, node: "3" }]), action)
    assert.equal(changesOf([{ action, node: "3" }], () => node({})), null)
  }
  assert.deepEqual([ofWhole([USE]), ofWhole([])], ["", ""])
})
