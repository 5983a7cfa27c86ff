// What pictures are made of.

import assert from "node:assert/strict"
import { test } from "node:test"
import { bytes, numbersOf, percent } from "../../web/numbers.mjs"

const lora = (path, more) => ({ path, matched: 16, modules: 17, lineage: {}, ...more })

test("what a bake measured", () => {
  const told = numbersOf({
    loras: [lora("a.safetensors", { gain: 0.99, energy: { "block.0": 0.25, "block.1": 0.75 } }), lora("b", { gain: null })],
    size: { before: 400, after: 200 },
    relative_error: 0.02,
    budget: { max_error: 0.04 },
    layers: { a: { relative_error: 0.04 }, b: { relative_error: 0.01 }, c: { relative_error: 0 } },
  })
  assert.deepEqual(told.kept, [{ name: "a.safetensors", share: 0.99 }])
  assert.deepEqual(told.fit.map(({ name, matched, modules }) => [name, matched, modules]), [["a.safetensors", 16, 17], ["b", 16, 17]])
  assert.deepEqual(told.fit[0].energy, [["block.0", 0.25], ["block.1", 0.75]])
  assert.deepEqual(told.size, { before: 400, after: 200 })
  const { bins, ...errors } = told.errors
  assert.deepEqual(errors, { most: 0.04, total: 0.02, limit: 0.04, count: 3 })
  assert.equal(bins[0] + bins[6] + bins.at(-1), 3)
})

test("what was not measured, or is of another shape, makes no picture", () => {
  const nothing = { kept: [], fit: [], size: null, errors: null, pairs: null }
  const odd = [{}, { loras: "x" }, { loras: [null, { path: 3 }], layers: { a: null, b: {} }, size: 7 }, { layers: { a: { relative_error: "1" } } }]
  for (const data of odd) assert.deepEqual(numbersOf(data), nothing)
  assert.equal(numbersOf({ layers: { a: { relative_error: 0 }, b: { relative_error: 0 } } }).errors, null)
})

test("numbers as people write them", () => {
  assert.equal(bytes(2_400_000_000), "2.40 GB")
  assert.equal(bytes(1_700_000), "1.70 MB")
  assert.equal(percent(0.02653), "2.65%")
  assert.equal(percent(1), "100%")
})

test("LoRAs that were compared make a map of pairs and of blocks", () => {
  const loras = [{ name: "a.safetensors", strength: 1 }, { name: "b.safetensors", strength: 0.5 }]
  const data = { loras, cosine: [[1, -0.4], [-0.4, 1]], blocks: [{ block: "double.0", loras: [0.1, 0.2], stack: 0.25 }] }
  const { pairs, fit, kept } = numbersOf(data)
  assert.deepEqual(pairs, {
    names: ["a.safetensors", "b.safetensors"],
    cosine: [[1, -0.4], [-0.4, 1]],
    blocks: [{ block: "double.0", shares: [0.1, 0.2, 0.25] }],
  })
  assert.deepEqual([fit, kept], [[], []])
  for (const odd of [{ cosine: [[1, -0.4]] }, { cosine: [[1, null], [null, 1]] }, { loras: loras.slice(1) }, { loras: [{}, {}] }])
    assert.equal(numbersOf({ ...data, ...odd }).pairs, null)
})
