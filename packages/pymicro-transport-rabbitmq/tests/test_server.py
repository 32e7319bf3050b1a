"""Addresses, log-in, TLS, limits, and what the server refuses."""

from __future__ import annotations

import asyncio
import uuid
from typing import Any

import aiormq
import pytest

from pymicro.errors import BackendRefused, BackendUnavailable, ConfigurationError, DialFailed, Disconnected, TooLarge
from pymicro.message import Message
from pymicro.metadata import Headers
from pymicro.plugins import TLS, Build, Limits
from pymicro.record import Node
from pymicro.transport import Socket
from pymicro_testing.servers import RabbitmqServer
from pymicro_transport_rabbitmq._transport import RabbitmqTransport

PATIENCE = 10.0


async def echo(socket: Socket) -> None:
    while True:
        await socket.send(await socket.recv())


def node(address: str) -> Node:
    return Node("py-1", address, RabbitmqTransport.node_metadata)


async def works(transport: RabbitmqTransport) -> None:
    """One message there and back."""
    async with asyncio.timeout(2 * PATIENCE):
        listener = await transport.listen("", echo)
        socket = await transport.dial(node(listener.addresses[0]), timeout=PATIENCE)
        await socket.send(Message(body=b"hello"))
        assert (await socket.recv()).body == b"hello"
        await socket.aclose()
        await listener.aclose()


async def refused(transport: RabbitmqTransport, kind: type[Exception], match: str) -> None:
    async with asyncio.timeout(2 * PATIENCE):
        with pytest.raises(kind, match=match):
            await transport.listen("", echo)
        with pytest.raises(DialFailed, match=match):
            await transport.dial(node("somewhere"), timeout=1.0)


async def test_a_transport_can_dial_itself(open_transport: Any) -> None:
    await works(await open_transport())


async def test_an_address_of_ones_own_choice(open_transport: Any) -> None:
    transport, address = await open_transport(), f"orders/{uuid.uuid4().hex}"
    listener = await transport.listen(address, echo)
    assert listener.addresses == (address,)
    for other in ("a.*", "#", "x" * 256, "ß", "amq.mine"):
        with pytest.raises(ConfigurationError):
            await transport.listen(other, echo)


async def test_a_port_that_is_left_open_is_a_name_that_is_left_open(open_transport: Any) -> None:
    transport = await open_transport()
    chosen = {(await transport.listen(address, echo)).addresses[0] for address in ("", ":0", "127.0.0.1:0")}
    assert len(chosen) == 3
    assert all(uuid.UUID(address) for address in chosen)


async def test_a_listener_that_closed_is_missed_at_once(open_transport: Any) -> None:
    near, far = await open_transport({"check_interval": 600.0}), await open_transport()
    listener = await far.listen("", echo)
    async with asyncio.timeout(PATIENCE):
        socket = await near.dial(node(listener.addresses[0]), timeout=PATIENCE)
        await listener.aclose()
        with pytest.raises(Disconnected):
            await socket.recv()
        with pytest.raises(DialFailed, match="nobody listens"):
            await near.dial(node(listener.addresses[0]), timeout=PATIENCE)


async def test_an_address_that_a_go_server_has_is_refused(open_transport: Any, rabbitmq_server: RabbitmqServer) -> None:
    address = str(uuid.uuid4())
    connection = await aiormq.connect(f"amqp://guest:guest@{rabbitmq_server.address}/")
    channel = await connection.channel()

    async def ignore(message: Any) -> None:
        pass

    await channel.queue_declare(address, auto_delete=True)
    await channel.basic_consume(address, ignore, no_ack=True)
    with pytest.raises(ConfigurationError, match=address):
        await (await open_transport()).listen(address, echo)
    await connection.close()


