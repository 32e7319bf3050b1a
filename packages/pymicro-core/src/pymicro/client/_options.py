"""The client's options."""

from __future__ import annotations

from typing import Annotated

import msgspec

from pymicro.plugins.toolkit import option


class ClientOptions(msgspec.Struct, frozen=True, kw_only=True):
    """How a client calls. Names and most defaults are go-micro's (`cmd/cmd.go`, `client/options.go`).

    Attributes:
        request_timeout: seconds for a whole call, every attempt included.
        dial_timeout: seconds for one connection to come about.
        retries: further attempts after the first, made only when repeating is safe.
        pool_size: idle connections kept per node; 0 keeps none.
        pool_ttl: seconds after which an idle connection is closed.
        content_type: how bodies are written when a call does not say.
        max_calls: calls in flight; one more is refused with `TooManyRequests`.
        retry_budget: retries that are allowed per call of the last ten seconds.
    """

    request_timeout: Annotated[float, option("Time for a whole call, with all its attempts.", unit="seconds", gt=0)] = (
        30.0
    )
    dial_timeout: Annotated[float, option("Time for one connection to come about.", unit="seconds", gt=0)] = 5.0
    retries: Annotated[int, option("Further attempts after the first, where repeating is safe.", ge=0)] = 5
    pool_size: Annotated[int, option("Idle connections kept per node.", ge=0)] = 100
    pool_ttl: Annotated[float, option("Time after which an idle connection is closed.", unit="seconds")] = 60.0
    content_type: Annotated[str, option("How bodies are written when a call does not say.", min_length=1)] = (
        "application/json"
    )
    max_calls: Annotated[int, option("Calls in flight; one more is refused.", ge=1)] = 10_000
    retry_budget: Annotated[
        float, option("Retries allowed per call of the last ten seconds, as a share.", ge=0, le=1)
    ] = 0.2
