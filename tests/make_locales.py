"""Write locales/en/main.json: what findings say, for the browser and for translators. Run it after changing a text.

``python tests/make_locales.py``; engine/texts.py is the source, and a test compares the two.
"""

from __future__ import annotations

import json
from pathlib import Path

from conftest import ROOT
from lora_foundry.engine.texts import TEXTS

FILE = ROOT / "locales" / "en" / "main.json"


def english() -> str:
    """The file as it has to be: each text's parts by name, in the order of the codes."""
    parts = {key: {"seen": text.seen, "why": text.why, "fix": text.fix} for key, text in sorted(TEXTS.items())}
    return json.dumps({"loraFoundry": {"findings": parts}}, indent=2, ensure_ascii=False) + "\n"


def main(path: Path = FILE) -> None:
    """Write the file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(english(), encoding="utf-8", newline="\n")


if __name__ == "__main__":
    main()
