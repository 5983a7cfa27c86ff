// Changes of the whole graph, such as loaders made into stages: the server says what it becomes, here it takes its place.
// @ts-check

import { drawn, post, replaceGraph } from "./host.mjs"
import { problemOf, word } from "./texts.mjs"

const PATH = "/lora_foundry/convert"

/**
 * Convert the open graph, or make these fixes of a finding in it; it stays as it is where nothing can be done.
 * @param {object[]} [fixes] fix_actions
 * @returns {Promise<{changed: boolean, converted: object[], left: object[]}>} what became of the LoRAs, what stays and why
 */
export async function convertOpen(fixes) {
  const before = drawn()
  const answer = await post(PATH, { workflow: before, fixes })
  if (!answer.ok) throw new Error(await problemOf(answer))
  const told = await answer.json()
  if (JSON.stringify(drawn()) !== JSON.stringify(before)) throw new Error(word("convert.changed"))
  if (told.changed) await replaceGraph(told.made)
  return told
}
