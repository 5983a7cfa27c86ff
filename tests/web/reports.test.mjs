// Whose error it is, and what a report speaks of.

import assert from "node:assert/strict"
import { readFileSync, readdirSync } from "node:fs"
import { test } from "node:test"
import { readError } from "../../web/findings.mjs"
import { Found, Kept, printerOf } from "../../web/keep.mjs"

const printOf = (workflow, locator) => printerOf(workflow)(locator)

test("what stops a node of another pack is ours only with a code of ours", () => {
  assert.equal(readError("Allocation on device", false), null)
  assert.equal(readError("[Errno2] no such file", false), null)
  assert.equal(readError("[LF301] No module fits.", false).findings[0].code, "LF301")
  assert.equal(readError("Allocation on device", true).findings[0].seen, "Allocation on device")
})

const node = (id, type, values, ...links) => ({ id, type, mode: 0, widgets_values: values, inputs: links.map((link) => ({ link })) })
const chain = (strength, steps) => ({
  nodes: [node(1, "Load", ["a"]), node(2, "LoRA", [strength], 1), node(3, "Stack", [], 2), node(4, "Sample", [steps], 3)],
  links: [[1, 1, 0, 2, 0, "M"], [2, 2, 0, 3, 0, "M"], [3, 3, 0, 4, 0, "M"]],
})

test("a report speaks of its node and what is above it", () => {
  assert.equal(printOf(chain(1, 4), "3"), printOf(chain(1, 8), "3"))
  assert.notEqual(printOf(chain(1, 4), "3"), printOf(chain(0.5, 4), "3"))
})

test("inside a subgraph too: what comes in from outside, and the insides of subgraphs above", () => {
  const whole = (outer, inner) => ({
    nodes: [node(1, "Load", [outer]), node(5, "sub", [], 1), node(6, "Stack", [], 2)],
    links: [[1, 1, 0, 5, 0, "M"], [2, 5, 0, 6, 0, "M"]],
    definitions: { subgraphs: [{
      id: "sub",
      nodes: [node(2, "LoRA", [inner], 1), node(3, "Stack", [], 2)],
      links: [{ id: 1, origin_id: -10 }, { id: 2, origin_id: 2 }],
    }] },
  })
  const same = (locator, [a, b], [c, d]) => printOf(whole(a, b), locator) === printOf(whole(c, d), locator)
  for (const locator of ["sub:3", "6"]) {
    assert.ok(same(locator, ["a", 1], ["a", 1]))
    assert.ok(!same(locator, ["a", 1], ["a", 2]), locator)
    assert.ok(!same(locator, ["a", 1], ["b", 1]), locator)
  }
})

test("reports are kept by workflow and node, the oldest workflows go", () => {
  const kept = new Kept()
  for (let number = 0; number < 30; number++) kept.put(`w${number}`, "1", { findings: [] }, `p${number}`)
  assert.equal(kept.get("w0", "1"), undefined)
  assert.equal(kept.get("w29", "1").print, "p29")
  kept.put("w29", "1", null, "")
  assert.equal(kept.get("w29", "1"), undefined)
})

test("one file alone touches the host", () => {
  const web = new URL("../../web/", import.meta.url)
  for (const name of readdirSync(web).filter((file) => /\.m?js$/.test(file) && file !== "host.mjs")) {
    const source = readFileSync(new URL(name, web), "utf8")
    assert.doesNotMatch(source, /scripts\/(app|api)\.js|\bapp\.|window\.(LiteGraph|LGraph|comfyAPI|app)\b/, name)
    assert.doesNotMatch(source, /node\.(bg)?color\s*=|onSerialize/, name)
  }
})

test("what a check found once and the newest does not is solved, in its own workflow", () => {
  const found = new Found()
  const [one, other] = ["a", "b"].map((subject) => ({ code: "LF302", seen: subject, subject }))
  assert.deepEqual(found.solved("w", [one]), [])
  assert.deepEqual(found.solved("w", [other]), [one])
  assert.deepEqual(found.solved("v", []), [])
  assert.deepEqual(found.solved("w", [other]), [one]) // again: another tab brings the report back
  assert.deepEqual(found.solved("w", [one]), [other])
  found.forget("w")
  assert.deepEqual(found.solved("w", []), [])
})
