"""Header names of the RPC layer, and how a header is looked up. See go-micro `transport/headers/headers.go`."""

from __future__ import annotations

from typing import Final

CONTENT_TYPE: Final = "Content-Type"
CONNECTION: Final = "Connection"
TIMEOUT: Final = "Timeout"
SERVICE: Final = "Micro-Service"
ENDPOINT: Final = "Micro-Endpoint"
METHOD: Final = "Micro-Method"
ID: Final = "Micro-Id"
STREAM: Final = "Micro-Stream"
ERROR: Final = "Micro-Error"
TOPIC: Final = "Micro-Topic"
#: pymicro's own: `no` promises with an error that the handler did not run, so that another node may be tried.
EXECUTED: Final = "Micro-Executed"
#: pymicro's own: name and fields of an error subclass that both sides may know.
ERROR_TYPE: Final = "Micro-Error-Type"
ERROR_FIELDS: Final = "Micro-Error-Fields"
#: pymicro's own: `yes` says with a stream's end that the caller waits for what comes back, so its leaving is no end but
#: a cancellation. Go Micro's clients close the connection with the end: their handlers have work to finish.
AWAITS: Final = "Micro-Awaits"

#: The text of `Micro-Error` that ends a stream without an error.
END_OF_STREAM: Final = "EOS"

#: The server's default when a request names no content type, as in go-micro `server/rpc_server.go`.
DEFAULT_CONTENT_TYPE: Final = "application/protobuf"

#: Messages of a stream after which its sender lets the loop turn. A sender that never waits would keep the loop for
#: itself: nothing else would run, and it would not find out that its peer is gone.
TURN: Final = 32

#: Headers that are the transport's or the RPC layer's business: callers cannot set them, nor are they passed on.
RESERVED: Final = frozenset(
    name.lower()
    for name in (
        CONTENT_TYPE,
        CONNECTION,
        TIMEOUT,
        "Host",
        "Content-Length",
        "Transfer-Encoding",
        "Accept",
        "User-Agent",
        "Content-Encoding",
        "Expect",
        "Keep-Alive",
        "Proxy-Connection",
        "TE",
        "Trailer",
        "Upgrade",
    )
)


def is_reserved(name: str) -> bool:
    """Whether users' metadata may not carry this name."""
    lower = name.lower()
    return lower in RESERVED or lower.startswith(("micro-", "x-micro-"))


def lookup(lowered: dict[str, str], name: str) -> str:
    """The value of a routing header, given in lower case: the plain name, else the one with `x-`; empty for none."""
    return lowered.get(name) or lowered.get("x-" + name, "")
