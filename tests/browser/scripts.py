"""What runs in the page of the browser tests."""

from __future__ import annotations

from host import rig

EXTENSION = f"/extensions/{rig.PACK_FOLDER}"
READY = "() => !!(window.app?.graph && app.extensionManager && window.LiteGraph?.registered_node_types?.KSampler)"
VIEW = "() => Object.assign(app.canvas.ds, { scale: 1, offset: [0, 0] })"

# What is due: timers of as long as the check waits after a change (QUIET of web/lint.mjs), and answers to our requests,
# until the page has had time to read them.
TIMERS = """
{
  const [begin, end, due] = [window.setTimeout.bind(window), window.clearTimeout.bind(window), new Set()]
  window.foundryDue = due
  window.setTimeout = (work, delay, ...given) => {
    if (delay !== 800) return begin(work, delay, ...given)
    const timer = begin(() => { due.delete(timer); work(...given) }, delay)
    due.add(timer)
    return timer
  }
  window.clearTimeout = (timer) => { due.delete(timer); end(timer) }
  const ask = window.fetch.bind(window)
  window.fetch = (what, ...how) => {
    const answer = ask(what, ...how)
    if (!`${what?.url ?? what}`.includes("/lora_foundry/")) return answer
    due.add(answer)
    const read = () => begin(() => due.delete(answer), 100)
    answer.then((come) => come.clone().text()).then(read, read)
    return answer
  }
}
"""

# Nodes by name, so that a test can say which one it means; ids only grow, so that no two graphs share one.
HELPERS = """
window.foundry = {
  nodes: {}, nextId: 100,
  add(name, type, pos, values) {
    const node = LiteGraph.createNode(type)
    if (!node) throw Error(`no node type ${type}`)
    node.id = this.nextId++
    node.pos = pos
    this.nodes[name] = node
    for (const [key, value] of Object.entries(values)) this.set(name, key, value)
    app.graph.add(node)
  },
  set(name, key, value) {
    const widget = this.nodes[name].widgets.find((widget) => widget.name === key)
    widget.value = value
    widget.callback?.(value) // as after a user's input
  },
  load(graph) { // into the tab that is open, instead of a new one each time
    return app.loadGraphData(graph, true, true, app.extensionManager.workflow?.activeWorkflow ?? null)
  },
  connect(from, output, to, input) {
    const [source, target] = [this.nodes[from], this.nodes[to]]
    return !!source.connect(output, target, target.inputs.findIndex((slot) => slot.name === input))
  },
  panel(name) { return this.nodes[name].widgets.find((widget) => widget.name === "foundry_findings")?.element },
  details(name) { // what the line opens
    const panel = this.panel(name)
    if (panel.hidden) return ""
    panel.querySelector(".lf-line").click()
    const open = document.querySelector(".lf-popover:popover-open")
    const text = open.innerText
    open.hidePopover()
    return text
  },
  run() {
    return new Promise((resolve) => {
      const api = app.api ?? window.comfyAPI.api.api
      const seen = []
      const note = (event) => seen.push([event.type, event.detail])
      const ends = ["execution_success", "execution_error", "execution_interrupted"]
      const end = (event) => {
        ends.forEach((name) => api.removeEventListener(name, end))
        api.removeEventListener("execution_cached", note)
        resolve({ outcome: event.type, detail: event.detail, seen })
      }
      ends.forEach((name) => api.addEventListener(name, end))
      api.addEventListener("execution_cached", note)
      app.queuePrompt(0)
    })
  },
}
"""

# The check of the graph is due until its answer is shown; which graph that answer is about, the page knows best.
LINTER = f"""async () => {{
  const {{ Linter, keyOf }} = await import("{EXTENSION}/lint.mjs")
  const {{ touch, check, now }} = Linter.prototype
  let linter = null
  const noted = (before) => function () {{
    const done = before.call(this)
    const end = () => foundryDue.delete(done)
    foundryDue.add(done)
    done.then(end, end)
    return done
  }}
  Object.assign(Linter.prototype, {{ check: noted(check), now: noted(now) }})
  Linter.prototype.touch = function (...how) {{
    linter = this
    return touch.apply(this, how)
  }}
  foundry.checked = () => Boolean(linter?.answered) && linter.answered === keyOf(linter.host.drawn())
}}"""

# Ends when the view has stood still for a fifth of a second: the host lets it glide.
GLIDED = """() => new Promise((done) => {
  let [before, same] = ["", 0]
  const look = () => {
    const { scale, offset: [x, y] } = app.canvas.ds
    const now = [scale, x, y].join()
    same = now === before ? same + 1 : 0
    before = now
    if (same < 12) requestAnimationFrame(look)
    else done()
  }
  look()
})"""

# Whether the values of all widgets are those of the newest step of the host's undo.
KEPT = """() => {
  const values = ({ nodes }) => JSON.stringify(nodes.map(({ id, widgets_values }) => [`${id}`, widgets_values]).sort())
  const { activeState } = app.extensionManager.workflow.activeWorkflow.changeTracker
  return values(activeState) === values(app.graph.serialize())
}"""
