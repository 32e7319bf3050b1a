"""What is registered stays registered, and what is closed goes."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

from pymicro.errors import BackendUnavailable, ConfigurationError
from pymicro.registry import Node, ServiceRecord
from pymicro_testing.servers import EtcdServer


@pytest.mark.parametrize(("ttl", "granted"), [(90, 90), (4.2, 5), (0.5, 1)])
async def test_the_lease_is_the_ttl_in_whole_seconds(
    open_registry: Any, etcd: Any, record: Any, name: str, ttl: float, granted: int
) -> None:
    registry = await open_registry()
    await registry.register(record(name), ttl=ttl)
    (key,) = (await etcd.keys(name)).values()
    assert await etcd.ttl(key.lease) == granted


async def test_closing_ends_the_lease_too(open_registry: Any, etcd: Any, record: Any, name: str) -> None:
    registry = await open_registry()
    registration = await registry.register(record(name), ttl=90)
    (key,) = (await etcd.keys(name)).values()
    await registration.aclose()
    assert await etcd.keys(name) == {}
    assert await etcd.ttl(key.lease) == 0


async def test_a_key_without_a_lease_goes_with_its_registration(
    open_registry: Any, etcd: Any, record: Any, name: str
) -> None:
    registry = await open_registry()
    registration = await registry.register(record(name), ttl=0)
    (key,) = (await etcd.keys(name)).values()
    assert key.lease == 0
    await registration.aclose()
    assert await etcd.keys(name) == {}


async def test_a_busy_process_renews_in_time_and_puts_nothing_again(
    open_registry: Any, etcd: Any, record: Any, name: str
) -> None:
    registry = await open_registry()
    for number in range(50):
        await registry.register(record(name, str(number)), ttl=3)
    before = await etcd.keys(name)
    end = time.monotonic() + 3.5
    while time.monotonic() < end:
        time.sleep(0.2)  # noqa: ASYNC251  # a handler that hogs the loop
        await asyncio.sleep(0.01)
    assert len(before) == 50
    assert await etcd.keys(name) == before


async def test_a_deleted_key_is_put_again(
    open_registry: Any, etcd: Any, record: Any, name: str, eventually: Any
) -> None:
    registry = await open_registry()
    registration = await registry.register(record(name), ttl=90)
    await etcd.delete(f"{name}/{name}-1")
    await eventually(lambda: etcd.keys(name), bool)
    assert registration.state == "registered"


async def test_a_revoked_lease_is_replaced(
    open_registry: Any, etcd: Any, record: Any, name: str, eventually: Any
) -> None:
    registry = await open_registry()
    registration = await registry.register(record(name), ttl=90)
    (key,) = (await etcd.keys(name)).values()
    await etcd.revoke(key.lease)
    (again,) = (await eventually(lambda: etcd.keys(name), bool)).values()
    assert again.lease not in (0, key.lease)
    assert again.value == key.value
    assert registration.state == "registered"


async def test_what_another_process_put_under_the_key_stays(
    open_registry: Any, etcd: Any, record: Any, name: str
) -> None:
    registry, other = await open_registry(), await open_registry()
    registration = await registry.register(record(name, zone="a"), ttl=90)
    await other.register(record(name, zone="b"), ttl=90)
    await registration.aclose()
    (service,) = await other.get_service(name)
    assert service.nodes[0].metadata == {"zone": "b"}


async def test_lost_data_is_registered_again_long_before_the_next_renewal(
    open_registry: Any, etcd: Any, record: Any, name: str, etcd_server: EtcdServer, eventually: Any
) -> None:
    registry = await open_registry()
    registrations = [await registry.register(record(name, str(number)), ttl=ttl) for number, ttl in enumerate((90, 0))]
    await etcd_server.forget()
    await eventually(lambda: etcd.keys(name), lambda keys: len(keys) == 2)
    assert [registration.state for registration in registrations] == ["registered"] * 2


async def test_an_outage_is_known_at_once_and_ends_soon(
    open_registry: Any, record: Any, name: str, etcd_server: EtcdServer, eventually: Any
) -> None:
    registry = await open_registry()
    registration = await registry.register(record(name), ttl=90)

    async def state() -> str:
        return str(registration.state)

    await etcd_server.kill()
    await eventually(state, "pending".__eq__)
    assert isinstance(registration.error, BackendUnavailable)
    await etcd_server.start()
    await eventually(state, "registered".__eq__)
    assert registration.error is None


async def test_an_update_during_an_outage_arrives_after_it(
    open_registry: Any, record: Any, name: str, etcd_server: EtcdServer, eventually: Any
) -> None:
    registry = await open_registry()
    registration = await registry.register(record(name, weight="1"), ttl=90)
    await etcd_server.kill()
    await registration.update(record(name, weight="2"))
    assert registration.state == "pending"
    await etcd_server.start()

    async def weights() -> list[str]:
        try:
            return [node.metadata["weight"] for service in await registry.get_service(name) for node in service.nodes]
        except BackendUnavailable:
            return []

    await eventually(weights, ["2"].__eq__)


async def test_records_that_cannot_be_are_refused(open_registry: Any, name: str) -> None:
    registry = await open_registry()
    for service in (
        ServiceRecord(name),
        ServiceRecord("", nodes=(Node("a", "127.0.0.1:1"),)),
        ServiceRecord(name, nodes=(Node("", "127.0.0.1:1"),)),
        ServiceRecord(name, nodes=(Node("a", "127.0.0.1:1", {"a": "\ud800"}),)),
    ):
        with pytest.raises(ConfigurationError):
            await registry.register(service, ttl=90)
