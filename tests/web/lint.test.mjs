// When the server is asked about the open graph, and what happens when it does not answer.

import assert from "node:assert/strict"
import { mock, test } from "node:test"
import { Linter, QUIET, RETRY, keyOf } from "../../web/lint.mjs"

const graph = (strength) => ({ nodes: [{ id: 1, type: "LoraLoader", widgets_values: ["a.safetensors", strength] }] })
const answer = (body, status = 200) => ({ ok: status < 400, status, json: async () => body, text: async () => "no" })
const settled = async () => { for (let turn = 0; turn < 20; turn++) await Promise.resolve() }

function studio(t, reply) {
  mock.timers.enable({ apis: ["setTimeout"] })
  const warn = mock.method(console, "warn", () => {})
  t.after(() => { mock.timers.reset(); warn.mock.restore() })
  const seen = { asked: [], shown: [], warn, graph: graph(1) }
  const drawn = () => { seen.saved = (seen.saved ?? 0) + 1; return seen.graph }
  const post = (path, body, signal) => { seen.asked.push({ body, signal }); return reply(seen.asked.length, signal) }
  const linter = new Linter({ drawn, promptOf: async () => ({}), post }, (a) => seen.shown.push(a))
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

test("a burst of edits saves the graph once, and an answer to the newest one is shown without saving it again", async (t) => {
  const { linter, seen, quiet } = studio(t, async () => answer({ findings: [] }))
  for (let edit = 0; edit < 10; edit++) linter.touch()
  await quiet()
  assert.deepEqual([seen.saved, seen.asked.length, seen.shown.length], [1, 1, 1])
  seen.graph = graph(0.5)
  await quiet()
  assert.deepEqual([seen.saved, seen.asked.length, seen.shown.length], [2, 2, 2])
})

test("a graph that the host has saved to find an edit is not saved again", async (t) => {
  const { linter, seen } = studio(t, async () => answer({ findings: [] }))
  const edited = { ...graph(0.5), extra: {} }
  linter.touch(QUIET, graph(0.25))
  linter.touch(QUIET, edited)
  mock.timers.tick(QUIET)
  await settled()
  assert.deepEqual([seen.saved, seen.asked.length, seen.shown.length], [undefined, 1, 1])
  assert.equal(seen.asked[0].body.workflow, edited)
  linter.touch(QUIET, { undefined: true }) // of a host that tells something else
  mock.timers.tick(QUIET)
  await settled()
  assert.deepEqual([seen.saved, seen.asked.length], [1, 2])
})

test("an answer about a graph that changed meanwhile is not shown", async (t) => {
  const { linter, seen, quiet } = studio(t, async (nth) => {
    if (nth === 1) { seen.graph = graph(0.5); linter.touch() }
    return answer({ findings: [nth] })
  })
  await quiet()
  assert.equal(seen.shown.length, 0)
  await quiet()
  assert.deepEqual(seen.shown, [{ findings: [2] }])
})

test("what only looks is left out of a graph's key, in subgraphs too; a widget's value never is", () => {
  const node = (more) => ({ id: 1, type: "LoraLoader", widgets_values: [{ size: 1, flags: "a" }], ...more })
  const whole = (more, inner = more, around = {}) => ({
    nodes: [node(more)],
    groups: more.pos ? [{ bounding: more.pos }] : [],
    definitions: { subgraphs: [{ id: "s", nodes: [node(inner)], inputs: [{ name: "model", ...inner }], inputNode: { id: -10, bounding: inner.pos } }] },
    ...around,
  })
  const key = keyOf(whole({}))
  const looks = { pos: [5, 5], size: [1, 1], flags: { collapsed: true } }
  assert.equal(keyOf(whole(looks, looks, { extra: { ds: 1 }, last_node_id: 9 })), key)
  assert.notEqual(keyOf(whole({ mode: 4 })), key)
  assert.notEqual(keyOf(whole({}, { mode: 4 })), key)
  assert.notEqual(keyOf(whole({ widgets_values: [{ size: 2, flags: "a" }] })), key)
})
