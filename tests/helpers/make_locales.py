"""Write locales/en/main.json: what findings and panels say, for translators. Run it after changing a text.

``python tests/helpers/make_locales.py``; engine/texts/ and web/texts.mjs are the sources; a test compares.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # for conftest, where pytest does not do it

from conftest import ROOT  # noqa: E402
from lora_foundry.engine.texts.phrases import PHRASES  # noqa: E402
from lora_foundry.engine.texts.say import TEXTS  # noqa: E402

FILE = ROOT / "locales" / "en" / "main.json"
WORDS = re.compile(r"export const UI = (\{.*?\n\})", re.DOTALL)  # of web/texts.mjs, valid JSON


def english() -> str:
    """The file as it has to be: the browser's own words, and each text's parts by name, in the order of the codes."""
    found = WORDS.search((ROOT / "web" / "texts.mjs").read_text(encoding="utf-8"))
    words = json.loads(found[1]) if found else {}
    parts = {key: {"seen": text.seen, "why": text.why, "fix": text.fix} for key, text in sorted(TEXTS.items())}
    told = {"ui": words, "findings": parts, "phrases": PHRASES}
    return json.dumps({"loraFoundry": told}, indent=2, ensure_ascii=False) + "\n"


def main(path: Path = FILE) -> None:
    """Write the file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(english(), encoding="utf-8", newline="\n")


if __name__ == "__main__":
    main()
