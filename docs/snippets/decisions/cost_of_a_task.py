"""What a call costs in a task of its own, and in the running task but a context of its own; microseconds."""

import asyncio
import time
from collections.abc import Awaitable, Callable

import uvloop

from pymicro.rpc import InContext

CALLS = 20_000


async def handler() -> None:
    pass


async def measured(run: Callable[[], Awaitable[None]]) -> float:
    began = time.perf_counter()
    for _ in range(CALLS):
        await run()
    return (time.perf_counter() - began) / CALLS * 1e6


async def main() -> str:
    bare = min([await measured(handler) for _ in range(5)])
    task = min([await measured(lambda: asyncio.create_task(handler())) for _ in range(5)])
    context = min([await measured(lambda: InContext(handler())) for _ in range(5)])
    return f"task {task - bare:.1f}, context {context - bare:.1f}"


for name, factory in (("asyncio", asyncio.new_event_loop), ("uvloop", uvloop.new_event_loop)):
    with asyncio.Runner(loop_factory=factory) as runner:
        print(f"{name}:", runner.run(main()))
