from typing import Protocol

from primes import Primes

from pymicro import Service
from pymicro.server import Statistics


class Debug(Protocol):
    async def stats(self) -> Statistics: ...


client = Service("stats").client.blocking
print(client.stub("primes", Primes).count(100))
print(client.stub("primes", Debug).stats().workers, "workers")
