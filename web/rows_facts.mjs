// What is known of a LoRA as words: chips in its row, and the lines below it. No page.
// @ts-check

import { errorText, phrase, translate, word } from "./texts.mjs"

const CHIPS = { fits: "clear", part: "warning", other: "error" }

/** Why something cannot be used, with its code; empty where it can. @param {{error?: string, refused?: any} | undefined} facts */
export const errorOf = (facts) => (facts?.refused ? `[${facts.refused.code}] ${errorText(facts.refused)}` : (facts?.error ?? ""))

/** What is known of a LoRA as chips: [class, text, sentence]. */
export function chipsOf(facts) {
  if (!facts) return []
  if (facts.error) return [["error", facts.missing ? word("rows.missing") : word("rows.damaged"), errorOf(facts)]]
  const chips = []
  if (facts.role && facts.role !== "unknown") {
    const key = facts.role.replace(" ", "_")
    const role = word(`role.${key}`)
    chips.push(["role", role, word("rows.role", { role, why: phrase(facts.role_why) })])
  }
  if (facts.rank) chips.push(["rank", `r${span(facts.rank)}`, rankSentence(facts)])
  if (facts.fit) chips.push([CHIPS[facts.fit], `${facts.matched}/${facts.modules}`, fitSentence(facts)])
  return chips
}

const span = (values) => [...new Set(values)].join("-")

function rankSentence({ rank, alpha }) {
  return alpha ? word("rows.rank", { rank: span(rank), alpha: span(alpha) }) : word("rows.rank.alone", { rank: span(rank) })
}

function fitSentence(facts) {
  if (facts.fit === "fits") return word("rows.fits", facts)
  if (facts.fit === "part") return word("rows.part", facts)
  return facts.matched ? word("rows.foreign", facts) : word("rows.unfit", facts)
}

/** What a strength is to be, as a sentence; empty where nobody says and it is not past 2. */
export function strengthSentence(facts, strong) {
  if (facts?.recommended) {
    const [least, most] = facts.recommended
    return word("rows.recommended", { span: least === most ? `${least}` : `${least}–${most}` })
  }
  return strong ? word("rows.strong") : ""
}

/** Whether a row has a strength on CLIP to show: its file has such parts, or the text says one. */
export const hasClip = (facts, told) => Boolean(facts?.text_encoder) || told.clip !== null

/**
 * The lines below a row: [class, sentence].
 * @param {object | undefined} facts @param {{severity: string, seen: string}[]} findings of a check, about this LoRA
 */
export function linesOf(facts, findings) {
  const said = findings.map((found) => [found.severity, translate(found).seen])
  return [...said, ...chipsOf(facts).map(([kind, , sentence]) => [kind, sentence])]
}
