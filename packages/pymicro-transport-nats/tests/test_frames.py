"""Between pymicro peers: servers and peers that end, limits, credentials, TLS, many sockets."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from typing import Any

import nats
import pytest

from pymicro.errors import BackendRefused, BackendUnavailable, ConfigurationError, DialFailed, Disconnected, TooLarge
from pymicro.message import Message
from pymicro.metadata import Headers
from pymicro.plugins import TLS, Build
from pymicro.record import Node
from pymicro.transport import Socket
from pymicro_testing.faults import FaultProxy
from pymicro_testing.leaks import no_leaks
from pymicro_testing.servers import NatsServer
from pymicro_transport_nats._transport import NatsTransport

PATIENCE = 5.0
GetServer = Callable[..., NatsServer]


async def within(awaitable: Any) -> Any:
    async with asyncio.timeout(PATIENCE):
        return await awaitable


async def dial(transport: Any, address: str, timeout: float = PATIENCE) -> Socket:
    node = Node("py-1", address, {"protocol": "mucp", **transport.node_metadata})
    socket: Socket = await transport.dial(node, timeout=timeout)
    return socket


async def echo(socket: Socket) -> None:
    while True:
        await socket.send(await socket.recv())


async def echoes(socket: Socket, body: bytes = b"ping") -> None:
    await within(socket.send(Message(Headers({"X": "y"}), body)))
    assert (await within(socket.recv())).body == body


async def until_dialled(transport: Any, address: str) -> Socket:
    async with asyncio.timeout(PATIENCE):
        while True:
            try:
                return await dial(transport, address)
            except DialFailed:
                await asyncio.sleep(0.02)


@pytest.fixture
async def stranger(nats_server: NatsServer) -> AsyncIterator[Any]:
    """A client that is not pymicro's."""
    connection = await nats.connect(f"nats://{nats_server.address}", allow_reconnect=False)
    yield connection
    await connection.close()


class Door:
    """Keeps what is accepted."""

    def __init__(self) -> None:
        self.sockets: asyncio.Queue[Socket] = asyncio.Queue()

    async def __call__(self, socket: Socket) -> None:
        self.sockets.put_nowait(socket)
        await asyncio.Event().wait()


# servers


@pytest.mark.parametrize("how", ["kill", "stop"])
async def test_a_server_that_ends_is_told_to_both_sides_and_found_again(
    open_transport: Any, nats_server: NatsServer, how: str
) -> None:
    near, far, door = await open_transport(), await open_transport(), Door()
    async with aclosing(await far.listen("", door)) as listener:
        address = listener.addresses[0]
        async with aclosing(await dial(near, address)) as client:
            await client.send(Message(body=b"hello"))
            server = await within(door.sockets.get())
            assert (await within(server.recv())).body == b"hello"
            waiting = [asyncio.create_task(socket.recv()) for socket in (client, server)]
            await getattr(nats_server, how)()
            for each in waiting:
                with pytest.raises(Disconnected):
                    await within(each)
            with pytest.raises(DialFailed):
                await dial(near, address, timeout=0.1)
        await nats_server.start()
        async with aclosing(await until_dialled(near, address)) as client:
            await client.send(Message(body=b"again"))
            server = await within(door.sockets.get())
            assert (await within(server.recv())).body == b"again"


async def test_without_a_server_nothing_is_opened(open_transport: Any, nats_server: NatsServer) -> None:
    await nats_server.stop()
    transport = await open_transport()
    with pytest.raises(DialFailed, match=f"{nats_server.address}: .*refused") as raised:
        await dial(transport, "anybody")
    assert raised.value.executed == "no"
    with pytest.raises(BackendUnavailable, match="refused"):
        await transport.listen("", echo)


async def test_a_server_that_hangs_is_given_up(nats_server: NatsServer) -> None:
    async with no_leaks(), NatsTransport(None, Build(addresses=(nats_server.address,))) as transport:
        await nats_server.pause()
        with pytest.raises(DialFailed, match=r"within 0\.2 s"):
            await within(dial(transport, "anybody", timeout=0.2))
        await nats_server.resume()
        async with aclosing(await transport.listen("", echo)) as listener:
            socket = await dial(transport, listener.addresses[0])
            await echoes(socket)
            await nats_server.pause()
            await within(socket.aclose())
            await within(transport.aclose())


