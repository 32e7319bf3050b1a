"""Calls from pymicro to real Go Micro servers: items 1 to 11 and 15 of the checklist."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.wrappers_pb2 import StringValue

from go_peers import GoProgram, StartGo, pattern
from pymicro import Service, errors
from pymicro.record import Node, ServiceRecord
from pymicro.registry import MemoryRegistry
from pymicro_testing.certificates import Authority
from recorder import Recorder

MIB = 1024 * 1024

#: Endpoint, content type, request, type of the response, and the response.
CALLS: dict[str, tuple[str, str, Any, Any, Any]] = {
    "json": ("Greeter.Hello", "application/json", {"name": "Jöhn"}, Any, {"greeting": "Hello Jöhn"}),
    "protobuf": (
        *("Greeter.Proto", "application/protobuf", StringValue(value="Jöhn")),
        *(StringValue, StringValue(value="Hello Jöhn")),
    ),
    "frame": ("Greeter.Raw", "application/octet-stream", b"\x00\xff raw", bytes, b"\x00\xff raw"),
}


@pytest.fixture
async def recorder(go_server: GoProgram) -> AsyncIterator[Recorder]:
    """Stands before a Go server."""
    async with Recorder(go_server.ready["address"]) as recorder:
        yield recorder


async def hello(caller: Service, address: str, name: str = "x", **how: Any) -> None:
    """A call that works."""
    reply = await caller.client.call("greeter", "Greeter.Hello", {"name": name}, address=address, **how)
    assert reply == {"greeting": f"Hello {name}"}


@pytest.mark.checklist(1)
@pytest.mark.parametrize("kind", CALLS)
async def test_a_call_to_go(caller: Service, recorder: Recorder, kind: str) -> None:
    endpoint, content_type, body, type, expected = CALLS[kind]
    how: dict[str, Any] = {"content_type": content_type, "response": type, "address": recorder.address}
    assert await caller.client.call("greeter", endpoint, body, timeout=7.0, **how) == expected

    [request] = recorder.connections[0].requests
    assert request.start == "POST / HTTP/1.1"
    assert request.headers["Host"] == recorder.address
    names = ("Content-Type", "Micro-Service", "Micro-Endpoint", "Micro-Method")
    assert [request.headers[name] for name in names] == [content_type, "greeter", endpoint, endpoint]
    assert request.headers["Micro-Id"].isdigit()
    assert 5e9 < int(request.headers["Timeout"]) <= 7e9


@pytest.mark.checklist(2)
async def test_calls_in_a_row_use_one_connection(caller: Service, recorder: Recorder) -> None:
    for number in range(1000):
        await hello(caller, recorder.address, f"n{number}")

    [connection] = recorder.connections
    sent = [request.headers["Micro-Id"] for request in connection.requests]
    assert len(set(sent)) == 1000
    assert {response.headers["Micro-Id"] for response in connection.responses} == {sent[0]}
    # Two with the same number in a row, or without one, and Go would lose the second now and then.
    assert [request.headers.get("Micro-Stream") for request in connection.requests] == [None, *sent[1:]]


@pytest.mark.checklist(3)
async def test_calls_at_one_time_use_a_connection_each(caller: Service, recorder: Recorder) -> None:
    meet = caller.client.call("greeter", "Greeter.Meet", {"size": 2}, address=recorder.address)
    other = caller.client.call("greeter", "Greeter.Meet", {"size": 2}, address=recorder.address)
    await asyncio.gather(meet, other)

    assert [len(connection.requests) for connection in recorder.connections] == [1, 1]


@pytest.mark.checklist(4)
async def test_errors_of_go_handlers(caller: Service, recorder: Recorder) -> None:
    failure = {"id": "go.micro.test", "code": 400, "detail": "bad <thing> & wörse"}
    with pytest.raises(errors.BadRequest) as bad:
        await caller.client.call("greeter", "Greeter.Fail", failure, address=recorder.address)
    error = bad.value
    assert [error.id, error.code, error.detail, error.status] == [*failure.values(), "Bad Request"]

    with pytest.raises(errors.Error) as plain:
        await caller.client.call("greeter", "Greeter.Plain", {"detail": "just text"}, address=recorder.address)
    assert (plain.value.id, plain.value.code, plain.value.detail) == ("", 0, "just text")
    assert len(recorder.connections) == 1


@pytest.mark.checklist(5)
async def test_names_that_a_go_server_does_not_have(caller: Service, recorder: Recorder) -> None:
    details = []
    for endpoint in ("Nobody.Hello", "Greeter.Nothing", "hello"):
        with pytest.raises(errors.Error) as caught:
            await caller.client.call("greeter", endpoint, {}, address=recorder.address)
        details.append(caught.value.detail)
    await hello(caller, recorder.address)

    assert [re.split("[:'] ?", detail)[1] for detail in details] == [
        *("can", "can", "service/endpoint request ill-formed"),
    ]
    assert ["Nobody" in details[0], "Nothing" in details[1], "hello" in details[2]] == [True] * 3
    assert len(recorder.connections) == 1


@pytest.mark.checklist(6)
async def test_a_go_handler_that_panics(caller: Service, recorder: Recorder) -> None:
    with pytest.raises(errors.DeadlineExceeded):
        await caller.client.call("greeter", "Greeter.Panic", {}, address=recorder.address, timeout=0.3)
    await hello(caller, recorder.address)

    assert [len(connection.requests) for connection in recorder.connections] == [1, 1]


@pytest.mark.checklist(7)
@pytest.mark.parametrize("response", [Any, str])
async def test_a_content_type_that_go_does_not_know(caller: Service, go_server: GoProgram, response: Any) -> None:
    address = go_server.ready["address"]
    with pytest.raises(errors.InternalServerError, match="unsupported Content-Type: text/plain"):
        await caller.client.call(
            "greeter", "Greeter.Raw", "x", address=address, content_type="text/plain", response=response
        )
    await hello(caller, address)


@pytest.mark.checklist(8)
@pytest.mark.parametrize("kind", ["json", "protobuf"])
async def test_envelopes_that_the_caller_chooses(caller: Service, go_server: GoProgram, kind: str) -> None:
    endpoint, _, body, type, expected = CALLS[kind]
    envelope = {"json": "application/json-rpc", "protobuf": "application/proto-rpc"}[kind]
    address = go_server.ready["address"]
    how: dict[str, Any] = {"content_type": envelope, "response": type, "address": address}
    assert await caller.client.call("greeter", endpoint, body, **how) == expected
    await go_server.event("called", endpoint=endpoint, type=envelope)

    with pytest.raises(errors.Conflict, match="taken"):
        await caller.client.call("greeter", "Greeter.Fail", {"code": 409, "detail": "taken"}, address=address)


@pytest.mark.checklist(8)
@pytest.mark.parametrize("kind", ["json", "protobuf"])
async def test_a_node_without_a_protocol_gets_envelopes(
    environment: dict[str, str], go_server: GoProgram, kind: str
) -> None:
    endpoint, content_type, body, type, expected = CALLS[kind]
    registry = MemoryRegistry()
    node = Node("greeter-1", go_server.ready["address"], {"transport": "http"})
    async with Service("caller", environ=environment, registry=registry) as caller:
        await registry.register(ServiceRecord("greeter", nodes=(node,)), ttl=0)
        how: dict[str, Any] = {"content_type": content_type, "response": type}
        assert await caller.client.call("greeter", endpoint, body, **how) == expected
    envelope = {"json": "application/json-rpc", "protobuf": "application/proto-rpc"}[kind]
    await go_server.event("called", endpoint=endpoint, type=envelope)


@pytest.mark.checklist(9)
async def test_metadata_and_deadline_reach_a_go_handler(caller: Service, go_server: GoProgram) -> None:
    timeout = 3.0
    began = time.monotonic()
    seen = await caller.client.call(
        "greeter",
        "Greeter.Around",
        {},
        address=go_server.ready["address"],
        metadata={"Tenant": "blue", "x-lower": "case"},
        timeout=timeout,
    )
    spent = time.monotonic() - began

    assert (seen["metadata"]["Tenant"], seen["metadata"]["X-Lower"]) == ("blue", "case")
    assert timeout - spent <= seen["left"] / 1e9 <= timeout


@pytest.mark.checklist(10)
async def test_no_connection_without_a_request(caller: Service, recorder: Recorder) -> None:
    await asyncio.gather(*(hello(caller, recorder.address, f"n{number}") for number in range(20)))
    await hello(caller, recorder.address)

    silences = [connection.silent_for for connection in recorder.connections]
    assert 1 <= len(silences) <= 20
    assert all(silence is not None and silence < 5 for silence in silences)


@pytest.mark.checklist(10)
async def test_a_go_server_that_was_restarted(caller: Service, start_go: StartGo) -> None:
    server = await start_go("server")
    address = server.ready["address"]
    await hello(caller, address)
    await server.kill()
    with pytest.raises((errors.Unavailable, errors.DeadlineExceeded)):
        await caller.client.call("greeter", "Greeter.Hello", {}, address=address, timeout=0.3)
    await start_go("server", f"-address={address}")
    await hello(caller, address)


@pytest.fixture
async def roomy(environment: dict[str, str]) -> AsyncIterator[Service]:
    """A caller with high limits."""
    limits = {"MICRO_MAX_MESSAGE_SIZE": "16MiB", "MICRO_MAX_HEADER_SIZE": "2MiB"}
    async with Service("caller", environ=environment | limits) as service:
        yield service


@pytest.mark.checklist(11)
async def test_large_bodies_and_headers(roomy: Service, go_server: GoProgram) -> None:
    address = go_server.ready["address"]
    how: dict[str, Any] = {"address": address, "content_type": "application/octet-stream", "response": bytes}
    assert await roomy.client.call("greeter", "Greeter.Raw", pattern(8 * MIB), **how) == pattern(8 * MIB)

    size = {"size": 900_000}
    assert await roomy.client.call("greeter", "Greeter.Measure", {}, address=address, metadata=big(900_000)) == size


@pytest.mark.checklist(11)
async def test_headers_that_are_too_large_for_a_go_server(roomy: Service, go_server: GoProgram) -> None:
    with pytest.raises(errors.Error, match="Request Header Fields Too Large") as caught:
        await roomy.client.call(
            "greeter", "Greeter.Measure", {}, address=go_server.ready["address"], metadata=big(11 * MIB // 10)
        )
    assert caught.value.code == 431


def big(size: int) -> dict[str, str]:
    return {"Big": "b" * size}


@pytest.mark.checklist(15)
async def test_a_go_server_with_tls(environment: dict[str, str], start_go: StartGo, tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    cert, key = authority.issue("go", "127.0.0.1")
    server = await start_go("server", f"-cert={cert}", f"-key={key}")
    address = server.ready["address"]
    async with Service("caller", environ=environment | {"MICRO_TLS_CA": str(authority.ca)}) as trusting:
        await hello(trusting, address)
    async with Service("caller", environ=environment | {"MICRO_TLS_SECURE": "true"}) as careful:
        with pytest.raises(errors.Unavailable, match="certificate"):
            await careful.client.call("greeter", "Greeter.Hello", {}, address=address, timeout=2)
