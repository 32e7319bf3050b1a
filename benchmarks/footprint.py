"""Weighs services: what their imports, their start, idle processes and connections, and a million calls cost.

README.md says what each figure is.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import subprocess
import sys
import time
import uuid
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import uvloop

from changes import changes, differences
from figures import REFERENCE, Rounds
from peers import load
from peers._pymicro import Caller, over_http
from pymicro.errors import PymicroError
from report import report
from rows import RESULTS, Figure, Stored, available, describe, read, write

_SIDE = Path(__file__).with_name("side.py")
_RELEASE = RESULTS / "footprint.jsonl"
_PEERS = (REFERENCE, "pymicro_http", "pymicro_channels")
#: What client and server import, with what pymicro imports only when it is chosen, and without the event loop, which
#: all share; both ways of pymicro import the same. `python` is a bare interpreter.
_IMPORTS = {
    "python": "pass",
    REFERENCE: "import grpc.aio",
    "pymicro_channels": "from pymicro import Service; "
    "import pymicro_transport_http._transport, pymicro_registry_mdns._registry",
}
#: Calls before connections are counted, and before growth is.
_WARM_UP, _GROWTH_WARM_UP = 2000, 100_000
#: Seconds for a process to come to rest, to be found, to do what it is told, and to end.
_SETTLE, _FOUND, _PATIENCE, _STOP = 0.3, 20.0, 900.0, 10.0

#: Makes the first call of a server that said this address.
_First = Callable[[str], Awaitable[object]]


def main() -> int:
    """Returns the exit status: 1 when a peer cannot be weighed here."""
    parser = _parser()
    options = parser.parse_args()
    if options.compare and not options.compare.is_file():
        parser.error(f"there is no {options.compare}")
    before = read([options.compare]) if options.compare else None
    peers, left_out = available(_PEERS)
    if left_out:
        print(f"cannot be weighed here: {left_out}", file=sys.stderr)
        return 1
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # users' bytecode is cached
    run = describe(peers, uvloop=True, left_out={}, command=" ".join(["footprint.py", *sys.argv[1:]]))
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        figures = runner.run(_all(options.rounds, options.connections, options.growth_calls))
    print(report(Stored([run], [], figures)))
    for path in filter(None, (options.out, _RELEASE if options.release else None)):
        write(path, run, figures)
    if before is not None:
        print("\nchanged by more than the noise:")
        lines = changes(Rounds([], before.figures), Rounds([], figures))
        print("\n".join([*differences(before.runs[0], run), *lines]))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="how often each figure is taken (5)")
    parser.add_argument("--connections", type=int, default=1000, help="idle connections that are opened (1000)")
    parser.add_argument(
        "--growth-calls",
        type=int,
        default=1_000_000,
        help="calls over which growth is measured; 0: it is not (1000000)",
    )
    parser.add_argument("--out", type=Path, help="file to store the figures in, as JSON lines")
    parser.add_argument(
        "--compare", type=Path, nargs="?", const=_RELEASE, help="say what changed since; no file: the last release"
    )
    parser.add_argument("--release", action="store_true", help=f"store them as the release's, in {_RELEASE.name}")
    return parser


async def _all(rounds: int, connections: int, growth_calls: int) -> list[Figure]:
    """Every peer once a round. What comes before the rounds writes bytecode and warms caches."""
    figures: list[Figure] = []

    def add(number: int, peer: str, found: Mapping[str, float]) -> None:
        figures.extend(Figure(round=number, peer=peer, name=name, value=value) for name, value in found.items())

    async with AsyncExitStack() as stack:
        first = {peer: await _opened(stack, peer) for peer in _PEERS}
        for statement in _IMPORTS.values():
            _imported(statement)
        for peer in _PEERS:
            await _started(peer, first[peer], 1)
        for number in range(rounds):
            for peer, statement in _IMPORTS.items():
                add(number, peer, _imported(statement))
            for peer in _PEERS:
                add(number, peer, await _started(peer, first[peer], connections))
                if peer != REFERENCE:
                    add(number, peer, await _found(peer))
    if growth_calls:
        for peer in _PEERS:
            add(0, peer, await _growth(peer, growth_calls))
    return figures


async def _opened(stack: AsyncExitStack, peer: str) -> _First:
    """A client that is ready before the server starts, and knows its address from nobody but the server."""
    if peer == REFERENCE:

        async def first(address: str) -> object:
            async with load(peer).client(address) as client:
                return await client.hello("John")

        return first
    service = await stack.enter_async_context(over_http("footprint", peer == "pymicro_channels"))

    def direct(address: str) -> Awaitable[object]:
        name, where = address.split()
        return Caller(service.client, name, where).hello("John")

    return direct


def _imported(statement: str) -> dict[str, float]:
    """A new interpreter from its start to its end, in which this is all it does."""
    began = time.perf_counter()
    process = subprocess.Popen([sys.executable, "-c", statement])
    _, status, used = os.wait4(process.pid, 0)
    took = time.perf_counter() - began
    if status:
        raise RuntimeError(f"{statement!r} failed")
    return {"import": took, "import_cpu": used.ru_utime + used.ru_stime}


async def _started(peer: str, first: _First, connections: int) -> dict[str, float]:
    began = time.perf_counter()
    async with _side("serve", peer) as (server, address):
        await first(address)
        took = time.perf_counter() - began
        await asyncio.sleep(_SETTLE)
        rss, private = _memory(server)
        async with _side("count", peer, address, _WARM_UP, 0) as (client, _):
            await _go_on(client)
        async with _side("connect", peer, address, connections) as (client, _):
            before, _private = _memory(server)
            await _go_on(client)
            await asyncio.sleep(_SETTLE)
            after, _private = _memory(server)
    return {"start": took, "rss": rss, "private": private, "connection": (after - before) / connections}


async def _found(peer: str) -> dict[str, float]:
    """From the start of a server until a call by its name succeeds, in a client that has been asking for it."""
    name = f"benchmark-{uuid.uuid4().hex[:12]}"
    async with over_http("footprint", peer == "pymicro_channels") as service:
        greeter = Caller(service.client, name)
        began = time.perf_counter()
        async with _side("serve", peer, environment={"BENCHMARK_SERVICE": name}), asyncio.timeout(_FOUND):
            while True:
                try:
                    await greeter.hello("John")
                except PymicroError:
                    await asyncio.sleep(0.001)
                else:
                    return {"found": time.perf_counter() - began}


async def _growth(peer: str, calls: int) -> dict[str, float]:
    async with (
        _side("serve", peer) as (server, address),
        _side("count", peer, address, _GROWTH_WARM_UP, calls) as (client, _),
    ):
        before = [_memory(process)[0] for process in (server, client)]
        await _go_on(client)
        after = [_memory(process)[0] for process in (server, client)]
    return {"growth_server": after[0] - before[0], "growth_client": after[1] - before[1]}


@asynccontextmanager
async def _side(
    what: str, peer: str, *arguments: object, environment: Mapping[str, str] | None = None
) -> AsyncIterator[tuple[Process, str]]:
    """One process of `side.py`, and the first line it says."""
    command = [sys.executable, str(_SIDE), what, peer, *map(str, arguments)]
    process = await asyncio.create_subprocess_exec(
        *command, stdin=PIPE, stdout=PIPE, env={**os.environ, **(environment or {})}
    )
    try:
        yield process, await _line(process)
    finally:
        if process.returncode is None:
            process.terminate()
        async with asyncio.timeout(_STOP):
            await process.wait()


async def _line(process: Process) -> str:
    assert process.stdout is not None
    async with asyncio.timeout(_PATIENCE):
        line = (await process.stdout.readline()).decode().strip()
    if not line:
        raise RuntimeError("a side failed")
    return line


async def _go_on(process: Process) -> None:
    """Let a client go on after `warm`; returns when it is done."""
    assert process.stdin is not None
    process.stdin.write(b"\n")
    if await _line(process) != "done":
        raise RuntimeError("a side said something else")


def _memory(process: Process) -> tuple[int, int]:
    """Bytes that are resident, and those of them that no other process shares (Linux)."""
    lines = Path(f"/proc/{process.pid}/smaps_rollup").read_text().splitlines()[1:]
    sizes = {name: int(rest.split()[0]) * 1024 for name, _, rest in (line.partition(":") for line in lines)}
    return sizes["Rss"], sizes["Private_Clean"] + sizes["Private_Dirty"]


if __name__ == "__main__":
    raise SystemExit(main())
