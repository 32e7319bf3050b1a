"""What starting a service costs: modules that it does not need are not imported."""

from __future__ import annotations

import subprocess
import sys

#: Of the standard library, each takes a millisecond or more, alone or with what it brings; the others are optional.
HEAVY = (
    "argparse",
    "attrs",
    "ctypes",
    "difflib",
    "email",
    "google.protobuf",
    "http",
    "importlib.metadata",
    "ipaddress",
    "json",
    "multiprocessing",
    "pathlib",
    "pydantic",
    "secrets",
    "shutil",
    "tempfile",
    "unittest",
    "urllib",
    "zipfile",
)

PROGRAM = """
import asyncio, sys
import msgspec, pluggy  # what they and asyncio import is theirs to decide

before = set(sys.modules)

from pymicro import Service


class Echo:
    async def say(self, text: str) -> str:
        return text


async def main() -> None:
    address = "127.0.0.1:1"
    service = Service("echo", transport="memory", registry="memory", broker="memory", server_address=address)
    service.handle(Echo())
    async with service:
        assert await service.client.stub("echo", Echo).say("hello") == "hello"


asyncio.run(main())
print(*sorted(name for name in sys.argv[1:] if name in set(sys.modules) - before))
"""


def test_a_service_starts_without_modules_that_it_does_not_need() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM, *HEAVY], capture_output=True, text=True, check=False)

    assert (done.returncode, done.stdout.strip()) == (0, ""), done.stderr
