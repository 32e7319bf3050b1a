"""A process with one registry: registers what it is told, and deregisters when its standard input ends."""

from __future__ import annotations

import asyncio
import json
import sys

import msgspec

from pymicro.registry import ServiceRecord
from pymicro_registry_mdns import MdnsOptions
from pymicro_registry_mdns._registry import MdnsRegistry


async def main(given: dict[str, object]) -> None:
    options = msgspec.convert(given["options"], MdnsOptions)
    async with MdnsRegistry(options) as registry:
        await registry.register(msgspec.convert(given["service"], ServiceRecord), ttl=30.0)
        sys.stdout.write("registered\n")
        sys.stdout.flush()
        await asyncio.to_thread(sys.stdin.read)


asyncio.run(main(json.loads(sys.argv[1])))
