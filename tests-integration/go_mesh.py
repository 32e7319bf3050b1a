"""Where Go and Python programs meet over Go Micro's own multicast DNS.

Go Micro's domain is always `micro`, and its sockets are on every interface. So that nobody else is in it, these tests
run in the network of a machine of their own if the system lets them (Linux, as root), with a loopback and one network
card. Elsewhere they run in the machine's network, and only the names of their services keep them apart.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import socket
import struct
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from typing import Final

import dns.flags
import dns.message
import msgspec
import pytest

from go_peers import missing
from pymicro_registry_mdns import MdnsOptions
from pymicro_registry_mdns._registry import MdnsRegistry

PORT: Final = 5353

#: Whether tests can have a network of their own.
OWN_NETWORK: Final = sys.platform == "linux" and os.geteuid() == 0

_NEW_NETWORK: Final = 0x40000000  # CLONE_NEWNET, linux/sched.h
_ALL_PACKETS: Final = 0x0003  # ETH_P_ALL, linux/if_ether.h
_IPV4: Final = 0x0800  # ETH_P_IP
_UDP: Final = 17
_IPV6_HEAD: Final = 40  # bytes
_BUFFER: Final = 16 * 1024 * 1024  # bytes
_MANY: Final = 65536

#: A loopback, and a network card with a default route. Its other end has no address, and nobody listens there.
_MACHINE: Final = """
ip link set lo up
ip link add eth0 type veth peer name wire0
ip link set wire0 addrgenmode none up
ip address add 10.77.0.1/24 dev eth0
ip link set eth0 up
ip route add default via 10.77.0.2
"""


@pytest.fixture
def machine() -> Iterator[None]:
    """The test and what it starts are in a network of their own, where that is possible."""
    if not OWN_NETWORK:
        yield
        return
    libc = ctypes.CDLL(None, use_errno=True)
    home = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    try:
        assert libc.unshare(_NEW_NETWORK) == 0, os.strerror(ctypes.get_errno())
        subprocess.run(_MACHINE, shell=True, check=True)
        yield
    finally:
        assert libc.setns(home, 0) == 0, os.strerror(ctypes.get_errno())
        os.close(home)


@pytest.fixture
def mesh_environment(name: str, machine: None) -> dict[str, str]:
    """For programs that use what Go Micro uses by default; the node's name."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("MICRO_")}
    return kept | {"NODE_NAME": name, "PYTHONWARNINGS": "error", "MICRO_SERVER_ADDRESS": "127.0.0.1:0"}


@pytest.fixture
async def mesh_registry(machine: None) -> AsyncIterator[MdnsRegistry]:
    """A registry of this process, with all the defaults."""
    async with MdnsRegistry(MdnsOptions()) as registry:
        yield registry


class Datagram(msgspec.Struct, frozen=True):
    """One datagram of multicast DNS that left a program of this machine.

    Attributes:
        source, target: ports.
        data: the DNS message; the first fragment of one that was cut.
    """

    source: int
    target: int
    data: bytes

    @property
    def is_response(self) -> bool:
        """Whether the QR bit says so."""
        return bool(self.data[2] & 0x80)

    @property
    def asks(self) -> bool:
        """Whether it has a question: a query, or an answer, which repeats the question."""
        return self.data[4:6] != b"\0\0"

    @property
    def message(self) -> dns.message.Message:
        """The message, read."""
        return dns.message.from_wire(self.data, ignore_trailing=True)


class Capture:
    """Hears all multicast DNS that is sent in this network, by whatever interface.

    Attributes:
        datagrams: what was sent so far.
    """

    def __init__(self) -> None:
        self.datagrams: list[Datagram] = []
        self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(_ALL_PACKETS))
        self._socket.setblocking(False)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER)
        asyncio.get_running_loop().add_reader(self._socket, self.take)

    def take(self) -> list[Datagram]:
        """What was sent so far, including what nobody has read yet."""
        while True:
            try:
                packet, (_, protocol, kind, *_) = self._socket.recvfrom(_MANY)
            except BlockingIOError:
                return self.datagrams
            if kind == socket.PACKET_OUTGOING and (datagram := _datagram(packet, protocol)):
                self.datagrams.append(datagram)

    def close(self) -> None:
        """Hear no more."""
        asyncio.get_running_loop().remove_reader(self._socket)
        self._socket.close()


def _datagram(packet: bytes, protocol: int) -> Datagram | None:
    ipv4 = protocol == _IPV4
    head = (packet[0] & 15) * 4 if ipv4 else _IPV6_HEAD
    later_fragment = ipv4 and struct.unpack_from("!H", packet, 6)[0] & 0x1FFF
    if packet[9 if ipv4 else 6] != _UDP or later_fragment:
        return None
    source, target = struct.unpack_from("!HH", packet, head)
    data = packet[head + 8 :]
    return Datagram(source, target, data) if PORT in (source, target) and len(data) >= 12 else None


@pytest.fixture
async def capture(machine: None) -> AsyncIterator[Capture]:
    """Everything that multicast DNS sends in the test's own network."""
    if not OWN_NETWORK:
        missing("to capture packets needs Linux and root")
    heard = Capture()
    yield heard
    heard.close()
