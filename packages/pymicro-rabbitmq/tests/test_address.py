"""Where servers are, and as whom to log in."""

from __future__ import annotations

import subprocess
import sys

import pytest

from pymicro.errors import ConfigurationError
from pymicro_rabbitmq import RabbitmqOptions, servers


def test_importing_the_package_imports_no_driver() -> None:
    program = "import pymicro_rabbitmq, sys; sys.exit('aiormq' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


@pytest.mark.parametrize(
    ("address", "host", "port", "vhost", "username", "password", "tls"),
    [
        ("", "127.0.0.1", 5672, "/", "guest", "guest", False),
        ("mq", "mq", 5672, "/", "guest", "guest", False),
        ("mq:1", "mq", 1, "/", "guest", "guest", False),
        ("[::1]", "::1", 5672, "/", "guest", "guest", False),
        ("amqp://mq", "mq", 5672, "/", "guest", "guest", False),
        ("amqp://mq/", "mq", 5672, "/", "guest", "guest", False),
        ("amqp://u:p%40s@[::1]:1/a%2Fb", "::1", 1, "a/b", "u", "p@s", False),
        ("amqps://u:p@mq", "mq", 5671, "/", "u", "p", True),
    ],
)
def test_addresses(address: str, host: str, port: int, vhost: str, username: str, password: str, tls: bool) -> None:
    (server,) = servers("broker", (address,) if address else (), RabbitmqOptions(), tls=False)
    assert (server.host, server.port, server.vhost) == (host, port, vhost)
    assert (server.username, server.password, server.tls) == (username, password, tls)
    assert password not in server.label


@pytest.mark.parametrize("address", ["http://mq", "mq:1-3", "mq:x", "amqp://u:p@mq:x", "amqp://mq/?heartbeat=1"])
def test_addresses_that_are_none(address: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        servers("broker", (address,), RabbitmqOptions(), tls=False)
    assert "u:p" not in str(caught.value)
    assert "address" in str(caught.value)


def test_tls_files_make_every_address_secure() -> None:
    found = servers("broker", ("mq", "amqp://mq"), RabbitmqOptions(), tls=True)
    assert [server.port for server in found] == [5671, 5671]
