// The rows of LoRA Stack: the text of an API user, read and written again, and what each gesture does to it.

import assert from "node:assert/strict"
import { test } from "node:test"
import * as rows from "../../web/rows.mjs"

const read = (data) => rows.read(typeof data === "string" ? data : JSON.stringify(data)).state
const data = (state) => JSON.parse(rows.write(state))
const paths = (state) => state.rows.map((each) => rows.told(each).path)
const ABC = [{ path: "a" }, { path: "b" }, { path: "c" }]

test("what is not understood survives, in rows and around them", () => {
  const lists = [
    [{ path: "a", note: { deep: [1, "x", null] }, strength: 0.5 }, "b.safetensors"],
    { base: "x", lora_paths: [{ path: "a", weight: 0.7, mine: true }], quantize: "fp8" },
    { stack: [] },
    [],
  ]
  for (const each of lists) assert.deepEqual(data(read(each)), each)
})

test("a gesture changes its key alone, by the word the row uses", () => {
  const before = [{ path: "a", weight: 0.7, note: 1 }, "b"]
  const state = read(before)
  const [first, second] = state.rows
  assert.deepEqual(data(rows.change(state, first.id, { strength: 0.2 })), [{ path: "a", weight: 0.2, note: 1 }, "b"])
  assert.deepEqual(data(rows.change(state, second.id, { clip: 0.4 })), [before[0], { path: "b", clip_strength: 0.4 }])
  assert.deepEqual(data(rows.toggle(state, first.id))[0], { path: "a", weight: 0.7, note: 1, on: false })
  assert.deepEqual(data(state), before)
})

test("what is taken back leaves no key behind", () => {
  const state = read([{ path: "a", clip_weight: 0.5, blocks: "single=0" }])
  assert.deepEqual(data(rows.change(state, state.rows[0].id, { clip: null, blocks: "" })), [{ path: "a" }])
})

test("rows say what holds where they are silent", () => {
  assert.deepEqual(rows.told(read(["a"]).rows[0]), { path: "a", on: true, solo: false, strength: 1, clip: null, blocks: "" })
  assert.deepEqual(rows.told(read([{ path: "a", clip_weight: 0, weight: 0 }]).rows[0]).clip, 0)
})

test("rows move and stay within the list", () => {
  const state = read(ABC)
  const [a, , c] = state.rows
  assert.deepEqual(paths(rows.move(state, a.id, 2)), ["b", "c", "a"])
  assert.deepEqual(paths(rows.move(state, c.id, 0)), ["c", "a", "b"])
  assert.deepEqual(paths(rows.move(state, a.id, -1)), ["a", "b", "c"])
  assert.deepEqual(paths(rows.move(state, c.id, 99)), ["a", "b", "c"])
})

test("add, remove, all on and off, sum", () => {
  let state = rows.add(read(ABC), ["d"])
  assert.deepEqual(data(state).at(-1), { path: "d", strength: 1 })
  state = rows.remove(state, state.rows[0].id)
  assert.deepEqual(paths(state), ["b", "c", "d"])
  state = rows.toggle(state, state.rows[1].id)
  assert.equal(rows.countOn(state), 2)
  assert.equal(rows.sum(state), 2)
  state = rows.toggleAll(state)
  assert.equal(rows.countOn(state), 3)
  assert.equal(rows.countOn(rows.toggleAll(state)), 0)
})

test("a text that is no rows says where, and is no rows", () => {
  assert.deepEqual(rows.read('[{"path": "a"},\n  {"path": }]'), { state: null, fault: { line: 2, column: 12 } })
  assert.deepEqual(rows.read('[{"path": "a"').fault, { line: 1, column: 14 })
  const places = { "[1, 2,]": 7, '{"a" 1}': 6, '{a: 1}': 2, "[1] 2": 5, '["x\ny"]': 2, "[tru]": 2, '{"a": [{}, {"b": -}]}': 18 }
  for (const [text, column] of Object.entries(places)) assert.deepEqual(rows.read(text).fault, { line: 1, column }, text)
  const other = ['{"model": {"lora_path": []}}', "3", '[{"name": "a"}]', '{"stack": "a"}', "null", '{"base": "x"}']
  for (const text of other) assert.deepEqual(rows.read(text), { state: null, fault: { line: 0, column: 0 } }, text)
  assert.deepEqual(rows.read("  ").state.rows, [])
})

test("read again, rows keep their ids", () => {
  const state = read(ABC)
  const again = rows.recognise(read([...ABC, { path: "d" }]), state)
  assert.deepEqual(again.rows.slice(0, 3).map((each) => each.id), state.rows.map((each) => each.id))
  assert.ok(!state.rows.some((each) => each.id === again.rows[3].id))
})

