// Finding one of thousands of LoRAs by a few letters, and showing long names short. Pure.
// @ts-check

const slashed = (path) => (path.includes("\\") ? path.replaceAll("\\", "/") : path)

/** A name without what spellings of one file differ in: `.\\a\\x` and `a/x` are one LoRA. */
export function spelled(name) {
  if (!/\\|\/\/|(^|\/)\.(\/|$)/.test(name)) return name
  return slashed(name).split("/").filter((part, at) => part !== "." && (part || !at)).join("/")
}

/** A path as people read it: folder, and name without its extension. */
export function parts(path) {
  const clean = slashed(path).replace(/\.safetensors$/i, "")
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
 * The names that every word of a query fits, best first; a word counts more in the name than in the title, and least in the folder.
 * @param {string[]} names @param {string} query @param {(name: string) => string} [titleOf] @returns {string[]}
 */
export function search(names, query, titleOf = () => "") {
  const words = query.toLowerCase().replaceAll(".safetensors", "").split(/\s+/).filter(Boolean)
  if (!words.length) return names
  /** @type {[number, string][]} */
  const scored = []
  for (const path of names) {
    const { folder, name } = parts(path.toLowerCase())
    const title = titleOf(path).toLowerCase()
    const fits = words.map((word) => Math.max(fit(name, word), fit(title, word) * 0.9, fit(folder, word) * 0.6))
    if (fits.every(Boolean)) scored.push([fits.reduce((all, each) => all + each, 0) - name.length / 50, path])
  }
  return scored.sort(([a], [b]) => b - a).map(([, path]) => path)
}

const ORDER = ["recent", "fits", "", "other"]

/**
 * Names in the order of their groups: recent, those that fit, those nothing is known of, those of other families.
 * @param {string[]} names @param {(name: string) => string} groupOf @param {string[]} [recent] the newest first, spelled
 */
export function grouped(names, groupOf, recent = []) {
  const groups = new Map(ORDER.map((group) => [group, []]))
  for (const name of names) groups.get(groupOf(name)).push(name)
  groups.get("recent").sort((a, b) => recent.indexOf(spelled(a)) - recent.indexOf(spelled(b)))
  return [...groups.values()].flat()
}

/**
 * The same place in a list that was made anew: the choice stays, and so does what is in view.
 * @param {string[]} before @param {string[]} after
 * @param {{at: number, top: number}} place what is chosen, and how far it is scrolled, in items @param {number} view items in view
 */
export function samePlace(before, after, { at, top }, view) {
  if (!at && !top) return { at: 0, top: 0 } // nobody went anywhere: the first is the best
  const chosen = at ? after.indexOf(before[at]) : 0
  const anchor = at >= top && at < top + view ? at : Math.floor(top)
  const now = after.indexOf(before[anchor])
  const last = Math.max(0, after.length - 1)
  return { at: Math.min(chosen < 0 ? at : chosen, last), top: now < 0 ? top : Math.max(0, top + now - anchor) }
}

// --- folders: "" is the top, any other ends with a slash

const byName = new Intl.Collator(undefined, { numeric: true })

/**
 * The folders right below one, by name, each with how many of the names lie in it and below it.
 * @param {string[]} names @param {string} folder @returns {{name: string, path: string, count: number}[]}
 */
export function foldersOf(names, folder) {
  const counts = new Map()
  for (const each of names) {
    const path = slashed(each)
    const end = path.startsWith(folder) ? path.indexOf("/", folder.length) : -1
    if (end < 0) continue
    const name = path.slice(folder.length, end)
    counts.set(name, (counts.get(name) ?? 0) + 1)
  }
  const found = [...counts].map(([name, count]) => ({ name, path: `${folder}${name}/`, count }))
  return found.sort((a, b) => byName.compare(a.name, b.name))
}

/** The names in a folder and below it. */
export const within = (names, folder) => (folder ? names.filter((path) => slashed(path).startsWith(folder)) : names)

/** The folders on the way down to one, itself the last. @returns {{name: string, path: string}[]} */
export function wayDown(folder) {
  const names = folder.split("/").slice(0, -1)
  return names.map((name, at) => ({ name, path: `${names.slice(0, at + 1).join("/")}/` }))
}

/**
 * The LoRAs that a text names, one a line: a name the server lists, a path that ends with one, or a file name alone.
 * @param {string} text @param {string[]} names @returns {{found: string[], unknown: string[]}} `unknown`: files that are not listed
 */
export function filesNamed(text, names) {
  const wanted = text.split(/[\r\n]+/).map((each) => each.trim().replace(/^["']|["']$/g, "")).filter((each) => /\.safetensors$/i.test(each))
  const [found, unknown] = [[], []]
  for (const each of wanted) {
    const path = `/${slashed(each)}`.toLowerCase()
    const own = path.slice(path.lastIndexOf("/"))
    const ends = names.filter((name) => path.endsWith(`/${slashed(name).toLowerCase()}`)).sort((a, b) => b.length - a.length)
    const name = ends[0] ?? names.find((other) => `/${slashed(other)}`.toLowerCase().endsWith(own))
    if (name === undefined) unknown.push(own.slice(1))
    else found.push(name)
  }
  return { found, unknown }
}
