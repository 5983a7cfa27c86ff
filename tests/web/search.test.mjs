// The search over LoRA names.

import assert from "node:assert/strict"
import { test } from "node:test"
import { ends, filesNamed, foldersOf, grouped, parts, samePlace, search, spelled, wayDown, within } from "../../web/rows_search.mjs"

const NAMES = ["qwen/Lightning-4steps.safetensors", "qwen/delight.safetensors", "light/portrait.safetensors", "sdxl\\paper_cut.safetensors"]

test("the start of a word beats its middle, the name beats the folder", () => {
  assert.deepEqual(search(NAMES, "light"), [NAMES[0], NAMES[1], NAMES[2]])
})

test("every word has to fit, in folder or name, in any order", () => {
  assert.deepEqual(search(NAMES, "4steps qwen"), [NAMES[0]])
  assert.deepEqual(search(NAMES, "sdxl cut"), [NAMES[3]])
  assert.deepEqual(search(NAMES, "sdxl light"), [])
})

test("a title is found too, after names and before folders", () => {
  const titles = { [NAMES[3]]: "Light Through Paper" }
  assert.deepEqual(search(NAMES, "light", (name) => titles[name] ?? ""), [NAMES[0], NAMES[3], NAMES[1], NAMES[2]])
  assert.deepEqual(search(NAMES, "through sdxl", (name) => titles[name] ?? ""), [NAMES[3]])
  assert.deepEqual(search(NAMES, "through"), [])
})

test("letters left out still find it", () => {
  assert.deepEqual(search(NAMES, "prtrt"), [NAMES[2]])
})

// Milliseconds, of three tries: the machine may do something else now and then.
function quickest(work) {
  const took = [1, 2, 3].map(() => {
    const began = performance.now()
    work()
    return performance.now() - began
  })
  return Math.min(...took)
}

test("nothing asked: all, in the order of the server", () => {
  assert.deepEqual(search(NAMES, "  "), NAMES)
})

test("a search over 5,000 names is quick", () => {
  const many = Array.from({ length: 5000 }, (_, number) => `folder${number % 40}/style_${number}_of_something_long.safetensors`)
  assert.ok(quickest(() => assert.ok(search(many, "style 4999").includes(many[4999]))) < 500)
})

test("a path as people read it, and both ends of its name", () => {
  assert.deepEqual(parts("a\\b/c.safetensors"), { folder: "a/b/", name: "c" })
  for (const name of ["", "ab", "a_long_name_with_version_v12"]) assert.equal(ends(name).join(""), name)
})

test("recent ones come first, then those that fit, and other families last; within a group the order stays", () => {
  const groups = { b: "other", c: "fits", d: "recent", e: "fits" }
  assert.deepEqual(grouped(["a", "b", "c", "d", "e", "f"], (name) => groups[name] ?? ""), ["d", "c", "e", "a", "f", "b"])
})

test("of the recent ones the newest comes first, however it is spelled", () => {
  const names = ["a", "b\\x", "c", "d/y"]
  assert.deepEqual(grouped(names, (name) => (name === "c" ? "" : "recent"), ["d/y", "b/x", "a"]), ["d/y", "b\\x", "a", "c"])
})

test("spellings of one file", () => {
  for (const name of [".\\a\\x", "a/x", "./a//x", "a/./x", "a\\x"]) assert.equal(spelled(name), "a/x")
  assert.equal(spelled("/a/x"), "/a/x")
  assert.equal(spelled(""), "")
  assert.notEqual(spelled("a/../x"), spelled("x"))
})

test("a list that was made anew stays where it was", () => {
  const before = Array.from({ length: 100 }, (_, number) => `n${number}`)
  const after = ["new", ...before]
  assert.deepEqual(samePlace(before, after, { at: 0, top: 0 }, 10), { at: 0, top: 0 })
  assert.deepEqual(samePlace(before, after, { at: 0, top: 30.5 }, 10), { at: 0, top: 31.5 })
  assert.deepEqual(samePlace(before, after, { at: 33, top: 30.5 }, 10), { at: 34, top: 31.5 })
  assert.deepEqual(samePlace(before, after, { at: 3, top: 30.5 }, 10), { at: 4, top: 31.5 })
  const gone = before.filter((_, number) => number !== 33)
  assert.deepEqual(samePlace(before, gone, { at: 33, top: 30 }, 10), { at: 33, top: 30 })
  assert.deepEqual(samePlace(before, ["n1"], { at: 33, top: 30 }, 10), { at: 0, top: 30 })
  assert.deepEqual(samePlace(["a", "b"], [], { at: 1, top: 0 }, 10), { at: 0, top: 0 })
})

test("a whole file name finds its file", () => {
  assert.deepEqual(search(NAMES, "delight.safetensors"), [NAMES[1]])
})

const DEEP = ["top.safetensors", "flux/b.safetensors", "flux/people/anna.safetensors", "flux\\people\\10\\x.safetensors", "flux/people/9/y.safetensors", "fluxes/z.safetensors"]

test("folders right below one, with what lies in and below them, numbers as people count", () => {
  assert.deepEqual(foldersOf(DEEP, ""), [{ name: "flux", path: "flux/", count: 4 }, { name: "fluxes", path: "fluxes/", count: 1 }])
  assert.deepEqual(foldersOf(DEEP, "flux/people/").map(({ name, count }) => [name, count]), [["9", 1], ["10", 1]])
  assert.deepEqual(foldersOf(DEEP, "gone/"), [])
})

test("a folder holds what is below it, and no folder whose name begins like it", () => {
  assert.deepEqual(within(DEEP, ""), DEEP)
  assert.deepEqual(within(DEEP, "flux/people/"), DEEP.slice(2, 5))
  assert.ok(!within(DEEP, "flux/").includes("fluxes/z.safetensors"))
})

test("the way down to a folder", () => {
  assert.deepEqual(wayDown(""), [])
  assert.deepEqual(wayDown("flux/people/"), [{ name: "flux", path: "flux/" }, { name: "people", path: "flux/people/" }])
})

test("a dropped text names files by their names, by whole paths of any system, or by the file alone", () => {
  const found = (text) => filesNamed(text, DEEP).found
  assert.deepEqual(found("flux/people/anna.safetensors"), [DEEP[2]])
  assert.deepEqual(found('"C:\\models\\loras\\flux\\people\\10\\X.safetensors"\r\ntop.safetensors'), [DEEP[3], DEEP[0]])
  assert.deepEqual(found("anna.safetensors"), [DEEP[2]])
  assert.deepEqual(found("elsewhere/b.safetensors"), [DEEP[1]])
  assert.deepEqual(found("some words\npicture.png"), [])
  assert.deepEqual(filesNamed("/x/gone.safetensors", DEEP), { found: [], unknown: ["gone.safetensors"] })
})

test("of two files the one with the longer way in common is meant", () => {
  const names = ["a.safetensors", "x/a.safetensors", "y/x/a.safetensors"]
  assert.deepEqual(filesNamed("/loras/x/a.safetensors", names).found, ["x/a.safetensors"])
  assert.deepEqual(filesNamed("/loras/z/a.safetensors", names).found, ["a.safetensors"])
})

test("5,000 names are folders in less than 50 ms", () => {
  const many = Array.from({ length: 5000 }, (_, number) => `f${number % 40}/g${number % 7}/style_${number}.safetensors`)
  assert.ok(quickest(() => assert.equal(foldersOf(many, "").length, 40)) < 50)
})
