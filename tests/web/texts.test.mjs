// Words and sentences in another language: findings, errors of the server, and the same thing said twice.

import assert from "node:assert/strict"
import { readFileSync } from "node:fs"
import { afterEach, test } from "node:test"
import { readRefusal, same, without } from "../../web/findings.mjs"
import { errorOf } from "../../web/rows_facts.mjs"
import { errorText, learn, phrase, problemOf, translate, word } from "../../web/texts.mjs"

const language = (name) => JSON.parse(readFileSync(new URL(`../../locales/${name}/main.json`, import.meta.url), "utf8"))
const error = {
  code: "file", what: "a.safetensors is not in the folder loras.", why: "Nothing was computed.", fix: "Put the file there.",
  text: "file.not_listed", values: { name: "a.safetensors", folders: "loras" },
}
const answer = (body) => new Response(typeof body === "string" ? body : JSON.stringify(body), { status: 400 })

afterEach(() => learn(null))

test("an error is told in the user's language by its key and values, and as it came without them", async () => {
  const english = "a.safetensors is not in the folder loras. Nothing was computed. Put the file there."
  assert.equal(await problemOf(answer({ error })), english)
  learn(language("de"))
  const german = await problemOf(answer({ error }))
  assert.match(german, /^a\.safetensors ist nicht im Ordner loras\. Nichts wurde berechnet\. /)
  assert.equal(errorText({ ...error, text: "", values: {} }), english)
  assert.equal(errorOf({ missing: true, error: "[file] ...", refused: error }), `[file] ${german}`)
  assert.equal(errorOf({ error: "[file] of an older server" }), "[file] of an older server")
})

test("an answer that is no JSON of ours is told as it is, and not at length", async () => {
  assert.equal(await problemOf(answer("<html>")), "<html>")
  assert.equal((await problemOf(answer("x".repeat(900)))).length, 500)
  assert.equal(await problemOf(answer("null")), "null")
})

test("what stopped a node keeps its parts apart, and its blanks are filled in every language", () => {
  const finding = { code: "memory", severity: "error", seen: "This bake needs up to 9 GB of memory, and 2 GB are free.", why: "w", fix: "f", text: "memory.beyond", values: { needed: "9 GB", free: "2 GB" } }
  const [told] = readRefusal([finding]).findings
  for (const name of ["de", "zh", "ja"]) {
    learn(language(name))
    const { seen, why, fix } = translate(told)
    assert.ok(seen.includes("9 GB") && seen.includes("2 GB") && ![seen, why, fix].some((part) => part.includes("{")), name)
    assert.ok(why !== "w" && fix !== "f" && !seen.includes("This bake"), name)
    assert.notEqual(word("wire.detail"), "wire.detail")
  }
})

test("a file that a check misses and ComfyUI refuses is one thing", () => {
  const missed = { code: "LF306", text: "LF306.near", seen: "b", subject: "x/a.safetensors", values: { name: "x\\a.safetensors" } }
  const refused = { code: "file", text: "file.not_listed", seen: "c", subject: "", values: { name: "'x\\\\a.safetensors'" } }
  assert.ok(same(missed, refused) && same(refused, missed))
  assert.deepEqual(without([refused], [missed]), [])
  const other = { ...refused, values: { name: "'y.safetensors'" } }
  assert.deepEqual(without([refused, other], [missed]), [other])
})

test("what fills a blank is told in the user's language, and names in it stay", () => {
  const finding = { code: "LF101", text: "LF101.beside", seen: "s", why: "w", fix: "f", values: { lora: "beside it.safetensors", base_lora: "none", said: "its lineage file: declared by the user: none and 2 more" } }
  assert.equal(phrase(finding.values.said), finding.values.said)
  learn(language("de"), language("en"))
  assert.match(translate(finding).seen, /^beside it\.safetensors braucht .* \(ihre Herkunftsdatei: vom Benutzer angegeben: keine und 2 weitere\)/)
  const told = {
    "LoraLoader (node 2), Ink, a (CreateHookLora, node 900:3)": "LoraLoader (Node 2), Ink, a (CreateHookLora, Node 900:3)",
    "'a.q' and 3 more (no weight of this name); 'b' (shape 4 x 2 for 'w' of shape 4 x 3)":
      "'a.q' und 3 weitere (kein Gewicht dieses Namens); 'b' (Form 4 x 2 für 'w' der Form 4 x 3)",
    "'ss_training_comment' in its metadata: trained on none, it says": "'ss_training_comment' in ihren Metadaten: trained on none, it says",
    "float8_e4m3fn, float8_e5m2 with weight_scale": "float8_e4m3fn, float8_e5m2 mit weight_scale",
    " (task: image to video, not VACE)": " (Aufgabe: Bild zu Video, nicht VACE)",
    "some and several more": "some and several more",
    "$& its header": "$& its header",
    "": "",
  }
  for (const [english, german] of Object.entries(told)) assert.equal(phrase(english), german)
  for (const part of ["a (node ", " and 1 more", " (a)", ", ", "; b (c)", " (node 1)"])
    for (const times of [90, 900, 90000]) assert.ok(phrase(part.repeat(times)).length >= part.length * times)
  learn(language("de"))
  assert.equal(phrase("its header"), "its header")
})
