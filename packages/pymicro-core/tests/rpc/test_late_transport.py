"""A transport that works through a server which is not there yet."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from pymicro import Service
from pymicro.errors import BackendUnavailable, ConfigurationError
from pymicro.transport import Accept, Listener, MemoryTransport


class Late(MemoryTransport):
    """Cannot listen at first."""

    error: Exception = BackendUnavailable("connection refused", "127.0.0.1:4222")
    failures = 0

    async def listen(self, address: str, accept: Accept, *, sock: Any = None) -> Listener:
        if self.failures:
            self.failures -= 1
            raise self.error
        return await super().listen(address, accept, sock=sock)


class Greeter:
    async def hello(self) -> str:
        return "Hello"


def service_on(transport: Late) -> Service:
    service = Service("greeter", environ={}, registry="memory", transport=transport, drain_delay=0.0)
    service.handle(Greeter())
    return service


async def test_a_service_waits_for_it_and_says_so_once(caplog: pytest.LogCaptureFixture) -> None:
    transport = Late()
    transport.failures = 3
    with caplog.at_level(logging.WARNING):
        async with service_on(transport) as service:
            assert await service.client.call("greeter", "Greeter.Hello") == "Hello"
    assert caplog.text.count("waiting for the transport") == 1
    assert "127.0.0.1:4222: connection refused" in caplog.text


async def test_a_mistake_is_told_at_once() -> None:
    transport = Late()
    transport.failures = 1
    transport.error = ConfigurationError("the subject is in use")
    with pytest.raises(ConfigurationError, match="in use"):
        async with service_on(transport):
            pass
