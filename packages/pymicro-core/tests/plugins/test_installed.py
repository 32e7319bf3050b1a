"""Plugins of installed distributions: found by their metadata, imported when chosen."""

from __future__ import annotations

import logging
import subprocess
import sys
from typing import Any

import msgspec
import pytest

from pymicro.errors import PluginConflict, PluginFailed, PluginIncompatible, UnknownPlugin
from pymicro.plugins import enable
from pymicro.plugins._host import Host, load
from pymicro.plugins._kinds import KINDS
from pymicro.plugins._official import OFFICIAL

LIST = """
import sys
from pymicro.plugins._host import HOST
from pymicro.plugins._kinds import KINDS

for kind in KINDS:
    HOST.names(kind)
assert "fake" in HOST.names("registry"), HOST.names("registry")
foreign = [name for name in sys.modules if name.startswith("pymicro_")]
assert not foreign, foreign
HOST.find("registry", "fake")
foreign = {name for name in sys.modules if name.startswith("pymicro_")}
assert foreign == {"pymicro_registry_fake", "pymicro_registry_fake._plugin"}, foreign
"""


@pytest.fixture
def preferred(monkeypatch: pytest.MonkeyPatch) -> str:
    """Make `auto` prefer a broker that this test may install."""
    monkeypatch.setitem(KINDS, "broker", msgspec.structs.replace(KINDS["broker"], preferred="pigeon"))
    return "pigeon"


def test_the_chosen_one_is_found_and_loaded(host: Host, site: Any) -> None:
    package = site.package("birds", "registry", "fake")

    assert load(host.find("registry", "fake")).__module__ == f"{package}._impl"


def test_names_are_listed_without_importing(site: Any) -> None:
    site.package("pymicro-registry-fake", "registry", "fake")
    site.metadata("broken", {"registry.broken": "is_not_there", "no kind": "is_not_there"})

    done = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(site.path)!r})\n{LIST}"],
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stderr


def test_dashes_and_aliases_find_it_too(host: Host, site: Any) -> None:
    site.package("birds", "registry", "fake_one", aliases=("other-one",))

    assert host.find("registry", "fake-one") is host.find("registry", "other_one")


def test_what_is_installed_while_the_process_runs_is_found(host: Host, site: Any) -> None:
    with pytest.raises(UnknownPlugin):
        host.find("registry", "fake")
    site.package("birds", "registry", "fake")

    assert host.find("registry", "fake").name == "fake"


def test_an_unknown_name_helps(host: Host, site: Any) -> None:
    site.package("birds", "registry", "pigeon")

    with pytest.raises(UnknownPlugin) as caught:
        host.find("registry", "pidgeon", source="flag --registry")

    text = str(caught.value)
    assert text.startswith("There is no registry plugin 'pidgeon' (flag --registry). Did you mean 'pigeon'?")
    assert "memory" in text
    assert "pip install" not in text


@pytest.mark.parametrize("name", ["etcd", "ectd", "ETCD"])
def test_only_our_own_packages_are_worth_an_install_hint(
    host: Host, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "path", [])  # as if nothing were installed
    with pytest.raises(UnknownPlugin, match=r"To install: pip install pymicro-registry-etcd$"):
        host.find("registry", name)


def test_every_plugin_package_of_the_repository_is_official(request: pytest.FixtureRequest) -> None:
    folders = [path.name.split("-", 2) for path in (request.path.parents[3]).glob("pymicro-*-*")]

    assert folders
    assert all(name in OFFICIAL[kind] for _, kind, name in folders)


def test_two_distributions_with_one_name_conflict_when_it_is_chosen(host: Host, site: Any) -> None:
    site.metadata("birds", {"registry.fake": "birds"})
    site.metadata("planes", {"registry.fake": "planes"})
    site.package("fine", "registry", "fine")

    assert host.find("registry", "fine").name == "fine"
    with pytest.raises(PluginConflict, match=r"registry\.fake: birds 1\.0 and planes 1\.0"):
        host.find("registry", "fake")


def test_two_distributions_with_one_codec_conflict_always(host: Host, site: Any) -> None:
    site.metadata("birds", {"codec.fake": "birds"})
    site.metadata("planes", {"codec.fake": "planes"})

    with pytest.raises(PluginConflict, match=r"birds 1\.0 and planes 1\.0"):
        host.all("codec")


