"""Go Micro's peers, played by a client that knows nothing of pymicro."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

import nats
import pytest

from pymicro import Service
from pymicro.errors import Disconnected, ProtocolViolation, TooLarge, Unavailable
from pymicro.message import Message
from pymicro.metadata import Headers
from pymicro.plugins import Limits
from pymicro.record import Node
from pymicro.transport import Socket
from pymicro_testing.servers import NatsServer

PATIENCE = 5.0


class Peer:
    """Speaks go-micro's `transport/nats` over one inbox."""

    def __init__(self, connection: Any) -> None:
        self.connection = connection
        self.inbox = connection.new_inbox()
        self.subscription: Any = None

    async def listen(self, subject: str) -> None:
        """Subscribe to it."""
        self.subscription = await self.connection.subscribe(subject)
        await self.connection.flush()

    async def send(self, subject: str, header: dict[str, str] | None, body: bytes | None) -> None:
        """Send a message as Go does, to be answered at the inbox."""
        if self.subscription is None:
            await self.listen(self.inbox)
        text = None if body is None else base64.b64encode(body).decode()
        await self.raw(subject, json.dumps({"Header": header, "Body": text}).encode())

    async def raw(self, subject: str, data: bytes) -> None:
        """Send any bytes."""
        await self.connection.publish(subject, data, reply=self.inbox)
        await self.connection.flush()

    async def next(self) -> tuple[dict[str, str], bytes, str]:
        """Headers, body, and where the answer goes."""
        message = await self.subscription.next_msg(timeout=PATIENCE)
        envelope = json.loads(message.data)
        assert set(envelope) == {"Header", "Body"}
        return envelope["Header"], base64.b64decode(envelope["Body"] or ""), message.reply


@pytest.fixture
async def peer(nats_server: NatsServer) -> AsyncIterator[Peer]:
    connection = await nats.connect(f"nats://{nats_server.address}", allow_reconnect=False)
    try:
        yield Peer(connection)
    finally:
        await connection.close()


async def within(awaitable: Any) -> Any:
    async with asyncio.timeout(PATIENCE):
        return await awaitable


async def dial(transport: Any, address: str = "go.greeter") -> Socket:
    socket: Socket = await transport.dial(Node("go-1", address, {"protocol": "mucp"}), timeout=PATIENCE)
    return socket


async def echo(socket: Socket) -> None:
    while True:
        message = await socket.recv()
        await socket.send(Message(Headers({"Content-Type": "text/plain"}), message.body))


async def until_lost(socket: Socket) -> None:
    while True:
        await socket.recv()


class Door:
    """Keeps what is accepted."""

    def __init__(self) -> None:
        self.sockets: asyncio.Queue[Socket] = asyncio.Queue()

    async def __call__(self, socket: Socket) -> None:
        self.sockets.put_nowait(socket)
        await asyncio.Event().wait()


# a node in Go


async def test_a_go_node_reads_and_answers(open_transport: Any, peer: Peer) -> None:
    await peer.listen("go.greeter")
    async with aclosing(await dial(await open_transport())) as socket:
        for number in ("7", "8"):
            await socket.send(
                Message(Headers({"Micro-Id": number, "Micro-Endpoint": "Greeter.Hello"}), b'{"name":"x"}')
            )
            header, body, inbox = await peer.next()
            assert header == {"Micro-ID": number, "Micro-Id": number, "Micro-Endpoint": "Greeter.Hello"}
            assert body == b'{"name":"x"}'
            answer = {"Content-Type": "application/json", "Micro-ID": number, "X-Micro-ID": number}
            await peer.connection.publish(
                inbox, json.dumps({"Header": answer, "Body": base64.b64encode(b"{}").decode()}).encode()
            )
            message = await within(socket.recv())
            assert (message.headers["micro-id"], message.body) == (number, b"{}")


async def test_each_socket_has_one_inbox_of_its_own(open_transport: Any, peer: Peer) -> None:
    await peer.listen("go.greeter")
    transport = await open_transport()
    async with aclosing(await dial(transport)) as one, aclosing(await dial(transport)) as other:
        inboxes = []
        for socket in (one, other, one):
            await socket.send(Message(Headers({"Micro-Id": "1"})))
            inboxes.append((await peer.next())[2])
        assert inboxes[0] == inboxes[2] != inboxes[1]


