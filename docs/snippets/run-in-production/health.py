"""Ends with 0 if a node is ready: python health.py SERVICE [HOST:PORT]"""

import sys
from typing import Protocol

from pymicro import Service, call_options
from pymicro.server import Health


class Debug(Protocol):
    async def health(self) -> Health: ...


name, *address = sys.argv[1:]
debug = Service("health").client.blocking.stub(name, Debug, address=address[0] if address else None)
with call_options(timeout=2.0):
    health = debug.health()
print(health.status, *health.reasons)
sys.exit(health.status != "ok")
