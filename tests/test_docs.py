"""The documents say what is there: their links, paths, commands, code, nodes, codes and files are looked up."""

from __future__ import annotations

import ast
import json
import re
import shlex

import pytest
from lora_foundry.cli.main import _parser
from lora_foundry.engine.texts.say import TEXTS
from lora_foundry.loaders.disk.text import parse_text
from lora_foundry.loaders.documents.document import parse_document
from sources import PACK, ROOT, name_of, nodes_of

PAGES = [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), *(ROOT / "web" / "docs").glob("*.md")]
TEXT = {path: path.read_text(encoding="utf-8") for path in PAGES}
README = TEXT[ROOT / "README.md"]
PLANNED = set[str]()  # named as what is to come; the day they are there, the map names them
MENTION = re.compile(r"[a-z -]+|.*(, |VERB).*")  # of a command in a sentence: its name only
every_page = pytest.mark.parametrize("page", PAGES, ids=name_of)


def doc(name: str) -> str:
    """One document by its path from the root."""
    return TEXT[ROOT / name]


def section(text: str, title: str) -> str:
    """The text of one section of the second level."""
    return text.split(f"\n## {title}\n", 1)[1].split("\n## ", 1)[0]


def cells(text: str, column: int = 0) -> list[str]:
    """One column of the tables in a text, without heads and rules."""
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line.startswith("|")]
    starts = [i for i, row in enumerate(rows) if set(row[0]) <= set("-:") and row[0]]
    return [row[column] for i, row in enumerate(rows) if i not in starts and i + 1 not in starts]


def blocks(text: str, language: str = "") -> list[str]:
    """The code blocks of one language."""
    found = re.findall(r"^```(\w*)\n(.*?)^```$", text, re.M | re.S)
    return [code for kind, code in found if kind == language]


def unfenced(text: str) -> str:
    """A page without its code blocks."""
    return re.sub(r"^```.*?^```", "", text, flags=re.M | re.S)


def anchors(text: str) -> set[str]:
    """What a link may name after ``#``: every heading as GitHub writes it."""
    heads = re.findall(r"^#+ (.+)$", unfenced(text), re.M)
    return {re.sub(r"[^\w\- ]", "", head.lower()).strip().replace(" ", "-") for head in heads}


