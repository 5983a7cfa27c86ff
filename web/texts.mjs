// Words: those of this page in English, and translations from locales/<language>/main.json under "loraFoundry". No page.
// @ts-check

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
  "panel.more": "{line}: show all",
  "panel.elsewhere": "{count} ({codes}) {place}",
  "panel.at": "{count} {place}",
  "panel.none": "Nothing to say about this node.",
  "panel.before": "before a run",
  "panel.earlier": "from an earlier run",
  "picture.kept": "Effect kept",
  "picture.fit": "Modules that found their weight",
  "picture.energy": "Where it is strong, by block",
  "picture.size": "Size",
  "picture.before": "before",
  "picture.after": "after",
  "picture.errors": "Errors of {count} layers",
  "picture.pairs": "Pairs: blue do the same, red work against each other",
  "picture.together": "all together",
  "picture.total": "all together {error}",
  "picture.limit": "limit {error}",
  "wire.title": "LF201 Wrong order",
  "wire.detail": "This model is already quantized. Quantize last: connect a stage from before 3 Quantize.",
  "check.title": "LoRA Foundry: this workflow",
  "check.nothing": "There is no LoRA and no LoRA Foundry node in this workflow.",
  "check.failed": "LoRA Foundry could not check this workflow",
  "check.at": "at {title} (node {id})",
  "check.menu": "LoRA Foundry: findings",
  "declare.open": "Trained with? ({count})",
  "declare.all": "All {count}: trained with?",
  "declare.ask": "{lora}: trained with?",
  "declare.vanilla": "Vanilla base",
  "declare.fused": "{lora} (fused here)",
  "declare.other": "Other...",
  "declare.never": "Don't ask",
  "declare.silent": "No more questions. Switch them on again in the settings, under LoRA Foundry.",
  "declare.busy": "{lora}: being written down",
  "declare.done": "{lora}: you said it was trained with {base}",
  "declare.purpose": "{lora}: you use it on purpose with {base}",
  "declare.undo": "Undo",
  "declare.absent": "A file I don't have...",
  "declare.absent.hint": "its name",
  "declare.choose": "What was {lora} trained with?",
  "declare.base": "Base LoRA",
  "declare.strength": "Strength while training",
  "declare.failed": "This was not written down",
  "fix.replace": "Use {name}",
  "fix.set": "Set {settings}",
  "fix.convert": "Convert to fuse, stack, finish",
  "fix.fuse": "Fuse {name} first",
  "fix.stack": "Move {name} to the stack",
  "fix.remove": "Remove {name}",
  "fix.purpose": "I use it so on purpose",
  "fix.failed": "This cannot be changed by itself here.",
  "convert.title": "LoRA Foundry: convert LoRA loaders",
  "convert.done": "Models converted: {count}. Undo brings the loaders back.",
  "convert.nothing": "There is no LoRA loader in this workflow that can be converted.",
  "convert.changed": "The workflow changed meanwhile.",
  "convert.failed": "LoRA Foundry could not convert this workflow",
  "rows.label": "LoRAs of this stack",
  "rows.import": "LoRA Foundry: add the LoRAs of {title} (node {id})",
  "rows.import.half": "{title} has LoRAs for two models: which of them?",
  "rows.import.high": "High noise",
  "rows.import.low": "Low noise",
  "rows.import.failed": "These LoRAs could not be added",
  "rows.wired": "The rows come by wire.",
  "rows.none": "No LoRA yet.",
  "rows.count": "{on} of {count} on",
  "rows.sum": "sum {sum}",
  "rows.all": "All on or off",
  "rows.add": "Add LoRA",
  "rows.sort": "Sort, paste",
  "rows.sort.name": "Sort by name",
  "rows.sort.strength": "Strongest first",
  "rows.sort.on": "Those that are on first",
  "rows.paste": "Paste <lora:name:0.7>",
  "rows.paste.none": "The browser gives no <lora:name:0.7> from the clipboard. Ctrl+V over the rows pastes too.",
  "rows.drop": "Drop LoRAs",
  "rows.drop.unknown": "ComfyUI lists no {names} among its LoRAs. Put the file into models/loras first.",
  "rows.text": "Edit as text",
  "rows.back": "Edit as rows",
  "rows.broken": "Line {line}, column {column}: from here on it is no JSON, so it is edited as text.",
  "rows.other": "This is no list of LoRAs, so it is edited as text.",
  "rows.row": "{name}, {state}, strength {strength}, {place} of {count}",
  "rows.on": "on",
  "rows.off": "off",
  "rows.toggle": "{name}: on",
  "rows.strength": "{name}: strength",
  "rows.strong": "Strengths past 2 are rarely meant.",
  "rows.recommended": "{span} is recommended.",
  "rows.alone": "alone",
  "rows.silent": "silent beside one that is alone",
  "rows.solo": "Solo",
  "rows.solo.end": "End solo",
  "rows.heard": "{name}: {on} of {count} count",
  "rows.details.key": "Details (D)",
  "rows.copy.all": "Copy all trigger words",
  "rows.details": "{name}: details, {chips}",
  "rows.folded": "{name}: details closed",
  "rows.picture": "{name}: preview",
  "rows.copied": "Copied",
  "rows.menu": "{name}: more",
  "rows.grip": "Drag to another place; Alt and the arrow keys do it too",
  "rows.clip": "Strength on CLIP",
  "rows.clip.hint": "the same",
  "rows.blocks": "Blocks...",
  "rows.blocks.title": "{name}: factors by block",
  "rows.blocks.text": "As text",
  "rows.blocks.hint": "double=1,single=0.5",
  "rows.blocks.none": "The blocks are shown once the list leads to a base: wire it to 2 Stack LoRAs.",
  "rows.blocks.failed": "The server did not tell the blocks of this base.",
  "rows.blocks.all": "All 1",
  "rows.blocks.first": "First half",
  "rows.blocks.middle": "Middle",
  "rows.blocks.last": "Last half",
  "rows.blocks.only": "Only {kind}",
  "rows.words": "Trigger words",
  "rows.copy": "Copy",
  "rows.up": "Move up",
  "rows.down": "Move down",
  "rows.remove": "Remove",
  "rows.removed": "{name} removed",
  "rows.added": "{count} added",
  "rows.moved": "{name} is now {place} of {count}",
  "rows.missing": "missing",
  "rows.damaged": "unusable",
  "rows.role": "{role}: {why}",
  "rows.rank": "rank {rank}, alpha {alpha}",
  "rows.rank.alone": "rank {rank}, no alpha in the file",
  "rows.fits": "All {modules} modules fit {base}.",
  "rows.part": "{matched} of {modules} modules fit {base}; the others have no effect.",
  "rows.foreign": "Made for another family than {base}.",
  "rows.unfit": "None of its {modules} modules fits {base}.",
  "role.accelerator": "accelerator",
  "role.repair": "repair",
  "role.style": "style",
  "role.subject": "subject",
  "role.quality": "quality",
  "role.subtle": "subtle",
  "role.control": "control",
  "role.training_adapter": "training adapter",
  "stacks.open": "Saved stacks",
  "stacks.name": "Name of this stack",
  "stacks.save": "Save",
  "stacks.replace": "Replace",
  "stacks.none": "None is saved yet.",
  "stacks.delete": "Delete",
  "stacks.delete.of": "Delete {name}",
  "stacks.delete.sure": "Delete {name} for good?",
  "stacks.keep": "Keep",
  "stacks.deleted": "{name} deleted",
  "stacks.saved": "{name} saved",
  "stacks.loaded": "{name} is in the list now. Undo brings back what was there.",
  "chooser.search": "Search LoRAs",
  "chooser.found": "{count} found",
  "chooser.hint": "Enter adds, Shift+Enter adds and stays",
  "chooser.folders": "Folders",
  "chooser.folder": "{name}, {count} LoRAs",
  "chooser.all": "All",
  "chooser.recent": "recent",
  "chooser.fits": "fits",
  "chooser.other": "other model",
  "chooser.failed": "The server did not list its LoRAs.",
  "dialog.ok": "OK",
  "dialog.cancel": "Cancel",
  "dialog.close": "Close"
}

