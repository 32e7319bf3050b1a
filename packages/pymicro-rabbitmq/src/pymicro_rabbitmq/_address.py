"""Where servers are, and as whom to log in."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final
from urllib.parse import unquote, urlsplit

import msgspec

from pymicro.errors import ConfigurationError
from pymicro.plugins.toolkit import join_address, split_address
from pymicro_rabbitmq._options import RabbitmqOptions

_DEFAULT: Final = "127.0.0.1"
_SCHEMES: Final = {"amqp": False, "amqps": True}


class Server(msgspec.Struct, frozen=True, kw_only=True):
    """One server, as one address names it."""

    host: str
    port: int
    tls: bool
    vhost: str
    username: str
    password: str

    @property
    def label(self) -> str:
        """For people: nothing secret."""
        return join_address(self.host, self.port)


def servers(kind: str, addresses: Sequence[str], options: RabbitmqOptions, *, tls: bool) -> tuple[Server, ...]:
    """The servers of `addresses`: `host`, `host:port`, `amqp://...` or `amqps://...`.

    Args:
        kind: whose addresses they are, such as `broker`, for errors.
        addresses: none: the default.
        options: for what an address does not say.
        tls: whether all of them are spoken to over TLS.

    Raises:
        ConfigurationError: an address has another form.
    """
    return tuple(_server(kind, address, options, tls) for address in addresses or (_DEFAULT,))


def _server(kind: str, address: str, options: RabbitmqOptions, tls: bool) -> Server:
    if "://" in address:
        return _of_url(kind, address, options, tls)
    has_port = address.rpartition(":")[1] and not address.endswith("]")
    host, ports = split_address(address if has_port else f"{address}:{_port(tls)}")
    if len(ports) != 1:
        raise ConfigurationError(f"{kind} address {address!r} is of several ports: give each server its own address")
    return _made(host, ports[0], tls, options)


def _of_url(kind: str, address: str, options: RabbitmqOptions, tls: bool) -> Server:
    try:
        parts = urlsplit(address)
        scheme, host, port = parts.scheme, parts.hostname or "", parts.port
    except ValueError:
        raise ConfigurationError(f"a {kind} address is no URL: write amqp://user:password@host:port/vhost") from None
    if scheme not in _SCHEMES or parts.query or parts.fragment:
        raise ConfigurationError(f"{kind} address of {host!r}: write amqp://user:password@host:port/vhost, or amqps:")
    secure = _SCHEMES[scheme] or tls
    return msgspec.structs.replace(
        _made(host, port or _port(secure), secure, options),
        vhost=unquote(parts.path[1:]) or options.vhost,
        username=unquote(parts.username) if parts.username else options.username,
        password=unquote(parts.password) if parts.password else options.password,
    )


def _made(host: str, port: int, tls: bool, options: RabbitmqOptions) -> Server:
    return Server(
        host=host or _DEFAULT,
        port=port,
        tls=tls,
        vhost=options.vhost,
        username=options.username,
        password=options.password,
    )


def _port(tls: bool) -> int:
    return 5671 if tls else 5672
