"""What the package says of itself."""

from __future__ import annotations

import subprocess
import sys

from pymicro_transport_rabbitmq import RabbitmqTransportOptions, _plugin


def test_the_description_is_that_of_the_transport() -> None:
    [plugin] = _plugin.pymicro_plugins()
    assert (plugin.kind, plugin.name, plugin.api, plugin.options) == (
        "transport",
        "rabbitmq",
        (1, 0),
        RabbitmqTransportOptions,
    )
    module, _, name = plugin.target.partition(":")
    assert getattr(__import__(module, fromlist=[name]), name).name == plugin.name


def test_importing_the_package_imports_no_driver() -> None:
    program = "import pymicro_transport_rabbitmq, sys; sys.exit('aiormq' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
