"""Check the Markdown of the repository; `--write` brings its generated parts up to date first.

Links between files must lead to a file, and to a heading when they name one. Links to other hosts are not followed.

Generated parts stand between a pair of comments, in any Markdown file:

    <!-- options of registry.mdns -->
    <!-- end of options -->

Between them comes the table of that plugin's options, made from the same description as its flags. Each official
plugin that is installed and has options must have its table somewhere. `reference/flags.md` is generated as a whole.

    <!-- errors under ConnectionFailed -->
    <!-- end of errors -->

has a table of that class of `pymicro.errors` and the classes derived from it.

    <!-- snippet: examples/greeter/client.py -->

says that the code block after it shows that file, or with `#name` behind the path, the lines between `# region name`
and `# endregion` in it. In README.md and docs/ every block of Python is such a one: `test_snippets.py` runs the files.
"""

from __future__ import annotations

import argparse
import inspect
import re
import sys
import textwrap
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from pymicro import errors
from pymicro.settings import option_tables, reference_page

ROOT = Path(__file__).resolve().parent.parent
REFERENCE = ROOT / "docs" / "reference" / "flags.md"
SKIPPED = {"node_modules", "dist", "build", "site-packages"}

FENCE = re.compile(r"^ {0,3}(```+|~~~+)[^\n]*\n.*?(?:^ {0,3}\1[`~]* *$|\Z)", re.MULTILINE | re.DOTALL)
CODE_SPAN = re.compile(r"(`+)(?!`).+?(?<!`)\1(?!`)")
HEADING = re.compile(r"^ {0,3}#{1,6} +(.+?) *#* *$", re.MULTILINE)
ANCHOR = re.compile(r"<a +(?:id|name)=\"([^\"]+)\"")
LINK = re.compile(r"\]\(<?([^)\s>]+)>?(?: +\"[^\"]*\")?\)|^ {0,3}\[[^\]]+\]: *<?([^\s>]+)", re.MULTILINE)
ELSEWHERE = re.compile(r"[a-z][a-z0-9+.-]*:|//", re.IGNORECASE)
OPTIONS = re.compile(r"(<!-- options of (\S+) -->\n).*?(<!-- end of options -->)", re.DOTALL)
ERRORS = re.compile(r"(<!-- errors under (\w+) -->\n).*?(<!-- end of errors -->)", re.DOTALL)
BLOCK = r"(?P<open>```(?P<language>\w*)\n)(?P<code>.*?)^```$"
SNIPPET = re.compile(rf"^<!-- snippet: (?P<path>[^\s#]+)#?(?P<region>\S*) -->\n{BLOCK}", re.MULTILINE | re.DOTALL)
SNIPPET_MARK = re.compile(r"^<!-- snippet: .*$", re.MULTILINE)
PYTHON = re.compile(r"^```python\n", re.MULTILINE)
REGION = re.compile(r"^[ \t]*# (?:region \S+|endregion)\n", re.MULTILINE)


def markdown_files(root: Path) -> list[Path]:
    """Every Markdown file below `root`, without hidden folders and what is built or installed."""
    found = (path for path in root.rglob("*.md") if path.is_file())
    return sorted(path for path in found if not _left_out(path.relative_to(root).parts[:-1]))


def _left_out(folders: Sequence[str]) -> bool:
    return any(name in SKIPPED or name.startswith(".") for name in folders)


def anchors(text: str) -> set[str]:
    """What links may name after `#` in this page, as GitHub forms it from headings."""
    body = FENCE.sub("", text)
    seen: dict[str, int] = {}
    found = set(ANCHOR.findall(body))
    for heading in HEADING.findall(body):
        plain = re.sub(r"!?\[([^\]]*)\]\([^)]*\)", r"\1", heading).strip().lower()
        slug = re.sub(r"[^\w\- ]", "", plain).replace(" ", "-")
        found.add(f"{slug}-{seen[slug]}" if slug in seen else slug)
        seen[slug] = seen.get(slug, 0) + 1
    return found


def broken_links(root: Path, pages: dict[Path, str]) -> Iterator[str]:
    """One line for each link that leads nowhere."""
    for page, text in pages.items():
        body = CODE_SPAN.sub("", FENCE.sub("", text))
        for inline, reference in LINK.findall(body):
            target = inline or reference
            if ELSEWHERE.match(target):
                continue
            fault = _fault(root, page, target, pages)
            if fault:
                yield f"{page.relative_to(root)}: {target}: {fault}"


def _fault(root: Path, page: Path, target: str, pages: dict[Path, str]) -> str:
    path, _, anchor = unquote(target).partition("#")
    file = (page.parent / path).resolve() if path else page
    if not file.is_relative_to(root):
        return "leads out of the repository"
    if not file.exists():
        return "no such file"
    if anchor and file in pages and anchor not in anchors(pages[file]):
        return "no such heading"
    return ""


