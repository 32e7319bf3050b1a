"""A node that can be asked what became of its handlers."""

import asyncio
import os
from collections.abc import AsyncIterator

from pymicro import Service

SIZE = 64 * 1024

#: Seconds without a further item after which a stream counts as stalled.
QUIET = 0.3


class Counter:
    def __init__(self) -> None:
        self._begun = asyncio.Event()
        self._cancelled = asyncio.Event()
        self._progress = asyncio.Event()
        self._sent = 0

    async def hang(self) -> None:
        try:
            self._begun.set()
            await asyncio.Event().wait()
        finally:
            self._cancelled.set()

    async def chunks(self) -> AsyncIterator[bytes]:
        try:
            self._begun.set()
            while True:
                self._sent += SIZE
                self._progress.set()
                yield bytes(SIZE)
        finally:
            self._cancelled.set()

    async def begun(self) -> None:
        """Answers when a handler has begun."""
        await self._begun.wait()

    async def cancelled(self) -> None:
        """Answers when a handler was cancelled."""
        await self._cancelled.wait()

    async def stalled(self) -> int:
        """Answers when the stream makes no progress, with the bytes that it has sent."""
        sent = -1
        while sent != self._sent:
            sent = self._sent
            await asyncio.sleep(QUIET)
        return sent

    async def sent(self, beyond: int) -> int:
        """Answers when the stream has sent more than so many bytes."""
        while self._sent <= beyond:
            self._progress.clear()
            await self._progress.wait()
        return self._sent


if __name__ == "__main__":
    service = Service(os.environ["NODE_NAME"])
    service.handle(Counter())
    service.run()
