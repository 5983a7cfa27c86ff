// The search over LoRA names.

import assert from "node:assert/strict"
import { test } from "node:test"
import { ends, grouped, parts, search } from "../../web/rows_search.mjs"

const NAMES = ["qwen/Lightning-4steps.safetensors", "qwen/delight.safetensors", "light/portrait.safetensors", "sdxl\\paper_cut.safetensors"]

test("the start of a word beats its middle, the name beats the folder", () => {
  assert.deepEqual(search(NAMES, "light"), [NAMES[0], NAMES[1], NAMES[2]])
})

test("every word has to fit, in folder or name, in any order", () => {
  assert.deepEqual(search(NAMES, "4steps qwen"), [NAMES[0]])
  assert.deepEqual(search(NAMES, "sdxl cut"), [NAMES[3]])
  assert.deepEqual(search(NAMES, "sdxl light"), [])
})

test("letters left out still find it", () => {
  assert.deepEqual(search(NAMES, "prtrt"), [NAMES[2]])
})

test("nothing asked: all, in the order of the server", () => {
  assert.deepEqual(search(NAMES, "  "), NAMES)
})

test("a search over 5,000 names is quick", () => {
  const many = Array.from({ length: 5000 }, (_, number) => `folder${number % 40}/style_${number}_of_something_long.safetensors`)
  const began = performance.now()
  assert.ok(search(many, "style 4999").includes(many[4999]))
  assert.ok(performance.now() - began < 500)
})

test("a path as people read it, and both ends of its name", () => {
  assert.deepEqual(parts("a\\b/c.safetensors"), { folder: "a/b/", name: "c" })
  for (const name of ["", "ab", "a_long_name_with_version_v12"]) assert.equal(ends(name).join(""), name)
})

test("recent ones come first, then those that fit, and other families last; within a group the order stays", () => {
  const groups = { b: "other", c: "fits", d: "recent", e: "fits" }
  assert.deepEqual(grouped(["a", "b", "c", "d", "e", "f"], (name) => groups[name] ?? ""), ["d", "c", "e", "a", "f", "b"])
})

test("a whole file name finds its file", () => {
  assert.deepEqual(search(NAMES, "delight.safetensors"), [NAMES[1]])
})