async def test_an_exchange_of_another_kind_is_refused(open_transport: Any, rabbitmq_server: RabbitmqServer) -> None:
    exchange = f"exchange-{uuid.uuid4().hex}"
    connection = await aiormq.connect(f"amqp://guest:guest@{rabbitmq_server.address}/")
    await (await connection.channel()).exchange_declare(exchange, exchange_type="fanout")
    await connection.close()
    transport = await open_transport({"exchange": exchange})
    with pytest.raises(ConfigurationError, match=f"'{exchange}' exists .*--transport_rabbitmq_exchange"):
        await transport.listen("", echo)


async def test_the_next_address_is_tried(open_transport: Any, rabbitmq_server: RabbitmqServer) -> None:
    await works(await open_transport(addresses=("127.0.0.1:1", rabbitmq_server.address)))


async def test_nobody_is_there(open_transport: Any) -> None:
    await refused(await open_transport(addresses=("127.0.0.1:1", "127.0.0.1:2")), BackendUnavailable, "127.0.0.1:[12]")


async def test_a_wrong_password_is_refused_at_once(open_transport: Any) -> None:
    await refused(await open_transport({"password": "wrong"}), ConfigurationError, "ACCESS_REFUSED")


async def test_tls_files_that_are_missing_are_found_on_opening() -> None:
    with pytest.raises(ConfigurationError, match=r"none\.pem"):
        async with RabbitmqTransport(None, Build(tls=TLS(ca="none.pem"))):
            pass


async def test_a_message_that_the_server_would_not_take_is_refused_before(open_transport: Any) -> None:
    transport = await open_transport({"server_limit": 1000})
    listener = await transport.listen("", echo)
    async with asyncio.timeout(PATIENCE):
        socket = await transport.dial(node(listener.addresses[0]), timeout=PATIENCE)
        with pytest.raises(TooLarge, match="server's limit of 1000"):
            await socket.send(Message(body=b"x" * 1001))
        await socket.send(Message(body=b"x" * 1000))
        assert len((await socket.recv()).body) == 1000


async def test_what_the_peer_does_not_take_is_refused_before_it_is_sent(open_transport: Any) -> None:
    listener = await (await open_transport(limits=Limits(message=1000, headers=500))).listen("", echo)
    transport = await open_transport()
    async with asyncio.timeout(PATIENCE):
        socket = await transport.dial(node(listener.addresses[0]), timeout=PATIENCE)
        with pytest.raises(TooLarge, match="peer's limit of 1000"):
            await socket.send(Message(body=b"x" * 1001))
        with pytest.raises(TooLarge, match="peer's limit of 500"):
            await socket.send(Message(Headers({"X-Large": "x" * 600})))
        await socket.send(Message(body=b"x" * 1000))
        assert len((await socket.recv()).body) == 1000


@pytest.mark.parametrize("headers", [{"x" * 129: ""}, {"x": "日" * 60_000}])
async def test_headers_that_amqp_cannot_carry_are_refused(open_transport: Any, headers: dict[str, str]) -> None:
    transport = await open_transport(limits=Limits(headers=1_000_000))
    listener = await transport.listen("", echo)
    async with asyncio.timeout(PATIENCE):
        socket = await transport.dial(node(listener.addresses[0]), timeout=PATIENCE)
        with pytest.raises(TooLarge):
            await socket.send(Message(Headers(headers)))
        await socket.send(Message(body=b"sound"))
        assert (await socket.recv()).body == b"sound"


async def test_text_that_is_no_unicode_harms_no_socket(open_transport: Any) -> None:
    """And does not count to what the peer has to take before more is sent."""
    transport = await open_transport(limits=Limits(buffer=1000))
    listener = await transport.listen("", echo)
    async with asyncio.timeout(PATIENCE):
        socket = await transport.dial(node(listener.addresses[0]), timeout=PATIENCE)
        with pytest.raises(BackendRefused):
            await socket.send(Message(Headers({"x": "\ud800" * 1000})))
        await socket.send(Message(body=b"sound"))
        assert (await socket.recv()).body == b"sound"
