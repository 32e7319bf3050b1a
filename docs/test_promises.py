"""What pages promise of plugins, checked against their code."""

from __future__ import annotations

import re
from pathlib import Path
from pkgutil import resolve_name

import pytest

from pymicro.broker import Broker, Capability
from pymicro.settings import Settings, reference_page
from pymicro.transport import Transport

ROOT = Path(__file__).resolve().parent.parent
CHOOSING = (ROOT / "docs" / "explanation" / "choosing-backends.md").read_text(encoding="utf-8")
PAGES = [ROOT / "README.md", *sorted(ROOT.glob("docs/*/*.md")), *sorted(ROOT.glob("examples/*/README.md"))]
TABLE = re.compile(r"^\| `--(\w+)=` \|(.+)\|\n\|[- |]+\|\n((?:\|.+\|\n)+)", re.MULTILINE)
FLAG = re.compile(r"--((?:broker|registry|transport|tls|max|server|client)_\w+)")
DEFAULT = re.compile(r"`--(\w+)` \(`([^`]+)`\)")
OF_EXAMPLES = {"registry_static_file_path"}
KNOWN = dict(re.findall(r"^\| `--(\w+)` \| `\w+` \| (?:\\\||[^|])+ \| (?:`([^`]*)`)? *\|", reference_page(), re.M))


def tables(kind: str) -> list[tuple[list[str], dict[str, list[str]]]]:
    """The tables about one kind: the names of the columns, and the cells of each row by its flags."""
    found = []
    for of, columns, body in TABLE.findall(CHOOSING):
        rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in body.splitlines()]
        if of == kind:
            found.append(([name.strip() for name in columns.split("|")], {row[0].strip("`"): row[1:] for row in rows}))
    return found


def made(kind: str, flags: str) -> Broker | Transport:
    """The component that these flags choose; not opened, so no server is asked."""
    settings = Settings.resolve(keywords={}, environ={}, argv=f"--{kind}={flags}".split())
    choice = settings.choices[kind, ""]
    assert choice.plugin is not None
    component: Broker | Transport = resolve_name(choice.plugin.target)(choice.options, None)
    return component


COLUMNS, PROMISES = tables("broker")[0]


def test_the_table_has_every_capability() -> None:
    assert sorted(COLUMNS) == sorted(f"`{capability.name}`" for capability in Capability)


@pytest.mark.parametrize("flags", PROMISES)
def test_the_broker_promises_what_the_table_says(flags: str) -> None:
    assert set(PROMISES[flags]) <= {"yes", "no"}
    said = {column.strip("`") for column, cell in zip(COLUMNS, PROMISES[flags], strict=True) if cell == "yes"}
    broker = made("broker", flags)
    assert isinstance(broker, Broker)
    assert said == {capability.name for capability in broker.capabilities}


@pytest.mark.parametrize("kind", ["registry", "transport", "broker"])
def test_every_table_has_every_plugin(kind: str) -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    listed = set(re.findall(rf"^\| {kind} \| `(\w+)` \|", readme, re.MULTILINE))
    every = [{flags.split()[0] for flags in rows} for _, rows in tables(kind)]
    assert every[0] == listed
    assert all(names <= listed for names in every)
    whole = set(PROMISES) if kind == "broker" else listed
    assert all(set(rows) <= whole for _, rows in tables(kind))


def test_only_http_takes_the_socket_of_worker_processes() -> None:
    ((_, rows),) = tables("transport")
    made_of = {name: made("transport", name) for name in rows}
    assert {name for name, it in made_of.items() if isinstance(it, Transport) and it.takes_socket} == {"http"}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_flags_exist_and_have_the_defaults_that_pages_name(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert {name for name in FLAG.findall(text) if not name.endswith("_")} - set(KNOWN) - OF_EXAMPLES == set()
    named = DEFAULT.findall(text)
    assert [(name, default) for name, default in named] == [(name, KNOWN[name]) for name, _ in named]
