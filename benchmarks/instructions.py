"""Counts the instructions of a call with valgrind, for machines that hide the counter.

Client and server each run under callgrind, twice, with a different number of calls; what the longer run took more is
divided by the calls it made more. So start and end of the processes do not count. User mode only: what the kernel does
is not seen. The processes are some fifty times slower than they are without; what they do is the same.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import re
import shutil
import sys
import tempfile
from asyncio.subprocess import DEVNULL, PIPE, Process
from pathlib import Path

from figures import REFERENCE
from report import report
from rows import RESULTS, Figure, Stored, available, describe, write

_SIDE = Path(__file__).with_name("side.py")
_RELEASE = RESULTS / "instructions.jsonl"
_PEERS = (REFERENCE, "pymicro_http", "pymicro_channels")
_TOTAL = re.compile(r"^totals: (\d+)", re.MULTILINE)
#: Seconds for a process to say something, and to write its figures when told to end.
_PATIENCE, _STOP = 600.0, 60.0


def main() -> int:
    """Returns the exit status: 1 when nothing can be counted here."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--calls", type=int, default=4000, help="how many the longer run makes more, 64 in flight (4000)"
    )
    parser.add_argument("--out", type=Path, help="file to store the figures in, as JSON lines")
    parser.add_argument("--release", action="store_true", help=f"store them as the release's, in {_RELEASE.name}")
    options = parser.parse_args()
    valgrind = shutil.which("valgrind")
    peers, left_out = available(_PEERS)
    if valgrind is None or left_out:
        print(f"cannot be counted here: {left_out or 'there is no valgrind on this machine'}", file=sys.stderr)
        return 1
    run = describe(peers, uvloop=True, left_out={}, command=" ".join(["instructions.py", *sys.argv[1:]]))
    figures = [figure for peer in peers for figure in asyncio.run(_count(valgrind, peer, options.calls))]
    print(report(Stored([run], [], figures)))
    for path in filter(None, (options.out, _RELEASE if options.release else None)):
        write(path, run, figures)
    return 0


async def _count(valgrind: str, peer: str, calls: int) -> list[Figure]:
    few = max(calls // 8, 64)
    server, client = await _run(valgrind, peer, few)
    server_more, client_more = await _run(valgrind, peer, few + calls)
    more = {"server": server_more - server, "client": client_more - client}
    return [
        Figure(round=0, peer=peer, name=f"instructions_{side}", value=count / calls) for side, count in more.items()
    ]


async def _run(valgrind: str, peer: str, calls: int) -> tuple[int, int]:
    """Instructions of the server and of the client, from their start to their end."""
    with tempfile.TemporaryDirectory() as folder:
        out = {side: Path(folder) / side for side in ("server", "client")}
        server = await _start(valgrind, out["server"], "serve", peer)
        try:
            address = await _line(server)
            client = await _start(valgrind, out["client"], "count", peer, address, str(calls), "0")
            try:
                assert client.stdin is not None
                for said in ("warm", "done"):
                    if await _line(client) != said:
                        raise RuntimeError("the client failed")
                    client.stdin.write(b"\n")
                await client.wait()
            finally:
                await _end(client)
        finally:
            await _end(server)
        return _total(out["server"]), _total(out["client"])


def _total(path: Path) -> int:
    counted = _TOTAL.search(path.read_text())
    if counted is None:
        raise RuntimeError("valgrind counted nothing")
    return int(counted[1])


async def _start(valgrind: str, out: Path, *arguments: str) -> Process:
    command = [valgrind, "-q", "--tool=callgrind", f"--callgrind-out-file={out}", sys.executable, str(_SIDE)]
    environment = {**os.environ, "PYTHONHASHSEED": "0"}  # the same in both runs
    return await asyncio.create_subprocess_exec(
        *command, *arguments, stdin=PIPE, stdout=PIPE, stderr=DEVNULL, env=environment
    )


async def _line(process: Process) -> str:
    assert process.stdout is not None
    async with asyncio.timeout(_PATIENCE):
        return (await process.stdout.readline()).decode().strip()


async def _end(process: Process) -> None:
    if process.returncode is None:
        process.terminate()
    async with asyncio.timeout(_STOP):
        await process.wait()


if __name__ == "__main__":
    raise SystemExit(main())
