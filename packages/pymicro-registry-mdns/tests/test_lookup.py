"""Registering and looking up on one host."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import Any

import pytest

from pymicro.clock import SystemClock
from pymicro.errors import BackendUnavailable, Closed, ConfigurationError
from pymicro.plugins import Build
from pymicro.registry import Node, ServiceRecord
from pymicro_registry_mdns import MdnsOptions, _network
from pymicro_registry_mdns._interfaces import GROUP_4, PORT, Interface, asking_socket
from pymicro_registry_mdns._packets import Wire
from pymicro_registry_mdns._registry import MdnsRegistry
from pymicro_registry_mdns._responder import Responder

LOOPBACK = Interface("lo", 1, "127.0.0.1")


def id_of(node: Node) -> str:
    return node.id


async def test_two_registries_find_each_other(open_registry: Any, record: Callable[..., ServiceRecord]) -> None:
    one, other = await open_registry(), await open_registry()
    mine, yours = record(zone="a"), record(address="127.0.0.1:9001")
    await one.register(mine, ttl=30)
    await other.register(yours, ttl=30)
    for registry in (one, other):
        (found,) = await registry.get_service("greeter")
        assert sorted(found.nodes, key=id_of) == sorted([*mine.nodes, *yours.nodes], key=id_of)
        assert await registry.list_services() == ["greeter"]


async def test_domains_are_apart(open_registry: Any, record: Callable[..., ServiceRecord]) -> None:
    one, other = await open_registry(), await open_registry(domain="elsewhere")
    await one.register(record(), ttl=30)
    assert await other.get_service("greeter") == ()
    assert await other.list_services() == []


async def test_names_that_cannot_be_are_unknown(open_registry: Any) -> None:
    registry = await open_registry()
    assert await registry.get_service("x" * 64) == ()
    async with registry.watch("a..b") as snapshots:
        assert (await anext(snapshots)).services == ()


async def test_what_does_not_fit_is_refused(open_registry: Any, record: Callable[..., ServiceRecord]) -> None:
    registry = await open_registry()
    with pytest.raises(ConfigurationError, match="IP:port only"):
        await registry.register(record(address="localhost:9000"), ttl=30)


async def test_one_node_in_two_registrations_goes_with_the_last(
    open_registry: Any, record: Callable[..., ServiceRecord]
) -> None:
    one, other = await open_registry(), await open_registry()
    first, second = [await one.register(record(id="greeter-1"), ttl=30) for _ in range(2)]
    async with other.watch("greeter") as snapshots:
        assert len((await anext(snapshots)).services) == 1
        await first.aclose()
        assert len(await other.get_service("greeter")) == 1
        await second.aclose()
        assert (await anext(snapshots)).services == ()


async def test_noise_does_not_disturb(open_registry: Any, record: Callable[..., ServiceRecord]) -> None:
    registry = await open_registry()
    await registry.register(record(), ttl=30)
    domain = registry._wire.query("greeter")[12 + 8 :]
    with asking_socket(LOOPBACK) as noisy:
        for junk in (b"", b"\0", bytes(12) + domain, b"\xff" * 500 + domain, domain * 500):
            noisy.sendto(junk, (GROUP_4, PORT))
    assert len(await registry.get_service("greeter")) == 1


async def test_one_question_that_comes_by_two_ways_is_answered_once(record: Callable[..., ServiceRecord]) -> None:
    wire = Wire("micro", "vm")
    network = _network.Network((), SystemClock(), Build().logger, hear=lambda *_: (), answered=print, changed=print)
    responder = Responder(wire, network, SystemClock())
    responder.put("owner", wire.entries(record()))
    query, again = wire.query("greeter"), wire.query("greeter")
    assert len(list(responder.hear(query, ("10.0.0.5", 40000)))) == 1
    assert list(responder.hear(query, ("10.0.0.5", 40000))) == []
    assert len(list(responder.hear(query, ("10.0.0.6", 40000)))) == 1
    assert len(list(responder.hear(again, ("10.0.0.5", 40000)))) == 1
    assert list(responder.hear(wire.query("greeter"), ("10.0.0.5", PORT))) == [], "an answer to port 5353"
    responder.drop("owner")
    assert list(responder.hear(wire.query("greeter"), ("10.0.0.5", 40000))) == []


async def test_nothing_is_opened_before_the_first_call(monkeypatch: pytest.MonkeyPatch) -> None:
    def usable(_: object) -> None:
        raise AssertionError("the interfaces were looked at")

    monkeypatch.setattr(_network, "usable", usable)
    async with MdnsRegistry():
        pass


async def test_without_the_interface_everything_waits(
    open_registry: Any, record: Callable[..., ServiceRecord], caplog: pytest.LogCaptureFixture
) -> None:
    registry = await open_registry(interfaces=("no-such-interface",))
    for _ in range(2):
        registration = await registry.register(record(), ttl=30)
        assert registration.state == "pending"
        assert isinstance(registration.error, BackendUnavailable)
    with pytest.raises(BackendUnavailable, match=r"no-such-interface can do multicast: use another registry, .*memory"):
        await registry.get_service("greeter")
    with pytest.raises(BackendUnavailable):
        await registry.list_services()
    async with registry.watch("greeter") as snapshots:
        snapshot = await anext(snapshots)
        assert (snapshot.services, snapshot.stale) == ((), True)
        assert isinstance(snapshot.error, BackendUnavailable)
    assert len(caplog.records) == 1


async def test_a_port_that_is_not_shared_leaves_lookups(
    open_registry: Any, record: Callable[..., ServiceRecord], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: Interface) -> socket.socket:
        raise OSError(98, "Address already in use")

    other = await open_registry()
    await other.register(record(), ttl=30)
    monkeypatch.setattr(_network, "speaking_socket", refuse)
    registry = await open_registry()
    registration = await registry.register(record(), ttl=30)
    assert registration.state == "pending"
    assert "port 5353" in str(registration.error)
    assert len(await registry.get_service("greeter")) == 1


async def test_closing_ends_a_lookup_with_closed(options: MdnsOptions) -> None:
    registry = MdnsRegistry(options)
    async with registry:
        lookup = asyncio.create_task(registry.get_service("nobody"))
        await asyncio.sleep(0.01)
    with pytest.raises(Closed):
        await lookup