@pytest.mark.parametrize("text", ['{"Header":null,"Body":null}', "{}"])
async def test_what_go_leaves_out_is_empty(open_transport: Any, peer: Peer, text: str) -> None:
    await peer.listen("go.greeter")
    async with aclosing(await dial(await open_transport())) as socket:
        await socket.send(Message())
        header, body, inbox = await peer.next()
        assert (header, body) == ({}, b"")
        await peer.connection.publish(inbox, text.encode())
        message = await within(socket.recv())
        assert (dict(message.headers), message.body) == ({}, b"")


async def test_a_go_node_that_is_not_there_has_not_executed_it(open_transport: Any) -> None:
    async with aclosing(await dial(await open_transport(), "nobody.here")) as socket:
        await socket.send(Message(body=b"{}"))
        with pytest.raises(Unavailable, match="nobody listens") as raised:
            await within(socket.recv())
        assert raised.value.executed == "no"
        assert not socket.connected


async def test_a_go_node_that_sends_no_message_is_left(open_transport: Any, peer: Peer) -> None:
    await peer.listen("go.greeter")
    async with aclosing(await dial(await open_transport())) as socket:
        await socket.send(Message())
        await peer.connection.publish((await peer.next())[2], b"no message")
        with pytest.raises(ProtocolViolation):
            await within(socket.recv())


async def test_an_answer_over_the_limit_is_told(open_transport: Any, peer: Peer) -> None:
    await peer.listen("go.greeter")
    async with aclosing(await dial(await open_transport(limits=Limits(message=1000, headers=1000)))) as socket:
        await socket.send(Message())
        inbox = (await peer.next())[2]
        for header, body in (({}, b"x" * 1001), ({"X": "y" * 1000}, b"")):
            text = base64.b64encode(body).decode()
            await peer.connection.publish(inbox, json.dumps({"Header": header, "Body": text}).encode())
            with pytest.raises(TooLarge):
                await within(socket.recv())


async def test_what_nobody_takes_is_bounded(open_transport: Any, peer: Peer) -> None:
    await peer.listen("go.greeter")
    async with aclosing(await dial(await open_transport(max_unread=10_000))) as socket:
        lost = asyncio.Event()
        socket.on_disconnect = lost.set
        await socket.send(Message(Headers({"Micro-Stream": "1"})))
        inbox = (await peer.next())[2]
        for _ in range(20):
            await peer.connection.publish(inbox, json.dumps({"Header": {}, "Body": "A" * 1000}).encode())
        await within(lost.wait())
        with pytest.raises(Disconnected, match="10000 bytes that nobody took"):
            await within(until_lost(socket))


# a client in Go


async def test_a_go_client_is_answered_with_its_id(open_transport: Any, peer: Peer) -> None:
    async with aclosing(await (await open_transport()).listen("py.greeter", echo)):
        for number in ("0", "1"):
            await peer.send("py.greeter", {"Micro-ID": number}, b"hello")
            header, body, _ = await peer.next()
            assert header == {"Micro-ID": number, "X-Micro-ID": number, "Content-Type": "text/plain"}
            assert body == b"hello"


async def test_calls_in_flight_on_one_inbox_are_told_apart(open_transport: Any, peer: Peer) -> None:
    async with aclosing(await (await open_transport()).listen("py.greeter", echo)):
        for number in range(10):
            await peer.send("py.greeter", {"Micro-ID": str(number)}, b"call %d" % number)
        answers = [await peer.next() for _ in range(10)]
        assert {header["Micro-ID"]: body for header, body, _ in answers} == {
            str(number): b"call %d" % number for number in range(10)
        }


async def test_a_go_client_is_told_that_the_node_leaves(open_transport: Any, peer: Peer) -> None:
    async with aclosing(await (await open_transport()).listen("py.greeter", echo)) as listener:
        await listener.stop_accepting()
        await peer.send("py.greeter", {"Micro-ID": "4"}, b"hello")
        header, _, _ = await peer.next()
        assert (header["Micro-ID"], json.loads(header["Micro-Error"])["code"]) == ("4", 503)


async def test_a_go_client_that_says_nothing_for_long_is_forgotten(open_transport: Any, peer: Peer) -> None:
    door = Door()
    async with aclosing(await (await open_transport(idle_timeout=0.05)).listen("py.greeter", door)):
        await peer.send("py.greeter", {"Micro-ID": "1"}, b"hello")
        socket = await within(door.sockets.get())
        assert (await within(socket.recv())).body == b"hello"
        with pytest.raises(Disconnected, match=r"sent nothing for 0\.05 s"):
            await within(socket.recv())


