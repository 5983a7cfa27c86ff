// What is known of a LoRA, in words.

import assert from "node:assert/strict"
import { test } from "node:test"
import { chipsOf, hasClip, linesOf, strengthSentence } from "../../web/rows_facts.mjs"
import { learn } from "../../web/texts.mjs"

const FACTS = { role: "style", role_why: "captions", rank: [8, 16], alpha: [8, 8], modules: 17, matched: 16, fit: "part", base: "wan", text_encoder: 0 }

test("chips tell role, rank and fit; a file that cannot be used tells why alone", () => {
  assert.deepEqual(chipsOf(FACTS).map(([kind, text]) => [kind, text]), [["role", "style"], ["rank", "r8-16"], ["warning", "16/17"]])
  assert.deepEqual(chipsOf({ missing: true, error: "not there" }), [["error", "missing", "not there"]])
  assert.deepEqual(chipsOf(undefined), [])
})

test("findings come before facts, each a line", () => {
  const lines = linesOf(FACTS, [{ severity: "warning", seen: "too strong" }])
  assert.deepEqual(lines.map(([kind]) => kind), ["warning", "role", "rank", "warning"])
  assert.equal(lines[0][1], "too strong")
})

test("a finding is told in the language of the page", () => {
  learn({ loraFoundry: { findings: { "LF402.strength": { seen: "{strength} ist viel" } } } })
  const found = { severity: "note", text: "LF402.strength", seen: "strength 8", values: { strength: "8" } }
  assert.deepEqual(linesOf(undefined, [found]), [["note", "8 ist viel"]])
  learn(undefined)
})

test("a file without an alpha is told so", () => {
  const told = (alpha) => linesOf({ rank: [8, 8], alpha }, [])[0][1]
  assert.deepEqual([told([4, 4]), told(null)], ["rank 8, alpha 4", "rank 8, no alpha in the file"])
})

test("CLIP is there for files with such parts, and where the text says it", () => {
  assert.deepEqual([[FACTS, null], [FACTS, 0], [{ text_encoder: 3 }, null], [undefined, null]].map(([facts, clip]) => hasClip(facts, { clip })), [false, true, true, false])
})

test("the sentence of a strength is that of who recommends one", () => {
  assert.equal(strengthSentence({ recommended: [0.5, 0.7] }, false), "0.5–0.7 is recommended.")
  assert.equal(strengthSentence({ recommended: [1, 1] }, true), "1 is recommended.")
  assert.deepEqual([strengthSentence({}, true), strengthSentence(undefined, false)], ["Strengths past 2 are rarely meant.", ""])
})
