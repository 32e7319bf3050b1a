"""What users can set."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import msgspec

from pymicro.plugins.toolkit import option
from pymicro_rabbitmq import RabbitmqOptions


class RabbitmqBrokerOptions(RabbitmqOptions, frozen=True, kw_only=True):
    """Options of the RabbitMQ broker, on top of those of a connection.

    Attributes:
        durable: False: exchange and queues as Go Micro has them, which hear Go services and lose their messages with
            the server or the last consumer. True: a durable exchange, quorum queues and persistent messages; then
            delivery is at least once.
        exchange: the topic exchange; empty: `micro` as in Go Micro, or `pymicro` with `durable`.
    """

    durable: Annotated[bool, option("At-least-once delivery, by durable queues that Go Micro does not have.")] = False
    exchange: Annotated[str, option("Topic exchange; none: micro as in Go Micro, or pymicro if durable.")] = ""


class RabbitmqSubscription(msgspec.Struct, frozen=True, kw_only=True):
    """`native` of a subscription: what only RabbitMQ has.

    Attributes:
        queue_name: the queue's name on the server, whatever the broker would call it; empty: what the broker does.
        queue_arguments: for declaring the queue, such as `{"x-single-active-consumer": True}`; on top of the broker's.
        consumer_arguments: for consuming, such as `{"x-priority": 10}`.
    """

    queue_name: str = ""
    queue_arguments: Mapping[str, Any] = {}
    consumer_arguments: Mapping[str, Any] = {}
