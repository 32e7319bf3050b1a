"""Services in several threads share the table of descriptions."""

from __future__ import annotations

import importlib
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

from pymicro.plugins._host import Host


def together(*calls: Callable[[], Any]) -> list[Any]:
    """Make all calls at one moment, each in a thread; return what they return."""
    barrier = threading.Barrier(len(calls))

    def run(call: Callable[[], Any]) -> Any:
        barrier.wait(10)
        return call()

    with ThreadPoolExecutor(len(calls)) as pool:
        return [future.result(10) for future in [pool.submit(run, call) for call in calls]]


def test_lookups_of_one_plugin_from_many_threads(host: Host, site: Any) -> None:
    site.package("birds", "registry", "fake")

    found = together(*[lambda: host.find("registry", "fake")] * 8)

    assert all(plugin is found[0] for plugin in found)


def test_import_and_lookup_do_not_wait_for_each_other(host: Host, site: Any) -> None:
    names = [f"fake{number}" for number in range(10)]
    for name in names:
        site.package(f"birds-{name}", "registry", name)

    for name in names:
        together(
            partial(importlib.import_module, f"birds_{name}"),
            partial(host.find, "registry", name),
            lambda: host.names("registry"),
            lambda: host.all("codec"),
        )

    assert set(names) <= set(host.names("registry"))
