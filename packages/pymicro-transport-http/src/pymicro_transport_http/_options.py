"""What users can set."""

from __future__ import annotations

from typing import Annotated

import msgspec

from pymicro.plugins.toolkit import option


class HttpOptions(msgspec.Struct, frozen=True, kw_only=True):
    """Options of the HTTP transport.

    Attributes:
        channels: whether many calls share one connection with nodes and callers that can do that (pymicro's own).
            The other options concern the listening side only.
        header_timeout: seconds in which a request's head must be complete, counted from its first bytes, and for the
            first one from the connection; also the bound of a TLS handshake. 0: none.
        idle_timeout: seconds without traffic after which a connection is closed on which nothing is going on: every
            request was answered, and it is not a stream. 0: none. Go Micro's clients keep connections for 60.
        max_connections: open connections; one more is closed at once. It is above the server's own limit of the sockets
            that it serves, which answers what it refuses.
        backlog: connections that the kernel queues until they are accepted.
    """

    channels: Annotated[bool, option("Carry many calls on one connection, with peers that can do that.")] = True
    header_timeout: Annotated[float, option("Longest time for a request's head to arrive; 0: any.", unit="seconds")] = (
        10.0
    )
    idle_timeout: Annotated[float, option("Close connections idle for this long; 0: never.", unit="seconds")] = 180.0
    max_connections: Annotated[int, option("Open connections; one more is closed.", ge=1)] = 16_384
    backlog: Annotated[int, option("Connections queued until they are accepted.", ge=1)] = 1024
