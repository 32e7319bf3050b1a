"""Streams over HTTP: recorded ones are served, and pymicro's own take the same course."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

from played import PATIENCE, Line, Played, Turn
from recorded import HttpMessage, Recording, Vector, assert_same_request, http_messages
from recorded_service import Go, Req, Rsp, Streamer

from pymicro import Service, errors

HTTP = Recording("http.json", "http_envelopes.json", only="stream_.*")

#: What pymicro says at the end of a stream beside what Go says.
EOS = {"micro-error": "EOS"}
STREAMS = {
    "stream_pingpong_client_eos": [EOS],  # Go leaves that out when the client has ended its side
    "stream_server_eos": [],
    "stream_server_error": [],
}


def runs(stream: str) -> list[Vector]:
    """What either side said, in the order of time."""
    return [HTTP[name] for name in sorted(HTTP.names(rf"{stream}\.\d\.(client|server)"))]


def all_of(stream: str) -> list[str]:
    return [*(vector.name for vector in runs(stream)), f"{stream}.result"]


@HTTP.check(STREAMS, of=all_of)
async def test_streams_of_go_are_served(name: str, go: Go) -> None:
    async with Line.to(go.address) as line:
        for run in runs(name):
            if run.name.endswith(".client"):
                await line.say(run.data)
                continue
            for recorded in http_messages(run.data):
                assert_equal_item(recorded, await line.hear())
        rest = await line.rest()
    assert [message.headers for message in rest] == STREAMS[name]
    sent = [json.loads(each.body)["name"] for each in http_messages(requests_of(name)) if each.body]
    assert go.streamer.requests == sent[1:], "the body of the handshake is no request"
    if rest:
        assert go.streamer.ended.is_set()


def requests_of(stream: str) -> bytes:
    return b"".join(run.data for run in runs(stream) if run.name.endswith(".client"))


def assert_equal_item(recorded: HttpMessage, item: HttpMessage) -> None:
    assert item.start == recorded.start
    assert item.headers.get("micro-error") == recorded.headers.get("micro-error")
    assert item.body == recorded.body
    if recorded.body:
        assert item.headers["content-type"] == recorded.headers["content-type"]


@HTTP.check(STREAMS, of=all_of)
async def test_streams_to_go_end_as_they_do_in_go(name: str, caller: Service) -> None:
    told = go_log(HTTP[f"{name}.result"])
    log: list[tuple[str, Any]] = []
    heard = asyncio.Semaphore(0)
    played = Played(turns_of(name))

    async def requests() -> AsyncIterator[Req]:
        for request in sent:
            log.append(("send", None))
            yield Req(request)
            await heard.acquire()

    sent = [json.loads(each.body)["name"] for each in http_messages(requests_of(name)) if each.body][1:]
    async with played.running() as server, asyncio.timeout(PATIENCE):
        stub = caller.client.stub("greeter", Streamer, address=server.address)
        responses = stub.echo(requests())
        try:
            async for response in responses:
                log.append(("recv", response))
                heard.release()
                if len(log) == len(told):  # Go closes here
                    await server.all_heard.wait()
                    break
            else:
                log.append(("end", None))
        except errors.Error as error:
            log.append(("recv", (type(error), error.id, error.detail)))
        await responses.aclose()
        await server.client_left.wait()
    assert log == told
    assert_same_stream(http_messages(requests_of(name)), server.heard)


def turns_of(stream: str) -> list[Turn]:
    """The stream as a server plays it. A client that hears the end, or an error, need not say that it ends, too."""
    turns: list[Turn] = []
    waits = 0
    for run in runs(stream):
        if run.name.endswith(".client"):
            waits = len(http_messages(run.data))
        else:
            turns.append(Turn(waits, run.data))
            waits = 0
    ended = b"Micro-Error" in turns[-1].says
    return turns if ended else [*turns, Turn(waits, b"")]


def assert_same_stream(recorded: list[HttpMessage], sent: list[HttpMessage]) -> None:
    """All that Go sends, but the body of the handshake, and an end after the server's own end."""
    assert len(recorded) - len(sent) in (0, 1)
    assert all(each.headers["micro-error"] == "EOS" for each in recorded[len(sent) :])
    for at, (ours, theirs) in enumerate(zip(sent, recorded, strict=False)):
        assert_same_request(theirs, ours if at else ours._replace(body=theirs.body))


def go_log(vector: Vector) -> list[tuple[str, Any]]:
    """What the Go program printed, without its last line: that it closed the stream."""
    *lines, last = vector.text.splitlines()
    assert last == "close <nil>"
    assert vector.meaning[0] == "client", "it was the first to close the connection"
    log: list[tuple[str, Any]] = []
    for line in lines:
        value, _, outcome = line.removeprefix("recv ").rpartition(" ")
        if line == "send <nil>":
            log.append(("send", None))
        elif outcome == "EOF":
            log.append(("end", None))
        elif outcome == "<nil>":
            log.append(("recv", Rsp(**json.loads(value))))
        else:
            error = errors.from_wire(line.removeprefix('recv {"msg":""} '))
            log.append(("recv", (type(error), error.id, error.detail)))
    return log


@HTTP.check(["stream_half_close"], of=lambda name: (f"{name}.request", f"{name}.response"))
async def test_a_client_that_ends_its_side_gets_the_rest(name: str, go: Go) -> None:
    async with Line.to(go.address) as line:
        await line.say(HTTP[f"{name}.request"].data)
        answer, end = await line.rest()
    [recorded] = http_messages(HTTP[f"{name}.response"].data)
    assert_equal_item(recorded, answer)
    assert end.headers == EOS, "Go leaves the client waiting"
    assert go.streamer.requests == ["h"]
    assert go.streamer.ended.is_set()


def test_every_vector_has_a_check() -> None:
    assert HTTP.unchecked == set()
