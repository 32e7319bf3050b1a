"""The life cycle that every component has."""

from __future__ import annotations

from abc import ABC
from types import TracebackType
from typing import Self

from pymicro.errors import Closed


class Component(ABC):
    """Something that is opened, used and closed.

    A constructor does no I/O. `async with component` opens it and closes it; `aclose` may be called at any time and
    any number of times, before opening and after a failed opening too. A closed component stays closed.

    Implementations override `_open` and `_close`. `_close` is called once, also after an `_open` that failed or was
    cancelled half-way, so it releases whatever there is.
    """

    _state: str = "new"

    async def __aenter__(self) -> Self:
        if self._state != "new":
            raise Closed(f"{type(self).__name__} was opened before: make a new one")
        self._state = "open"
        try:
            await self._open()
        except BaseException:
            await self.aclose()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Release everything. Idempotent; bounded in time."""
        was, self._state = self._state, "closed"
        if was == "open":
            await self._close()

    @property
    def is_open(self) -> bool:
        """Whether the component was opened and not closed yet."""
        return self._state == "open"

    def require_open(self) -> None:
        """Raise `Closed` unless the component is open."""
        if self._state != "open":
            raise Closed(f"{type(self).__name__} is not open: use it inside 'async with', or through a Service")

    async def _open(self) -> None:
        """Acquire what the component needs."""

    async def _close(self) -> None:
        """Release what `_open` and later calls acquired."""
