// What a report measured, as pictures: how LoRAs fit and what is kept of them, the size before and after, the errors of
// the layers. Inline SVG in the colours of the host's theme.
// @ts-check

import { element } from "./dom.mjs"
import { bytes, percent } from "./numbers.mjs"
import { word } from "./texts.mjs"

const WELL = 0.9 // of an effect: below it a bar warns
const NAME = 26 // letters of a LoRA's name
const [WIDTH, LABEL, VALUE, ROW] = [400, 150, 62, 18] // of a picture, in its own units
const BAR = WIDTH - LABEL - VALUE

const short = (name) => {
  const plain = name.split(/[\\/]/).at(-1).replace(/\.safetensors$/, "")
  return plain.length > NAME ? `${plain.slice(0, NAME / 2)}…${plain.slice(1 - NAME / 2)}` : plain
}

function made(tag, attributes, content = []) {
  const drawn = document.createElementNS("http://www.w3.org/2000/svg", tag)
  for (const [name, value] of Object.entries(attributes)) drawn.setAttribute(name, String(value))
  drawn.append(...content)
  return drawn
}

const text = (x, y, content, more = {}) => made("text", { x, y, ...more }, [content])
const rect = (x, y, width, height, kind) => made("rect", { x, y, width: Math.max(width, 0), height, class: kind })

/** A picture with a heading; what it shows is said in words too. */
function figure(title, height, said, parts) {
  const label = `${title}: ${said.join(", ")}`
  const drawn = made("svg", { viewBox: `0 0 ${WIDTH} ${height}`, role: "img", "aria-label": label, class: "lf-picture" }, parts)
  return element("figure", "lf-figure", [element("figcaption", "lf-caption", title), drawn])
}

/** One bar a row. @param {{name: string, share: number, value: string, kind: string}[]} rows share of the longest bar */
function bars(title, rows) {
  const parts = rows.flatMap(({ name, share, value, kind }, at) => [
    text(0, at * ROW + 13, short(name)),
    rect(LABEL, at * ROW + 4, BAR, 10, "lf-ground"),
    rect(LABEL, at * ROW + 4, BAR * Math.min(share, 1), 10, kind),
    text(WIDTH, at * ROW + 13, value, { "text-anchor": "end" }),
  ])
  return figure(title, rows.length * ROW, rows.map(({ name, value }) => `${short(name)} ${value}`), parts)
}

function keptBars(kept) {
  const rows = kept.map(({ name, share }) => ({ name, share, value: percent(share), kind: share < WELL ? "lf-bad" : "lf-good" }))
  return bars(word("picture.kept"), rows)
}

function sizeBars({ before, after }) {
  const row = (name, size) => ({ name, share: size / Math.max(before, after), value: bytes(size), kind: "lf-plain" })
  return bars(word("picture.size"), [row(word("picture.before"), before), row(word("picture.after"), after)])
}

function fitBars(fit) {
  const row = ({ name, matched, modules }) => ({
    name, share: matched / modules, value: `${matched}/${modules}`, kind: matched < modules ? "lf-bad" : "lf-good",
  })
  return bars(word("picture.fit"), fit.map(row))
}

/** Where in the model each LoRA is strong: a strip a LoRA, a cell a block, the stronger the darker. */
function energyStrips(fit) {
  const strips = fit.filter(({ energy }) => energy.length > 1)
  if (!strips.length) return null
  const parts = strips.flatMap(({ name, energy }, at) => {
    const [most, width] = [Math.max(...energy.map(([, share]) => share)), (WIDTH - LABEL) / energy.length]
    const cells = energy.map(([block, share], place) => {
      const cell = rect(LABEL + place * width, at * ROW + 3, width - Math.min(1, width / 4), 12, "lf-plain")
      cell.setAttribute("fill-opacity", (0.08 + 0.92 * (most > 0 ? share / most : 0)).toFixed(3))
      cell.append(made("title", {}, [`${block}: ${percent(share)}`]))
      return cell
    })
    return [text(0, at * ROW + 13, short(name)), ...cells]
  })
  const strongest = ({ name, energy }) => {
    const [block, share] = energy.reduce((a, b) => (b[1] > a[1] ? b : a))
    return `${short(name)} ${block} ${percent(share)}`
  }
  return figure(word("picture.energy"), strips.length * ROW, strips.map(strongest), parts)
}

