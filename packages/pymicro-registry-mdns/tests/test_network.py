"""Machines with other networks than this one: only loopback, none, interfaces that come and go, several hosts."""

from __future__ import annotations

import asyncio
import socket
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from pymicro.clock import SystemClock, TimerHandle
from pymicro.errors import BackendUnavailable
from pymicro.plugins import Build
from pymicro.registry import Registration, ServiceRecord, Snapshot

ALL_PACKETS = 0x0003  # ETH_P_ALL, linux/if_ether.h
UDP = 17


class FastClock(SystemClock):
    """Twenty seconds pass in one, so that interfaces are looked at often."""

    def monotonic(self) -> float:  # type: ignore[override]  # the base has a static method
        return 20 * time.monotonic()

    async def sleep(self, seconds: float) -> None:  # type: ignore[override]
        await asyncio.sleep(seconds / 20)

    def call_later(self, seconds: float, callback: Callable[..., object], *args: Any) -> TimerHandle:
        return super().call_later(seconds / 20, callback, *args)


FAST = Build(clock=FastClock())
#: In the time of that clock.
PATIENT = {"query_timeout": 5.0, "refresh": 2.0}


def count(snapshot: Snapshot) -> int:
    return sum(len(record.nodes) for record in snapshot.services)


async def until_registered(registration: Registration, state: str = "registered") -> None:
    async with asyncio.timeout(5):
        while registration.state != state:  # noqa: ASYNC110  # a registration has no event
            await asyncio.sleep(0.01)


@contextmanager
def captured() -> Iterator[Callable[[], list[tuple[int, int, bytes]]]]:
    """Source port, destination port and payload of each UDP datagram that is sent over IPv4 from here."""
    with socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(ALL_PACKETS)) as sniffer:
        sniffer.setblocking(False)

        def datagrams() -> list[tuple[int, int, bytes]]:
            found = []
            while True:
                try:
                    packet, (_, protocol, kind, *_) = sniffer.recvfrom(65536)
                except BlockingIOError:
                    return found
                size = (packet[0] & 15) * 4
                if protocol == 0x0800 and kind == socket.PACKET_OUTGOING and packet[9] == UDP:
                    source, target = struct.unpack_from("!HH", packet, size)
                    found.append((source, target, packet[size + 8 :]))

        yield datagrams


async def test_loopback_alone_is_enough(network: Any, open_registry: Any, record: Callable[..., ServiceRecord]) -> None:
    network.run("ip link set lo up")
    one, other = await open_registry(interfaces=()), await open_registry(interfaces=())
    assert (await one.register(record(), ttl=30)).state == "registered"
    assert len((await other.get_service("greeter"))[0].nodes) == 1


async def test_no_question_leaves_from_the_port_of_responders(
    network: Any, open_registry: Any, record: Callable[..., ServiceRecord]
) -> None:
    network.run("ip link set lo up")
    one, other = await open_registry(), await open_registry(refresh=0.05)
    with captured() as datagrams:
        async with other.watch() as everything, other.watch("greeter") as greeters:
            for _ in range(4):
                await one.register(record(), ttl=30)
            while count(await anext(greeters)) < 4 or count(await anext(everything)) < 4:
                pass
        datagrams()
        assert len((await other.get_service("greeter"))[0].nodes) == 4
        lookup = datagrams()
        await other.get_service("nobody")
        await other.list_services()
        every = lookup + datagrams()
    questions = [(source, target) for source, target, data in every if not data[2] & 0x80]
    assert questions
    assert all(source != 5353 and target == 5353 for source, target in questions)
    assert all(source == 5353 for source, _, data in every if data[2] & 0x80)
    assert 5 <= len(lookup) < 10, "one question and four answers, or a repetition"


async def test_without_multicast_everything_waits_and_recovers(
    network: Any, open_registry: Any, record: Callable[..., ServiceRecord], until: Any, caplog: Any
) -> None:
    caplog.set_level("INFO")
    one, other = (
        await open_registry(FAST, **PATIENT, interfaces=()),
        await open_registry(FAST, **PATIENT, interfaces=()),
    )
    registration = await one.register(record(), ttl=30)
    assert registration.state == "pending"
    with pytest.raises(BackendUnavailable, match="no interface here can do multicast"):
        await one.get_service("greeter")
    async with other.watch("greeter") as snapshots:
        assert (await anext(snapshots)).stale
        network.run("ip link set lo up")
        found = await until(snapshots, lambda snapshot: count(snapshot) == 1 and not snapshot.stale)
        assert found.error is None
        await until_registered(registration)
        assert registration.error is None
        network.run("ip link set lo down")
        lost = await until(snapshots, lambda snapshot: snapshot.stale)
        assert count(lost) == 1
        assert isinstance(lost.error, BackendUnavailable)
        await until_registered(registration, "pending")
    levels = [record.levelname for record in caplog.records if record.name == "pymicro"]
    assert levels[:4] == ["WARNING", "WARNING", "INFO", "INFO"]
    assert levels[4:] in (["WARNING"], ["WARNING", "WARNING"]), "one line when an outage begins, for each registry"


async def test_an_interface_that_appears_later_is_used(
    network: Any, open_registry: Any, record: Callable[..., ServiceRecord], until: Any
) -> None:
    network.run("ip link set lo up")
    registry = await open_registry(FAST, **PATIENT, interfaces=("eth7",))
    other = await open_registry(FAST, **PATIENT, interfaces=())
    registration = await registry.register(record(), ttl=30)
    assert registration.state == "pending"
    async with other.watch("greeter") as snapshots:
        assert count(await anext(snapshots)) == 0
        network.run(
            "ip link add eth7 type veth peer name eth8 && ip link set eth8 up &&"
            " ip addr add 10.77.0.1/24 dev eth7 && ip link set eth7 up"
        )
        await until(snapshots, lambda snapshot: count(snapshot) == 1)
        await until_registered(registration)
        network.run("ip link del eth7")
        await until_registered(registration, "pending")
        await until(snapshots, lambda snapshot: count(snapshot) == 0)


@pytest.mark.parametrize(("mine", "yours"), [("10.78.0.1/24", "10.78.0.2/24"), ("fd78::1/64", "fd78::2/64")])
async def test_two_hosts_find_each_other(
    network: Any,
    open_registry: Any,
    record: Callable[..., ServiceRecord],
    until: Any,
    peer: Any,
    mine: str,
    yours: str,
) -> None:
    there, here = (address.partition("/")[0] for address in (yours, mine))
    theirs = record(address=f"[{there}]:9000" if ":" in there else f"{there}:9000")
    ready = ("unshare", "-n", "sh", "-c", 'read ready && exec "$@"', "sh")
    async with peer(theirs, *ready, interfaces=()) as process:
        flags = "nodad" if ":" in mine else ""
        network.run(
            f"until [ $(readlink /proc/{process.pid}/ns/net) != $(readlink /proc/self/ns/net) ]; do sleep 0.01; done;"
            f"ip link add mine type veth peer name yours netns {process.pid};"
            f"ip addr add {mine} dev mine {flags} && ip link set mine up;"
            f"nsenter -t {process.pid} -n sh -c 'ip addr add {yours} dev yours {flags} && ip link set yours up'"
        )
        registry = await open_registry(FAST, **PATIENT, interfaces=())
        async with registry.watch("greeter") as snapshots:
            process.stdin.write(b"ready\n")
            found = await until(snapshots, lambda snapshot: count(snapshot) == 1)
            assert found.services[0].nodes[0].address == theirs.nodes[0].address
            assert here != there
            process.stdin.close()
            await until(snapshots, lambda snapshot: count(snapshot) == 0)
