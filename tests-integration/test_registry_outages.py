"""Registries on real servers that have bad days: not one call fails, and who comes and goes is known after it."""

from __future__ import annotations

import asyncio
import logging
import signal
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, NamedTuple, Self

import pytest

from processes import Program
from pymicro import Service
from pymicro.errors import Error
from pymicro.record import ServiceRecord
from pymicro_testing import FaultProxy, no_leaks
from pymicro_testing.servers import NativeServer

#: What each registry is told besides its address. NATS has no TTL: it asks.
REGISTRIES: dict[str, dict[str, Any]] = {"etcd": {}, "consul": {}, "nats": {"registry_nats_refresh": 2}}

#: Seconds after which a registry forgets who was killed, and for which clients keep who is missing after an outage.
TTL = 3
SETTLE = 10.0

#: Seconds after the server's return in which all is as it should be, and those that a busy machine may add.
RECOVERY = 5.0
GRACE = 15.0

#: Seconds that the server stands still, which is longer than any time-out.
PAUSE = 20.0

#: Connections that are cut in the middle of what goes over them.
CUTS = 6

CALLERS = 4
PATIENCE = 30.0

logger = logging.getLogger(__name__)


class Mesh(NamedTuple):
    """Nodes of one service at one registry.

    Attributes:
        name: the service's.
        options: the registry, its address and its options, as keywords of `Service`.
        start: starts a node with these flags.
        nodes: the programs that were started, by the id of the node.
    """

    name: str
    options: dict[str, Any]
    start: Any
    nodes: dict[str, Program]

    async def add(self, *ids: str) -> None:
        """Start nodes."""
        flags = [f"--{name}={value}" for name, value in self.options.items()]
        for id in ids:
            self.nodes[id] = await self.start(
                "node.py",
                f"--server_id={id}",
                f"--register_ttl={TTL}",
                "--drain_delay=0.5",
                *flags,
                NODE_NAME=self.name,
            )

    async def stop(self, id: str) -> None:
        """Let a node stop orderly."""
        node = self.nodes.pop(id)
        node.signal(signal.SIGTERM)
        assert await node.ended() == 0, "\n".join(node.log)
        assert not [line for line in node.log if " ERROR " in line or "Traceback" in line]

    async def kill(self, id: str) -> None:
        """Kill a node."""
        await self.nodes.pop(id).kill()

    async def found(self) -> float:
        """Wait until a newcomer finds every node that runs, and nobody else; gives the seconds that it took."""
        began = time.monotonic()
        async with Callers(self, "newcomer") as newcomer:
            await newcomer.knows(set(self.nodes), PATIENCE)
        return time.monotonic() - began


class Callers:
    """Tasks that call the nodes of a mesh without pause. Enter it; leaving it stops them.

    Args:
        mesh: the nodes.
        name: of the service that calls.
        idempotent: whether they call what may be repeated: a call that is with a node when that is killed is, or fails.

    Attributes:
        failures: calls that failed.
        known: the nodes that the last call had to choose from.
        answers: how many calls were answered.
    """

    def __init__(self, mesh: Mesh, name: str = "caller", *, idempotent: bool = False) -> None:
        self.failures: list[Error] = []
        self.known: set[str] = set()
        self.answers = 0
        self._mesh, self._idempotent = mesh, idempotent
        self._service = Service(name, environ={}, **mesh.options)
        self._news = asyncio.Event()
        self._calling: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Self:
        await self._service.start()
        self._calling = [asyncio.create_task(self._call()) for _ in range(CALLERS)]
        return self

    async def __aexit__(self, *error: object) -> None:
        for task in self._calling:
            task.cancel()
        await asyncio.gather(*self._calling, return_exceptions=True)
        await self._service.stop()

    async def knows(self, ids: set[str], seconds: float) -> float:
        """Wait until these nodes are called and no others; gives the seconds that it took."""
        return await self._until(lambda: self.known == ids, seconds)

    async def go_on(self, number: int = 200) -> None:
        """Wait for so many more answers."""
        wanted = self.answers + number
        await self._until(lambda: self.answers >= wanted, PATIENCE)

    async def _until(self, happened: Callable[[], bool], seconds: float) -> float:
        began = time.monotonic()
        try:
            async with asyncio.timeout(seconds):
                while not happened():
                    self._news.clear()
                    await self._news.wait()
        except TimeoutError:
            raise AssertionError(f"known: {self.known}, answers: {self.answers}, {self.failures[-3:]}") from None
        return time.monotonic() - began

    async def _call(self) -> None:
        client, name, endpoint = self._service.client, self._mesh.name, "Node.Look" if self._idempotent else "Node.Work"
        while True:
            try:
                await client.call(name, endpoint, 0.0, response=str, idempotent=self._idempotent, filters=[self._see])
                self.answers += 1
            except Error as error:
                self.failures.append(error)
                await asyncio.sleep(0.01)
            self._news.set()

    def _see(self, services: Sequence[ServiceRecord]) -> Sequence[ServiceRecord]:
        prefix = f"{self._mesh.name}-"
        self.known = {node.id.removeprefix(prefix) for service in services for node in service.nodes}
        return services


