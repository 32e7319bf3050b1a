"""What a node's TXT record carries: JSON, deflated, in hexadecimal, cut into strings.

The form is go-micro's (`registry/mdns_registry.go`); its JSON keys are capitalised.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable
from typing import Final

import msgspec

from pymicro.registry import Endpoint
from pymicro.registry.wire import WireEndpoint

#: Bytes of JSON that are read at most: a small packet can inflate to a thousand times its size.
MAX_JSON: Final = 1024 * 1024

_CHUNK: Final = 255


class Payload(msgspec.Struct, frozen=True):
    """A node's TXT record, read.

    Attributes:
        service, version: what the node runs.
        metadata: the node's.
        endpoints: the service's.
        service_metadata: the service's. Go Micro has no place for it; its peers pass over ours.
    """

    service: str
    version: str = ""
    metadata: dict[str, str] = {}
    endpoints: tuple[Endpoint, ...] = ()
    service_metadata: dict[str, str] = {}


class _Text(msgspec.Struct, rename="pascal"):
    metadata: dict[str, str] | None = None
    service: str = ""
    version: str = ""
    endpoints: list[WireEndpoint] | None = None
    service_metadata: dict[str, str] | msgspec.UnsetType | None = msgspec.UNSET


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(_Text).decode


def write(payload: Payload) -> tuple[bytes, ...]:
    """The strings of the TXT record, each at most 255 bytes."""
    endpoints = [WireEndpoint.of(endpoint) for endpoint in payload.endpoints]
    own = payload.service_metadata or msgspec.UNSET
    text = _encode(_Text(payload.metadata, payload.service, payload.version, endpoints, own))
    data = zlib.compress(text, 9).hex().encode()
    return tuple(data[at : at + _CHUNK] for at in range(0, len(data), _CHUNK))


def read(strings: Iterable[bytes]) -> Payload:
    """The payload in the strings of a TXT record.

    Raises:
        ValueError: it is none, or inflates to more than 1 MiB.
    """
    inflate = zlib.decompressobj()
    try:
        text = inflate.decompress(bytes.fromhex(b"".join(strings).decode("ascii")), MAX_JSON)
        if not inflate.eof:
            raise ValueError("the payload is cut off or too large")
        wire = _decode(text)
    except (zlib.error, msgspec.DecodeError, RecursionError) as error:
        raise ValueError(f"not a payload: {error}") from error
    endpoints = tuple(endpoint.endpoint() for endpoint in wire.endpoints or ())
    return Payload(wire.service, wire.version, wire.metadata or {}, endpoints, wire.service_metadata or {})
