"""Answers to messages that no endpoint serves, and to those that are the last on their connection."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from pymicro import Service, errors
from pymicro.message import Message
from pymicro.metadata import Headers
from pymicro.record import Node
from pymicro.transport import MemoryTransport


class Echo:
    async def say(self, text: str) -> str:
        return text


@pytest.fixture
async def ask(service: Callable[..., Service], mesh: Any) -> Any:
    """Sends one message to a service that is called echo; gives the answer."""
    async with service("echo", Echo()) as one, MemoryTransport(network=mesh.network) as transport:
        assert one.server.node is not None
        socket = await transport.dial(Node("raw", one.server.node.address), timeout=5)

        async def ask(body: bytes, **headers: str) -> Message:
            await socket.send(Message(Headers({key.replace("_", "-"): text for key, text in headers.items()}), body))
            return await socket.recv()

        yield ask
        await socket.aclose()


REQUEST = b'{"params":["x"],"id":"7","method":"Echo.Nope"}'


@pytest.mark.parametrize(
    ("body", "headers"),
    [
        (REQUEST, {"Content_Type": "application/json-rpc", "Micro_Endpoint": "Echo.Nope"}),
        (REQUEST, {"Content_Type": "application/json-rpc"}),
        (REQUEST, {"Content_Type": "application/json"}),
        (b"{", {"Content_Type": "application/json-rpc", "Micro_Endpoint": "Echo.Say"}),
    ],
    ids=["named in a header", "named in the envelope", "of an old peer", "unreadable"],
)
async def test_an_error_stands_in_the_envelope_too(ask: Any, body: bytes, headers: dict[str, str]) -> None:
    answer = await ask(body, **headers)
    assert answer.headers["Content-Type"] == "application/json-rpc"
    told = json.loads(answer.body)
    assert told == {"id": "", "result": None, "error": answer.headers["Micro-Error"]}
    assert errors.from_wire(told["error"]).code in (400, 404)


async def test_an_event_has_no_envelope(ask: Any) -> None:
    answer = await ask(b'"x"', Content_Type="application/json-rpc", Micro_Topic="nobody")
    assert (dict(answer.headers), answer.body) == ({}, b"")


@pytest.mark.parametrize(
    "headers",
    [
        {"Content_Type": "application/nonsense", "Micro_Endpoint": "Echo.Say"},
        {"Content_Type": "application/octet-stream", "Micro_Endpoint": "Echo.Say"},
        {"Content_Type": "application/json", "Micro_Endpoint": "Echo"},
    ],
)
async def test_an_error_says_who_speaks(ask: Any, headers: dict[str, str]) -> None:
    answer = await ask(b'"x"', **headers)
    error = errors.from_wire(answer.headers["Micro-Error"])
    assert (error.id, error.code, answer.body) == ("echo", 400, b"")


@pytest.mark.parametrize("endpoint", ["Echo.Say", "Echo.Nope"])
async def test_who_asks_for_the_last_answer_is_told_that_it_is(ask: Any, endpoint: str) -> None:
    headers = {"Content_Type": "application/json", "Micro_Endpoint": endpoint}
    assert "Connection" not in (await ask(b'"x"', **headers)).headers
    assert (await ask(b'"x"', **headers, Connection="close")).headers["Connection"] == "close"
    with pytest.raises(errors.Disconnected):
        await ask(b'"x"', **headers)
