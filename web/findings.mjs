// What a run says about a node, as plain data: no DOM, no ComfyUI. The severities are those of engine/findings.py.

/** Worst first. `word` and `icon` carry the meaning; colour only repeats it. */
export const SEVERITIES = {
  error: { icon: "×", word: "Error" },
  warning: { icon: "!", word: "Warning" },
  question: { icon: "?", word: "Question" },
  note: { icon: "i", word: "Note" },
  ok: { icon: "✓", word: "No findings" },
}
const RANK = Object.keys(SEVERITIES)

/**
 * @typedef {{code: string, severity: string, seen: string, why: string, fix: string, evidence: string, subject: string}} Finding
 * @typedef {{severity: string, headline: string, facts: string[], findings: Finding[]}} Report
 */

const text = (value) => (typeof value === "string" ? value.trim() : "")

/** One finding with every field a string and a severity we know (anything else is shown as a note). */
function finding(raw) {
  const known = RANK.includes(raw?.severity) && raw.severity !== "ok"
  const fields = ["code", "seen", "why", "fix", "evidence", "subject"].map((name) => [name, text(raw?.[name])])
  return { ...Object.fromEntries(fields), severity: known ? raw.severity : "note" }
}

/** "1 error, 2 notes", or "No findings". */
export function headline(findings) {
  const counts = RANK.map((severity) => [severity, findings.filter((f) => f.severity === severity).length])
  const parts = counts
    .filter(([, count]) => count > 0)
    .map(([severity, count]) => `${count} ${SEVERITIES[severity].word.toLowerCase()}${count > 1 ? "s" : ""}`)
  return parts.join(", ") || SEVERITIES.ok.word
}

/** @returns {Report} */
function report(findings, facts) {
  const sorted = findings.map(finding).sort((a, b) => RANK.indexOf(a.severity) - RANK.indexOf(b.severity))
  return { severity: sorted[0]?.severity ?? "ok", headline: headline(sorted), facts, findings: sorted }
}

/**
 * The report in a node's `ui` output, `{text: [sentences], foundry: [{findings, ...}]}`, or null when there is none.
 * The sentences that do not repeat a finding are its facts: the base, each LoRA, what was baked.
 */
export function readReport(output) {
  const data = output?.foundry?.[0]
  if (!data || typeof data !== "object") return null
  const findings = Array.isArray(data.findings) ? data.findings : []
  const repeats = ["No findings.", ...findings.map((f) => `${f?.code} ${f?.severity}: `)]
  const sentences = (Array.isArray(output.text) ? output.text : []).flatMap((lines) => text(lines).split("\n"))
  return report(findings, sentences.filter((line) => line && !repeats.some((start) => line.startsWith(start))))
}

/** The report of a run that stopped in a node: `[LF301] No module of ...` becomes one finding with its code. */
export function readError(message) {
  const [, code, seen] = text(message).match(/^\[([A-Za-z]+\d*)\]\s*(.+)$/s) ?? [null, "", text(message)]
  return report([{ code, severity: "error", seen }], [])
}
