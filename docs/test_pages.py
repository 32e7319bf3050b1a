"""What pages say of the code, checked against it."""

from __future__ import annotations

import re
from pathlib import Path

from pymicro.plugins._host import HOST
from pymicro.plugins._kinds import KINDS

ROOT = Path(__file__).resolve().parent.parent
WALK = ROOT / "docs" / "explanation" / "the-walk-of-a-call.md"
SECTION = re.compile(r"^### .*\]\((.+)\)\n((?:(?!#).*\n)+)", re.MULTILINE)
NAME = re.compile(r"\*\*`(\w+)`\*\*")
PLUGIN = re.compile(r"^\| (\w+) \| `(\w+)` \|", re.MULTILINE)


def test_the_walk_names_what_is_there() -> None:
    sections = SECTION.findall(WALK.read_text(encoding="utf-8"))
    assert len(sections) > 10
    missing = []
    for link, text in sections:
        file = (WALK.parent / link).resolve()
        sources = file.read_text(encoding="utf-8") + "".join(
            (WALK.parent / other).read_text(encoding="utf-8") for other in re.findall(r"\]\((\S+\.py)\)", text)
        )
        missing += [
            f"{file.name}: {name}"
            for name in NAME.findall(text)
            if not re.search(rf"^\s*(?:async )?(?:def|class) {name}\b", sources, re.MULTILINE)
        ]
    assert missing == []


def test_the_readme_lists_every_official_plugin() -> None:
    listed = set(PLUGIN.findall((ROOT / "README.md").read_text(encoding="utf-8")))
    plugins = {(kind, name): HOST.find(kind, name) for kind in KINDS for name in HOST.names(kind)}
    official = {key for key, plugin in plugins.items() if plugin.target.startswith(("pymicro.", "pymicro_"))}
    assert listed == official
