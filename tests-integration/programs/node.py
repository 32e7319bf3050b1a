"""One node of a mesh: answers with its id, after as long as it is told."""

import asyncio
import os

from pymicro import Service, endpoint

service = Service(os.environ["NODE_NAME"])


class Node:
    async def work(self, seconds: float) -> str:
        await asyncio.sleep(seconds)
        return service.settings.server.id or ""

    @endpoint(idempotent=True)
    async def look(self, seconds: float) -> str:
        return await self.work(seconds)


service.handle(Node())

if __name__ == "__main__":
    service.run()
