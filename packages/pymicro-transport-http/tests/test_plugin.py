"""What the package says of itself."""

from __future__ import annotations

import subprocess
import sys

from pymicro_transport_http import HttpOptions, _plugin


def test_the_description_is_that_of_the_transport() -> None:
    [plugin] = _plugin.pymicro_plugins()
    assert (plugin.kind, plugin.name, plugin.api, plugin.options) == ("transport", "http", (1, 0), HttpOptions)
    module, _, name = plugin.target.partition(":")
    assert getattr(__import__(module, fromlist=[name]), name).name == plugin.name


def test_options_have_defaults() -> None:
    assert HttpOptions() == HttpOptions(header_timeout=10.0, idle_timeout=180.0, backlog=1024)
    assert HttpOptions().idle_timeout > 75, "Go Micro's clients keep connections for 60 s"


def test_importing_the_package_imports_no_driver() -> None:
    program = "import pymicro_transport_http, sys; sys.exit('httptools' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
