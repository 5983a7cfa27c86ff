"""A large workflow: an edit costs one question and redraws nothing that stays the same. In both renderers."""

from __future__ import annotations

import json

import pytest
from browser.many import BUILD, profiled

CHAINS = {"canvas": 63, "nodes2": 25}  # of eight nodes; Nodes 2.0 makes an element of each, which takes a while
MOST = 60  # ms of our code, and of what it calls, at a time
WATCH = """() => {
  window.seen = {drawn: 0, saved: 0, long: []}
  const all = {childList: true, subtree: true, characterData: true, attributes: true}
  const watch = new MutationObserver((changes) => (window.seen.drawn += changes.length))
  for (const {widgets} of app.graph.nodes)
    for (const {name, element} of widgets ?? [])
      if (name === "foundry_findings") watch.observe(element, all)
  const root = app.graph.rootGraph ?? app.graph
  const before = root.serialize
  root.serialize = function (...args) { window.seen.saved++; return before.apply(this, args) }
  new PerformanceObserver((list) => window.seen.long.push(...list.getEntries().map(({duration}) => duration)))
    .observe({type: "longtask"})
}"""


@pytest.fixture
def many(studio, names):
    """504 nodes (200 in Nodes 2.0), checked once."""
    studio.clear()
    studio.page.evaluate(BUILD, [names, CHAINS[studio.mode]])
    studio.check()
    studio.quiet()
    yield studio
    studio.clear()
    studio.quiet()


def test_an_edit_among_many_nodes_asks_once_and_redraws_no_panel(many):
    assert many.page.evaluate("() => app.graph.nodes.length") == 8 * CHAINS[many.mode]
    many.requests.clear()
    many.page.evaluate(WATCH)
    for step in range(10):
        many.set("sample", "steps", 10 + step)
        many.edited()
        many.page.wait_for_timeout(30)
    many.quiet()
    seen = many.page.evaluate("() => window.seen")
    (many.artefacts / f"many-{many.mode}.json").write_text(json.dumps(seen), encoding="utf-8")
    assert many.requests == ["POST lint"] and seen["drawn"] == 0


def test_an_edit_among_many_nodes_keeps_the_page_waiting_for_a_moment_only(many):
    """By a profile: the host takes longer, whatever is installed."""

    def edit(step: int) -> None:
        many.set("sample", "steps", 40 + step)
        many.edited()
        many.quiet()

    edit(0)  # what is used is compiled
    longest = [profiled(many, lambda step=step: edit(step))[0][0] for step in (1, 2, 3)]
    assert 0 < min(longest) < MOST, longest  # the machine may do something else now and then