@pytest.fixture(params=REGISTRIES)
def registry(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def backend(registry: str, server: Callable[..., NativeServer]) -> NativeServer:
    return server(registry)


@pytest.fixture
def meshed(name: str, start: Any) -> Any:
    """Makes a mesh of nodes and everything that calls them, of which nothing is left afterwards."""

    @asynccontextmanager
    async def meshed(registry: str, address: str, *ids: str, idempotent: bool = False) -> AsyncIterator[Any]:
        options = {"registry": registry, "registry_address": address, "transport": "http"} | REGISTRIES[registry]
        mesh = Mesh(f"{name}-{registry}", options, start, {})
        await mesh.add(*ids)
        async with Callers(mesh, idempotent=idempotent) as callers:
            await callers.knows(set(ids), PATIENCE)
            callers.failures.clear()  # until all were there
            yield mesh, callers
            await callers.go_on()
            assert not callers.failures, callers.failures[-3:]
        await asyncio.gather(*(mesh.stop(id) for id in list(mesh.nodes)))

    return meshed


async def change(mesh: Mesh, callers: Callers) -> None:
    """While the registry is away: one node comes, one goes, one is killed."""
    await asyncio.gather(mesh.add("late"), mesh.stop("stopped"), mesh.kill("killed"))
    await callers.go_on()
    assert callers.known == {"stays", "stopped", "killed"}, "what was known last"


async def settled(title: str, mesh: Mesh, callers: Callers) -> None:
    """After that the registry has who runs, and nobody else; all of them are called."""
    seconds = await callers.knows({"stays", "late"}, TTL + SETTLE + RECOVERY + GRACE)
    newcomer = await mesh.found()
    logger.info("%s: all changes known after %.2f s, to a newcomer within %.2f s", title, seconds, newcomer)


async def test_lost_data(registry: str, backend: NativeServer, meshed: Any) -> None:
    async with no_leaks(), meshed(registry, backend.address, "one", "other") as (mesh, callers):
        for _ in range(2):
            await callers.go_on()
            await backend.forget()
            seconds = await mesh.found()
            assert seconds < RECOVERY + GRACE
            await callers.knows({"one", "other"}, RECOVERY + GRACE)
            logger.info("%s, data lost: registered again within %.2f s", registry, seconds)


@pytest.mark.parametrize(("how", "seconds"), [("kill", 0.0), ("pause", PAUSE)])
@pytest.mark.timeout(120 + PAUSE)
async def test_an_outage(how: str, seconds: float, server: Callable[..., NativeServer], meshed: Any) -> None:
    """All registries at once, since most of it is waiting."""

    async def one(registry: str) -> None:
        backend = server(registry)
        async with meshed(registry, backend.address, "stays", "stopped", "killed", idempotent=True) as (mesh, callers):
            await getattr(backend, how)()
            async with asyncio.TaskGroup() as group:
                group.create_task(asyncio.sleep(seconds))
                group.create_task(change(mesh, callers))
            await backend.start()
            await settled(f"{registry}, {how}", mesh, callers)

    async with no_leaks(), asyncio.TaskGroup() as group:
        for registry in REGISTRIES:
            group.create_task(one(registry))


class CuttingProxy(FaultProxy):
    """Tells when it cut."""

    def __init__(self, target: str) -> None:
        super().__init__(target)
        self.happened = asyncio.Event()

    def cut(self, *, after: int | None = None, reset: bool = True) -> None:
        """See `FaultProxy.cut`."""
        super().cut(after=after, reset=reset)
        if after is None:
            self.happened.set()
        else:
            self.happened.clear()


async def test_connections_that_break_in_the_middle_of_a_message(
    registry: str, backend: NativeServer, meshed: Any
) -> None:
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(no_leaks())
        proxy = await stack.enter_async_context(CuttingProxy(backend.address))
        mesh, callers = await stack.enter_async_context(meshed(registry, proxy.address, "one", "other"))
        slowest = 0.0
        for number in range(CUTS):
            proxy.cut(after=200 + 307 * number, reset=bool(number % 2))
            while not proxy.happened.is_set():
                slowest = max(slowest, await mesh.found())
            await callers.knows({"one", "other"}, RECOVERY + GRACE)
        assert slowest < RECOVERY + GRACE
        logger.info("%s, %d broken connections: found again within %.2f s", registry, CUTS, slowest)
