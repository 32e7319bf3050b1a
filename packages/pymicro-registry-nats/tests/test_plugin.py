"""What the package says of itself, and what it costs who does not use it."""

from __future__ import annotations

import subprocess
import sys

from pymicro_registry_nats import NatsRegistryOptions, _plugin


def test_the_description_is_that_of_the_registry() -> None:
    [plugin] = _plugin.pymicro_plugins()
    assert (plugin.kind, plugin.name, plugin.api, plugin.options) == ("registry", "nats", (1, 0), NatsRegistryOptions)
    module, _, name = plugin.target.partition(":")
    assert getattr(__import__(module, fromlist=[name]), name).name == plugin.name


def test_importing_the_package_imports_no_driver() -> None:
    program = "import pymicro_registry_nats, pymicro_registry_nats._registry, sys; sys.exit('nats' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
