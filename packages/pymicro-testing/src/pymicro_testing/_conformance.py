"""What the conformance classes share."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, ClassVar, Generic, TypeVar

import msgspec
import pytest

from pymicro.clock import Clock, SystemClock
from pymicro.errors import PymicroError
from pymicro.plugins import Build, Identity, Limits
from pymicro.plugins.toolkit import Component
from pymicro_testing import _guard
from pymicro_testing.clock import ManualClock
from pymicro_testing.faults import Outage, Server
from pymicro_testing.leaks import no_leaks

T = TypeVar("T")
ComponentT = TypeVar("ComponentT", bound=Component)


class Guarded:
    """A class with cases of the kit. A subclass that drops one cannot be created."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        _guard.check(cls)


class Conformance(Guarded, Generic[ComponentT]):
    """The base of the classes for components that are opened and closed.

    A case makes and opens its components itself, inside a check that nothing is left behind. Names of services and
    topics are new in each case, so a backend may be shared and need not be empty.

    Attributes:
        patience: seconds that a case waits for what must happen.
        quiet: seconds that a case watches for what must not happen.
        limits: the bounds that components are built with.
        server: takes the backend away in cases about outages; None skips them. Set it in a fixture or `setup_method`.
        clock: the time that components are built with. With a `ManualClock`, cases advance it instead of waiting.
    """

    patience: ClassVar[float] = 5.0
    quiet: ClassVar[float] = 0.05
    limits: ClassVar[Limits] = Limits(message=256 * 1024, headers=16 * 1024, buffer=64 * 1024)
    server: Server | None = None
    clock: Clock = SystemClock()

    def make(self, build: Build) -> ComponentT:
        """A new component that was not opened yet, on the backend of this case.

        Called more than once in a case; all of them must reach the same backend: the same server, the same catalog.
        `build.addresses` is empty, or that of a proxy in front of `server`.
        """
        raise NotImplementedError(f"{type(self).__qualname__} must define make(self, build)")

    def build(self, **changes: Any) -> Build:
        """What a component is built with; `changes` replace fields."""
        identity = Identity(name="conformance", id=uuid.uuid4().hex)
        build = Build(identity=identity, limits=self.limits, clock=self.clock, timeout=self.patience / 2)
        return msgspec.structs.replace(build, **changes)

    @asynccontextmanager
    async def opened(self, **changes: Any) -> AsyncIterator[ComponentT]:
        """One open component, its build changed by `changes`; nothing may be left when it was closed."""
        async with no_leaks(grace=self.patience), self.make(self.build(**changes)) as component:
            yield component

    @asynccontextmanager
    async def pair(self) -> AsyncIterator[tuple[ComponentT, ComponentT]]:
        """Two open components on the same backend."""
        async with no_leaks(grace=self.patience), self.make(self.build()) as one, self.make(self.build()) as other:
            yield one, other

    @asynccontextmanager
    async def outage(self, kind: Outage) -> AsyncIterator[Server]:
        """The server, if it can do `kind`; it answers again afterwards. Skips the case otherwise."""
        if self.server is None:
            pytest.skip(f"no server that can {kind.value} is declared")
        if kind not in self.server.outages:
            pytest.skip(f"the outage {kind.value!r} is not declared by {type(self.server).__name__}")
        async with AsyncExitStack() as stack:
            stack.push_async_callback(self.server.start)
            yield self.server

    @staticmethod
    def unique(name: str) -> str:
        """`name` with an ending that no other case has."""
        return f"{name}-{uuid.uuid4().hex[:12]}"

    async def within(self, awaitable: Awaitable[T]) -> T:
        """The result; fails after `patience`."""
        timeout = asyncio.timeout(self.patience)
        try:
            async with timeout:
                return await awaitable
        except TimeoutError:
            if timeout.expired():
                raise AssertionError(f"it did not end within {self.patience} seconds") from None
            raise

    async def eventually(self, probe: Callable[[], Awaitable[bool]], what: str) -> None:
        """Ask `probe` until it says yes; fail after `patience` seconds, saying what did not happen."""
        end = asyncio.get_running_loop().time() + self.patience
        step, longest = 0.01, 1.0 if isinstance(self.clock, ManualClock) else 0.1
        while not await self.within(probe()):
            assert asyncio.get_running_loop().time() < end, f"it never happened that {what}"
            await self.pass_time(step)
            step = min(2 * step, longest)

    async def pass_time(self, seconds: float) -> None:
        """Let time pass for the components: real time, or that of a `ManualClock`."""
        if isinstance(self.clock, ManualClock):
            await self.clock.advance(seconds)
        else:
            await asyncio.sleep(seconds)

    async def stays_waiting(self, task: asyncio.Task[Any], what: str) -> None:
        """Fail if the task ends within `quiet` seconds."""
        done, _ = await asyncio.wait({task}, timeout=self.quiet)
        assert not done, f"{what}, but it ended: {task!r}"

    async def cancelled(self, task: asyncio.Task[Any]) -> bool:
        """Cancel and wait; whether the task was cancelled rather than finished.

        Fails when it neither ends nor gives way within `patience`.
        """
        task.cancel()
        done, _ = await asyncio.wait({task}, timeout=self.patience)
        assert done, f"cancellation was ignored by {task!r}"
        return task.cancelled()

    async def refused(self, awaitable: Awaitable[Any], *errors: type[BaseException]) -> None:
        """Fail unless it raises one of `errors`, or any error of pymicro's own when none is given."""
        with pytest.raises(errors or (PymicroError,)):
            await self.within(awaitable)
