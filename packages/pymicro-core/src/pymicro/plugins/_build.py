"""What a component is given when it is built."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Annotated, Any, Protocol

import msgspec

from pymicro.clock import Clock, SystemClock
from pymicro.errors import TooLarge, UsageError
from pymicro.message import Message
from pymicro.plugins._options import option


class Identity(msgspec.Struct, frozen=True, kw_only=True):
    """Who this process is in the mesh.

    Attributes:
        name, version: the service's.
        id: the instance's own, unique; the node's id is `<name>-<id>`.
    """

    name: str = "pymicro"
    version: str = "latest"
    id: str = "local"

    @property
    def node_id(self) -> str:
        """The node's id in registries, as go-micro `server/rpc_server.go` forms it."""
        return f"{self.name}-{self.id}"


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """Bounds on what comes from outside. Sizes are bytes.

    Attributes:
        message: largest body of one message.
        headers: largest sum of a message's header names and values.
        buffer: what one socket buffers in each direction before its sender waits.
    """

    message: Annotated[int, option("Largest body of one message.", unit="bytes", ge=1, flag="max_message_size")] = (
        4 * 1024 * 1024
    )
    headers: Annotated[
        int, option("Largest sum of a message's header names and values.", unit="bytes", ge=1, flag="max_header_size")
    ] = 64 * 1024
    buffer: Annotated[
        int,
        option("What one socket buffers each way before its sender waits.", unit="bytes", ge=1, flag="max_buffer_size"),
    ] = 1024 * 1024

    def check(self, message: Message) -> None:
        """Refuse a message that is too large to be sent, or was received so.

        Raises:
            TooLarge: it says which limit the message is over.
        """
        body = len(message.body)
        if body > self.message:
            raise TooLarge(f"message of {body} bytes is over the limit of {self.message}")
        headers = message.size - body
        if headers > self.headers:
            raise TooLarge(f"headers of {headers} bytes are over the limit of {self.headers}")


class TLS(msgspec.Struct, frozen=True, kw_only=True):
    """Where certificates lie. Paths; they are read again when the files change.

    Attributes:
        cert, key: this process's certificate chain and private key, PEM; None for none.
        ca: authorities to verify peers with, PEM; None for the system's.
        client_auth: whether a server demands and verifies a client certificate.
        secure: whether clients use TLS at all when no other field is set.
    """

    cert: Annotated[str | None, option("File with this process's certificate chain, PEM.")] = None
    key: Annotated[str | None, option("File with the certificate's private key, PEM.")] = None
    ca: Annotated[str | None, option("File with the authorities that verify peers, PEM; none: the system's.")] = None
    client_auth: Annotated[bool, option("Whether servers demand and verify a client certificate.")] = False
    secure: Annotated[bool, option("Whether clients use TLS though no certificate is given.")] = False

    @property
    def enabled(self) -> bool:
        """Whether connections use TLS."""
        return self.secure or self.cert is not None or self.ca is not None


def _nothing_built(kind: str, name: str) -> Any:
    raise UsageError(f"no {kind} was composed with this component; build it through a Service")


class Build(msgspec.Struct, frozen=True, kw_only=True):
    """What a component may know of its surroundings. The defaults serve tests and components made by hand.

    Attributes:
        identity: who this process is.
        clock: the time to use for TTLs, back-off and deadlines.
        logger: the component's own logger, `pymicro.<kind>.<name>`.
        limits: bounds on input.
        tls: certificates.
        addresses: what the user gave as the kind's address (`--registry_address`); empty for the component's default.
        timeout: seconds for one operation with the backend behind the component.
        components: finds another component; see `get`.
    """

    identity: Identity = Identity()
    clock: Clock = SystemClock()
    logger: logging.Logger = logging.getLogger("pymicro")
    limits: Limits = Limits()
    tls: TLS = TLS()
    addresses: tuple[str, ...] = ()
    timeout: float = 5.0
    components: Callable[[str, str], Any] = _nothing_built

    def get(self, kind: str, name: str = "") -> Any:
        """The component of `kind` in the same service; `name` chooses a named instance, empty the default one.

        Raises:
            UsageError: nothing of this kind was composed.
        """
        return self.components(kind, name)


class ServiceView(Protocol):
    """What `pymicro_configure` may do to a service."""

    name: str

    def use(self, *, calls: Sequence[Any] = (), streams: Sequence[Any] = (), events: Sequence[Any] = ()) -> None:
        """Append middleware for handlers: of calls, of streams, of events."""

    def check(self, name: str, probe: Any) -> None:
        """Add a health check: `async def probe()` that raises when something is wrong."""

    def handle(self, handler: object) -> None:
        """Serve one more handler."""
