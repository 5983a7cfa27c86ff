// Finding one of thousands of LoRAs by a few letters, and showing long names short. Pure.
// @ts-check

/** A path as people read it: folder, and name without its extension. */
export function parts(path) {
  const clean = path.replaceAll("\\", "/").replace(/\.safetensors$/i, "")
  const cut = clean.lastIndexOf("/") + 1
  return { folder: clean.slice(0, cut), name: clean.slice(cut) }
}

const SHORT = 12 // characters of a name that is shown whole: cut, its start would be narrower than the page keeps for one

/** The two ends of a name; the page may shorten the first, so that the ellipsis stands in the middle. */
export function ends(name) {
  if (name.length <= SHORT) return [name, ""]
  const cut = name.length - Math.min(10, Math.ceil(name.length / 3))
  return [name.slice(0, cut), name.slice(cut)]
}

/** How well one word fits a lower-case text: 0 not at all; in a row beats scattered, the start of a word beats the middle. */
function fit(text, word) {
  const at = text.indexOf(word)
  if (at >= 0) {
    const start = at === 0 || /[^a-z0-9]/.test(text[at - 1])
    return 100 + (start ? 50 : 0) - Math.min(at, 40) / 4
  }
  let [from, gaps] = [-1, 0]
  for (const letter of word) {
    const next = text.indexOf(letter, from + 1)
    if (next < 0) return 0
    gaps += from < 0 ? 0 : next - from - 1
    from = next
  }
  return word.length > 2 ? Math.max(0, 40 - gaps * 2) : 0
}

/**
 * The names that every word of a query fits, best first; a word counts more in the name than in the folder.
 * @param {string[]} names @param {string} query @returns {string[]}
 */
export function search(names, query) {
  const words = query.toLowerCase().replaceAll(".safetensors", "").split(/\s+/).filter(Boolean)
  if (!words.length) return names
  /** @type {[number, string][]} */
  const scored = []
  for (const path of names) {
    const { folder, name } = parts(path.toLowerCase())
    const fits = words.map((word) => Math.max(fit(name, word), fit(folder, word) * 0.6))
    if (fits.every(Boolean)) scored.push([fits.reduce((all, each) => all + each, 0) - name.length / 50, path])
  }
  return scored.sort(([a], [b]) => b - a).map(([, path]) => path)
}

const ORDER = ["recent", "fits", "", "other"]

/** Names in the order of their groups: recent, those that fit, those nothing is known of, those of other families. */
export function grouped(names, groupOf) {
  const groups = new Map(ORDER.map((group) => [group, []]))
  for (const name of names) groups.get(groupOf(name)).push(name)
  return [...groups.values()].flat()
}
