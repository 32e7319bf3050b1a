"""The client: calls and streams to services found by name, and events."""

from pymicro.client._client import Client, Parts
from pymicro.client._options import ClientOptions
from pymicro.client._publish import Publisher, Publishing
from pymicro.client._stub import Blocking

__all__ = ["Blocking", "Client", "ClientOptions", "Parts", "Publisher", "Publishing"]
