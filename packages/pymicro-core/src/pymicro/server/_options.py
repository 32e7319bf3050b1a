"""The server's options."""

from __future__ import annotations

from typing import Annotated

import msgspec

from pymicro.plugins.toolkit import option


class ServerOptions(msgspec.Struct, frozen=True, kw_only=True):
    """Who a server is and what it takes on. Names are go-micro's (`cmd/cmd.go`, `server/options.go`).

    Attributes:
        name: the service's name in the registry.
        version: its version.
        id: the instance's own id; None makes a unique one.
        address: where to listen, in the transport's form; empty leaves the choice to it.
        advertise: the address to register, where it differs from the one listened at; None registers that one.
        metadata: facts about the node, for selectors and people.
        register_ttl: seconds after which the registry forgets a node that stopped renewing itself.
        register_interval: seconds between renewals.
        max_connections: open connections; one more is closed at once.
        max_requests: calls in flight; one more is refused with `TooManyRequests`.
        max_streams: streams in flight, counted apart from calls.
        threads: worker threads for handlers that are plain functions.
        subscriber_concurrency: messages that one subscription handles at a time.
        workers: processes that `run` keeps serving at one address; the limits above hold for each of them.
        drain_delay: seconds to go on answering after the service left the registry.
        shutdown_timeout: seconds for what is in flight to end after that.
    """

    name: Annotated[str, option("Name of the service.", min_length=1)] = "pymicro"
    version: Annotated[str, option("Version of the service.", min_length=1)] = "latest"
    id: Annotated[str | None, option("Id of this instance; none: a unique one.")] = None
    address: Annotated[str, option("Where to listen, as host:port; empty: the transport chooses.")] = ""
    advertise: Annotated[str | None, option("Address to register, where it differs from the one listened at.")] = None
    metadata: Annotated[dict[str, str], option("Facts about the node, as key=value; repeatable.")] = {}
    register_ttl: Annotated[
        float,
        option("Time after which the registry forgets a node that went silent.", unit="seconds", flag="register_ttl"),
    ] = 90.0
    register_interval: Annotated[
        float, option("Time between renewals of the registration.", unit="seconds", flag="register_interval", gt=0)
    ] = 30.0
    max_connections: Annotated[int, option("Open connections; one more is closed.", ge=1)] = 10_000
    max_requests: Annotated[int, option("Calls in flight; one more is refused.", ge=1)] = 1000
    max_streams: Annotated[int, option("Streams in flight; one more is refused.", ge=1)] = 1000
    threads: Annotated[int, option("Worker threads for handlers that are plain functions.", ge=1)] = 32
    subscriber_concurrency: Annotated[int, option("Messages that one subscription handles at a time.", ge=1)] = 64
    workers: Annotated[int, option("Processes that serve at one address; limits hold for each.", ge=1)] = 1
    drain_delay: Annotated[
        float, option("Time to go on answering after leaving the registry.", unit="seconds", flag="drain_delay")
    ] = 2.0
    shutdown_timeout: Annotated[
        float, option("Time for what is in flight to end after that.", unit="seconds", flag="shutdown_timeout")
    ] = 20.0
