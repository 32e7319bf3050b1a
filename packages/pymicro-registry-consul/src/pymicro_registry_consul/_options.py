"""The options of the Consul registry."""

from __future__ import annotations

from typing import Annotated

import msgspec

from pymicro.plugins.toolkit import option


class ConsulOptions(msgspec.Struct, frozen=True, kw_only=True):
    """How Consul is reached. Addresses, TLS and the time for one operation are options of the service.

    Attributes:
        token: for a Consul with access control; empty for none.
        connect_timeout: seconds in which one address must accept a connection, and answer a heartbeat.
        heartbeat: seconds between two looks whether the agent still has what was registered, and whether an agent that
            is watched still answers.
    """

    token: Annotated[str, option("Token of Consul's access control.", secret=True)] = ""
    connect_timeout: Annotated[
        float, option("How long one address may take to connect, or to answer a heartbeat.", unit="seconds", gt=0)
    ] = 2.0
    heartbeat: Annotated[
        float, option("How often the agent is asked whether all is still there.", unit="seconds", gt=0)
    ] = 2.0
