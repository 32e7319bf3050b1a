"""What users can set for every component on NATS."""

from __future__ import annotations

from typing import Annotated

import msgspec

from pymicro.plugins.toolkit import option


class NatsOptions(msgspec.Struct, frozen=True, kw_only=True):
    """How a NATS server is reached.

    Attributes:
        username, password, token: for addresses that say none themselves.
        nkey_file: path of a file with an nkey seed.
        credentials_file: path of a file with a user's JWT and seed, as `nsc` writes it.
        inbox_prefix: where the server answers; accounts may be allowed no other.
        connect_timeout: seconds for one attempt at one address, with TLS and log-in.
        ping_interval: seconds between two questions whether the server is there, and for each answer.
    """

    username: Annotated[str | None, option("User name.")] = None
    password: Annotated[str | None, option("Password.", secret=True)] = None
    token: Annotated[str | None, option("Token, for servers without users.", secret=True)] = None
    nkey_file: Annotated[str | None, option("File with an nkey seed.")] = None
    credentials_file: Annotated[str | None, option("File with a user's JWT and nkey seed.")] = None
    inbox_prefix: Annotated[
        str, option("Subject under which the server answers.", pattern="^[^ *>.]+([.][^ *>.]+)*$")
    ] = "_INBOX"
    connect_timeout: Annotated[float, option("Time for one attempt to connect.", unit="seconds", gt=0)] = 2.0
    ping_interval: Annotated[
        float, option("How often the server is asked whether it is there.", unit="seconds", gt=0)
    ] = 5.0
