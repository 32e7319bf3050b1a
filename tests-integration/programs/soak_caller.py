"""Calls the nodes of the soak without an end, as often at a time as it is told, and says what became of it."""

import asyncio
import os
import time
from collections import Counter
from contextvars import Context, ContextVar
from dataclasses import dataclass, field

from soaked import Done, Held, Job, held

from pymicro import Request, Response, Service, errors
from pymicro.rpc import Call

NAME = os.environ["NODE_NAME"]

service = Service(f"{NAME}-caller")

#: Failures that are told; more mean that something is very wrong, and that is known by then.
MANY = 1000

#: Whom a task's last attempt went to.
last: ContextVar[str] = ContextVar("last", default="")


@dataclass
class Failure:
    """One call that failed: when it began and ended, where it went, and whether it might be repeated."""

    node: str
    began: float
    ended: float
    error: str
    executed: str
    idempotent: bool


@dataclass
class Tally:
    """What became of all calls since the last tally, and what this process holds now that it rests."""

    nodes: dict[str, int]
    failures: list[Failure]
    held: Held


@dataclass
class Load:
    count: int
    seconds: float
    pause: float


@dataclass
class Caller:
    nodes: Counter[str] = field(default_factory=Counter)
    failures: list[Failure] = field(default_factory=list)
    running: list[asyncio.Task[None]] = field(default_factory=list)
    resting: bool = True

    async def begin(self, load: Load) -> None:
        """Begin to call."""
        self.resting = False
        self.running = [
            # In a context of its own: what it calls is no part of the call that is served here, nor ends with it.
            asyncio.create_task(self._call(load, idempotent=bool(number % 2)), context=Context())
            for number in range(load.count)
        ]

    async def end(self) -> Tally:
        """Let the calls under way end, and say what became of all."""
        self.resting = True
        await asyncio.gather(*self.running)
        self.running = []
        tally = Tally(dict(self.nodes), self.failures, held())
        self.nodes, self.failures = Counter(), []
        return tally

    async def _call(self, load: Load, *, idempotent: bool) -> None:
        while not self.resting:
            began = time.time()
            try:
                done = await service.client.call(
                    NAME, "Soak.Work", Job(load.seconds), response=Done, idempotent=idempotent
                )
                self.nodes[done.node] += 1
            except errors.Error as error:
                ended = time.time()
                if len(self.failures) < MANY:
                    self.failures.append(Failure(last.get(), began, ended, str(error), error.executed, idempotent))
            await asyncio.sleep(load.pause)


async def remember(request: Request, next: Call) -> Response:
    assert request.node is not None
    last.set(request.node.id)
    return await next(request)


service.client.use(attempts=[remember])
service.handle(Caller())

if __name__ == "__main__":
    service.run()
