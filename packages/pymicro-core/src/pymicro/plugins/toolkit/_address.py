"""Addresses: `host:port` taken apart, and the one to tell others. Follows go-micro `internal/util/addr/addr.go`."""

from __future__ import annotations

import socket
import struct
import sys
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Final

from pymicro.errors import ConfigurationError

if TYPE_CHECKING:
    import ipaddress

    _IP = ipaddress.IPv4Address | ipaddress.IPv6Address

_WILDCARDS: Final = frozenset({"", "*", "0.0.0.0", "::"})

#: What counts as private: RFC 1918, RFC 6598, RFC 4193.
_PRIVATE: Final = ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "fc00::/7")

#: Addresses nobody has (RFC 5737, RFC 3849): the kernel says which of ours it would use to reach them.
_ELSEWHERE: Final = {socket.AF_INET: ("192.0.2.1", 9), socket.AF_INET6: ("2001:db8::1", 9)}
_SIOCGIFADDR: Final = 0x8915
_IFREQ: Final = struct.Struct("16s240x")


def split_address(address: str) -> tuple[str, range]:
    """Host and ports of `host:port`, `:port`, `[v6]:port`, `host:8000-8010` or `""`.

    The host comes without brackets, empty when none is given. One port is a range of one; `""` is port 0.

    Raises:
        ConfigurationError: the text has another form, or a port is beyond 65535.
    """
    if not address:
        return "", range(1)
    host, colon, ports = address.rpartition(":")
    if not colon or ports.endswith("]"):
        raise ConfigurationError(f"address {address!r} has no port: write host:port")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        raise ConfigurationError(f"address {address!r}: an IPv6 address needs brackets, as in [::1]:8080")
    first, dash, last = ports.partition("-")
    low, high = _port(first, address), _port(last if dash else first, address)
    if high < low:
        raise ConfigurationError(f"address {address!r}: the range of ports ends before it begins")
    return host, range(low, high + 1)


def _port(text: str, address: str) -> int:
    if not (text.isascii() and text.isdigit()) or len(text) > 5 or int(text) > 65535:
        raise ConfigurationError(f"address {address!r}: {text!r} is no port: use a number from 0 to 65535")
    return int(text)


def server_address(address: str, port: int, server: str) -> tuple[str, int]:
    """Host and port of `host`, `host:port`, `[v6]` or `[v6]:port`.

    Args:
        address: where a server listens.
        port: the one of an address that has none.
        server: what kind of server it is, for errors.

    Raises:
        ConfigurationError: the text has another form.
    """
    if "://" in address:
        raise ConfigurationError(
            f"{server} address {address!r}: write host:port, and turn TLS on with --tls_secure or --tls_ca"
        )
    bare = ":" not in address or address.endswith("]")
    host, ports = split_address(f"{address}:{port}" if bare else address)
    if not host or len(ports) != 1:
        raise ConfigurationError(f"{server} address {address!r}: write host:port")
    return host, ports[0]


def join_address(host: str, port: int) -> str:
    """`host:port`, with brackets round an IPv6 address."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def advertised(address: str, advertise: str | None = None) -> str:
    """The address to register for something that listens at `address`.

    A wildcard host (`0.0.0.0`, `[::]`, none) is replaced by an address of this machine: the first private one, else
    a public one, else loopback. Everything else, also what is no `host:port`, is returned as it is.

    Args:
        address: where it listens, with the port that was chosen.
        advertise: what the user wants to be registered instead; without a port it gets the one of `address`.
            None or empty: nothing.
    """
    host, port = _parts(advertise or address)
    if not port:
        port = _parts(address)[1]
    if host in _WILDCARDS:
        family = socket.AF_INET6 if _parts(address)[0] == "::" else socket.AF_INET
        host = str(_choose(_own_addresses(family), family))
    return join_address(host, int(port)) if port else host


def _parts(address: str) -> tuple[str, str]:
    """Host, without brackets, and port; no port in what has none."""
    host, colon, port = address.rpartition(":")
    if not (colon and port.isdecimal() and (":" not in host or host.endswith("]"))):
        host, port = address, ""
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    return host, port


def _choose(candidates: Iterable[_IP], family: socket.AddressFamily) -> _IP:
    import ipaddress

    networks = [ipaddress.ip_network(text) for text in _PRIVATE]
    usable = [ip for ip in candidates if not (ip.is_loopback or ip.is_link_local or ip.is_unspecified)]
    private = [ip for ip in usable if any(ip in network for network in networks if network.version == ip.version)]
    loopback = ipaddress.ip_address("127.0.0.1" if family == socket.AF_INET else "::1")
    return next(iter([*private, *usable, loopback]))


def _own_addresses(family: socket.AddressFamily) -> Iterator[_IP]:
    """This machine's addresses, as far as the standard library can tell; the one of the default route first."""
    import ipaddress

    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(_ELSEWHERE[family])  # a datagram socket: nothing is sent
            yield ipaddress.ip_address(probe.getsockname()[0].partition("%")[0])
        except OSError:
            pass  # no route: a machine with only loopback
    if family == socket.AF_INET and sys.platform == "linux":
        yield from _linux_addresses()


def _linux_addresses() -> Iterator[_IP]:
    import fcntl  # not on every platform
    import ipaddress

    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        for _, name in socket.if_nameindex():
            try:
                answer = fcntl.ioctl(probe, _SIOCGIFADDR, _IFREQ.pack(name.encode()))
            except OSError:
                continue  # an interface without an IPv4 address
            yield ipaddress.IPv4Address(answer[20:24])
