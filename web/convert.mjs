// Native LoRA loaders made into our stages: the server says what the graph becomes, here it takes its place.

import { drawn, post, replaceGraph } from "./host.mjs"

const PATH = "/lora_foundry/convert"

/**
 * Convert the open graph; it stays as it is where nothing can be converted.
 * @returns {Promise<{converted: object[], left: object[]}>} what became of the LoRAs, and what stays and why
 */
export async function convertOpen() {
  const before = drawn()
  const answer = await post(PATH, { workflow: before })
  if (!answer.ok) throw new Error((await answer.text()).slice(0, 500))
  const told = await answer.json()
  if (JSON.stringify(drawn()) !== JSON.stringify(before)) throw new Error("The workflow changed meanwhile.")
  if (told.changed) await replaceGraph(told.made)
  return told
}