/** Who works with whom, and who against whom: a cell a pair, the stronger the more. */
function pairCells({ names, cosine }) {
  const side = Math.min(34, (WIDTH - LABEL) / names.length)
  const pairs = names.flatMap((_, row) => names.map((__, column) => [row, column]))
  const cells = pairs.flatMap(([row, column]) => {
    const value = cosine[row][column]
    const [x, y] = [LABEL + column * side, row * ROW]
    const ground = rect(x, y + 1, side - 2, ROW - 2, "lf-ground")
    if (row === column) return [ground]
    const cell = rect(x, y + 1, side - 2, ROW - 2, value < 0 ? "lf-against" : "lf-alike")
    cell.setAttribute("fill-opacity", Math.min(1, Math.abs(value)).toFixed(3))
    const ink = Math.abs(value) > 0.5 ? { class: "lf-bright" } : {}
    const told = side < 26 ? [] : [text(x + side / 2 - 1, y + 13, value.toFixed(2), { "text-anchor": "middle", ...ink })]
    return [ground, cell, ...told]
  })
  const said = pairs.filter(([row, column]) => row < column).map(([row, column]) =>
    `${short(names[row])} / ${short(names[column])} ${cosine[row][column].toFixed(2)}`)
  return figure(word("picture.pairs"), names.length * ROW, said, [...names.map((name, at) => text(0, at * ROW + 13, short(name))), ...cells])
}

/** What was compared: every pair, and where each LoRA and all together are strong. */
function pairPictures({ names, cosine, blocks }) {
  const strips = [...names, word("picture.together")].map((name, at) => ({
    name, energy: blocks.map(({ block, shares }) => [block, shares[at]]),
  }))
  return [pairCells({ names, cosine }), energyStrips(strips)]
}

/** How many layers are how far off; lines for all together and for what was allowed. */
function histogram({ bins, most, total, limit, count }) {
  const [height, base] = [64, 80]
  const width = WIDTH / bins.length
  const tallest = Math.max(...bins)
  const columns = bins.map((layers, at) => rect(at * width + 0.5, base - (height * layers) / tallest, width - 1, (height * layers) / tallest, "lf-plain"))
  const line = (value, kind) => made("line", { x1: (value / most) * WIDTH, x2: (value / most) * WIDTH, y1: 6, y2: base, class: kind })
  const said = [word("picture.total", { error: percent(total) }), ...(limit ? [word("picture.limit", { error: percent(limit) })] : [])]
  const axis = [text(0, 94, "0"), text(WIDTH, 94, percent(most), { "text-anchor": "end" }), text(WIDTH / 2, 94, said.join(", "), { "text-anchor": "middle" })]
  const lines = [line(total, "lf-total"), ...(limit ? [line(limit, "lf-limit")] : [])]
  return figure(word("picture.errors", { count }), 98, said, [made("path", { d: `M0 ${base}H${WIDTH}`, class: "lf-axis" }), ...columns, ...lines, ...axis])
}

/** @param {import("./numbers.mjs").Numbers | undefined} numbers @returns {HTMLElement[]} */
export function picturesOf(numbers) {
  if (!numbers) return []
  const { kept, fit, size, errors, pairs } = numbers
  if (pairs) return pairPictures(pairs).filter(Boolean)
  const found = [kept.length && keptBars(kept), !kept.length && fit.length && fitBars(fit), energyStrips(fit)]
  return [...found, size && sizeBars(size), errors && histogram(errors)].filter(Boolean)
}
