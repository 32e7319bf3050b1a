"""What the template makes passes the lint and fails conformance with clear names."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PLUGINS = [("broker", "redis"), ("registry", "example"), ("transport", "two_words")]


def run(root: Path, *command: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a Python program in the checkout."""
    return subprocess.run(
        [sys.executable, *command], cwd=root, env=os.environ | environment, capture_output=True, text=True, check=False
    )


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkout as far as the tools look at it, with a new plugin of each kind."""
    root = tmp_path_factory.mktemp("checkout")
    (root / "packages").mkdir()
    for name in ("pymicro-core", "pymicro-testing"):
        (root / "packages" / name).symlink_to(ROOT / "packages" / name)
    (root / "pyproject.toml").write_bytes((ROOT / "pyproject.toml").read_bytes())
    for kind, name in PLUGINS:
        made = new_plugin(root, kind, name)
        assert (made.returncode, made.stderr) == (0, "")
    return root


def new_plugin(root: Path, kind: str, name: str) -> subprocess.CompletedProcess[str]:
    """What `hatch run new-plugin` runs."""
    return run(ROOT, ROOT / "template" / "new_plugin.py", kind, name, "--root", root)


def folder(root: Path, kind: str, name: str) -> Path:
    return root / "packages" / f"pymicro-{kind}-{name.replace('_', '-')}"


def test_it_passes_the_lint(checkout: Path) -> None:
    folders = [str(folder(checkout, *plugin)) for plugin in PLUGINS]
    checks = (
        ("ruff", "check", "--no-cache", *folders),
        ("ruff", "format", "--no-cache", "--check", *folders),
        ("mypy", f"--cache-dir={checkout / 'types'}", *(f"{each}/src" for each in folders)),
    )
    for tool, *arguments in checks:
        done = run(checkout, "-m", tool, *arguments)
        assert done.returncode == 0, done.stdout + done.stderr


def test_nothing_of_the_template_is_left_in_it(checkout: Path) -> None:
    for plugin in PLUGINS:
        made = [path for path in folder(checkout, *plugin).rglob("*") if path.is_file()]
        assert {"pyproject.toml", "README.md", "CHANGELOG.md", "LICENSE", "py.typed"} <= {path.name for path in made}
        assert not [path for path in made if "${" in path.read_text("utf-8") or path.suffix == ".tmpl"]


def test_it_is_entered_where_plugins_are_listed(checkout: Path) -> None:
    before, after = ((root / "pyproject.toml").read_text("utf-8") for root in (ROOT, checkout))
    for name in ("pymicro_registry_example", "pymicro_transport_two_words"):
        assert after.count(f'    "{name}",\n') == before.count('    "pymicro_transport_http",\n')
    listed = re.findall(r"\n((?: {4}\"[\w.]+\",\n)+)", after)
    for block in (block for block in listed if "pymicro_" in block):
        assert block.splitlines() == sorted(set(block.splitlines()))


@pytest.mark.parametrize(("kind", "name"), PLUGINS)
def test_it_fails_conformance_with_the_names_of_what_is_missing(checkout: Path, kind: str, name: str) -> None:
    made = folder(checkout, kind, name)
    done = run(
        checkout, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--tb=line", made, PYTHONPATH=f"{made / 'src'}"
    )
    assert done.returncode == 1, done.stdout + done.stderr
    assert "error" not in done.stdout.splitlines()[-1]
    failed = {line.split("::")[-1].partition("[")[0] for line in done.stdout.splitlines() if line.startswith("FAILED")}
    assert len(failed) > 20
    assert not failed & {f"test_the_description_is_that_of_the_{kind}", "test_options_have_defaults"}
    camel = name.replace("_", " ").title().replace(" ", "") + kind.capitalize()
    assert f"NotImplementedError: {camel}._open" in done.stdout


def test_it_overwrites_nothing(checkout: Path) -> None:
    again = new_plugin(checkout, "broker", "redis")
    assert again.returncode == 2
    assert "pymicro-broker-redis exists" in again.stderr


@pytest.mark.parametrize("name", ["Redis", "2way", "a-b", "_x", "a b", "../x", ""])
def test_a_name_that_cannot_be_a_flag_is_refused(tmp_path: Path, name: str) -> None:
    refused = new_plugin(tmp_path, "broker", name)
    assert refused.returncode == 2
    assert "is no name of a plugin" in refused.stderr
    assert not any(tmp_path.iterdir())
