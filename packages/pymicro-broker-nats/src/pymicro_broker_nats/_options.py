"""What users can set."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from pymicro.plugins.toolkit import option
from pymicro_nats import NatsOptions


class NatsBrokerOptions(NatsOptions, frozen=True, kw_only=True):
    """Options of the NATS broker, besides those of each connection.

    Attributes:
        jetstream: False: core NATS as Go Micro has it, at most once. True: JetStream, at least once.
        max_messages, max_bytes: core NATS: bounds of what one subscription holds that no handler took yet. What comes
            to a full one is dropped, and logged.
        stream_bytes: JetStream: bound of a topic's stream. A publisher waits for one that is full.
        stream_age: JetStream: seconds for which a stream keeps what a queue does not take; 0: for ever.
        stream_replicas: JetStream: servers of a cluster that have each message.
        ack_wait: JetStream: seconds without a sign of life after which what a consumer held goes to another.
        inactive_threshold: JetStream: seconds for which the server keeps a subscription without a queue whose process
            went silent, and messages for it.
    """

    jetstream: Annotated[bool, option("At-least-once delivery, by JetStream.")] = False
    max_messages: Annotated[int, option("Core NATS: messages in a subscription; more are dropped.", ge=1)] = 65_536
    max_bytes: Annotated[int, option("Core NATS: bytes in a subscription; more are dropped.", unit="bytes", ge=1)] = (
        64 * 1024**2
    )
    stream_bytes: Annotated[
        int, option("JetStream: bytes in a topic's stream; publishers wait for more.", unit="bytes", ge=1)
    ] = 256 * 1024**2
    stream_age: Annotated[
        float, option("JetStream: how long a stream keeps what nobody takes; 0: for ever.", unit="seconds")
    ] = 7 * 86400.0
    stream_replicas: Annotated[int, option("JetStream: servers that have each message.", ge=1, le=5)] = 1
    ack_wait: Annotated[
        float, option("JetStream: when a silent consumer's messages go to another.", unit="seconds", ge=1)
    ] = 30.0
    inactive_threshold: Annotated[
        float, option("JetStream: how long a silent subscription without a queue is kept.", unit="seconds", ge=1)
    ] = 300.0


class NatsSubscription(msgspec.Struct, frozen=True, kw_only=True):
    """`native` of a subscription in JetStream mode: what only JetStream has.

    Attributes:
        deliver: where a queue that does not exist yet begins, and a subscription without one: at what is published
            from now on, at the last message of the topic, or at all that the stream has.
        ack_wait: in place of the option, for this subscription; None for the option.
    """

    deliver: Literal["new", "last", "all"] = "new"
    ack_wait: float | None = None
