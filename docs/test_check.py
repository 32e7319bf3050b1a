from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest


@pytest.fixture(scope="module")
def check() -> ModuleType:
    spec = importlib.util.spec_from_file_location("check", Path(__file__).with_name("check.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def broken(check: ModuleType, tmp_path: Path) -> Callable[..., list[str]]:
    """Write pages and return the faults of their links."""

    def find(**texts: str) -> list[str]:
        for name, text in texts.items():
            (tmp_path / f"{name}.md").write_text(text)
        pages = {path: path.read_text() for path in check.markdown_files(tmp_path)}
        return list(check.broken_links(tmp_path, pages))

    return find


@pytest.mark.parametrize(
    "link",
    [
        "[b](b.md)",
        "[b](./b.md#two-words)",
        "[b](b.md#two-words-1)",
        "[self](#here)",
        '[b](<b.md> "title")',
        "[b][ref]\n\n[ref]: b.md",
        "[web](https://example.org/x) [mail](mailto:a@example.org)",
        "`[no](link.md)`",
        "```\n[no](link.md)\n```",
        "[![badge](b.md)](b.md)",
    ],
)
def test_good_links(broken: Callable[..., list[str]], link: str) -> None:
    assert broken(a=f"# Here\n\n{link}\n", b="# `Two` words\n\n## Two words\n") == []


@pytest.mark.parametrize(
    ("link", "fault"),
    [
        ("[c](c.md)", "a.md: c.md: no such file"),
        ("![c](c.png)", "a.md: c.png: no such file"),
        ("[b](b.md#three)", "a.md: b.md#three: no such heading"),
        ("[b](#three)", "a.md: #three: no such heading"),
        ("[up](../../x.md)", "a.md: ../../x.md: leads out of the repository"),
        ("[c][ref]\n\n[ref]: c.md", "a.md: c.md: no such file"),
    ],
)
def test_bad_links(broken: Callable[..., list[str]], link: str, fault: str) -> None:
    assert broken(a=f"# Here\n\n{link}\n", b="# Two\n\n```\n# Three\n```\n") == [fault]


def test_generated_parts(check: ModuleType, tmp_path: Path) -> None:
    page, empty = tmp_path / "a.md", "<!-- options of registry.x -->\n<!-- end of options -->\n"
    tables = {"registry.x": "table\n"}
    filled = check.generated(empty, tables)

    assert filled == "<!-- options of registry.x -->\ntable\n<!-- end of options -->\n"
    assert check.generated(filled, tables) == filled
    assert list(check.stale_parts(tmp_path, {page: filled}, tables)) == []
    assert ["out of date" in line for line in check.stale_parts(tmp_path, {page: empty}, tables)] == [True]
    assert list(check.stale_parts(tmp_path, {page: ""}, tables)) == ["no page has `<!-- options of registry.x -->`"]
    assert list(check.stale_parts(tmp_path, {page: filled}, {})) == ["a.md: no plugin registry.x with options"]


@pytest.fixture
def snippets(tmp_path: Path) -> Path:
    """A repository with a program that has a region."""
    (tmp_path / "a.py").write_text("one = 1\n\n\n# region f\ndef f() -> int:\n    return one\n\n\n# endregion\n")
    (tmp_path / "docs").mkdir()
    return tmp_path


@pytest.mark.parametrize(
    ("source", "code"),
    [("a.py", "one = 1\n\n\ndef f() -> int:\n    return one\n"), ("a.py#f", "def f() -> int:\n    return one\n")],
)
def test_snippets_show_files(check: ModuleType, snippets: Path, source: str, code: str) -> None:
    page = snippets / "docs" / "a.md"
    filled = check.generated(f"<!-- snippet: {source} -->\n```python\nold\n```\n", {}, snippets)

    assert filled == f"<!-- snippet: {source} -->\n```python\n{code}```\n"
    assert check.generated(filled, {}, snippets) == filled
    assert list(check.broken_snippets(snippets, {page: filled})) == []


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("<!-- snippet: b.py -->\n```python\n```\n", "b.py#: no such file or region"),
        ("<!-- snippet: a.py#g -->\n```python\n```\n", "a.py#g: no such file or region"),
        ("<!-- snippet: a.py -->\n\n```text\n```\n", "a snippet's comment stands right above a code block"),
        ("```python\n```\n", "a block of Python that is no snippet, so nobody runs it"),
    ],
)
def test_broken_snippets(check: ModuleType, snippets: Path, text: str, fault: str) -> None:
    assert list(check.broken_snippets(snippets, {snippets / "docs" / "a.md": text})) == [f"docs/a.md: {fault}"]


def test_tables_of_errors(check: ModuleType) -> None:
    filled = check.generated("<!-- errors under UsageError -->\n<!-- end of errors -->\n", {})

    assert "| `Closed` | `UsageError` | The object was closed, or was not opened. |\n" in filled
    assert check.generated(filled, {}) == filled


def test_the_reference_is_up_to_date(check: ModuleType) -> None:
    assert check.REFERENCE.read_text(encoding="utf-8") == check.reference_page()
