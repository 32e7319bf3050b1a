"""The options of the NATS registry."""

from __future__ import annotations

from typing import Annotated

from pymicro.plugins.toolkit import option
from pymicro_nats import NatsOptions


class NatsRegistryOptions(NatsOptions, frozen=True, kw_only=True):
    """Options of the NATS registry, besides those of each connection.

    Attributes:
        query_topic, watch_topic: the subjects; all services of a mesh have the same. Those of Go Micro since 5.7; its
            older plugin has `micro.registry.nats.query` and `micro.registry.nats.watch`.
        query_time: seconds for which answers are collected.
        refresh: seconds between two questions to what is watched: a process that was killed tells nobody.
    """

    query_topic: Annotated[str, option("Subject of questions, the same for all services.")] = "micro.nats.query"
    watch_topic: Annotated[str, option("Subject of changes, the same for all services.")] = "micro.nats.watch"
    query_time: Annotated[float, option("How long answers are collected.", unit="seconds", gt=0)] = 0.1
    refresh: Annotated[float, option("How often what is watched is asked again.", unit="seconds", gt=0)] = 10.0