def generated(text: str, tables: dict[str, str], root: Path = ROOT) -> str:
    """The page with its generated parts as they ought to be; an unknown plugin's part stays as it is."""

    def part(match: re.Match[str]) -> str:
        begin, name, end = match.groups()
        return f"{begin}{tables[name]}{end}" if name in tables else match[0]

    def errors_part(match: re.Match[str]) -> str:
        begin, name, end = match.groups()
        return f"{begin}{error_table(name)}{end}"

    def block(match: re.Match[str]) -> str:
        code = snippet(root, match["path"], match["region"])
        return match[0] if code is None else match[0][: match.start("code") - match.start()] + code + "```"

    return SNIPPET.sub(block, ERRORS.sub(errors_part, OPTIONS.sub(part, text)))


def error_table(name: str) -> str:
    """A class of `pymicro.errors` and those derived from it, in the order of their definition."""
    base = getattr(errors, name)
    known: list[Any] = [value for value in vars(errors).values() if inspect.isclass(value)]
    rows = [cls for cls in known if issubclass(cls, base)]
    travels = hasattr(base, "executed")
    columns = ["class", *(["transient", "executed"] if travels else []), "is a", "meaning"]
    lines = [columns, ["---"] * len(columns)]
    for cls in rows:
        facts = [_yes(cls.transient), f"`{cls.executed}`"] if travels else []
        lines.append([f"`{cls.__name__}`", *facts, _bases(cls), _meaning(cls)])
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _yes(fact: bool) -> str:
    return "yes" if fact else "no"


def _bases(cls: type) -> str:
    return ", ".join(f"`{base.__name__}`" for base in cls.__bases__)


def _meaning(cls: type) -> str:
    """The first paragraph of the docstring."""
    return " ".join((inspect.getdoc(cls) or "").partition("\n\n")[0].split())


def snippet(root: Path, path: str, region: str) -> str | None:
    """The file, or one region of it, as a page shows it; None when there is no such file or region."""
    file = root / path
    if not file.is_file():
        return None
    text = file.read_text(encoding="utf-8")
    if region:
        found = re.search(rf"^[ \t]*# region {re.escape(region)}\n(.*?)^[ \t]*# endregion$", text, re.M | re.S)
        if found is None:
            return None
        text = found[1]
    return textwrap.dedent(REGION.sub("", text)).strip("\n") + "\n"


def broken_snippets(root: Path, pages: dict[Path, str]) -> Iterator[str]:
    """One line for each snippet that has no source, and for each block of Python in the docs that is no snippet."""
    for page, text in pages.items():
        name = page.relative_to(root)
        found = list(SNIPPET.finditer(text))
        if len(found) < len(SNIPPET_MARK.findall(text)):
            yield f"{name}: a snippet's comment stands right above a code block"
        for match in found:
            if snippet(root, match["path"], match["region"]) is None:
                yield f"{name}: {match['path']}#{match['region']}: no such file or region"
        shown = sum(match["language"] == "python" for match in found)
        if shown < len(PYTHON.findall(text)) and (name.parts[0] == "docs" or name == Path("README.md")):
            yield f"{name}: a block of Python that is no snippet, so nobody runs it"


def stale_parts(root: Path, pages: dict[Path, str], tables: dict[str, str]) -> Iterator[str]:
    """One line for each generated part that is out of date, missing or of no installed plugin."""
    shown = set()
    for page, text in pages.items():
        names = {part[1] for part in OPTIONS.findall(text)}
        shown |= names
        yield from (f"{page.relative_to(root)}: no plugin {name} with options" for name in sorted(names - set(tables)))
        if generated(text, tables, root) != text or (page == REFERENCE and text != reference_page()):
            yield f"{page.relative_to(root)}: generated part is out of date; run `python docs/check.py --write`"
    yield from (f"no page has `<!-- options of {name} -->`" for name in sorted(set(tables) - shown))


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help="bring the generated parts up to date")
    parser.add_argument("--root", type=Path, default=ROOT, help="the folder to check (default: the repository)")
    chosen = parser.parse_args(arguments)
    root = chosen.root.resolve()
    tables = option_tables()
    if chosen.write and root == ROOT:
        REFERENCE.write_text(reference_page(), encoding="utf-8")
    pages = {path: path.read_text(encoding="utf-8") for path in markdown_files(root)}
    if chosen.write:
        for page, text in pages.items():
            pages[page] = generated(text, tables, root)
            if pages[page] != text:
                page.write_text(pages[page], encoding="utf-8")
    stale = stale_parts(root, pages, tables) if root == ROOT else iter(())
    faults = [*broken_links(root, pages), *broken_snippets(root, pages), *stale]
    print("\n".join(faults) or f"{len(pages)} Markdown files: links and generated parts are in order")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
