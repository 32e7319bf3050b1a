"""Programs as processes of their own, which find each other over multicast DNS on loopback."""

from __future__ import annotations

import asyncio
import os
import sys
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from pymicro import Service

HERE = Path(__file__).parent
PROGRAMS = HERE / "programs"

sys.path.insert(0, str(HERE))  # the modules that tests here share stand beside this file

import go_checklist  # noqa: E402 (needs the line before)
import go_events  # noqa: E402
import go_mesh  # noqa: E402
import go_peers  # noqa: E402
from processes import Program  # noqa: E402


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(go_peers, "go-peers")
    config.pluginmanager.register(go_events, "go-events")
    config.pluginmanager.register(go_mesh, "go-mesh")
    config.pluginmanager.register(go_checklist.Checklist(config), "go-checklist")


@pytest.fixture
def name() -> str:
    """A service name that nobody else has."""
    return f"node-{uuid.uuid4().hex[:8]}"


@pytest.fixture
def environment(name: str) -> dict[str, str]:
    """Loopback only, free ports, and an mDNS domain that nobody else is in; the node's name for the programs."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("MICRO_")}
    return kept | {
        "NODE_NAME": name,
        "PYTHONWARNINGS": "error",
        "MICRO_SERVER_ADDRESS": "127.0.0.1:0",
        "MICRO_REGISTRY_MDNS_INTERFACES": "127.0.0.1",
        "MICRO_REGISTRY_MDNS_DOMAIN": f"t{uuid.uuid4().hex[:12]}",
    }


Start = Callable[..., Awaitable[Program]]


@pytest.fixture
async def start(environment: dict[str, str]) -> AsyncIterator[Start]:
    """Starts a program, by its name in `programs` or by its path; flags follow. All are killed after the test.

    `group` makes it the leader of a process group, as a shell does.
    """
    running: list[Program] = []

    async def start(
        program: str | Path, *flags: str, python: str | Path = sys.executable, group: bool = False, **variables: str
    ) -> Program:
        process = await asyncio.create_subprocess_exec(
            python,
            program if str(program).startswith("-") else PROGRAMS / program,
            *flags,
            env=environment | variables,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            process_group=0 if group else None,
        )
        running.append(Program(process))
        return running[-1]

    yield start
    for program in running:
        await program.kill()


@pytest.fixture
async def caller(environment: dict[str, str]) -> AsyncIterator[Service]:
    """A service in this process that serves nothing and calls the others."""
    async with Service("caller", environ=environment) as service:
        yield service