let translated = { ui: {}, findings: {}, phrases: [] }

const fill = (template, values) => template.replace(/\{(\w+)\}/g, (blank, name) => values?.[name] ?? blank)

/** @param {string} key of UI @param {Record<string, string | number>} [values] for its blanks */
export const word = (key, values) => fill(translated.ui[key] || UI[key], values)

/** A finding with its sentences in the user's language, where there is a translation; otherwise as it came. */
export function translate(finding) {
  const parts = Object.entries(translated.findings[finding.text] ?? {}).filter(([name, part]) => finding[name] && part)
  const values = Object.fromEntries(Object.entries(finding.values ?? {}).map(([name, value]) => [name, phrase(value)]))
  return { ...finding, ...Object.fromEntries(parts.map(([name, part]) => [name, fill(part, values)])) }
}

const LONGEST = 400 // of a phrase: patterns with several blanks take their time over more
const MOST = 20000 // characters that are looked through

/** What fills a blank, with the phrases in it in the user's language: names and numbers stay. @param {string} text */
export function phrase(text) {
  if (!translated.phrases.length || text.length > MOST) return text
  for (const { pattern, names, told } of text.length > LONGEST ? [] : translated.phrases) {
    const found = pattern.exec(text)
    if (found) return fill(told, Object.fromEntries(names.map((name, at) => [name, phrase(found[at + 1])])))
  }
  if (text.includes("; ")) return text.split("; ").map(phrase).join("; ")
  const inside = /^(.*) \(([^()]*)\)$/s.exec(text)
  if (inside) return `${phrase(inside[1])} (${phrase(inside[2])})`
  const mark = [", ", ": "].find((each) => text.includes(each))
  return mark ? text.split(mark).map(phrase).join(mark) : text
}

