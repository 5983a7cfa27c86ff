// Factors by block as the text people write: short, and read by the server as the same.

import assert from "node:assert/strict"
import { test } from "node:test"
import * as blocks from "../../web/rows_blocks.mjs"

const FLUX = [...Array.from({ length: 4 }, (_, at) => [`double.${at}`, 1]), ...Array.from({ length: 6 }, (_, at) => [`single.${at}`, 1]), ["other", 1]]
const UNET = [["in.1", 1], ["in.2", 1], ["mid", 1], ["out.0", 1], ["other", 1]]

const set = (factors, values) => factors.map(([block, factor]) => [block, values[block] ?? factor])

/** What the server makes of such a text: later items win. */
function read(text, factors) {
  const items = text.split(",").filter(Boolean).map((item) => /^([a-z]+)(?:\.(\d+)(?:-(\d+))?)?=(.+)$/.exec(item))
  return factors.map(([block]) => {
    const [kind, number] = blocks.partsOf(block)
    const fits = items.filter(([, own, first, last]) => own === kind && (first === undefined || (number >= Number(first) && number <= Number(last ?? first))))
    return [block, fits.length ? Number(fits.at(-1)[4]) : 1]
  })
}

test("the text is short", () => {
  const cases = [
    [{}, ""],
    [{ "double.1": 0.5 }, "double.1=0.5"],
    [{ "double.0": 0.3, "double.1": 0.3, "double.3": 0 }, "double.0-1=0.3,double.3=0"],
    [Object.fromEntries(FLUX.slice(4, 10).map(([block]) => [block, 0.25])), "single=0.25"],
    [{ ...Object.fromEntries(FLUX.slice(4, 10).map(([block]) => [block, 0])), "single.2": 1 }, "single=0,single.2=1"],
    [{ other: 0, "double.3": -0.5 }, "double.3=-0.5,other=0"],
  ]
  for (const [values, text] of cases) assert.equal(blocks.textOf(set(FLUX, values)), text)
  assert.equal(blocks.textOf(set(UNET, { mid: 0.5, "in.2": 2 })), "in.2=2,mid=0.5")
})

test("and means the same", () => {
  let seed = 7
  const random = () => (seed = (seed * 16807) % 2147483647) / 2147483647
  for (let round = 0; round < 200; round++) {
    const factors = FLUX.map(([block]) => [block, [0, 0.5, 1, 1, -1.25][Math.floor(random() * 5)]])
    assert.deepEqual(read(blocks.textOf(factors), FLUX), factors, blocks.textOf(factors))
  }
})

test("presets keep what they say, and what is in no block", () => {
  const named = new Map(blocks.presets(set(FLUX, { "double.1": 0.2 })).map(([name, kind, factors]) => [`${name} ${kind}`.trim(), blocks.textOf(factors)]))
  assert.equal(named.get("all"), "")
  assert.equal(named.get("first"), "double.2-3=0,single.3-5=0")
  assert.equal(named.get("middle"), "double.0=0,double.3=0,single.0=0,single.5=0")
  assert.equal(named.get("last"), "double.0-1=0,single.0-2=0")
  assert.equal(named.get("only double"), "single=0")
  assert.equal(named.get("only single"), "double=0")
  const [wan] = [blocks.presets([["block.0", 1], ["block.1", 1], ["other", 1]])]
  assert.deepEqual(wan.map(([name]) => name), ["all", "first", "middle", "last"])
})
