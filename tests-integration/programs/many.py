"""A service that several worker processes serve: it answers with the process's id."""

import asyncio
import os
import sys
import time
from pathlib import Path

from pymicro import Service, endpoint
from pymicro.errors import ConfigurationError

service = Service(os.environ["NODE_NAME"])


class Node:
    async def work(self, seconds: float) -> int:
        await asyncio.sleep(seconds)
        return os.getpid()

    @endpoint(idempotent=True)
    async def look(self, seconds: float) -> int:
        return await self.work(seconds)

    async def block(self, seconds: float) -> int:
        time.sleep(seconds)  # noqa: ASYNC251 - a handler that does not let the loop turn
        return os.getpid()

    async def stop(self) -> None:
        service.request_stop()


service.handle(Node())

if fault := os.environ.get("NODE_FAULT"):  # a file: with text in it, something is wrong
    wrong = Path(fault).read_text()

    async def check() -> None:
        if wrong == "unhealthy":
            raise ValueError("the file says so")

    service.check("file", check)
    if wrong == "broken":
        raise ConfigurationError("the file says so")
    if wrong == "exits":
        sys.exit(7)

service.run()  # without asking for __name__: workers run the program again, they do not import it
