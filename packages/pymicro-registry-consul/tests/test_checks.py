"""What is registered stays registered and passing, and what is closed goes."""

from __future__ import annotations

import time
from typing import Any

import pytest

from pymicro.errors import BackendUnavailable, ConfigurationError
from pymicro.registry import Node, ServiceRecord
from pymicro_testing.faults import FaultProxy
from pymicro_testing.servers import ConsulServer


async def test_a_node_is_a_service_with_a_check_that_passes(
    open_registry: Any, consul: Any, record: Any, name: str, eventually: Any
) -> None:
    registry = await open_registry()
    await registry.register(record(name, zone="a"), ttl=90)
    (service,) = (await consul.services(name)).values()
    assert (service["ID"], service["Address"], service["Port"]) == (f"{name}-1", "127.0.0.1", 9000)
    assert service["Meta"] == {"zone": "a"}
    await eventually(lambda: consul.statuses(name), {f"service:{name}-1": "passing"}.__eq__)
    check = (await consul.get("agent/checks"))[f"service:{name}-1"]
    assert (check["Type"], check["ServiceID"]) == ("ttl", f"{name}-1")


async def test_a_ttl_of_zero_has_no_check(open_registry: Any, consul: Any, record: Any, name: str) -> None:
    registry = await open_registry()
    registration = await registry.register(record(name), ttl=0)
    assert f"service:{name}-1" not in await consul.get("agent/checks")
    await registration.aclose()
    assert await consul.services(name) == {}


async def test_a_busy_process_renews_in_time_and_registers_nothing_again(
    open_registry: Any, consul: Any, record: Any, name: str, eventually: Any
) -> None:
    registry = await open_registry()
    for number in range(10):
        await registry.register(record(name, str(number)), ttl=3)
    before = await eventually(lambda: consul.modified(name), lambda found: len(found) == 10)
    seen: set[str] = set()
    end = time.monotonic() + 3.5
    while time.monotonic() < end:
        time.sleep(0.2)  # noqa: ASYNC251  # a handler that hogs the loop
        seen.update((await consul.statuses(name)).values())
    assert seen == {"passing"}
    assert await consul.modified(name) == before


async def test_an_expired_check_hides_the_node_and_the_next_renewal_shows_it(
    open_registry: Any, consul: Any, record: Any, name: str, until: Any
) -> None:
    registry = await open_registry()
    await registry.register(record(name), ttl=3)
    async with registry.watch(name) as snapshots:
        await until(snapshots, lambda snapshot: bool(snapshot.services))
        await consul.put(f"agent/check/fail/service:{name}-1")
        hidden = await until(snapshots, lambda snapshot: not snapshot.services)
        assert not hidden.stale
        assert await registry.get_service(name) == ()
        await until(snapshots, lambda snapshot: bool(snapshot.services))


async def test_nodes_of_a_machine_that_is_critical_are_hidden(
    open_registry: Any, consul: Any, record: Any, name: str, eventually: Any
) -> None:
    registry = await open_registry()
    await registry.register(record(name), ttl=90)
    await consul.put("agent/check/register", {"Name": "disk", "TTL": "1h", "Status": "critical"})
    try:
        await eventually(lambda: registry.get_service(name), lambda found: not found)
    finally:
        await consul.put("agent/check/deregister/disk")
    await eventually(lambda: registry.get_service(name), bool)


async def test_what_was_deregistered_behind_its_back_comes_back_long_before_the_next_renewal(
    open_registry: Any, consul: Any, record: Any, name: str, eventually: Any
) -> None:
    registry = await open_registry(heartbeat=0.2)
    registrations = [await registry.register(record(name, str(number)), ttl=ttl) for number, ttl in enumerate((90, 0))]
    for number in range(2):
        await consul.put(f"agent/service/deregister/{name}-{number}")
    await eventually(lambda: consul.services(name), lambda found: len(found) == 2)
    await eventually(lambda: consul.statuses(name), {f"service:{name}-0": "passing"}.__eq__)
    assert [registration.state for registration in registrations] == ["registered"] * 2


async def test_an_outage_is_known_soon_and_an_update_meanwhile_arrives_after_it(
    open_registry: Any, consul: Any, record: Any, name: str, consul_server: ConsulServer, eventually: Any
) -> None:
    async with FaultProxy(consul_server.address) as proxy:
        registry = await open_registry(proxy.address, heartbeat=0.2)
        registration = await registry.register(record(name, weight="1"), ttl=90)

        async def state() -> str:
            return str(registration.state)

        async def weights() -> list[str]:
            return [service["Meta"]["weight"] for service in (await consul.services(name)).values()]

        await proxy.stop()
        await eventually(state, "pending".__eq__)
        assert isinstance(registration.error, BackendUnavailable)
        await registration.update(record(name, weight="2"))
        assert (registration.state, await weights()) == ("pending", ["1"])
        await proxy.start()
        await eventually(state, "registered".__eq__)
        assert (registration.error, await weights()) == (None, ["2"])
        await registry.aclose()


async def test_what_another_process_registered_under_the_id_stays(open_registry: Any, record: Any, name: str) -> None:
    registry, other = await open_registry(), await open_registry()
    registration = await registry.register(record(name, zone="a"), ttl=90)
    await other.register(record(name, zone="b"), ttl=90)
    await registration.aclose()
    (service,) = await other.get_service(name)
    assert service.nodes[0].metadata == {"zone": "b"}


async def test_a_clean_stop_leaves_nothing_at_the_agent_that_was_used_before(
    open_registry: Any, consul: Any, record: Any, name: str, server: Any, consul_server: ConsulServer, eventually: Any
) -> None:
    second = server("consul", number=2)
    async with FaultProxy(consul_server.address) as proxy:
        registry = await open_registry(proxy.address, second.address, heartbeat=0.2)
        registration = await registry.register(record(name), ttl=90)
        await proxy.stop()
        await registration.update(record(name, moved="yes"))
        assert await registry.get_service(name)
        assert await consul.services(name), "it cannot be reached, so it does not know"
        await proxy.start()
        await registration.aclose()
        assert await consul.services(name) == {}
        assert await registry.get_service(name) == ()


async def test_what_consul_cannot_hold_is_refused(open_registry: Any, name: str) -> None:
    registry = await open_registry()
    for service in (
        ServiceRecord(name),
        ServiceRecord("", nodes=(Node("a", "127.0.0.1:1"),)),
        ServiceRecord(name, nodes=(Node("", "127.0.0.1:1"),)),
        ServiceRecord(f"{name}/../x", nodes=(Node("a", "127.0.0.1:1"),)),
        ServiceRecord(name, nodes=(Node("a//b", "127.0.0.1:1"),)),
        ServiceRecord(name, nodes=(Node("a", "127.0.0.1:1", {"a": "\ud800"}),)),
    ):
        with pytest.raises(ConfigurationError):
            await registry.register(service, ttl=90)
        assert await registry.get_service(service.name) == ()
