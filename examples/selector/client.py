"""Chooses among servers: filters leave some out, a strategy takes one of the rest."""

import asyncio
from collections import Counter
from collections.abc import Sequence

from pymicro import Service
from pymicro.record import ServiceRecord
from pymicro.selector import label, version
from where import Where

service = Service("where.client", selector_registry_strategy="round_robin")


def newest(services: Sequence[ServiceRecord]) -> Sequence[ServiceRecord]:
    """A filter of one's own: a function of what the registry knows."""
    return [max(services, key=lambda record: record.version)]


async def one_by_one(where: Where) -> str:
    return counted([await where.am_i() for _ in range(6)])


async def all_at_once(where: Where) -> str:
    return counted(await asyncio.gather(*(where.am_i() for _ in range(3))))


def counted(answers: Sequence[str]) -> str:
    return ", ".join(f"{count} by {server}" for server, count in sorted(Counter(answers).items()))


async def main() -> None:
    stub = service.client.stub
    print("anywhere:  ", await one_by_one(stub("where", Where)))
    print("version 2: ", await one_by_one(stub("where", Where, filters=[version("2.0.0")])))
    print("region eu: ", await one_by_one(stub("where", Where, filters=[label("region", "eu")])))
    print("both:      ", await one_by_one(stub("where", Where, filters=[version("2.0.0"), label("region", "eu")])))
    print("newest:    ", await one_by_one(stub("where", Where, filters=[newest])))
    print("least busy:", await all_at_once(stub("where", Where, strategy="least_conn")))


if __name__ == "__main__":
    service.run(main)
