// Words: those of this page in English, and translations from locales/<language>/main.json under "loraFoundry".

import { api } from "../../scripts/api.js"
import { app } from "../../scripts/app.js"

/** Under loraFoundry.ui for translators. Written as JSON, so that the locale file can be made from it. */
export const UI = {
  "severity.error": "Error",
  "severity.warning": "Warning",
  "severity.question": "Question",
  "severity.note": "Note",
  "severity.clear": "No findings",
  "count.error": "{count} error",
  "count.warning": "{count} warning",
  "count.question": "{count} question",
  "count.note": "{count} note",
  "counts.error": "{count} errors",
  "counts.warning": "{count} warnings",
  "counts.question": "{count} questions",
  "counts.note": "{count} notes",
  "evidence.declared": "declared",
  "evidence.guessed": "guessed",
  "panel.label": "LoRA Foundry findings",
  "panel.hint": "Findings appear here after a run.",
  "panel.before": "before a run",
  "panel.earlier": "from an earlier run",
  "wire.title": "LF201 Wrong order",
  "wire.detail": "This model is already quantized. Quantize last: connect a stage from before Quantize FP8.",
  "check.title": "LoRA Foundry: this workflow",
  "check.nothing": "There is no LoRA and no LoRA Foundry node in this workflow.",
  "check.failed": "LoRA Foundry could not check this workflow",
  "check.at": "at {title} (node {id})",
  "check.menu": "LoRA Foundry: findings",
  "declare.ask": "{lora}: trained with?",
  "declare.vanilla": "Vanilla base",
  "declare.fused": "{lora} (fused here)",
  "declare.other": "Other...",
  "declare.busy": "{lora}: being written down",
  "declare.done": "{lora}: you said it was trained with {base}",
  "declare.undo": "Undo",
  "declare.choose": "What was {lora} trained with?",
  "declare.base": "Base LoRA",
  "declare.strength": "Strength while training",
  "declare.failed": "This was not written down",
  "dialog.ok": "OK",
  "dialog.cancel": "Cancel",
  "dialog.close": "Close"
}

let translated = { ui: {}, findings: {} }

const fill = (template, values) => template.replace(/\{(\w+)\}/g, (blank, name) => values?.[name] ?? blank)

/** @param {string} key of UI @param {Record<string, string | number>} [values] for its blanks */
export const word = (key, values) => fill(translated.ui[key] || UI[key], values)

/** A finding with its sentences in the user's language, where there is a translation; otherwise as it came. */
export function translate(finding) {
  const parts = Object.entries(translated.findings[finding.text] ?? {}).filter(([name, part]) => finding[name] && part)
  return { ...finding, ...Object.fromEntries(parts.map(([name, part]) => [name, fill(part, finding.values)])) }
}

/** Fetch the translations of the host's language, once; English needs none. */
export async function loadTexts() {
  const language = app.extensionManager?.setting?.get("Comfy.Locale") ?? "en"
  if (language === "en") return
  try {
    const found = (await (await api.fetchApi("/i18n")).json())[language]?.loraFoundry
    translated = { ui: found?.ui ?? {}, findings: found?.findings ?? {} }
  } catch {
    // English then
  }
}
