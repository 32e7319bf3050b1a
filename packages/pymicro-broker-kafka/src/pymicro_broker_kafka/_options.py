"""What users can set."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from pymicro.plugins.toolkit import option


class KafkaBrokerOptions(msgspec.Struct, frozen=True, kw_only=True):
    """Options of the Kafka broker.

    Attributes:
        username, password: for SASL; an empty name: none.
        sasl_mechanism: how they are shown to the server.
        partitions: of a topic that this plugin makes. Consumers of a queue share a topic by its partitions.
        replicas: servers that have each message of such a topic; -1: what the server does by itself.
        connect_timeout: seconds for one attempt at one address, with TLS and log-in.
        session_timeout: seconds of silence after which what a dead consumer held goes to another. Servers take no
            less than their `group.min.session.timeout.ms`, 6 s by default.
        heartbeat: seconds between two signs of life, by which a consumer also learns that others came or went.
        buffer: bytes of messages on their way to the server from which on publishers wait.
    """

    username: Annotated[str, option("User name for SASL; none: no log-in.")] = ""
    password: Annotated[str, option("Password for SASL.", secret=True)] = ""
    sasl_mechanism: Annotated[
        Literal["plain", "scram-sha-256", "scram-sha-512"], option("How user name and password are shown.")
    ] = "plain"
    partitions: Annotated[int, option("Partitions of a topic that is made.", ge=1)] = 6
    replicas: Annotated[int, option("Servers that have each message of it; -1: the server's default.", ge=-1)] = -1
    connect_timeout: Annotated[float, option("Time for one attempt to connect.", unit="seconds", gt=0)] = 2.0
    session_timeout: Annotated[
        float, option("When a silent consumer's messages go to another.", unit="seconds", gt=0)
    ] = 10.0
    heartbeat: Annotated[
        float, option("Time between two signs of life of a queue's consumer.", unit="seconds", gt=0)
    ] = 0.5
    buffer: Annotated[int, option("Bytes on their way from which on publishers wait.", unit="bytes", ge=1)] = (
        32 * 1024**2
    )


class KafkaSubscription(msgspec.Struct, frozen=True, kw_only=True):
    """`native` of a subscription: what only Kafka has.

    Attributes:
        start: where a queue begins that does not exist yet, and a subscription without one: with what is published
            from now on, or with all that the topic has.
    """

    start: Literal["new", "kept"] = "new"
