"""What users can set."""

from __future__ import annotations

from typing import Annotated

from pymicro.plugins.toolkit import option
from pymicro_rabbitmq import RabbitmqOptions


class RabbitmqTransportOptions(RabbitmqOptions, frozen=True, kw_only=True):
    """Options of the RabbitMQ transport, on top of those of a connection.

    Attributes:
        exchange: the topic exchange through which Go Micro's clients find a listener.
        server_limit: bytes of the largest body that the server takes, its `max_message_size`.
        check_interval: seconds between two looks whether the peers of open sockets are still there.
    """

    exchange: Annotated[str, option("Topic exchange, as Go Micro's peers have it.", min_length=1)] = "micro"
    server_limit: Annotated[int, option("Largest body that the server takes.", unit="bytes", ge=1)] = 16 * 1024 * 1024
    check_interval: Annotated[float, option("How often peers are looked after.", unit="seconds", gt=0)] = 5.0
