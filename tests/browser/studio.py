"""One page of the real frontend, driven: build a graph, run it, read what the nodes show."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from browser.graphs import Links, Nodes
from browser.scripts import EXTENSION, GLIDED, HELPERS, KEPT, LINTER, READY, TIMERS, VIEW
from host import rig

if TYPE_CHECKING:  # installed on first use by tests/install.py
    from playwright.sync_api import Browser, ConsoleMessage, Locator, Page, Request

OURS = re.compile(rf"{EXTENSION}(?!/docs/\w+/)")  # the host looks for docs/NODE/en.md before docs/NODE.md
SETTINGS = {
    "Comfy.TutorialCompleted": True,
    "Comfy.Minimap.Visible": False,
    "Comfy.Workflow.WarnBlueprintOverwrite": False,
}
EMPTY = {"last_node_id": 0, "last_link_id": 0, "nodes": [], "links": [], "groups": [], "version": 0.4}


class Studio:
    """The frontend in one renderer: ``canvas`` or ``nodes2`` (Vue). A context manager."""

    def __init__(self, browser: Browser, host: rig.Host, mode: str, artefacts: Path) -> None:
        self.host, self.mode, self.artefacts = host, mode, artefacts
        self.problems: list[str] = []
        self.requests: list[str] = []  # to this pack's routes: "POST lint"
        self.open_requests: set[Request] = set()  # those without an answer yet
        settings = {**SETTINGS, "Comfy.VueNodes.Enabled": mode == "nodes2"}
        for name, value in settings.items():
            host.request(f"/settings/{name}", value)
        self.context = browser.new_context(viewport={"width": 1920, "height": 1080}, reduced_motion="reduce")
        self.context.add_init_script(TIMERS)
        self.context.add_init_script("localStorage.setItem('vueNodesBannerDismissed', 'true')")

    def __enter__(self) -> Studio:
        self.page = self.context.new_page()
        self._listen(self.page)
        self.open()
        return self

    def __exit__(self, *_: object) -> None:
        self.context.close()

    def open(self) -> None:
        """Load the page, or load it again."""
        self.open_requests.clear()  # nobody waits for them any more
        self.page.goto(self.host.url)
        self.page.wait_for_function(READY, timeout=120_000)
        self.page.wait_for_function("mode => LiteGraph.vueNodesMode === mode", arg=self.mode == "nodes2")
        self.page.evaluate(HELPERS)
        self.page.evaluate(LINTER)

    def _listen(self, page: Page) -> None:
        """Keep what went wrong in our own files. The host has problems of its own, which are not ours to judge."""

        def console(message: ConsoleMessage) -> None:
            where = f"{message.text} {message.location.get('url', '')}"
            if message.type in ("error", "warning") and (OURS.search(where) or "LoRAFoundry" in where):
                self.problems.append(f"{message.type}: {where}")

        def failed(url: str, how: object) -> None:
            if OURS.search(url):
                self.problems.append(f"{how}: {url}")

        page.on("console", console)
        page.on("pageerror", lambda error: failed(str(error.stack), "uncaught"))
        page.on("requestfailed", lambda request: failed(request.url, request.failure))
        page.on("request", self._count)
        for end in ("requestfinished", "requestfailed"):
            page.on(end, lambda request: self.open_requests.discard(request))
        page.on("response", lambda answer: answer.status >= 400 and failed(answer.url, answer.status))

    def _count(self, request: Request) -> None:
        _, ours, route = request.url.partition("/lora_foundry/")
        if ours:
            self.requests.append(f"{request.method} {route}")
            self.open_requests.add(request)

    # --- graph
    def clear(self) -> None:
        """An empty graph, no dialog in front of it, and the view of a page that was just opened."""
        self.page.keyboard.press("Escape")
        self.page.evaluate("graph => foundry.load(graph)", EMPTY)
        self.page.evaluate(VIEW)
        self.page.evaluate("() => { foundry.nodes = {} }")

    def load_again(self, new_page: bool = False) -> None:
        """Save the graph and load it again, in this page or a new one: every node is another object."""
        ids = "Object.entries(foundry.nodes).map(([name, node]) => [name, node.id])"
        saved = self.page.evaluate(f"() => JSON.stringify([app.graph.serialize(), {ids}])")
        if new_page:
            self.open()
        self.page.evaluate(
            """async (saved) => {
              const [graph, ids] = JSON.parse(saved)
              await foundry.load(graph)
              foundry.nodes = Object.fromEntries(ids.map(([name, id]) => [name, app.graph.getNodeById(id)]))
            }""",
            saved,
        )

    def build(self, nodes: Nodes, links: Links) -> None:
        """Nodes as name -> (type, position, widget values); links as (from, output number, to, input name)."""
        self.clear()
        for name, (kind, position, values) in nodes.items():
            self.page.evaluate("args => foundry.add(...args)", [name, kind, list(position), values])
        for link in links:
            assert self.connect(*link), f"{link} was refused"

    def connect(self, source: str, output: int, target: str, name: str) -> bool:
        """Draw a wire; whether the frontend made it."""
        return self.page.evaluate("args => foundry.connect(...args)", [source, output, target, name])

    def links(self) -> int:
        """How many wires the graph has."""
        return self.page.evaluate("() => app.graph.links.size ?? Object.keys(app.graph.links).length")

    def set(self, name: str, widget: str, value: Any) -> None:
        """Change a widget the way a user does."""
        self.page.evaluate("args => foundry.set(...args)", [name, widget, value])

    def edited(self) -> None:
        """What every input of a user ends with: the frontend looks whether the graph changed."""
        self.page.evaluate("() => window.dispatchEvent(new MouseEvent('mouseup'))")

    def check(self) -> None:
        """Wait until what a check finds in the graph as it is now is shown."""
        self.edited()
        self.page.wait_for_function("() => foundry.checked()", polling=50, timeout=30_000)
        self.settle()

    def quiet(self) -> None:
        """Wait until nothing more would be asked, and all that was asked is answered and shown."""
        self.edited()
        still = 0
        while still < 4:  # a node that is measured some frames later is a change too
            self.page.wait_for_timeout(50)
            self.settle()
            busy = self.page.evaluate("() => foundryDue.size > 0")  # the page gives up what hangs after two minutes
            still = 0 if busy or self.open_requests else still + 1

    def kept(self) -> None:
        """Wait until the last gesture is a step of the host's undo; in Nodes 2.0 a node's new height belongs to it."""
        self.page.wait_for_function(KEPT)
        self.settle()
        self.settle()

    def run(self) -> dict[str, Any]:
        """Queue the graph from the page and wait for its end: {outcome, detail, seen}."""
        self.page.keyboard.press("Escape")
        return self.page.evaluate("() => foundry.run()")

    def saved(self) -> dict[str, dict[str, Any]]:
        """Each node as the workflow file has it."""
        script = "() => Object.entries(foundry.nodes).map(([name, node]) => [name, node.serialize()])"
        return dict(self.page.evaluate(script))

    def prompt(self) -> dict[str, Any]:
        """What would be posted."""
        return self.page.evaluate("async () => (await app.graphToPrompt()).output")

    # --- what is shown
    def panel(self, name: str) -> dict[str, Any]:
        """A node's panel: its line, all its text, severity, whether it is marked old and on the page, and its size."""
        script = """(name) => {
          const panel = foundry.panel(name)
          const [line, box] = [panel.hidden ? "" : panel.innerText, panel.getBoundingClientRect()]
          return {line, text: [line, foundry.details(name)].join("\\n").trim(), severity: panel.dataset.severity,
                  stale: panel.classList.contains("lf-stale"), shown: !panel.hidden, on_page: panel.isConnected,
                  height: box.height, width: box.width, images: panel.querySelectorAll("img, script").length}
        }"""
        return self.page.evaluate(script, name)

    def open_panel(self, name: str) -> None:
        """Click the line of a node's panel, unless its popover is open."""
        script = """name => document.querySelector(".lf-popover:popover-open")
          ?? foundry.panel(name).querySelector(".lf-line").click()"""
        self.page.evaluate(script, name)

    def follow(self, name: str, owner: str) -> Locator:
        """In a node's panel click the link to the node that tells its findings; what opens there."""
        number = self.page.evaluate("name => foundry.nodes[name].id", owner)
        self.open_panel(name)
        link = self.page.locator(f".lf-popover:popover-open .lf-elsewhere button:has-text('(node {number})')")
        link.first.click()
        opened = self.page.locator(".lf-popover:popover-open:not(:has(.lf-elsewhere))")
        opened.wait_for()
        return opened

    def undo(self) -> None:
        """The host's undo, until every node of the graph is there again, another object than before."""
        self.page.evaluate("() => app.extensionManager.command.execute('Comfy.Undo')")
        anew = "(node) => ![undefined, null, node].includes(app.graph.getNodeById(node.id))"
        self.page.wait_for_function(f"() => Object.values(foundry.nodes).every({anew})")
        self.settle()
        ids = "Object.entries(foundry.nodes).map(([name, node]) => [name, app.graph.getNodeById(node.id)])"
        self.page.evaluate(f"() => {{ foundry.nodes = Object.fromEntries({ids}) }}")

    def wait_for_panel(self, name: str, severity: str) -> dict[str, Any]:
        """The panel once it shows this severity and has been laid out."""
        script = "([name, severity]) => foundry.panel(name).dataset.severity === severity"
        self.page.wait_for_function(script, arg=[name, severity], timeout=20_000)
        self.settle()
        return self.panel(name)

    def badge(self, name: str) -> str:
        """What the badges of ours on a node say; in Nodes 2.0 it is checked that the page shows it."""
        script = """name => (foundry.nodes[name].badges ?? []).map((badge) => (badge.call ? badge() : badge).text)
          .filter((text) => /^[×!?i] /.test(text)).join()"""
        said = self.page.evaluate(script, name)
        if said and self.mode == "nodes2":
            node = self.page.locator(f'[data-node-id="{self.page.evaluate("name => foundry.nodes[name].id", name)}"]')
            styled = self.page.locator(f'[data-lf-badge="{said}"]').and_(node)
            styled.or_(node.get_by_text(said)).first.wait_for()
        return said

    def settle(self) -> None:
        """Two frames: layout, observers and canvas have caught up."""
        self.page.evaluate("() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")

    def screenshot(self, name: str) -> Path:
        """The whole graph in view, as a picture among the test artefacts."""
        path = self.artefacts / f"{name}-{self.mode}.png"
        self.page.evaluate("() => app.extensionManager.command.execute('Comfy.Canvas.FitView')")
        self.page.evaluate(GLIDED)
        self.settle()
        self.page.screenshot(path=path)
        return path


def setting(studio: Studio, name: str, value: Any) -> None:
    """Change a setting in the running page."""
    studio.page.evaluate(f"value => app.extensionManager.setting.set({json.dumps(name)}, value)", value)
    studio.settle()
