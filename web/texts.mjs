// Words: those of this page in English, and translations from locales/<language>/main.json under "loraFoundry". No page.

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
  "panel.none": "Nothing to say about this node.",
  "panel.before": "before a run",
  "panel.earlier": "from an earlier run",
  "wire.title": "LF201 Wrong order",
  "wire.detail": "This model is already quantized. Quantize last: connect a stage from before Quantize FP8.",
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
  "declare.busy": "{lora}: being written down",
  "declare.done": "{lora}: you said it was trained with {base}",
  "declare.undo": "Undo",
  "declare.choose": "What was {lora} trained with?",
  "declare.base": "Base LoRA",
  "declare.strength": "Strength while training",
  "declare.failed": "This was not written down",
  "fix.replace": "Use {name}",
  "fix.set": "Set {settings}",
  "fix.convert": "Convert to fuse, stack, finish",
  "convert.title": "LoRA Foundry: convert LoRA loaders",
  "convert.done": "{count} models converted. Undo brings the loaders back.",
  "convert.nothing": "There is no LoRA loader in this workflow that can be converted.",
  "convert.failed": "LoRA Foundry could not convert this workflow",
  "rows.label": "LoRAs of this stack",
  "rows.wired": "The rows come by wire.",
  "rows.none": "No LoRA yet.",
  "rows.count": "{on} of {count} on",
  "rows.sum": "sum {sum}",
  "rows.all": "All on or off",
  "rows.add": "Add LoRA",
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
  "rows.menu": "{name}: more",
  "rows.grip": "Drag to another place; Alt and the arrow keys do it too",
  "rows.clip": "Strength on CLIP",
  "rows.clip.hint": "the same",
  "rows.blocks": "Factors by block",
  "rows.blocks.hint": "double=1,single=0.5",
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
  "chooser.search": "Search LoRAs",
  "chooser.found": "{count} found",
  "chooser.hint": "Enter adds, Shift+Enter adds and stays",
  "chooser.failed": "The server did not list its LoRAs.",
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

/** Take translations, as `/i18n` has them under one language; English needs none. */
export function learn(language) {
  translated = { ui: language?.loraFoundry?.ui ?? {}, findings: language?.loraFoundry?.findings ?? {} }
}
