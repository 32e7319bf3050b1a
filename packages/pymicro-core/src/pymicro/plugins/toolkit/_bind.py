"""Listening TCP sockets: one, or several that share one port."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
from collections.abc import Callable
from typing import TypeVar

from pymicro.errors import ConfigurationError

T = TypeVar("T")


async def bind(host: str, ports: range, *, flag: str = "--server_address") -> socket.socket:
    """A listening socket at the first free port.

    Args:
        host: a name or an IP address, without brackets; empty for all IPv4 interfaces. A host with several addresses
            gives its first IPv4 one, as in Go.
        ports: as `split_address` gives them; 0 leaves the choice to the kernel.
        flag: by which the user chooses the address, for the error's text.

    Raises:
        ConfigurationError: no port is free, or the address is not one of this machine.
    """
    return await _first_free(host, ports, _listening, flag)


async def bind_shared(host: str, ports: range, count: int) -> list[socket.socket]:
    """`count` listening sockets at one port; the kernel spreads connections over them (`SO_REUSEPORT`).

    A port that anybody else listens on counts as taken, though the kernel would share it with a program of the same
    user.

    Args and errors are those of `bind`.
    """

    def sharing(family: socket.AddressFamily, ip: str, port: int) -> list[socket.socket]:
        if port:
            _bound(family, ip, port).close()  # fails if anybody listens
        sockets: list[socket.socket] = []
        try:
            for _ in range(count):
                sockets.append(_listening(family, ip, port, shared=True))
                port = sockets[0].getsockname()[1]
        except BaseException:
            for sock in sockets:
                sock.close()
            raise
        return sockets

    return await _first_free(host, ports, sharing, "--server_address")


async def _first_free(host: str, ports: range, make: Callable[[socket.AddressFamily, str, int], T], flag: str) -> T:
    family, ip = await _resolve(host or "0.0.0.0")
    for port in ports:
        try:
            return make(family, ip, port)
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise ConfigurationError(f"port {port} on {ip}: {_problem(error)}") from error
    which = f"port {ports[0]} on {ip} is" if len(ports) == 1 else f"all ports {ports[0]}-{ports[-1]} on {ip} are"
    raise ConfigurationError(f"{which} in use: choose another with {flag}")


def _listening(family: socket.AddressFamily, ip: str, port: int, *, shared: bool = False) -> socket.socket:
    sock = _bound(family, ip, port, shared=shared)
    try:
        sock.listen()  # on Linux two may bind to a port on which nobody listens
    except BaseException:
        sock.close()
        raise
    return sock


def _bound(family: socket.AddressFamily, ip: str, port: int, *, shared: bool = False) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        if os.name == "posix":
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if shared:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind((ip, port))
    except BaseException:
        sock.close()
        raise
    return sock


def _problem(error: OSError) -> str:
    if error.errno == errno.EADDRNOTAVAIL:
        return "this machine does not have that address"
    return error.strerror or str(error)


async def _resolve(host: str) -> tuple[socket.AddressFamily, str]:
    loop = asyncio.get_running_loop()
    try:
        found = await loop.getaddrinfo(host, None, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except OSError as error:
        raise ConfigurationError(f"host {host!r} cannot be resolved: {error}") from error
    family, _, _, _, name = min(found, key=lambda entry: entry[0] != socket.AF_INET)
    return family, str(name[0])
