"""The server: handlers, subscribers, and the life of serving them."""

from pymicro.server._debug import Health, Statistics, statistics
from pymicro.server._options import ServerOptions
from pymicro.server._presence import Presence, Registrar
from pymicro.server._server import Parts, Server
from pymicro.server._subscriptions import subscriber

__all__ = [
    "Health",
    "Parts",
    "Presence",
    "Registrar",
    "Server",
    "ServerOptions",
    "Statistics",
    "statistics",
    "subscriber",
]
