"""The network interfaces of this machine, and their sockets for multicast DNS (RFC 6762).

Each interface has two sockets for IPv4 and two for IPv6. One asks, from a port of its own: Go responders take an
answer that goes to port 5353 for a question, and answer it for ever. The other sits on port 5353, beside those of
other processes, hears questions and announcements, and speaks for the services of this process.
"""

from __future__ import annotations

import errno
import ipaddress
import socket
import struct
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import Final

import ifaddr
import msgspec

PORT: Final = 5353
GROUP_4: Final = "224.0.0.251"
GROUP_6: Final = "ff02::fb"

_LINUX: Final = sys.platform == "linux"
_IP_MULTICAST_ALL: Final = 49  # linux/in.h and linux/in6.h; the socket module does not have them
_IPV6_MULTICAST_ALL: Final = 29
_HOPS: Final = 255  # RFC 6762, section 11
_EXHAUSTED: Final = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
_BUFFER: Final = 1024 * 1024  # bytes; many nodes answer one question at once


class Interface(msgspec.Struct, frozen=True):
    """One interface with one address family.

    Attributes:
        name: such as `eth0`.
        index: the system's number for it.
        address: its address of this family, without a scope.
    """

    name: str
    index: int
    address: str

    @property
    def is_ipv6(self) -> bool:
        """Whether the family is IPv6."""
        return ":" in self.address

    @property
    def group(self) -> tuple[str, int] | tuple[str, int, int, int]:
        """Where multicast DNS is spoken, as sockets want it."""
        return (GROUP_6, PORT, 0, self.index) if self.is_ipv6 else (GROUP_4, PORT)


def usable(wanted: Sequence[str]) -> list[Interface]:
    """The interfaces that multicast can leave by now.

    Args:
        wanted: names or addresses; empty for all.

    Raises:
        OSError: the system cannot tell, being out of descriptors or memory.
    """
    found = (
        Interface(adapter.nice_name, adapter.index or 0, ip.ip if isinstance(ip.ip, str) else ip.ip[0])
        for adapter in ifaddr.get_adapters()
        for ip in adapter.ips
    )
    return [interface for interface in select(found, wanted) if _has_route(interface)]


def select(found: Iterable[Interface], wanted: Sequence[str]) -> list[Interface]:
    """One of each family for each interface, out of all its addresses.

    Unless asked for, IPv6 is left out where an interface has a link-local address only, because ports of bridges
    have those, and on loopback where IPv4 reaches the same peers.
    """
    chosen: dict[tuple[int, bool], Interface] = {}
    for interface in found:
        if not wanted or interface.name in wanted or interface.address in wanted:
            chosen.setdefault((interface.index, interface.is_ipv6), interface)
    every = list(chosen.values())
    if wanted:
        return every
    with_ipv4 = {interface.index for interface in every if not interface.is_ipv6}
    return [interface for interface in every if not interface.is_ipv6 or _needs_ipv6(interface, with_ipv4)]


def _needs_ipv6(interface: Interface, with_ipv4: set[int]) -> bool:
    address = ipaddress.ip_address(interface.address)
    if interface.index in with_ipv4:
        return not address.is_loopback
    return not address.is_link_local


def _has_route(interface: Interface) -> bool:
    """Whether the system would send multicast there: the interface is up and can do it. Sends nothing."""
    try:
        with asking_socket(interface) as probe:
            probe.connect(interface.group)
    except OSError as error:
        if error.errno in _EXHAUSTED:
            raise
        return False
    return True


def asking_socket(interface: Interface) -> socket.socket:
    """A socket with a port of its own that sends to `interface`.

    Raises:
        OSError: the interface has gone or cannot do multicast.
    """
    return _made(interface, _prepare_asking)


def speaking_socket(interface: Interface) -> socket.socket:
    """A socket on port 5353 that hears the group on `interface` and sends to it.

    Raises:
        OSError: somebody holds the port for himself, or the interface has gone or cannot do multicast.
    """
    return _made(interface, _prepare_speaking)


def _made(interface: Interface, prepare: Callable[[socket.socket, Interface], None]) -> socket.socket:
    sock = socket.socket(socket.AF_INET6 if interface.is_ipv6 else socket.AF_INET, socket.SOCK_DGRAM)
    try:
        sock.setblocking(False)
        if interface.is_ipv6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_IF, interface.index)
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_LOOP, 1)
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_HOPS, _HOPS)
        else:
            sock.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton(interface.address))
            sock.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_LOOP, 1)
            sock.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_TTL, _HOPS)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER)
        prepare(sock, interface)
    except BaseException:
        sock.close()
        raise
    return sock


def _prepare_asking(sock: socket.socket, interface: Interface) -> None:
    sock.bind(("::" if interface.is_ipv6 else interface.address, 0))


def _prepare_speaking(sock: socket.socket, interface: Interface) -> None:
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if hasattr(socket, "SO_REUSEPORT"):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    if _LINUX:
        # Bound to the group, the socket gets nothing that is sent to this host alone: neither packets meant for
        # another process on the port, nor questions from far away. Elsewhere such a socket cannot send.
        sock.bind(interface.group)
    else:
        sock.bind(("", PORT))
    if interface.is_ipv6:
        if _LINUX:
            sock.setsockopt(socket.IPPROTO_IPV6, _IPV6_MULTICAST_ALL, 0)
        membership = socket.inet_pton(socket.AF_INET6, GROUP_6) + struct.pack("@I", interface.index)
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_JOIN_GROUP, membership)
    else:
        if _LINUX:  # otherwise it also hears what other sockets joined, on other interfaces
            sock.setsockopt(socket.IPPROTO_IP, _IP_MULTICAST_ALL, 0)
        membership = socket.inet_aton(GROUP_4) + socket.inet_aton(interface.address)
        sock.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, membership)