test("steps and bounds of a strength", () => {
  assert.equal(rows.tidy(0.1 + 0.2), 0.3)
  assert.equal(rows.tidy(99), 10)
  assert.deepEqual([{}, { shiftKey: true }, { altKey: true }].map(rows.stepOf), [0.05, 0.01, 0.1])
})

test("tags of a prompt become rows by the names there are", () => {
  const names = ["sdxl/Detail.safetensors", "other.safetensors"]
  assert.deepEqual(rows.rowsOfTags("a <lora:detail:0.7> b <lora:Other:1:0.5>, <lora:gone>", names), [
    { path: "sdxl/Detail.safetensors", strength: 0.7 },
    { path: "other.safetensors", strength: 1, clip_strength: 0.5 },
    { path: "gone", strength: 1 },
  ])
  assert.deepEqual(rows.rowsOfTags("<lora:detail:1e-1:0,5> <lora:Other:+1:.5>", names), [
    { path: "sdxl/Detail.safetensors", strength: 0.1, clip_strength: 0.5 },
    { path: "other.safetensors", strength: 1, clip_strength: 0.5 },
  ])
})

test("a tag that never ends holds up nothing", () => {
  const began = performance.now()
  for (const text of ["<lora:" + "a".repeat(200000), "<lora:a:" + "1".repeat(200000), "<lora:a:1:" + "1".repeat(200000)]) {
    assert.deepEqual(rows.rowsOfTags(text, []), [])
  }
  assert.ok(performance.now() - began < 3000)
})

test("solo is one row among others, and goes without a trace", () => {
  let state = read([{ path: "a", strength: 0.5 }, { path: "b", on: false, strength: 2 }, { path: "c" }])
  const [a, b] = state.rows
  const heard = () => rows.active(state).map((each) => rows.told(each).path)
  assert.deepEqual([heard(), rows.countOn(state), rows.sum(state)], [["a", "c"], 2, 1.5])
  state = rows.solo(state, a.id)
  assert.deepEqual(data(state)[0], { path: "a", strength: 0.5, solo: true })
  assert.deepEqual([heard(), rows.countOn(state), rows.sum(state)], [["a"], 1, 0.5])
  state = rows.solo(state, b.id) // one that was off is on by it
  assert.deepEqual([heard(), data(state)[1].on], [["a", "b"], true])
  state = rows.toggle(state, a.id) // off, it is alone no more
  assert.deepEqual(heard(), ["b"])
  state = rows.solo(rows.toggle(state, a.id), a.id)
  assert.deepEqual(data(state)[0], { path: "a", strength: 0.5, on: true })
  state = rows.toggleAll(state)
  assert.deepEqual(data(state).map((each) => [each.on, each.solo]), [[true, undefined], [true, undefined], [undefined, undefined]])
  assert.equal(rows.countOn(rows.toggleAll(state)), 0)
})

test("the trigger words are those of rows that change something", () => {
  const words = { a: "ink, paper", b: "paper, wash", d: "dust", e: "ember" }
  const rest = [{ path: "b", strength: 0, clip_strength: 0.5 }, { path: "c" }, { path: "d", strength: 0 }, { path: "e", on: false }]
  assert.equal(rows.wordsOf(read(["a", ...rest]), (path) => words[path]), "ink, paper, wash")
})

test("other rows take the place of all, and what is around them stays", () => {
  const state = read({ lora_paths: ["a"], note: 1 })
  assert.deepEqual(data(rows.replace(state, [{ path: "b", mine: 2 }])), { lora_paths: [{ path: "b", mine: 2 }], note: 1 })
})

test("what is typed, and what is worth a word", () => {
  assert.deepEqual(["0,7", " 1 ", "", "much", "99"].map(rows.typed), [0.7, 1, null, null, 10])
  assert.deepEqual([2, 2.1, -3].map((each) => rows.strong(each)), [false, true, true])
  assert.deepEqual([0.8, 0.79, 3].map((each) => rows.strong(each, [0.8, 3])), [false, true, false])
  assert.deepEqual(rows.onLine(1, [0.5, 0.7]), { least: 25, most: 35, at: 50 })
  assert.deepEqual(rows.onLine(-2, [0.5, 3]), { least: 50, most: 100, at: 0 })
})

test("rows are sorted, and what is alike stays in its order", () => {
  const state = read([{ path: "b/z", strength: 0.5 }, { path: "B\\a", strength: -2, on: false }, { path: "a", strength: 0.5 }])
  assert.deepEqual(paths(rows.sorted(state, "name")), ["a", "B\\a", "b/z"])
  assert.deepEqual(paths(rows.sorted(state, "strength")), ["B\\a", "b/z", "a"])
  assert.deepEqual(paths(rows.sorted(state, "on")), ["b/z", "a", "B\\a"])
})

test("a number that nothing can hold is left to its text", () => {
  assert.equal(rows.read('[{"path": "a", "strength": 1e400}, {"path": "b"}]').state, null)
})
