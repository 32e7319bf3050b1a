"""Why pluggy does not load entry points: modules that register themselves on import break it."""

import importlib
import sys
from pathlib import Path

import pluggy
import pytest

HOST = """
import pluggy
marker = pluggy.HookspecMarker("demo")
class Hooks:
    @marker
    def plugins(self): ...
manager = pluggy.PluginManager("demo")
manager.add_hookspecs(Hooks)
"""
PLUGIN = """
import sys, pluggy, demo_host
@pluggy.HookimplMarker("demo")
def plugins(): return ["registry.x"]
demo_host.manager.register(sys.modules[__name__], NAME)
"""


@pytest.fixture
def manager(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> pluggy.PluginManager:
    """A manager, and an installed distribution whose module registers itself under `name` when it is imported."""
    (tmp_path / "demo_host.py").write_text(HOST)
    (tmp_path / "demo_plugin.py").write_text(PLUGIN.replace("NAME", repr(name)))
    metadata = tmp_path / "demo_plugin-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: demo-plugin\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text("[demo.plugins]\nregistry.x = demo_plugin\n")
    monkeypatch.syspath_prepend(tmp_path)
    for module in ("demo_host", "demo_plugin"):
        monkeypatch.delitem(sys.modules, module, raising=False)
    found: pluggy.PluginManager = importlib.import_module("demo_host").manager
    return found


@pytest.mark.parametrize("name", ["demo_plugin", "registry.x"])
def test_loading_a_module_that_registers_itself_raises(manager: pluggy.PluginManager, name: str) -> None:
    with pytest.raises(ValueError, match="already registered"):
        manager.load_setuptools_entrypoints("demo.plugins")


@pytest.mark.parametrize("name", ["registry.x"])
def test_one_that_was_imported_before_is_passed_over(manager: pluggy.PluginManager, name: str) -> None:
    importlib.import_module("demo_plugin")
    assert manager.load_setuptools_entrypoints("demo.plugins") == 0