/** The English of a phrase as what finds it, and what its blanks are called. @param {string} english */
function patternOf(english, told) {
  const [first, ...rest] = english.split(/\{(\w+)\}/)
  const names = rest.filter((_, at) => at % 2 === 0)
  const between = rest.filter((_, at) => at % 2)
  const blanks = names.map((name, at) => `(${BLANKS[name] ?? ".+"})${escaped(between[at])}`)
  return { pattern: new RegExp(`^${escaped(first)}${blanks.join("")}$`, "s"), names, told }
}

const BLANKS = { count: "\\d+", all: "\\d+", modules: "\\d+", id: "[^()]+" }
const escaped = (text) => text.replace(/[.*+?^${}()|[\]\\]/g, "\\$&")

/**
 * An error of the server as one text, in the user's language.
 * @param {{what: string, why: string, fix: string, text?: string, values?: Record<string, string>}} error
 */
export function errorText({ what, why, fix, text, values }) {
  const told = translate({ seen: what, why, fix, text, values })
  return [told.seen, told.why, told.fix].filter(Boolean).join(" ")
}

/** What an answer that is no success says. @param {Response} answer @returns {Promise<string>} */
export async function problemOf(answer) {
  const said = await answer.text()
  try {
    return errorText(JSON.parse(said).error)
  } catch {
    return said.slice(0, 500) // of something between here and the server
  }
}

/** Take translations, as `/i18n` has them under one language and under English, which needs none itself. */
export function learn(language, english) {
  const { ui = {}, findings = {}, phrases = {} } = language?.loraFoundry ?? {}
  const known = Object.entries(english?.loraFoundry?.phrases ?? {}).filter(([key]) => phrases[key])
  translated = { ui, findings, phrases: known.map(([key, said]) => patternOf(said, phrases[key])) }
}
