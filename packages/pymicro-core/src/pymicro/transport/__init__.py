"""Transports: ordered messages both ways."""

from pymicro.transport._contract import Accept, Listener, Socket, Transport
from pymicro.transport._memory import MemoryNetwork, MemoryTransport

__all__ = ["Accept", "Listener", "MemoryNetwork", "MemoryTransport", "Socket", "Transport"]
