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


def test_the_reference_is_up_to_date(check: ModuleType) -> None:
    assert check.REFERENCE.read_text(encoding="utf-8") == check.reference_page()
