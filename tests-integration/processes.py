"""Programs as processes of their own, and what they write."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable
from typing import TypeVar

#: Seconds after which something that should have come is missing.
PATIENCE = 20.0

T = TypeVar("T")


class Program:
    """A running process and what it has written.

    Attributes:
        pid: its process id.
        printed: lines of stdout.
        log: lines of stderr.
    """

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.pid = process.pid
        self.printed: list[str] = []
        self.log: list[str] = []
        self._process = process
        self._news = asyncio.Condition()
        assert process.stdout is not None
        assert process.stderr is not None
        self._readers = [
            asyncio.create_task(self._read(process.stdout, self.printed)),
            asyncio.create_task(self._read(process.stderr, self.log)),
        ]

    async def _read(self, stream: asyncio.StreamReader, lines: list[str]) -> None:
        while line := await stream.readline():
            lines.append(line.decode().rstrip("\n"))
            async with self._news:
                self._news.notify_all()
        async with self._news:
            self._news.notify_all()

    async def says(self, text: str, times: int = 1) -> str:
        """The line with `text` in it, the so many-th one; fails when the program ends without it."""

        def find() -> str | None:
            found = [line for line in (*self.printed, *self.log) if text in line]
            return found[times - 1] if len(found) >= times else None

        return await self.until(find)

    async def until(self, find: Callable[[], T | None]) -> T:
        """What `find` finds in the lines, as soon as it does; fails when the program ends without that."""
        async with asyncio.timeout(PATIENCE), self._news:
            while (found := find()) is None:
                assert not all(reader.done() for reader in self._readers), "\n".join(self.log)
                await self._news.wait()
        return found

    async def address(self) -> str:
        """Where it listens, once it does."""
        fields = (await self.says("service started")).split()
        return next(field for field in fields if field.startswith("address=")).removeprefix("address=")

    def signal(self, number: signal.Signals) -> None:
        """Send a signal."""
        self._process.send_signal(number)

    async def ended(self) -> int:
        """The exit status, once the process has ended by itself."""
        async with asyncio.timeout(PATIENCE):
            await asyncio.gather(*self._readers)
            return await self._process.wait()

    async def kill(self) -> None:
        """End it now, if it has not ended."""
        if self._process.returncode is None:
            self._process.kill()
        await self.ended()
