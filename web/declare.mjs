// One click says what a LoRA was trained with. The record is the server's, and by the file's contents.
// @ts-check

import { ask, button, element, place } from "./dom.mjs"
import { post, tell } from "./host.mjs"
import { Chooser } from "./rows_chooser.mjs"
import { factsOf, learnFacts } from "./rows_client.mjs"
import { spelled } from "./rows_search.mjs"
import { problemOf, word } from "./texts.mjs"

/** LoRA -> the sentence of what was said in this page ("" while it is being written down): only that can be taken back. */
const said = new Map()
/** LoRA of a stack -> the base LoRAs below it, as the newest check tells. */
const bases = new Map()
/** LoRA of a stack -> the names of the models it goes to. */
const under = new Map()
const ON_PURPOSE = ["LF102.missing", "LF102.vanilla", "LF102.guessed", "LF102.ask", "LF103.trained", "LF104.another"]
const GUESSES = ["LF102.guessed", "LF102.ask"] // findings that only ask
let changed = (_written) => {}
let asking = true
let silence = () => {}

/** The user's setting, whether to be asked at all. */
export const turnAsking = (on) => (asking = on)

/** @param {() => void} listener called when the user wants no more questions */
export const whenSilenced = (listener) => (silence = listener)

/** Whether a LoRA is known to be for another model than each it goes to: what it was trained with does not matter then. */
function isForeign(path) {
  const models = under.get(path) ?? []
  return models.length > 0 && models.every((base) => factsOf(path, base)?.fit === "other")
}

/** Whether a finding is to be shown: one that only asks is not where nothing is to be asked. */
export const isShown = ({ text, subject }) => !GUESSES.includes(text) || (asking && !isForeign(subject))

/** @param {(written: boolean) => void} listener called before and after something is written down or taken back */
export const whenDeclared = (listener) => (changed = listener)

/** What a check tells of the stacks. @param {{base: string, loras: import("./findings.mjs").Lora[]}[]} stacks */
export function learnBases(stacks) {
  bases.clear()
  under.clear()
  for (const { base, loras } of stacks) {
    const fused = fusedIn(loras)
    for (const { path } of loras.filter(({ stage }) => stage === "stack")) {
      bases.set(path, fused)
      under.set(path, [...(under.get(path) ?? []), base])
    }
  }
}

/** Ask how the LoRAs of these questions fit their models, where no row asked: the answer is told as rows are. */
export function learnFits(questions) {
  const open = questions.filter(({ lora, said: answer }) => lora && answer === undefined).map(({ lora }) => lora)
  const models = new Set(open.flatMap((lora) => under.get(lora) ?? []).filter(Boolean))
  for (const base of models) void learnFacts(open.filter((lora) => under.get(lora)?.includes(base)), base)
}

/** The button under a finding that a LoRA stands on another base than its own: it is written down as meant so. */
export function purposeButton({ text, subject }) {
  const base = ON_PURPOSE.includes(text) ? bases.get(subject) : undefined
  if (!base) return null
  const made = button(word("fix.purpose"), () => {
    made.disabled = true
    void declare(subject, base.length ? base : "vanilla", "use_with")
  })
  made.classList.add("lf-fixing")
  return made
}

const fusedIn = (loras) => loras.filter((lora) => lora.stage === "fuse").map(({ path, weight }) => ({ name: path, strength: weight }))

const silent = ({ lineage }) => !lineage.trained_with && !lineage.use_with && !lineage.accelerator
const isQuestion = (found) => found.code === "LF102" && found.severity === "question"
const gone = (lora, findings) => findings.some((found) => found.code === "LF306" && found.subject === lora.path)
const asked = (lora, findings) => findings.some((found) => isQuestion(found) && found.subject === lora.path)

/**
 * A question for each LoRA that nobody says enough of, and an answer for each the user just spoke of, as plain data; of
 * several questions one more, for `all` of them at once. A file that is not there, or is for another model, is not asked
 * about.
 * @param {import("./findings.mjs").Lora[]} loras of one stack @param {import("./findings.mjs").Finding[]} findings
 * @returns {{lora: string, said: string | undefined, fused: {name: string, strength: number}[], all?: string[]}[]}
 */
export function questionsOf(loras, findings) {
  if (!asking) return []
  const fused = fusedIn(loras)
  const stacked = loras.filter((lora) => lora.stage === "stack")
  const unclear = (lora) => said.has(lora.path) || silent(lora) || asked(lora, findings)
  const paths = stacked.filter((lora) => unclear(lora) && !gone(lora, findings) && !isForeign(lora.path)).map((lora) => lora.path)
  const files = new Map(paths.map((path) => [spelled(path), path])) // two rows may spell one file differently
  const rows = [...files.values()].map((lora) => ({ lora, said: said.get(lora), fused }))
  const all = rows.filter((each) => each.said === undefined).map((each) => each.lora)
  return all.length > 1 ? [{ lora: "", said: undefined, fused, all }, ...rows] : rows
}

