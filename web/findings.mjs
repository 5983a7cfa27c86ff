// What a run or a check says about a node, as plain data: no DOM. The severities are those of engine/findings.py.
// @ts-check

import { numbersOf } from "./numbers.mjs"
import { word } from "./texts.mjs"

/** Worst first. The icon and a word beside it carry the meaning; colour only repeats it. */
export const ICONS = { error: "×", warning: "!", question: "?", note: "i", clear: "✓" }
const RANK = Object.keys(ICONS)
const FIELDS = ["code", "seen", "why", "fix", "evidence", "subject", "node", "text"]

/**
 * @typedef {{code: string, severity: string, seen: string, why: string, fix: string, evidence: string, subject: string,
 *   node: string, text: string, values: Record<string, string>, actions: object[]}} Finding
 * @typedef {{path: string, stage: string, weight: number, node?: string, lineage: object}} Lora
 * @typedef {{facts: string[], findings: Finding[], loras: Lora[], numbers?: import("./numbers.mjs").Numbers, solved?: boolean, files?: string[]}} Report
 *   solved: without some findings by now; files: those it speaks of that the graph had then
 */

const text = (value) => (typeof value === "string" ? value.trim() : "")
const list = (value) => (Array.isArray(value) ? value.filter((item) => item && typeof item === "object") : [])

/** One finding with every field a string and a severity we know (anything else is shown as a note). */
function finding(raw) {
  const known = RANK.includes(raw.severity) && raw.severity !== "clear"
  const fields = FIELDS.map((name) => [name, text(raw[name])])
  return { ...Object.fromEntries(fields), severity: known ? raw.severity : "note", values: { ...raw.values }, actions: list(raw.fix_actions) }
}

/** @returns {Finding[]} worst first */
export function readFindings(raw) {
  return list(raw).map(finding).sort((a, b) => RANK.indexOf(a.severity) - RANK.indexOf(b.severity))
}

/** LoRAs with what is known of them, whoever tells. @returns {Lora[]} */
export const readLoras = (raw) => list(raw).filter((lora) => text(lora.path) && lora.lineage)

const ABSENT = ["LF306.missing", "LF306.near", "file.not_listed"] // by a check, and by ComfyUI's own before a run

/** Whether a finding is about a file that is not there. */
export const isAbsent = ({ text }) => ABSENT.includes(text)

/** Its name: ComfyUI's check has it in quotes. */
const absent = ({ values }) => String(values.name).replace(/^['"]|['"]$/g, "").replace(/\\+/g, "/")

/** Whether two findings are about the same thing. An error that stopped a run has no subject, but repeats what was seen. */
export function same(a, b) {
  if (isAbsent(a) && isAbsent(b)) return absent(a) === absent(b)
  if (a.code !== b.code) return false
  return a.subject && b.subject ? a.subject === b.subject : a.seen.startsWith(b.seen) || b.seen.startsWith(a.seen)
}

/** The findings that are not among others. */
export const without = (findings, others) => findings.filter((found) => !others.some((other) => same(found, other)))

/** The severity of the worst finding; "clear" where there is none (JSON's `ok` only says that nothing stops a run). @param {Finding[]} findings */
export const worst = (findings) => RANK.find((severity) => findings.some((found) => found.severity === severity)) ?? "clear"

/** "1 error, 2 notes", or "No findings". */
export function headline(findings) {
  const counts = RANK.map((severity) => [severity, findings.filter((found) => found.severity === severity).length])
  const parts = counts
    .filter(([, count]) => count > 0)
    .map(([severity, count]) => word(`${count > 1 ? "counts" : "count"}.${severity}`, { count }))
  return parts.join(", ") || word("severity.clear")
}

/**
 * The report in a node's `ui` output, `{text: [sentences], foundry: [{findings, ...}]}`, or null when there is none.
 * The sentences that do not repeat a finding are its facts: the base, each LoRA, what was baked.
 * @returns {Report | null}
 */
export function readReport(output) {
  const data = output?.foundry?.[0]
  if (!data || typeof data !== "object") return null
  const repeats = ["No findings.", ...list(data.findings).map((f) => `${f.code} ${f.severity}: `)]
  const sentences = (Array.isArray(output.text) ? output.text : []).flatMap((lines) => text(lines).split("\n"))
  const facts = sentences.filter((sentence) => sentence && !repeats.some((start) => sentence.startsWith(start)))
  return { findings: readFindings(data.findings), facts, loras: readLoras(data.loras), numbers: numbersOf(data) }
}

/** What stopped a node, told with key and values. @returns {Report} */
export const readRefusal = (findings) => ({ findings: readFindings(findings), facts: [], loras: [] })

/**
 * The report of a run that stopped in a node and did not say why by key: `[LF301] No module of ...` becomes one finding with its code. What stops a
 * node of another pack is ours to show only when our code raised it, with a code of ours.
 * @returns {Report | null}
 */
export function readError(message, ours) {
  const [, code, seen] = text(message).match(/^\[([A-Za-z]+\d*)\]\s*(.+)$/s) ?? [null, "", text(message)]
  if (!ours && !/^LF\d/.test(code)) return null
  return readRefusal([{ code, severity: "error", seen }])
}