def dictionary(path: str, name: str) -> dict[str, str]:
    """A table of plain strings in a source file, read without importing it."""
    for node in ast.parse((ROOT / path).read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == name:
            return ast.literal_eval(node.value)
    raise AssertionError(f"{path} has no {name}")


# --- links, paths, lengths --------------------------------------------------------------------------------------------


@every_page
def test_every_link_leads_somewhere(page):
    links = [link.partition("#") for link in re.findall(r"\]\(([^)]+)\)", unfenced(TEXT[page])) if "://" not in link]
    lost = [path for path, _, _ in links if not (page.parent / path).exists()]
    assert not lost
    targets = [((page.parent / path).resolve() if path else page, anchor) for path, _, anchor in links if anchor]
    assert not [(path.name, anchor) for path, anchor in targets if anchor not in anchors(TEXT[path])]


@every_page
def test_every_path_is_there(page):
    """Written from the root, in text, tables and code: a file, a folder or a pattern."""
    rooms = "engine|validator|loaders|nodes|cli|web|docs|tests|benchmarks|locales|example_workflows|\\.ci"
    named = {path.rstrip(".") for path in re.findall(rf"(?<![\w./-])(?:{rooms})/[\w./*-]*", TEXT[page])} - PLANNED
    assert not [path for path in named if not list(ROOT.glob(path.rstrip("/")))]


def test_what_is_planned_is_not_there_yet():
    assert not [path for path in PLANNED if (ROOT / path).exists()]
    assert all(path in doc("docs/architecture.md") for path in PLANNED)


def test_readme_is_read_in_five_minutes():
    assert len(README.splitlines()) <= 160 and len(doc("CONTRIBUTING.md").splitlines()) <= 100


def test_readme_leads_to_every_document():
    assert not [path.name for path in (ROOT / "docs").glob("*.md") if f"(docs/{path.name}" not in README]


@pytest.mark.parametrize("page", list((ROOT / "docs").glob("*.md")), ids=name_of)
def test_a_document_begins_with_what_it_answers(page):
    title, empty, first = TEXT[page].splitlines()[:3]
    assert title.startswith("# ") and not empty and first[:1].isupper() and first[-1] not in ":|"


# --- commands and code ------------------------------------------------------------------------------------------------


def commands(text: str) -> list[list[str]]:
    """Every ``lora-foundry`` command of a page as words: lines of its code blocks, and forms in backticks in full."""
    lines = [piece for block in blocks(text) for line in block.splitlines() for piece in line.split(" && ")]
    forms = [form for form in re.findall(r"`(lora-foundry [^`]+)`", unfenced(text)) if not MENTION.fullmatch(form)]
    lines += [re.sub(r"[\[\]]| \.\.\.", "", form) for form in forms]
    found = (re.match(r"(?:\$ )?(?:\.venv/bin/)?lora-foundry +(.*)", line) for line in lines)
    return [shlex.split(match[1], comments=True) for match in found if match]


@every_page
def test_every_command_parses(page):
    for words in commands(TEXT[page]):
        _parser().parse_args(words)


def test_there_are_commands_to_parse():
    verbs = {words[0] for text in TEXT.values() for words in commands(text)}
    table = {
        cell.strip("`").split()[1] for cell in cells(doc("docs/command-line.md")) if cell.startswith("`lora-foundry ")
    }
    known = {"demo", "init", "inspect", "check", "lineage", "bake", "benchmark", "doctor"}
    assert verbs <= table == known | {"merge", "resize", "extract", "conflicts", "batch", "convert"}
    assert {"inspect", "check", "bake"} <= {words[0] for words in commands(README)}


def test_every_option_of_bake_is_explained():
    usage = _bake_options()
    told = set(re.findall(r"(--[a-z-]+)", " ".join(cells(section(doc("docs/command-line.md"), "Bake")))))
    assert told == usage


def _bake_options() -> set[str]:
    """The long options of ``bake`` beside ``--help``, ``--json`` and ``--out``."""
    (verbs,) = [action.choices for action in _parser()._actions if isinstance(action.choices, dict)]
    names = {name for action in verbs["bake"]._actions for name in action.option_strings if name.startswith("--")}
    return names - {"--help", "--json", "--out"}


def test_demo_prints_the_table_of_the_readme(run_cli):
    """Its orders and verdicts; the numbers move by their last digit from one kind of CPU to another."""
    (table,) = [block for block in blocks(README) if block.startswith("A tiny Wan")]
    done = run_cli("demo")
    assert done.returncode == 0, done.stderr
    assert _orders(table) and _orders(table) == [row for row in _orders(done.stdout) if row in _orders(table)]


def _orders(text: str) -> list[tuple[str, str]]:
    rows = [re.split(r"  +", line) for line in text.splitlines() if re.search(r"  (right|wrong|refused): ", line)]
    return [(row[0], row[-1].partition(":")[0]) for row in rows]


@every_page
def test_code_is_code(page):
    for code in blocks(TEXT[page], "python"):
        compile(code, page.name, "exec")
    for text in blocks(TEXT[page], "yaml"):
        parse_document(parse_text(text, page.name), page.name)
    for text in blocks(TEXT[page], "json"):
        json.loads(text if text.startswith("[") else f"{{{text}}}")


def test_the_two_commands_are_what_ci_runs():
    lines = section(README, "Try it in two commands").split("```")[1].strip().splitlines()
    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8").splitlines()
    assert len(lines) == 2 and set(lines) <= set(script)


# --- what is listed ---------------------------------------------------------------------------------------------------


def test_every_node_is_listed_under_its_menu_name():
    names = list(dictionary("nodes/__init__.py", "NODE_DISPLAY_NAME_MAPPINGS").values())
    assert cells(section(doc("docs/graph.md"), "Nodes")) == names


def test_every_code_is_explained_once():
    written = [path.read_text(encoding="utf-8") for path in PACK]
    used = {code for text in written for code in re.findall(r'"(LF\d{3})[".]', text)}
    used |= {key.partition(".")[0] for key in TEXTS if key.startswith("LF")}
    told = [code for code in cells(doc("docs/messages.md")) if code.startswith("LF")]
    assert sorted(told) == sorted(used)


def test_every_area_of_an_error_is_explained_once():
    """The words that stand where a code would: first argument of ``FoundryError``, or in a key of a text."""
    calls = [call for path in PACK for call in nodes_of(path, ast.Call) if call.args]
    firsts = [call.args[0] for call in calls if ast.unparse(call.func) == "FoundryError"]
    words = {each.value for each in firsts if isinstance(each, ast.Constant) and not each.value.startswith("LF")}
    words |= {key.partition(".")[0] for key in TEXTS if not key.startswith("LF")}
    told = [word for cell in cells(doc("docs/messages.md")) for word in re.findall(r"`(\w+)`", cell)]
    assert words and sorted(told) == sorted(words)


def test_every_file_is_on_the_map():
    named = mapped()
    assert not [pattern for pattern in named if not list(ROOT.glob(pattern))]
    known = {path for pattern in named for path in ROOT.glob(pattern)}
    files = {path for path in PACK if path.name != "__init__.py"}
    files |= {path for kind in ("*.js", "*.mjs", "*.css") for path in (ROOT / "web").glob(kind)}
    assert not {name_of(path) for path in files - known}


def mapped() -> list[str]:
    """Every path of the map: the heading of the third level names the room, the first column the files in it."""
    named: list[str] = []
    for part in re.split(r"\n(?=##+ )", doc("docs/architecture.md").split("\n## Engine\n", 1)[1]):
        room = re.match(r"### `([^`]+)`", part)
        names = [name for cell in cells(part) for name in re.findall(r"`([^`]+)`", cell)]
        named += [f"{room[1] if room else ''}{name.rstrip('/')}" for name in names]
    return named


# What somebody who never saw the code wants to change -> words of the line that answers, the file, and what is in it.
TWELVE = {
    "FLUX's keep-list": ("(FLUX)", "engine/quantize.py", '"flux"'),
    "an accelerator": ("known accelerator", "loaders/lineage/accelerators.json", "hyper-sd15-8steps"),
    "a dialect": ("a dialect:", "loaders/names/dialects.py", "lora_magnitude_vector"),
    "the text of LF302": ("LF302", "engine/texts/lf3.py", '"LF302.'),
    "the fp8 rounding": ("codes are rounded", "engine/codes.py", "round"),
    "what check --json prints": ("`check --json`", "cli/check.py", "print_json("),
    "a tooltip": ("tooltips", "nodes/layers.py", "tooltip"),
    "alpha of an adapter": ("alpha of an adapter", "loaders/loras/alphas.py", "alpha"),
    "the steps of a KSampler": ("steps and CFG", "loaders/workflows/sampling.py", "steps"),
    "a temp file's name": ("temporary file", "loaders/disk/temps.py", "def hidden("),
    "the browser's panel": ("browser's panel", "web/panel.mjs", "panel"),
    "where S3 would go": ("S3", "loaders/remote/s3.py", "s3"),
}


@pytest.mark.parametrize("question", TWELVE)
def test_the_first_table_says_which_file_to_open(question):
    words, file, inside = TWELVE[question]
    lines = [line for line in section(doc("docs/architecture.md"), "To change ..., open ...").splitlines()
             if line.startswith("|") and words in line.split("|")[1]]  # fmt: skip
    assert len(lines) == 1 and {f"`{file}`", f"`{file.rpartition('/')[2]}`"} & set(re.findall("`[^`]+`", lines[0]))
    assert inside in (ROOT / file).read_text(encoding="utf-8")


def test_the_map_has_every_room():
    rooms = {f"{path.parent.relative_to(ROOT).as_posix()}/" for path in PACK} - {"./"}
    headed = set(re.findall(r"^### `([^`]+)`", doc("docs/architecture.md"), re.M))
    assert rooms - {"loaders/"} == headed


def test_every_promise_names_the_test_that_holds_it():
    """Each row of the table, and each file of attacks; what a row names is there."""
    page = doc("SECURITY.md")
    rows = [line for line in section(page, "What it promises").splitlines() if line.startswith("| ")][1:]
    named = [re.findall(r"\]\((tests/[\w/]+\.py)\)", line.rsplit("|", 2)[1]) for line in rows]
    assert len(rows) > 15 and all(named)
    told = {name for names in named for name in names}
    assert not [name for name in told if not (ROOT / name).is_file()]
    assert {name_of(path) for path in (ROOT / "tests" / "attacks").glob("test_*.py")} <= told