/** A question of questionsOf as an element. */
export function rowOf({ lora, said: answer, fused, all }) {
  const made = element("li", "lf-ask", answer === undefined ? question(all ?? [lora], fused) : sentence(lora))
  made.dataset.lora = lora
  made.tabIndex = -1 // keeps the focus while there is no button in it
  made.addEventListener("keydown", (event) => event.key === "Escape" || event.stopPropagation()) // Enter is the button's
  return made
}

/** @param {string[]} loras one, or all that are unclear: they get the same answer */
function question(loras, fused) {
  const [lora] = loras
  const label = loras.length > 1 ? word("declare.all", { count: loras.length }) : word("declare.ask", { lora })
  const choices = [
    [word("declare.vanilla"), "vanilla"],
    ...fused.map((base) => [word("declare.fused", { lora: base.name }), [base]]),
  ]
  const buttons = choices.map(([text, base]) => named(label, button(text, () => declareAll(loras, base))))
  const rest = loras.length > 1 ? [] : [named(label, otherButton(lora))]
  const never = named(label, button(word("declare.never"), () => silence()))
  return [element("span", "", label), ...buttons, ...rest, never]
}

function otherButton(lora) {
  const made = button(word("declare.other"), () => other(lora, made))
  return made
}

/** One after the other, for each is a record of its own. */
async function declareAll(loras, base) {
  for (const lora of loras) await declare(lora, base)
}

function sentence(lora) {
  const done = said.get(lora)
  if (!done) return [element("span", "", word("declare.busy", { lora }))]
  return [element("span", "", done), named(done, button(word("declare.undo"), () => declare(lora, null)))]
}

/** A label for those who do not see the row around a button. */
function named(label, made) {
  made.setAttribute("aria-label", `${label} ${made.textContent}`)
  return made
}

const sentenceOf = (lora, base, what) => what === "use_with" ? word("declare.purpose", { lora, base }) : word("declare.done", { lora, base })

const baseWords = (base) => (base === "vanilla" ? word("declare.vanilla") : base.map(({ name }) => name).join(", "))

/**
 * @param {string} lora @param {"vanilla" | {name: string, strength: number, by_name?: boolean}[] | null} base null takes it back
 * @param {"trained_with" | "use_with"} what is said of it
 */
async function declare(lora, base, what = "trained_with") {
  const before = said.get(lora)
  said.set(lora, "")
  changed(false)
  const problem = await write({ lora, [what]: base })
  const now = problem ? before : base && sentenceOf(lora, baseWords(base), what)
  if (now) said.set(lora, now)
  else said.delete(lora)
  if (problem) tell("error", word("declare.failed"), problem)
  changed(true)
}

/** @returns {Promise<string>} what went wrong, empty when nothing did */
async function write(body) {
  try {
    const answer = await post("/lora_foundry/lineage", body)
    return answer.ok ? "" : await problemOf(answer)
  } catch (error) {
    return String(error)
  }
}

/** The base LoRA is looked for among all that are here; one that is not is named by hand. */
function other(lora, from) {
  const box = from.getBoundingClientRect() // its popover closes when the chooser opens
  const chooser = new Chooser(([name]) => {
    chooser.box.hidePopover()
    void atStrength(lora, name, true)
  }, "", lora)
  const absent = button(word("declare.absent"), () => {
    const typed = chooser.input.value.trim()
    chooser.box.hidePopover()
    void atStrength(lora, typed, false)
  })
  void chooser.open(/** @type {any} */ ({ getBoundingClientRect: () => box, focus() {} }))
  chooser.hint.textContent = word("declare.choose", { lora })
  chooser.box.append(element("div", "lf-buttons lf-absent", [absent]))
  place(chooser.box, chooser.anchor) // it is higher now
}

/** @param {string} lora @param {string} name of its base LoRA @param {boolean} here whether the server lists it */
async function atStrength(lora, name, here) {
  const [base, strength] = [element("input", "lf-input", []), element("input", "lf-input", [])]
  Object.assign(base, { type: "text", value: name, readOnly: here, placeholder: word("declare.absent.hint"), spellcheck: false })
  Object.assign(strength, { type: "number", value: "1", step: "0.05" })
  const fields = [
    [word("declare.base"), base],
    [word("declare.strength"), strength],
  ].map(([label, field]) => element("label", "lf-field", [element("span", "", label), field]))
  const [ok, cancel] = [button(word("dialog.ok")), button(word("dialog.cancel"))]
  ok.value = "ok"
  const answer = ask(word("declare.choose", { lora }), fields, [ok, cancel])
  const first = here ? strength : base
  first.focus()
  if ((await answer) !== "ok" || !base.value.trim()) return
  const chosen = { name: base.value.trim(), strength: strength.valueAsNumber || 1 }
  await declare(lora, [here ? chosen : { ...chosen, by_name: true }])
}
