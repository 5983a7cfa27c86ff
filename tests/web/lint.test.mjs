// When the server is asked about the open graph, and what happens when it does not answer.

import assert from "node:assert/strict"
import { mock, test } from "node:test"
import { Linter, QUIET, RETRY } from "../../web/lint.mjs"

const graph = (strength) => ({ nodes: [{ id: 1, type: "LoraLoader", widgets_values: ["a.safetensors", strength] }] })
const answer = (body, status = 200) => ({ ok: status < 400, status, json: async () => body, text: async () => "no" })
const settled = async () => { for (let turn = 0; turn < 20; turn++) await Promise.resolve() }

function studio(t, reply) {
  mock.timers.enable({ apis: ["setTimeout"] })
  const warn = mock.method(console, "warn", () => {})
  t.after(() => { mock.timers.reset(); warn.mock.restore() })
  const seen = { asked: [], shown: [], warn, graph: graph(1) }
  const post = (path, body, signal) => { seen.asked.push({ body, signal }); return reply(seen.asked.length, signal) }
  const linter = new Linter({ drawn: () => seen.graph, promptOf: async () => ({}), post }, (a) => seen.shown.push(a))
  const quiet = async () => { linter.touch(); mock.timers.tick(QUIET); await settled() }
  return { linter, seen, quiet }
}

test("a check that failed is asked again for the same graph, and told once", async (t) => {
  const { seen, quiet } = studio(t, async (nth) => answer({ findings: [], stacks: [] }, nth < 3 ? 500 : 200))
  await quiet()
  for (const delay of [RETRY[0], RETRY[1], ...RETRY]) { // answered by the third
    mock.timers.tick(delay)
    await settled()
  }
  assert.equal(seen.asked.length, 3)
  assert.equal(seen.shown.length, 1)
  assert.equal(seen.warn.mock.callCount(), 1)
})

test("a server that is back is asked what it did not answer, also one that had no such route", async (t) => {
  const { linter, seen, quiet } = studio(t, async (nth) => answer({ findings: [] }, nth === 1 ? 404 : 200))
  await quiet()
  await quiet()
  assert.equal(seen.asked.length, 1)
  linter.reconnected()
  mock.timers.tick(QUIET)
  await settled()
  assert.equal(seen.asked.length, 2)
  assert.equal(seen.shown.length, 1)
})

test("a question about a graph that is gone is given up in silence", async (t) => {
  const reply = (nth, signal) => nth > 1 ? Promise.resolve(answer({ findings: [] })) : new Promise((_, reject) => {
    signal.addEventListener("abort", () => reject(signal.reason))
  })
  const { seen, quiet } = studio(t, reply)
  await quiet()
  seen.graph = graph(0.5)
  await quiet()
  assert.equal(seen.asked[0].signal.aborted, true)
  assert.equal(seen.asked[1].body.workflow, seen.graph)
  assert.equal(seen.shown.length, 1)
  assert.equal(seen.warn.mock.callCount(), 0)
})

test("what only moves a node is not asked about", async (t) => {
  const { seen, quiet } = studio(t, async () => answer({ findings: [] }))
  await quiet()
  seen.graph = { ...graph(1), nodes: [{ ...graph(1).nodes[0], pos: [5, 5], color: "#123" }] }
  await quiet()
  assert.equal(seen.asked.length, 1)
})
