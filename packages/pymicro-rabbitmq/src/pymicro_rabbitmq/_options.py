"""What users can set for every component on RabbitMQ."""

from __future__ import annotations

from typing import Annotated

import msgspec

from pymicro.plugins.toolkit import option


class RabbitmqOptions(msgspec.Struct, frozen=True, kw_only=True):
    """How a RabbitMQ server is reached.

    Attributes:
        vhost, username, password: for addresses that say none themselves.
        heartbeat: seconds between two signs of life; a server that is silent for about 3 times as long is given up.
            0: none.
        connect_timeout: seconds for one attempt at one address, with TLS and log-in.
        reconnect_interval: seconds to wait after all addresses failed; up to a tenth of it is random.
    """

    vhost: Annotated[str, option("Virtual host.", min_length=1)] = "/"
    username: Annotated[str, option("User name.")] = "guest"
    password: Annotated[str, option("Password.", secret=True)] = "guest"
    heartbeat: Annotated[int, option("Time between two signs of life; 0: none.", unit="seconds", le=3600)] = 5
    connect_timeout: Annotated[float, option("Time for one attempt to connect.", unit="seconds", gt=0)] = 5.0
    reconnect_interval: Annotated[
        float, option("Wait after all addresses failed, before they are tried again.", unit="seconds", gt=0)
    ] = 1.0
