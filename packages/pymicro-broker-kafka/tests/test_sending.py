"""How the event loop wakes the thread that sends."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from pymicro_broker_kafka._sending import GatheringClient


@pytest.fixture
def woken(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """Grows each time that a client of the driver wakes its thread."""
    found: list[object] = []
    monkeypatch.setattr("kafka.net.selector.NetworkSelector.wakeup", lambda net: found.append(net))
    return found


@pytest.fixture
async def client() -> Any:
    """One that is not connected."""
    client = GatheringClient(asyncio.get_running_loop(), bootstrap_servers=["127.0.0.1:1"])
    yield client
    client.close()


async def test_all_of_one_turn_of_the_loop_wake_it_once(client: Any, woken: list[object]) -> None:
    for _ in range(3):
        client.wakeup()
    assert not woken
    await asyncio.sleep(0)
    assert len(woken) == 1
    client.wakeup()
    await asyncio.sleep(0)
    assert len(woken) == 2


async def test_another_thread_wakes_it_at_once(client: Any, woken: list[object]) -> None:
    def flush() -> int:
        client.wakeup()
        return len(woken)

    assert await asyncio.to_thread(flush) == 1
