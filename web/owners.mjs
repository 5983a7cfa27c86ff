// Which node a finding belongs to: the one where it is repaired. Knows nodes as plain objects, and no page.
// @ts-check

import { above, plain, renamed } from "./fixes.mjs"
import { read, told } from "./rows.mjs"

/** Whether a widget's value is the file a finding is about; some findings name only the file, without its folder. */
const isOf = (value, subject) => `/${plain(value)}`.endsWith(`/${plain(subject)}`)

/** Whether a node has a file in a widget, or in rows. */
function names(node, subject) {
  return (node.widgets ?? []).some(({ value }) => {
    if (renamed(value, subject, "") !== null) return true
    if (typeof value !== "string" || !value.includes(".")) return false
    return isOf(value, subject) || read(value).state?.rows.some((row) => isOf(told(row).path, subject))
  })
}

const isRows = ({ type }) => /LORA/i.test(String(type)) // of this pack and others: LORA_STACK, WANVIDLORA

/**
 * The node where a finding is repaired: of the node it names, and of the rows that lead to it, the nearest that has the
 * file it is about. A finding that names no node is looked for upwards from where it is shown, and stays there if
 * nothing has its file.
 * @param {import("./findings.mjs").Finding} finding @param {any} shownOn a node @param {(id: string) => any} nodeAt
 */
export function ownerOf({ node, subject }, shownOn, nodeAt) {
  const named = node && nodeAt(node)
  const places = named ? above(named, isRows) : node ? [] : above(shownOn)
  return (subject && places.find((at) => names(at, subject))) || named || shownOn
}

/** Those of some files that a node, or one above it, has. @param {any} node @param {string[]} files @returns {string[]} */
export function filesAbove(node, files) {
  const places = files.length ? above(node) : []
  return files.filter((file) => places.some((at) => names(at, file)))
}

const keyOf = ({ code, subject, seen }) => JSON.stringify([code, subject, seen])

/** Findings without repeats: several nodes of one run say the same. @param {import("./findings.mjs").Finding[]} findings */
export const distinct = (findings) => [...new Map(findings.map((each) => [keyOf(each), each])).values()]

/**
 * What of the findings of a node is its own, and what belongs to which other node.
 * @param {import("./findings.mjs").Finding[]} findings @param {any} node
 * @param {(finding: import("./findings.mjs").Finding, node: any) => any} owner
 * @returns {{mine: import("./findings.mjs").Finding[], others: Map<any, import("./findings.mjs").Finding[]>}}
 */
export function shared(findings, node, owner) {
  const [mine, others] = [[], new Map()]
  for (const each of findings) {
    const at = owner(each, node)
    if (at === node) mine.push(each)
    else others.set(at, [...(others.get(at) ?? []), each])
  }
  return { mine, others }
}
