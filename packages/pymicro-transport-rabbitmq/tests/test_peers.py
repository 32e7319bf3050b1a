"""Peers that speak as Go Micro's plugin `transport/rabbitmq` does, written by hand over the driver."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiormq
import pytest
from aiormq.abc import AbstractChannel, DeliveredMessage
from pamqp.commands import Basic

from pymicro.errors import DialFailed, Disconnected, TooLarge
from pymicro.message import Message
from pymicro.metadata import Headers
from pymicro.plugins import Limits
from pymicro.record import Node
from pymicro.transport import Socket
from pymicro_testing import ManualClock
from pymicro_testing.servers import RabbitmqServer

PATIENCE = 10.0
REPLIES = "amq.rabbitmq.reply-to"


class GoPeer:
    """A channel as Go Micro uses it, and what came in there."""

    def __init__(self, channel: AbstractChannel) -> None:
        self.channel = channel
        self.inbox: asyncio.Queue[DeliveredMessage] = asyncio.Queue()

    async def listen(self, address: str) -> None:
        await self.channel.exchange_declare("micro", exchange_type="topic")
        await self.channel.queue_declare(address, auto_delete=True)
        await self.channel.basic_consume(address, self._take, no_ack=True)
        await self.channel.queue_bind(address, "micro", routing_key=address)

    async def await_replies(self) -> None:
        await self.channel.basic_consume(REPLIES, self._take, no_ack=True)

    async def _take(self, message: DeliveredMessage) -> None:
        self.inbox.put_nowait(message)

    async def call(self, address: str, socket: str, headers: dict[str, Any], body: bytes) -> None:
        properties = Basic.Properties(correlation_id=socket, reply_to=REPLIES, headers=headers)
        await self.channel.basic_publish(body, exchange="micro", routing_key=address, properties=properties)

    async def reply(self, to: DeliveredMessage, headers: dict[str, Any], body: bytes) -> None:
        asked = to.header.properties
        properties = Basic.Properties(correlation_id=asked.correlation_id, headers=headers)
        await self.channel.basic_publish(body, exchange="", routing_key=asked.reply_to or "", properties=properties)


@asynccontextmanager
async def go_peer(server: RabbitmqServer) -> AsyncIterator[GoPeer]:
    connection = await aiormq.connect(f"amqp://guest:guest@{server.address}/")
    try:
        yield GoPeer(await connection.channel(publisher_confirms=False))
    finally:
        await connection.close()


@pytest.fixture
async def go(rabbitmq_server: RabbitmqServer) -> AsyncIterator[GoPeer]:
    async with go_peer(rabbitmq_server) as peer:
        yield peer


def door() -> tuple[asyncio.Queue[Socket], Any]:
    """Accepted sockets, and what accepts them."""
    sockets: asyncio.Queue[Socket] = asyncio.Queue()

    async def accept(socket: Socket) -> None:
        sockets.put_nowait(socket)
        await asyncio.Event().wait()

    return sockets, accept


async def echo(socket: Socket) -> None:
    while True:
        message = await socket.recv()
        await socket.send(Message(Headers({"Micro-Id": message.headers["Micro-Id"]}), b"re:" + message.body))


async def test_a_go_client_is_answered(open_transport: Any, go: GoPeer) -> None:
    listener = await (await open_transport()).listen("", echo)
    async with asyncio.timeout(PATIENCE):
        await go.await_replies()
        for number in range(3):
            await go.call(listener.addresses[0], "socket-1", {"Micro-ID": str(number)}, b"hello")
            answer = await go.inbox.get()
            assert answer.body == b"re:hello"
            assert answer.exchange == ""
            sent = answer.header.properties
            assert sent.correlation_id == "socket-1"
            assert sent.headers == {"Micro-ID": str(number), "Micro-Id": str(number)}
            assert (sent.content_type, sent.message_type) == (None, None)


async def test_each_id_of_a_go_client_is_a_socket(open_transport: Any, go: GoPeer) -> None:
    sockets, accept = door()
    listener = await (await open_transport()).listen("", accept)
    async with asyncio.timeout(PATIENCE):
        await go.await_replies()
        for socket in ("one", "two", "one"):
            await go.call(listener.addresses[0], socket, {"Micro-ID": "0"}, socket.encode())
        one, two = await sockets.get(), await sockets.get()
        assert [(await one.recv()).body, (await two.recv()).body, (await one.recv()).body] == [b"one", b"two", b"one"]
        await one.aclose()
        await go.call(listener.addresses[0], "one", {"Micro-ID": "0"}, b"again")
        assert (await (await sockets.get()).recv()).body == b"again"


async def test_values_of_a_go_client_that_are_no_text(open_transport: Any, go: GoPeer) -> None:
    sockets, accept = door()
    listener = await (await open_transport()).listen("", accept)
    async with asyncio.timeout(PATIENCE):
        await go.await_replies()
        await go.call(listener.addresses[0], "socket", {"n": 7, "yes": True, "raw": bytearray(b"\xff")}, b"")
        message = await (await sockets.get()).recv()
    assert message.headers == {"n": "7", "yes": "true", "raw": "\ufffd"}


async def test_a_go_client_that_dies_is_noticed(open_transport: Any, rabbitmq_server: RabbitmqServer) -> None:
    sockets, accept = door()
    listener = await (await open_transport()).listen("", accept)
    async with asyncio.timeout(PATIENCE):
        async with go_peer(rabbitmq_server) as dying, go_peer(rabbitmq_server) as living:
            await living.await_replies()
            await living.call(listener.addresses[0], "living", {}, b"hello")
            alive = await sockets.get()
            await dying.await_replies()
            await dying.call(listener.addresses[0], "dying", {}, b"hello")
            socket = await sockets.get()
            gone = asyncio.Event()
            socket.on_disconnect = gone.set
            await dying.channel.connection.close()
            await gone.wait()
            assert (await socket.recv()).body == b"hello"
            with pytest.raises(Disconnected):
                await socket.recv()
            assert alive.connected


async def test_a_go_client_that_says_nothing_for_long_is_forgotten(open_transport: Any, go: GoPeer) -> None:
    clock = ManualClock()
    sockets, accept = door()
    listener = await (await open_transport({"check_interval": 5.0}, clock=clock)).listen("", accept)
    async with asyncio.timeout(PATIENCE):
        await go.await_replies()
        for name in ("idle", "busy"):
            await go.call(listener.addresses[0], name, {}, b"hello")
        idle, busy = await sockets.get(), await sockets.get()
        for socket in (idle, busy):
            await socket.recv()
        began = clock.monotonic()
        receiving = asyncio.create_task(idle.recv())
        while not receiving.done():
            await clock.advance(5.0)
            await asyncio.sleep(0.01)  # the server is asked in between
        with pytest.raises(Disconnected, match="said nothing"):
            await receiving
        assert clock.monotonic() - began > 60.0
        assert busy.connected  # it has a handler at work, who does not receive


async def test_a_go_client_that_floods_is_cut_off(open_transport: Any, go: GoPeer) -> None:
    sockets, accept = door()
    limits = Limits(message=1000, headers=1000, buffer=1000)
    listener = await (await open_transport(limits=limits)).listen("", accept)
    async with asyncio.timeout(PATIENCE):
        await go.await_replies()
        for _ in range(20):
            await go.call(listener.addresses[0], "flood", {}, b"x" * 900)
        socket = await sockets.get()
        gone = asyncio.Event()
        socket.on_disconnect = gone.set
        await gone.wait()
        with pytest.raises(Disconnected, match="more than was taken"):
            await socket.recv()


async def test_a_go_client_over_the_limit_is_told(open_transport: Any, go: GoPeer) -> None:
    sockets, accept = door()
    listener = await (await open_transport(limits=Limits(message=10))).listen("", accept)
    async with asyncio.timeout(PATIENCE):
        await go.await_replies()
        await go.call(listener.addresses[0], "large", {}, b"x" * 11)
        socket = await sockets.get()
        with pytest.raises(TooLarge, match="10"):
            await socket.recv()
        await socket.send(Message(Headers({"Micro-Error": "too large"})))
        assert (await go.inbox.get()).header.properties.headers == {"Micro-Error": "too large"}


async def test_a_go_client_is_refused_when_nobody_accepts_any_more(open_transport: Any, go: GoPeer) -> None:
    listener = await (await open_transport()).listen("", echo)
    async with asyncio.timeout(PATIENCE):
        await go.await_replies()
        await go.call(listener.addresses[0], "old", {"Micro-ID": "0"}, b"before")
        assert (await go.inbox.get()).body == b"re:before"
        await listener.stop_accepting()
        await go.call(listener.addresses[0], "new", {"Micro-ID": "0"}, b"late")
        refused = (await go.inbox.get()).header.properties
        assert refused.correlation_id == "new"
        assert '"code":503' in str((refused.headers or {})["Micro-Error"])
        await go.call(listener.addresses[0], "old", {"Micro-ID": "1"}, b"after")
        assert (await go.inbox.get()).body == b"re:after"


async def test_a_go_server_answers(open_transport: Any, go: GoPeer) -> None:
    address = str(uuid.uuid4())
    await go.listen(address)
    transport = await open_transport()
    async with asyncio.timeout(PATIENCE):
        socket = await transport.dial(Node("go-1", address), timeout=PATIENCE)
        headers = Headers({"Micro-Endpoint": "Greeter.Hello", "micro-id": "3", "Content-Type": "application/json"})
        for _ in range(2):
            await socket.send(Message(headers, b"{}"))
            asked = await go.inbox.get()
            assert (asked.exchange, asked.routing_key, asked.body) == ("micro", address, b"{}")
            sent = asked.header.properties
            assert sent.headers == {
                "Micro-Endpoint": "Greeter.Hello",
                "Micro-ID": "3",
                "Micro-Id": "3",
                "Content-Type": "application/json",
            }
            assert sent.message_type is None
            await go.reply(asked, {"Micro-ID": "3", "X-Micro-ID": "3"}, b"")
            answer = await socket.recv()
            assert (answer.body, answer.headers["Micro-Id"]) == (b"", "3")


async def test_a_go_server_that_dies_is_noticed(open_transport: Any, rabbitmq_server: RabbitmqServer) -> None:
    address = str(uuid.uuid4())
    transport = await open_transport()
    async with asyncio.timeout(PATIENCE):
        async with go_peer(rabbitmq_server) as dying:
            await dying.listen(address)
            socket = await transport.dial(Node("go-1", address), timeout=PATIENCE)
            await socket.send(Message(body=b"hello"))
            await dying.inbox.get()
        with pytest.raises(Disconnected, match="gone"):
            await socket.recv()
        with pytest.raises(DialFailed, match="nobody"):
            await transport.dial(Node("go-1", address), timeout=PATIENCE)


async def test_a_queue_of_one_connection_only_may_be_answered_to(
    open_transport: Any, go: GoPeer, rabbitmq_server: RabbitmqServer
) -> None:
    sockets, accept = door()
    transport = await open_transport({"check_interval": 0.05})
    listener = await transport.listen("", accept)
    async with asyncio.timeout(PATIENCE), go_peer(rabbitmq_server) as other:
        declared = await go.channel.queue_declare("", exclusive=True)
        properties = Basic.Properties(correlation_id="socket", reply_to=declared.queue)
        await go.channel.basic_publish(
            b"hello", exchange="micro", routing_key=listener.addresses[0], properties=properties
        )
        socket = await sockets.get()
        await other.await_replies()
        await other.call(listener.addresses[0], "dying", {}, b"")
        dying = await sockets.get()
        gone = asyncio.Event()
        dying.on_disconnect = gone.set
        await other.channel.connection.close()
        await gone.wait()  # so one look at least was had
        assert socket.connected


async def test_rubbish_harms_nobody(open_transport: Any, go: GoPeer) -> None:
    sockets, accept = door()
    transport = await open_transport()
    listener = await transport.listen("", accept)
    node = Node("py-1", listener.addresses[0], transport.node_metadata)
    async with asyncio.timeout(PATIENCE):
        await go.await_replies()
        client = await transport.dial(node, timeout=PATIENCE)
        server = await sockets.get()
        for properties in (
            Basic.Properties(),
            Basic.Properties(correlation_id="x"),
            Basic.Properties(correlation_id="x", message_type="pymicro.open"),
            Basic.Properties(correlation_id="x", message_type="pymicro.open", reply_to=REPLIES),
            Basic.Properties(correlation_id="x", message_type="pymicro.credit", reply_to=REPLIES, message_id="-1"),
            Basic.Properties(correlation_id="x", message_type="pymicro.close", reply_to=REPLIES),
            Basic.Properties(correlation_id="x", message_type="something", reply_to=REPLIES),
            Basic.Properties(correlation_id=client.id, message_type="pymicro.credit", message_id="9" * 200),
            Basic.Properties(correlation_id=client.id, message_type="pymicro.credit", message_id="99999999"),
            Basic.Properties(correlation_id=client.id, message_type="pymicro.accept"),
        ):
            for queue in (node.address, client.local, server.local):
                await go.channel.basic_publish(b"rubbish", routing_key=queue, properties=properties)
        # To what belongs to no socket the answer is that there is none.
        data = Basic.Properties(correlation_id="x", message_type="pymicro.data", reply_to=REPLIES)
        for queue in (node.address, client.local, server.local):
            await go.channel.basic_publish(b"late", routing_key=queue, properties=data)
            answer = (await go.inbox.get()).header.properties
            assert (answer.message_type, answer.correlation_id) == ("pymicro.close", "x")
        await client.send(Message(body=b"sound"))
        assert (await server.recv()).body == b"sound"
        assert sockets.empty()


async def test_a_peer_that_allows_nothing_gets_one_message_at_a_time(open_transport: Any, go: GoPeer) -> None:
    sockets, accept = door()
    listener = await (await open_transport()).listen("", accept)
    async with asyncio.timeout(PATIENCE):
        await go.await_replies()
        terms = {"message": "100", "headers": "100", "window": "-1"}
        opening = Basic.Properties(
            correlation_id="x", message_type="pymicro.open", reply_to=REPLIES, headers=dict[str, Any](terms)
        )
        await go.channel.basic_publish(b"", routing_key=listener.addresses[0], properties=opening)
        assert (await go.inbox.get()).header.properties.message_type == "pymicro.accept"
        socket = await sockets.get()
        await socket.send(Message(body=b"one"))
        one = await go.inbox.get()
        waiting = asyncio.create_task(socket.send(Message(body=b"two")))
        done, _ = await asyncio.wait([waiting], timeout=0.05)
        assert not done
        taken = one.header.properties
        credit = Basic.Properties(correlation_id="x", message_type="pymicro.credit", message_id=taken.message_id)
        await go.channel.basic_publish(b"", routing_key=socket.local, properties=credit)
        await waiting
        assert [one.body, (await go.inbox.get()).body] == [b"one", b"two"]
