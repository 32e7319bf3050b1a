"""The hook that adds to a service."""

from __future__ import annotations

import importlib
from types import ModuleType
from typing import Any

import pytest

from pymicro.errors import InvalidHandler, PluginFailed
from pymicro.plugins import enable, hookimpl
from pymicro.plugins._host import Host

CONFIGURE = """
@hookimpl
def pymicro_configure(service):
    service.seen.append(__name__)
"""


class View:
    """As much of a service as these hooks touch."""

    name = "greeter"

    def __init__(self) -> None:
        self.seen: list[str] = []

    def use(self, **middleware: Any) -> None: ...

    def check(self, name: str, probe: Any) -> None: ...

    def handle(self, handler: object) -> None: ...


def test_chosen_plugins_are_asked_for_the_service_that_chose_them(host: Host, site: Any) -> None:
    site.package("birds", "registry", "pigeon", more=CONFIGURE)
    site.package("planes", "registry", "jet", more=CONFIGURE)
    chosen = [host.find("registry", "pigeon")]
    host.find("registry", "jet")
    first, second = View(), View()

    host.configure(first, chosen)
    host.configure(second, [])

    assert first.seen == ["birds._plugin"]
    assert second.seen == []


def test_imported_plugins_are_asked_in_the_order_of_their_import(host: Host, site: Any) -> None:
    site.package("birds", "registry", "pigeon", more=CONFIGURE)
    site.package("planes", "registry", "jet", more=CONFIGURE)
    importlib.import_module("planes")
    importlib.import_module("birds")
    view = View()

    host.configure(view, [])

    assert view.seen == ["planes._plugin", "birds._plugin"]


def test_a_module_may_have_this_hook_only(host: Host) -> None:
    module, view = ModuleType("metrics"), View()
    module.pymicro_configure = hookimpl(lambda service: service.seen.append("metrics"))  # type: ignore[attr-defined]
    enable(module)

    host.configure(view, [])

    assert view.seen == ["metrics"]


@pytest.mark.parametrize(
    ("error", "expected", "text"),
    [
        (ZeroDivisionError("no"), PluginFailed, "module metrics: the hook pymicro_configure failed: no"),
        (InvalidHandler("bad"), InvalidHandler, "^bad$"),
    ],
)
def test_a_failing_hook_is_named(host: Host, error: Exception, expected: type[Exception], text: str) -> None:
    def fail(service: object) -> None:
        raise error

    module = ModuleType("metrics")
    module.pymicro_configure = hookimpl(fail)  # type: ignore[attr-defined]
    enable(module)

    with pytest.raises(expected, match=text):
        host.configure(View(), [])
