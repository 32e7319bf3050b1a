"""What users can set."""

from __future__ import annotations

from typing import Annotated

import msgspec

from pymicro.plugins.toolkit import option


class HttpBrokerOptions(msgspec.Struct, frozen=True, kw_only=True):
    """Options of the HTTP broker. All but the first concern the subscribing side.

    Attributes:
        discovery_time: seconds from the first look at the registry to the first message: of a registry without a
            server, the subscribers that answer first are not all there are. Later ones cost no publisher any time.
        max_messages, max_bytes: bounds of what one subscription holds; a message counts until it is settled. One that
            comes to a full subscription waits for room, and its publisher with it.
        request_timeout: seconds in which a connection's first request must begin and each body must be complete; also
            the bound of a TLS handshake. 0: none.
        idle_timeout: seconds without a request after which a connection is closed.
        max_connections: open connections; one more is closed at once.
    """

    discovery_time: Annotated[
        float, option("How long the first message of a process waits for subscribers to be found.", unit="seconds")
    ] = 0.1
    max_messages: Annotated[int, option("Messages in a subscription from which on publishers wait.", ge=1)] = 10_000
    max_bytes: Annotated[int, option("Bytes in a subscription from which on publishers wait.", unit="bytes", ge=1)] = (
        64 * 1024**2
    )
    request_timeout: Annotated[float, option("Longest time for a request to arrive; 0: any.", unit="seconds")] = 10.0
    idle_timeout: Annotated[float, option("Close connections idle for this long.", unit="seconds", gt=0)] = 180.0
    max_connections: Annotated[int, option("Open connections; one more is closed.", ge=1)] = 1024
