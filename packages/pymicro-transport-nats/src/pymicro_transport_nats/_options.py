"""The options of the NATS transport."""

from __future__ import annotations

from typing import Annotated

from pymicro.plugins.toolkit import option
from pymicro_nats import NatsOptions


class NatsTransportOptions(NatsOptions, frozen=True, kw_only=True):
    """Options of the NATS transport, besides those of each connection.

    Attributes:
        frames: whether pymicro peers use frames; without, all use what Go Micro uses.
        peer_interval: seconds between two questions to a pymicro peer whether it is still there: one that is killed
            says nothing, and NATS knows.
        idle_timeout: seconds after which a Go peer that sends nothing, while something is awaited from it, is
            forgotten: it does not say when it leaves. Go Micro has 60.
        max_unread: bytes that a Go peer may have sent that were not taken; it cannot be made to wait, so its socket is
            lost then.
    """

    frames: Annotated[bool, option("Flow control, ends and raw bodies between pymicro peers.")] = True
    peer_interval: Annotated[
        float, option("How often a pymicro peer is looked for while there are sockets to it.", unit="seconds", gt=0)
    ] = 2.0
    idle_timeout: Annotated[
        float, option("When a Go peer that sends nothing more is forgotten.", unit="seconds", gt=0)
    ] = 60.0
    max_unread: Annotated[int, option("What a Go peer may have sent that nobody took.", unit="bytes", ge=1)] = (
        64 * 1024**2
    )
