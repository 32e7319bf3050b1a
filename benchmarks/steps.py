"""Counts what the interpreter does for one call, file by file: functions entered and bytecodes run.

Client and server are in one process, on asyncio's own loop, so that the count does not depend on the machine. What
runs in C (msgspec, httptools, the socket, uvloop) does not count, so read it as a map of where the Python is, not as
time. `docs/explanation/the-walk-of-a-call.md` has the table:

    python benchmarks/steps.py --into docs/explanation/the-walk-of-a-call.md
"""

from __future__ import annotations

import argparse
import asyncio
import re
import sys
from collections import Counter
from pathlib import Path
from types import FrameType
from typing import Any

from peers._pymicro import Greeter, HelloRequest
from pymicro import Service

_CALLS = 50
_WARM_UP = 200
_SOURCES = re.compile(r".*/packages/([^/]+)/src/[^/]+/(.+)$")
_BLOCK = re.compile(r"<!-- steps -->\n.*?<!-- /steps -->", re.DOTALL)
_PATHS: dict[str, dict[str, Any]] = {
    "HTTP": {"transport": "http", "transport_http_channels": False, "server_address": "127.0.0.1:0"},
    "channels": {"transport": "http", "server_address": "127.0.0.1:0"},
    "in memory": {"transport": "memory"},
}


class Steps:
    """Counts by file, from the first call of `trace` on."""

    def __init__(self) -> None:
        self.functions: Counter[str] = Counter()
        self.bytecodes: Counter[str] = Counter()

    def trace(self, frame: FrameType, event: str, argument: object) -> Any:
        """See `sys.settrace`."""
        found = _SOURCES.match(frame.f_code.co_filename)
        if found is None:
            return None
        name = f"{found[1]}: {found[2]}"
        frame.f_trace_opcodes, frame.f_trace_lines = True, False
        if event == "call":
            self.functions[name] += 1
        elif event == "opcode":
            self.bytecodes[name] += 1
        return self.trace


async def count(keywords: dict[str, Any]) -> Steps:
    """The steps of `_CALLS` calls."""
    service = Service("steps", environ={}, registry="memory", drain_delay=0.0, **keywords)
    service.handle(Greeter())
    async with service:
        greeter = service.client.stub("steps", Greeter)
        for _ in range(_WARM_UP):
            await greeter.hello(HelloRequest(name="John"))
        steps = Steps()
        await asyncio.create_task(_calls(greeter, steps))
        return steps


async def _calls(greeter: Greeter, steps: Steps) -> None:
    waiting = [each for task in asyncio.all_tasks() for each in _frames(task)]
    for frame in waiting:  # those that wait for a call were entered before
        frame.f_trace, frame.f_trace_opcodes, frame.f_trace_lines = steps.trace, True, False
    sys.settrace(steps.trace)
    try:
        for _ in range(_CALLS):
            await greeter.hello(HelloRequest(name="John"))
    finally:
        sys.settrace(None)
        for frame in waiting:
            frame.f_trace = None


def _frames(task: asyncio.Task[Any]) -> list[FrameType]:
    """The frames that a task waits in, those of this project only."""
    found = []
    work: Any = task.get_coro()
    while work is not None:
        frame = getattr(work, "cr_frame", None)
        if frame is not None and _SOURCES.match(frame.f_code.co_filename):
            found.append(frame)
        work = getattr(work, "cr_await", None)
    return found


def table(paths: dict[str, Steps]) -> str:
    """Functions and bytecodes a call, by file, as Markdown."""
    names = sorted({name for steps in paths.values() for name in steps.bytecodes})
    head = [f"| file | {' | '.join(paths)} |", f"|---|{'--:|' * len(paths)}"]
    rows = [f"| `{name}` | {' | '.join(_cell(steps, [name]) for steps in paths.values())} |" for name in names]
    total = f"| all | {' | '.join(_cell(steps, names) for steps in paths.values())} |"
    return "\n".join([*head, *rows, total])


def _cell(steps: Steps, names: list[str]) -> str:
    functions = sum(steps.functions[name] for name in names) / _CALLS
    bytecodes = sum(steps.bytecodes[name] for name in names) / _CALLS
    return f"{functions:.0f}, {bytecodes:.0f}" if bytecodes >= 0.5 else ""


def main() -> None:
    """Print the table, or put it into a page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--into", type=Path, help="a page with a block between <!-- steps --> and <!-- /steps -->")
    options = parser.parse_args()
    text = table({name: asyncio.run(count(keywords)) for name, keywords in _PATHS.items()})
    if options.into is None:
        print(text)
        return
    page = options.into.read_text(encoding="utf-8")
    block = f"<!-- steps -->\n{text}\n<!-- /steps -->"
    options.into.write_text(_BLOCK.sub(lambda _: block, page), encoding="utf-8")


if __name__ == "__main__":
    main()
