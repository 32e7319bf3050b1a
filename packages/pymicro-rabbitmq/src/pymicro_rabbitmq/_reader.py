"""What a server says, for a driver that takes the length of every frame for right."""

from __future__ import annotations

import asyncio
from typing import Final

#: Bytes of a frame while nothing is agreed yet; what RabbitMQ agrees to if it is not told otherwise.
_USUAL: Final = 131_072


class FrameReader(asyncio.StreamReader):
    """Refuses frames that are longer than agreed. The driver would keep up to 4 GiB of what comes, and hear nothing.

    Attributes:
        most: bytes of a frame.
    """

    most: float = _USUAL

    async def readexactly(self, n: int) -> bytes:
        """See `asyncio.StreamReader`; the driver reads most of a frame by one call.

        Raises:
            ConnectionError: a frame cannot be as long.
        """
        if n > self.most:
            raise ConnectionError(f"a frame of {n} bytes where at most {self.most:.0f} were agreed")
        return await super().readexactly(n)