def test_an_installed_plugin_conflicts_with_an_enabled_one(host: Host, site: Any) -> None:
    site.package("birds", "registry", "fake")
    site.package("planes", "registry", "other")
    site.module("mine", (site.path / "birds" / "_plugin.py").read_text())
    enable("mine")

    assert host.find("registry", "other").name == "other"
    with pytest.raises(PluginConflict, match=r"module mine, .* birds 1\.0"):
        host.find("registry", "fake")


def test_the_names_of_the_core_cannot_be_taken(host: Host, site: Any, preferred: str) -> None:
    site.package("birds", "broker", "memory")

    assert host.default("broker")[0].target.startswith("pymicro.broker.")
    with pytest.raises(PluginConflict, match="birds"):
        host.find("broker", "memory")


def test_a_hook_that_cannot_be_imported(host: Host, site: Any) -> None:
    site.module("birds", "import is_not_there\n")
    site.metadata("birds", {"registry.fake": "birds"})

    with pytest.raises(PluginFailed, match=r"registry\.fake of birds 1\.0 .* No module named 'is_not_there'") as caught:
        host.find("registry", "fake")

    assert isinstance(caught.value.__cause__, ModuleNotFoundError)


def test_a_hook_that_does_not_describe_what_the_metadata_promise(host: Host, site: Any) -> None:
    site.package("birds", "registry", "real")
    site.metadata("planes", {"registry.fake": "birds._plugin"})

    with pytest.raises(PluginFailed, match=r"planes 1\.0 offers registry\.fake, but its hook"):
        host.find("registry", "fake")


def test_another_version_of_the_plugin_api_matters_when_chosen(host: Host, site: Any) -> None:
    site.package("birds", "registry", "fake", api=(2, 0))

    assert "fake" in host.names("registry")
    with pytest.raises(PluginIncompatible, match=r"registry\.fake .* version 2\.0 .* has 1\.0"):
        host.find("registry", "fake")


@pytest.mark.parametrize(
    ("source", "requires", "hint"),
    [
        ("import not_installed\n", ["not-installed>=1", "pluggy", "gone; extra == 'x'"], "pip install not-installed"),
        ("import not_installed\n", ["pluggy>=1"], ""),
        ("from pluggy import nothing\n", ["not-installed"], ""),
        ("1 / 0\n", ["not-installed"], ""),
        ("", [], ""),
    ],
)
def test_a_plugin_that_cannot_be_imported(host: Host, site: Any, source: str, requires: list[str], hint: str) -> None:
    package = site.package("birds", "registry", "fake", requires)
    site.module(f"{package}._impl", source)
    found = host.find("registry", "fake")

    with pytest.raises(PluginFailed, match=r"plugin registry\.fake cannot be imported") as caught:
        load(found)

    assert str(caught.value).partition("it needs: ")[2] == hint
    assert caught.value.__cause__ is not None


def test_auto_takes_the_preferred_one_if_it_is_installed(host: Host, site: Any, preferred: str) -> None:
    assert host.default("broker")[0].name == "memory"
    site.package("birds", "broker", preferred)
    host.names("broker")

    with pytest.raises(UnknownPlugin):
        host.find("broker", "nobody")
    assert host.default("broker")[0].name == preferred


def test_auto_never_falls_back_from_a_broken_one(host: Host, site: Any, preferred: str) -> None:
    site.metadata("birds", {f"broker.{preferred}": "is_not_there"})

    with pytest.raises(PluginFailed, match="birds"):
        host.default("broker")


def test_an_installed_codec_that_is_broken_is_reported_once_and_left_out(
    host: Host, site: Any, caplog: pytest.LogCaptureFixture
) -> None:
    site.metadata("birds", {"codec.broken": "is_not_there"})
    site.package("planes", "codec", "fine", content_types=("application/x-fine",))

    with caplog.at_level(logging.WARNING, "pymicro"):
        for _ in range(2):
            found = {item.plugin.name: item.asked for item in host.all("codec")}

    assert len([record for record in caplog.records if "birds" in record.getMessage()]) == 1
    assert "broken" not in found
    assert found["fine"] is False
    assert found["json"] is True


def test_an_enabled_codec_comes_first(host: Host, site: Any) -> None:
    package = site.package("birds", "codec", "fine")
    site.package("planes", "codec", "also")
    enable(f"{package}._plugin")

    names = [item.plugin.name for item in host.all("codec")]

    assert names[0] == "fine"
    assert names.index("json") < names.index("also")
    assert host.all("codec")[0].asked
