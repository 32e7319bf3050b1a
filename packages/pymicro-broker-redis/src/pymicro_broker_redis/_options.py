"""What users can set."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from pymicro.plugins.toolkit import option


class RedisBrokerOptions(msgspec.Struct, frozen=True, kw_only=True):
    """Options of the Redis broker. Those from `claim_after` on concern streams only.

    Attributes:
        mode: `"streams"`: messages wait in Redis until they are settled; `"pubsub"`: fire and forget, as Go Micro's
            plugin for Redis.
        username, password: None for none; a password alone is that of the default user.
        database: its number.
        connect_timeout: seconds to connect to one of the addresses, TLS and login included.
        max_connections: of this process for publishing and settling. All publishers need one, and each subscription
            a few for moments; who finds them all in use waits. Each subscription has one more of its own.
        claim_after: seconds after which what a dead consumer held goes to another one. It is renewed while the
            consumer lives.
        max_messages: messages of a topic that some queue is not done with, from which on publishers wait.
        keep: messages that a topic without any queue keeps: the newest. 0 for none.
        forget_after: seconds of silence after which a subscription without a queue is taken for dead, and Redis keeps
            no more messages for it.
        prefix: what the broker's keys in Redis begin with.
    """

    mode: Annotated[
        Literal["streams", "pubsub"], option("Streams, or publish/subscribe as Go Micro's plugin has it.")
    ] = "streams"
    username: Annotated[str | None, option("Name of the Redis user.")] = None
    password: Annotated[str | None, option("Password of the Redis user.", secret=True)] = None
    database: Annotated[int, option("Number of the Redis database.", ge=0)] = 0
    connect_timeout: Annotated[
        float, option("Longest time to connect to one of the addresses.", unit="seconds", gt=0)
    ] = 2.0
    max_connections: Annotated[int, option("Connections for publishing and settling.", ge=1)] = 20
    claim_after: Annotated[
        float, option("After which time a dead consumer's messages go to another.", unit="seconds", ge=0.1)
    ] = 30.0
    max_messages: Annotated[int, option("Unsettled messages of a topic from which on publishers wait.", ge=1)] = 100_000
    keep: Annotated[int, option("Newest messages that a topic without a queue keeps.", ge=0)] = 1000
    forget_after: Annotated[
        float, option("Silence after which a subscription without a queue is dropped.", unit="seconds", ge=1)
    ] = 60.0
    prefix: Annotated[str, option("What the broker's keys in Redis begin with.")] = "pymicro:"


class RedisSubscription(msgspec.Struct, frozen=True, kw_only=True):
    """Options of one subscription to a stream, for `native=`.

    Attributes:
        start: where a queue begins that does not exist yet: `"new"` with what is published from now on, `"kept"`
            with what the topic has.
    """

    start: Literal["new", "kept"] = "new"
