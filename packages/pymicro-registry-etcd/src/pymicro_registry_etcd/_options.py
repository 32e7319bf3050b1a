"""The options of the etcd registry."""

from __future__ import annotations

from typing import Annotated

import msgspec

from pymicro.plugins.toolkit import option


class EtcdOptions(msgspec.Struct, frozen=True, kw_only=True):
    """How etcd is reached. Addresses, TLS and the time for one operation are options of the service.

    Attributes:
        username, password: for an etcd that demands them; an empty name for none.
        connect_timeout: seconds in which one address must accept a connection and answer; then the next is tried.
        heartbeat: seconds between the questions by which a hung server is found out while anything is watched.
    """

    username: Annotated[str, option("User name, if etcd demands one.")] = ""
    password: Annotated[str, option("That user's password.", secret=True)] = ""
    connect_timeout: Annotated[
        float, option("How long one address may take to connect and answer.", unit="seconds", gt=0)
    ] = 2.0
    heartbeat: Annotated[
        float, option("How often a server that is watched is asked whether it still answers.", unit="seconds", gt=0)
    ] = 5.0
