"""One node of the soak: works as long as it is told, and says what it holds."""

import asyncio
import os

from soaked import Done, Held, Job, held

from pymicro import Service

service = Service(os.environ["NODE_NAME"])


class Soak:
    async def work(self, request: Job) -> Done:
        await asyncio.sleep(request.seconds)
        assert service.server.node is not None
        return Done(service.server.node.id)

    async def held(self) -> Held:
        return held()


service.handle(Soak())

if __name__ == "__main__":
    service.run()
