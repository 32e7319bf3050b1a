"""The containers are what the tests start without them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from pymicro_testing.servers import SERVERS, ConsulServer, KafkaServer

COMPOSE = Path(__file__).parent.parent / "docker-compose.yml"

#: Where clients look for each if they are told nothing.
PORTS = {"consul": 8500, "etcd": 2379, "kafka": 9092, "nats": 4222, "rabbitmq": 5672, "redis": 6379}


@pytest.fixture(scope="module")
def services() -> dict[str, Any]:
    services: dict[str, Any] = yaml.safe_load(COMPOSE.read_text(encoding="utf-8"))["services"]
    return services


def test_the_names_are_those_of_the_servers(services: dict[str, Any]) -> None:
    assert set(services) == set(SERVERS) == set(PORTS)


@pytest.mark.parametrize("name", PORTS)
def test_a_container_is_bound_to_loopback_and_says_when_it_is_ready(services: dict[str, Any], name: str) -> None:
    service = services[name]
    assert service["healthcheck"]["test"]
    assert service["healthcheck"]["retries"] > 0
    assert f"127.0.0.1:{PORTS[name]}:{PORTS[name]}" in service["ports"]
    assert all(port.startswith("127.0.0.1:") for port in service["ports"])


@pytest.mark.parametrize("name", PORTS)
def test_a_container_has_a_version(services: dict[str, Any], name: str) -> None:
    version = services[name]["image"].rpartition(":")[2]
    assert version.lstrip("v")[0].isdigit()


@pytest.mark.parametrize("server", [ConsulServer, KafkaServer])
def test_what_is_installed_here_has_the_version_of_the_container(
    services: dict[str, Any], server: type[ConsulServer | KafkaServer]
) -> None:
    assert services[server.name]["image"].endswith(f":{server.version}")


def test_what_servers_keep_survives_a_restart(services: dict[str, Any]) -> None:
    assert services["redis"]["command"][-2:] == ["--appendonly", "yes"]
    assert "--jetstream" in services["nats"]["command"]