async def test_a_server_that_reads_nothing_costs_bounded_memory(nats_server: NatsServer, open_transport: Any) -> None:
    near, far = await open_transport(), await open_transport()
    async with aclosing(await far.listen("", Door())) as listener:
        sockets = [await dial(near, listener.addresses[0]) for _ in range(64)]
        await nats_server.pause()
        sending = [asyncio.create_task(send_for_ever(socket)) for socket in sockets]
        sent = [0]
        while len(set(sent[-5:])) > 1 or len(sent) < 6:
            await asyncio.wait(sending, timeout=0.05)
            sent.append(sum(progress.values()))
        assert sent[-1] * len(PIECE) < 24 * 1024**2
        for each in sending:
            each.cancel()
        await asyncio.wait(sending)
        await nats_server.resume()


PIECE = b"x" * 512 * 1024
progress: dict[int, int] = {}


async def send_for_ever(socket: Socket) -> None:
    progress[id(socket)] = 0
    while True:
        await socket.send(Message(body=PIECE))
        progress[id(socket)] += 1


async def test_one_connection_carries_many_sockets(open_transport: Any, server: GetServer) -> None:
    few = server("nats", settings={"max_connections": "2"})
    near, far = await open_transport(few.address), await open_transport(few.address)
    async with aclosing(await far.listen("", echo)) as listener:
        sockets = await asyncio.gather(*(dial(near, listener.addresses[0]) for _ in range(200)))
        await asyncio.gather(*(echoes(socket, b"%d" % number) for number, socket in enumerate(sockets)))
        await asyncio.gather(*(socket.aclose() for socket in sockets))


# peers


@pytest.mark.parametrize("who", ["near", "far"])
async def test_a_peer_that_is_killed_is_noticed(open_transport: Any, who: str) -> None:
    near, far, door = await open_transport(peer_interval=0.1), await open_transport(peer_interval=0.1), Door()
    async with aclosing(await far.listen("", door)) as listener:
        client = await dial(near, listener.addresses[0])
        await client.send(Message(body=b"hello"))
        server = await within(door.sockets.get())
        await within(server.recv())
        staying, dying = (server, near) if who == "near" else (client, far)
        waiting = asyncio.create_task(staying.recv())
        await dying._link.aclose()  # as a process that is killed: nothing is told
        with pytest.raises(Disconnected):
            await within(waiting)


async def test_a_peer_whose_connection_was_made_again_has_lost_its_sockets(
    open_transport: Any, nats_server: NatsServer
) -> None:
    door = Door()
    async with FaultProxy(nats_server.address) as proxy:
        near, far = await open_transport(peer_interval=0.1), await open_transport(proxy.address)
        async with aclosing(await far.listen("py.greeter", door)):
            client = await dial(near, "py.greeter")
            await client.send(Message(body=b"hello"))
            server = await within(door.sockets.get())
            await within(server.recv())
            waiting = asyncio.create_task(client.recv())
            await proxy.stop()
            await proxy.start()
            with pytest.raises(Disconnected):
                await within(waiting)
            async with aclosing(await until_dialled(near, "py.greeter")) as again:
                await again.send(Message(body=b"again"))
                assert (await within((await within(door.sockets.get())).recv())).body == b"again"


async def test_a_busy_peer_is_not_taken_for_dead(open_transport: Any, nats_server: NatsServer) -> None:
    async with FaultProxy(nats_server.address) as proxy:
        near, far = await open_transport(peer_interval=0.05), await open_transport(proxy.address)
        async with aclosing(await far.listen("", echo)) as listener:
            client = await dial(near, listener.addresses[0])
            await echoes(client)
            await proxy.pause()
            await client.send(Message(body=b"late"))
            waiting = asyncio.create_task(client.recv())
            done, _ = await asyncio.wait({waiting}, timeout=0.3)
            assert not done
            await proxy.start()
            assert (await within(waiting)).body == b"late"
            await client.aclose()


async def test_garbage_harms_nobody(open_transport: Any, stranger: Any) -> None:
    near, far = await open_transport(), await open_transport()
    async with aclosing(await far.listen("py.greeter", echo)):
        sibling = await dial(near, "py.greeter")
        opening = struct.pack(">BII", 1, 2**31, 5) + b"\0\0\1\0" + b"\xc1" * 20
        for number, garbage in enumerate((b"", b"\1", b"\xff" * 50, opening, struct.pack(">BII", 2, 0, 0))):
            await stranger.publish("py.greeter.pymicro", garbage, reply=f"nobody.{number}")
            await stranger.publish("py.greeter.pymicro", garbage)
        await stranger.flush()
        await echoes(sibling)
        await sibling.aclose()


