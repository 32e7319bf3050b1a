"""The server: handlers, subscribers, and the life of serving them."""

from pymicro.server._debug import Health, Statistics
from pymicro.server._options import ServerOptions
from pymicro.server._server import Parts, Server
from pymicro.server._subscriptions import subscriber

__all__ = ["Health", "Parts", "Server", "ServerOptions", "Statistics", "subscriber"]
