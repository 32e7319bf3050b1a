"""Calls from real Go Micro clients to pymicro servers: items 15 to 21 and 23 to 25 of the checklist."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.empty_pb2 import Empty
from google.protobuf.wrappers_pb2 import StringValue

from go_peers import GoProgram, StartGo, pattern
from processes import PATIENCE
from pymicro import Service, errors
from pymicro_testing import ManualClock
from pymicro_testing.certificates import Authority
from recorder import Recorder

MIB = 1024 * 1024


@dataclass
class HelloRequest:
    name: str = ""


@dataclass
class HelloResponse:
    greeting: str


@dataclass
class Failure:
    code: int
    detail: str = ""


class Greeter:
    """What the Go clients call.

    Attributes:
        attempts: calls of `fail`.
        cancelled: set when `wait` was.
    """

    def __init__(self) -> None:
        self.attempts = 0
        self.cancelled = asyncio.Event()

    async def hello(self, request: HelloRequest) -> HelloResponse:
        return HelloResponse(greeting=f"Hello {request.name}")

    async def proto(self, request: StringValue) -> StringValue:
        return StringValue(value=f"Hello {request.value}")

    async def empty(self, request: Empty) -> Empty:
        return Empty()

    async def raw(self, body: bytes) -> bytes:
        return body

    async def fail(self, failure: Failure) -> None:
        self.attempts += 1
        kind: type[errors.Error] = {400: errors.BadRequest, 408: errors.Timeout, 500: errors.InternalServerError}[
            failure.code
        ]
        raise kind(failure.detail, "py.test")

    async def crash(self, request: HelloRequest) -> HelloResponse:
        raise LookupError("secret")

    async def nothing(self, request: HelloRequest) -> None:
        pass

    async def wait(self, request: HelloRequest) -> HelloResponse:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            self.cancelled.set()
            raise
        raise AssertionError


Serve = Callable[..., AbstractAsyncContextManager[Service]]


@pytest.fixture
def greeter() -> Greeter:
    return Greeter()


@pytest.fixture
def serve(environment: dict[str, str], name: str, greeter: Greeter) -> Serve:
    """A pymicro service with the greeter."""

    @asynccontextmanager
    async def serve(clock: Any = None, **variables: str) -> AsyncIterator[Service]:
        quick = {"MICRO_REGISTRY": "memory", "MICRO_DRAIN_DELAY": "0"}
        service = Service(name, environ=environment | quick | variables, clock=clock)
        service.handle(greeter)
        async with service:
            yield service

    return serve


@pytest.fixture
async def recorder(serve: Serve) -> AsyncIterator[Recorder]:
    """Stands before the service."""
    async with serve() as service, Recorder(address(service)) as recorder:
        yield recorder


@pytest.fixture
async def client(start_go: StartGo, recorder: Recorder) -> GoProgram:
    """A Go client that calls the service."""
    return await start_go("client", f"-address={recorder.address}")


def address(service: Service) -> str:
    node = service.server.node
    assert node is not None
    return node.address


@pytest.mark.checklist(15)
async def test_tls_for_go_clients(serve: Serve, start_go: StartGo, tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    cert, key = authority.issue("go", "127.0.0.1")
    async with serve(MICRO_TLS_CERT=str(cert), MICRO_TLS_KEY=str(key)) as service:
        trusting = await start_go("client", f"-address={address(service)}", f"-ca={authority.ca}")
        assert await trusting.ask("greet") == {"event": "done", "number": 1, "good": 1, "bad": 0, "error": None}
        await trusting.kill()  # who is gone need not be waited for when TLS ends


@pytest.mark.checklist(16)
async def test_calls_from_go(client: GoProgram, recorder: Recorder) -> None:
    json = await client.ask("call", endpoint="Greeter.Hello", body={"name": "Jöhn"})
    proto = await client.ask(
        "call", endpoint="Greeter.Proto", body="Jöhn", **{"as": "string"}, type="application/protobuf"
    )
    raw = await client.ask(
        "call", endpoint="Greeter.Raw", size=70_000, **{"as": "frame"}, type="application/octet-stream"
    )
    assert [said["error"] for said in (json, proto, raw)] == [None] * 3
    assert json["reply"] == {"greeting": "Hello Jöhn"}
    assert proto["reply"] == "Hello Jöhn"
    assert raw["reply"] == hashlib.sha256(pattern(70_000)).hexdigest()
    assert len(recorder.connections) == 1


@pytest.mark.checklist(16)
async def test_an_empty_protobuf_request_in_chunks(client: GoProgram, recorder: Recorder) -> None:
    said = await client.ask("call", endpoint="Greeter.Empty", **{"as": "empty"}, type="application/protobuf")
    assert said["error"] is None
    [request] = recorder.connections[0].requests
    assert (request.chunked, request.body) == (True, b"")


@pytest.mark.checklist(16)
async def test_calls_from_go_in_a_row_use_one_connection(client: GoProgram, recorder: Recorder) -> None:
    said = await client.ask("greet", times=1000)
    assert (said["good"], said["bad"], said["error"]) == (1000, 0, None)
    assert [len(connection.requests) for connection in recorder.connections] == [1000]


@pytest.mark.checklist(16)
async def test_errors_reach_go(client: GoProgram) -> None:
    detail = "bad <thing> & wörse"
    said = await client.ask("call", endpoint="Greeter.Fail", body={"code": 400, "detail": detail})
    assert said["error"] == {"id": "py.test", "code": 400, "detail": detail, "status": "Bad Request"}


@pytest.mark.checklist(16)
async def test_names_that_a_pymicro_server_does_not_have(start_go: StartGo, serve: Serve) -> None:
    async with serve() as service, Recorder(address(service), hold=True) as recorder:
        client = await start_go("client", f"-address={recorder.address}")
        found = []
        for endpoint in ("Nobody.Hello", "Greeter.Missing", "hello"):
            error = (await client.ask("call", endpoint=endpoint, body={}))["error"]
            found.append((error["code"], endpoint in error["detail"]))
        assert found == [(404, True), (404, True), (400, True)]
        assert not any(connection.server_closed.is_set() for connection in recorder.connections)


@pytest.mark.checklist(17)
@pytest.mark.parametrize(("code", "attempts"), [(408, 6), (500, 1)])
async def test_what_go_repeats(
    start_go: StartGo, recorder: Recorder, greeter: Greeter, code: int, attempts: int
) -> None:
    client = await start_go("client", f"-address={recorder.address}", "-hurry")
    said = await client.ask("call", endpoint="Greeter.Fail", body={"code": code, "detail": "no"})
    assert (said["error"]["code"], greeter.attempts) == (code, attempts)


@pytest.mark.checklist(18)
async def test_idle_connections_are_kept(start_go: StartGo, serve: Serve) -> None:
    clock = ManualClock()
    async with serve(clock=clock) as service, Recorder(address(service), hold=True) as recorder:
        client = await start_go("client", f"-address={recorder.address}")
        assert (await client.ask("greet"))["good"] == 1
        await clock.advance(75)
        assert (await client.ask("greet"))["good"] == 1

        [connection] = recorder.connections
        assert len(connection.requests) == 2
        await clock.advance(600)  # so the clock is the one that counts
        async with asyncio.timeout(PATIENCE):
            await connection.server_closed.wait()


@pytest.mark.checklist(19)
async def test_connection_close_from_go(start_go: StartGo, serve: Serve) -> None:
    async with serve() as service, Recorder(address(service), hold=True) as recorder:
        client = await start_go("client", f"-address={recorder.address}", "-close")
        assert (await client.ask("greet"))["error"] is None
        [connection] = recorder.connections
        assert connection.requests[0].headers["Connection"] == "close"
        async with asyncio.timeout(PATIENCE):
            await connection.server_closed.wait()
        assert connection.responses[0].body == b'{"greeting":"Hello n0"}\n'


@pytest.mark.checklist(20)
async def test_no_result_is_an_empty_object(client: GoProgram, recorder: Recorder) -> None:
    said = await client.ask("call", endpoint="Greeter.Nothing", body={"name": "x"})
    assert (said["error"], said["reply"]) == (None, {})
    assert recorder.connections[0].responses[0].body == b"{}\n"


STRAY = {"Micro-Stream": "7", "Local": "10.0.0.1:80", "Remote": "10.0.0.2:81", "Connection": "keep-alive"}


@pytest.mark.checklist(21)
@pytest.mark.parametrize("stray", STRAY)
async def test_headers_that_strayed_into_a_call(client: GoProgram, recorder: Recorder, stray: str) -> None:
    for _ in range(2):
        said = await client.ask("greet", metadata={stray: STRAY[stray]})
        assert said["error"] is None
    [connection] = recorder.connections
    assert [request.headers[stray] for request in connection.requests] == [STRAY[stray]] * 2


@pytest.mark.checklist(23)
async def test_exceptions_are_500_for_go(start_go: StartGo, serve: Serve, caplog: pytest.LogCaptureFixture) -> None:
    async with serve() as service, Recorder(address(service), hold=True) as recorder:
        client = await start_go("client", f"-address={recorder.address}")
        assert (await client.ask("greet"))["error"] is None
        error = (await client.ask("call", endpoint="Greeter.Crash", body={}))["error"]
        assert (error["code"], error["status"]) == (500, "Internal Server Error")
        assert "secret" not in error["detail"]
        assert "secret" in caplog.text

        # Go has given its side up, as it does after any error; the server has not.
        [connection] = recorder.connections
        assert not connection.server_closed.is_set()
        assert connection.to_server is not None
        first = bytes(connection.sent[: connection.sent.index(b"POST", 1)])
        connection.to_server.write(first)
        assert (await recorder.responses(3))[2].body == b'{"greeting":"Hello n0"}\n'


@pytest.mark.checklist(24)
async def test_an_event_on_the_port_for_calls(start_go: StartGo, environment: dict[str, str], name: str) -> None:
    events: asyncio.Queue[HelloRequest] = asyncio.Queue()

    async def on_event(event: HelloRequest) -> None:
        await events.put(event)

    memory = {"MICRO_REGISTRY": "memory", "MICRO_BROKER": "memory", "MICRO_DRAIN_DELAY": "0"}
    service = Service(name, environ=environment | memory)
    service.handle(Greeter())
    service.subscribe("greeted", on_event)
    async with service:
        socket = await start_go("socket", f"-address={address(service)}")
        for topic in ("greeted", "nobody-listens"):
            headers = {"Micro-Topic": topic, "Content-Type": "application/json", "Micro-Id": "1"}
            assert (await socket.ask("send", headers=headers, body='{"name":"x"}'))["error"] is None
            reply = await socket.ask("receive")  # an error, were the status not 200
            assert (reply["error"], reply["body"], reply["headers"].get("Micro-Error")) == (None, "", None)
        assert (events.get_nowait(), events.empty()) == (HelloRequest(name="x"), True)


@pytest.mark.checklist(25)
async def test_gos_timeout_cancels_the_handler(start_go: StartGo, recorder: Recorder, greeter: Greeter) -> None:
    client = await start_go("client", f"-address={recorder.address}", "-timeout=200ms", "-retries=0")
    said = await client.ask("call", endpoint="Greeter.Wait", body={})
    assert said["error"]["code"] in (408, 504)  # its own, or the server's if that comes first
    async with asyncio.timeout(PATIENCE):
        await greeter.cancelled.wait()
    assert recorder.connections[0].requests[0].headers["Timeout"] == "200000000"


@pytest.mark.checklist(25)
async def test_the_header_timeout_is_a_deadline(start_go: StartGo, recorder: Recorder, greeter: Greeter) -> None:
    socket = await start_go("socket", f"-address={recorder.address}")
    headers = {"Micro-Endpoint": "Greeter.Wait", "Content-Type": "application/json", "Timeout": "100000000"}
    await socket.ask("send", headers=headers, body="{}")
    reply = await socket.ask("receive")  # Go stays, so only the deadline can have ended it
    assert '"code":504' in reply["headers"]["Micro-Error"]
    assert greeter.cancelled.is_set()
