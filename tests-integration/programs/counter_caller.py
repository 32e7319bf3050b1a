"""Calls one endpoint of `counter.py`, the one that the first argument names, and reads for ever."""

import asyncio
import os
import sys

from counter import Counter

from pymicro import Service

service = Service("caller")
what = sys.argv.pop(1)


async def main() -> None:
    counter = service.client.stub(os.environ["NODE_NAME"], Counter)
    if what == "hang":
        await counter.hang()
    async for _ in counter.chunks():
        await asyncio.sleep(0)


if __name__ == "__main__":
    service.run(main)