async def test_who_sends_more_than_its_credit_is_left(open_transport: Any, stranger: Any) -> None:
    door = Door()
    far = await open_transport()
    async with aclosing(await far.listen("py.greeter", door)):
        opening = struct.pack(">BII", 1, 1, 0) + b"\0\0\1\0" + b"\x80"
        await stranger.publish("py.greeter.pymicro", opening, reply="a.client")
        server = await within(door.sockets.get())
        lost = asyncio.Event()
        server.on_disconnect = lost.set
        for _ in range(40):
            await stranger.publish(
                "py.greeter.pymicro", struct.pack(">BII", 2, 1, 0) + b"\x80" + bytes(64 * 1024), reply="a.client"
            )
        await within(lost.wait())


async def test_a_subject_that_is_no_node_of_ours_is_no_node(open_transport: Any, stranger: Any) -> None:

    async def answer(message: Any) -> None:
        await message.respond(b"?")

    await stranger.subscribe("other.pymicro", cb=answer)
    await stranger.flush()
    with pytest.raises(DialFailed, match="no pymicro node"):
        await dial(await open_transport(), "other")


# limits


async def test_what_the_server_does_not_take_is_refused_before_it_is_sent(
    open_transport: Any, server: GetServer
) -> None:
    small = server("nats", settings={"max_payload": "65536"})
    near, far = await open_transport(small.address), await open_transport(small.address)
    async with aclosing(await far.listen("", echo)) as listener:
        for metadata in ({}, far.node_metadata):
            node = Node("py-1", listener.addresses[0], metadata)
            async with aclosing(await near.dial(node, timeout=PATIENCE)) as socket:
                with pytest.raises(TooLarge, match=r"limit of 65536 \(max_payload\)") as raised:
                    await socket.send(Message(body=bytes(70_000)))
                assert raised.value.executed == "no"
                await echoes(socket, bytes(40_000))


async def test_subjects_that_are_none_are_refused(open_transport: Any) -> None:
    transport = await open_transport("127.0.0.1:1")
    for address in ("a b", "a.*", "$SYS.x", ".a"):
        with pytest.raises(DialFailed, match="cannot be a NATS subject"):
            await dial(transport, address)
    with pytest.raises(ConfigurationError, match="cannot be a NATS subject"):
        await (await open_transport()).listen("a b", echo)


# who may come in


async def test_wrong_credentials_are_told(open_transport: Any, server: GetServer) -> None:
    locked = server("nats", credentials=True)
    transport = await open_transport(locked.address, username=locked.username, password=locked.password)
    async with aclosing(await transport.listen("", echo)) as listener:
        async with aclosing(await dial(transport, listener.addresses[0])) as socket:
            await echoes(socket)
        stranger = await open_transport(locked.address, username="mallory", password="guess")
        with pytest.raises(DialFailed, match="does not let the user 'mallory' in") as raised:
            await dial(stranger, listener.addresses[0])
        assert "guess" not in str(raised.value)
        with pytest.raises(BackendRefused, match="does not let the user 'mallory' in"):
            await stranger.listen("", echo)


PERMISSIONS = """{users: [{user: "u", password: "p", permissions: {
    publish: {deny: ["secret.>"]}, subscribe: {deny: ["secret.>"]}}}]}"""


async def test_missing_permissions_are_told(open_transport: Any, server: GetServer) -> None:
    locked = server("nats", settings={"authorization": PERMISSIONS})
    transport = await open_transport(locked.address, username="u", password="p")
    with pytest.raises(DialFailed, match=r"may not publish to the subject 'secret\.node\.pymicro'"):
        await dial(transport, "secret.node")
    with pytest.raises(BackendRefused, match=r"may not publish to the subject 'secret\.node\.pymicro'"):
        await transport.listen("secret.node", echo)


async def test_tls_with_a_client_certificate(open_transport: Any, server: GetServer) -> None:
    secure = server("nats", tls=True)
    files = secure.certificates
    assert files is not None
    tls = TLS(cert=str(files.certificate), key=str(files.key), ca=str(files.authority))
    near, far = await open_transport(secure.address, tls=tls), await open_transport(secure.address, tls=tls)
    async with (
        aclosing(await far.listen("", echo)) as listener,
        aclosing(await dial(near, listener.addresses[0])) as socket,
    ):
        await echoes(socket, bytes(100_000))