async def test_a_go_client_that_sends_no_message_harms_nobody(open_transport: Any, peer: Peer) -> None:
    async with aclosing(await (await open_transport()).listen("py.greeter", echo)):
        for garbage in (b"", b"{", b"[]", b"\xff" * 1000):
            await peer.raw("py.greeter", garbage)
        await peer.send("py.greeter", {"Micro-ID": "1"}, b"sound")
        assert (await peer.next())[1] == b"sound"


async def test_who_wants_no_answer_is_not_heard(open_transport: Any, peer: Peer) -> None:
    door = Door()
    async with aclosing(await (await open_transport()).listen("py.greeter", door)):
        await peer.connection.publish("py.greeter", b'{"Header":{},"Body":null}')
        await peer.connection.publish("py.greeter", b'{"Header":{},"Body":null}', reply="$SYS.x")
        await peer.send("py.greeter", {"Micro-ID": "1"}, b"heard")
        socket = await within(door.sockets.get())
        assert (await within(socket.recv())).body == b"heard"
        assert door.sockets.empty()


# a whole service


class Greeter:
    """As in the recordings of Go's."""

    async def hello(self, name: str) -> str:
        return f"Hello {name}"

    async def echo(self, names: AsyncIterator[str]) -> AsyncIterator[str]:
        async for name in names:
            yield f"echo {name}"


@pytest.fixture
async def service(nats_server: NatsServer) -> AsyncIterator[Service]:
    service = Service("greeter", environ={}, registry="memory", transport="nats", transport_address=nats_server.address)
    service.init(["--server_address=py.greeter"])
    service.handle(Greeter())
    async with service:
        yield service


def request(endpoint: str, number: str, **more: str) -> dict[str, str]:
    """The headers that Go's client writes."""
    fields = {"Accept": "application/json", "Content-Type": "application/json", "Micro-ID": number}
    return {**fields, "Micro-Endpoint": endpoint, "Micro-Method": endpoint, "Micro-Service": "greeter", **more}


async def test_a_call_from_go(service: Service, peer: Peer) -> None:
    await peer.send("py.greeter", request("Greeter.Hello", "0", Timeout="5000000000"), b'"x"\n')
    header, body, _ = await peer.next()
    assert (header["Micro-ID"], header["Content-Type"], json.loads(body)) == ("0", "application/json", "Hello x")
    await peer.send("py.greeter", request("Greeter.Nope", "1"), b'"x"\n')
    header, _, _ = await peer.next()
    assert (header["Micro-ID"], json.loads(header["Micro-Error"])["code"]) == ("1", 404)


async def test_a_stream_from_go(service: Service, peer: Peer) -> None:
    stream = request("Greeter.Echo", "0") | {"Micro-Stream": "0"}
    await peer.send("py.greeter", stream, b'""\n')  # Go opens a stream with an empty request
    for name in ("a", "b"):
        await peer.send("py.greeter", stream, json.dumps(name).encode())
        assert json.loads((await peer.next())[1]) == f"echo {name}"
    await peer.send("py.greeter", stream | {"Micro-Error": "EOS"}, None)
    assert (await peer.next())[0]["Micro-Error"] == "EOS"


class Wide:
    """Answers with much."""

    async def text(self, size: int) -> str:
        return "x" * size


async def test_an_answer_that_the_server_does_not_take_is_told(server: Any) -> None:
    small = server("nats", settings={"max_payload": "65536"})
    names = {"environ": {}, "registry": "memory", "transport": "nats", "transport_address": small.address}
    service, caller = Service("wide", **names, drain_delay=0), Service("caller", **names)
    service.init(["--server_address=py.wide"])
    service.handle(Wide())
    async with service, caller, asyncio.timeout(PATIENCE):
        call = caller.client.call
        with pytest.raises(TooLarge, match=r"limit of 65536 \(max_payload\)") as raised:
            await call("wide", "Wide.Text", 100_000, response=str, address="py.wide")
        assert raised.value.executed == "maybe"
        assert len(await call("wide", "Wide.Text", 1000, response=str, address="py.wide")) == 1000
        with pytest.raises(TooLarge, match=r"limit of 65536 \(max_payload\)"):
            await call("wide", "Wide.Text", "x" * 100_000, response=str, address="py.wide")
