"""The proxy does to connections what it is told."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator

import pytest

from pymicro_testing import FaultProxy, no_leaks

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Echo:
    """A server that sends everything back."""

    def __init__(self) -> None:
        self.address = ""
        self.received = 0
        self._tasks: set[asyncio.Task[None]] = set()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(65536):
                self.received += len(data)
                writer.write(data)
                await writer.drain()
        except ConnectionError:
            pass
        finally:
            writer.close()

    def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.ensure_future(self._serve(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


@pytest.fixture
async def echo() -> AsyncIterator[Echo]:
    echo = Echo()
    server = await asyncio.start_server(echo.accept, "127.0.0.1", 0)
    host, port = server.sockets[0].getsockname()
    echo.address = f"{host}:{port}"
    yield echo
    server.close()


async def connect(proxy: FaultProxy, sent: bytes = b"") -> Streams:
    host, _, port = proxy.address.rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(sent)
    return reader, writer


async def refuses(proxy: FaultProxy) -> bool:
    try:
        _, writer = await connect(proxy)
    except ConnectionRefusedError:
        return True
    writer.close()
    return False


async def test_it_forwards_both_ways(echo: Echo) -> None:
    async with no_leaks(), FaultProxy(echo.address) as proxy:
        reader, writer = await connect(proxy, b"x" * 1_000_000)
        assert len(await reader.readexactly(1_000_000)) == 1_000_000
        assert proxy.connections == 1
        writer.write_eof()
        assert await reader.read() == b""
        writer.close()


async def test_it_delays(echo: Echo) -> None:
    async with no_leaks(), FaultProxy(echo.address) as proxy:
        proxy.delay = 0.05
        started = time.monotonic()
        reader, writer = await connect(proxy, b"ping")
        assert await reader.readexactly(4) == b"ping"
        assert time.monotonic() - started >= 0.1
        writer.close()


async def test_it_throttles(echo: Echo) -> None:
    async with no_leaks(), FaultProxy(echo.address) as proxy:
        proxy.rate = 50_000
        started = time.monotonic()
        reader, writer = await connect(proxy, b"x" * 5_000)
        await reader.readexactly(5_000)
        assert time.monotonic() - started >= 0.1
        writer.close()


async def test_it_forwards_in_pieces(echo: Echo) -> None:
    async with no_leaks(), FaultProxy(echo.address) as proxy:
        proxy.chunk = 1
        reader, writer = await connect(proxy, b"hello")
        assert await reader.readexactly(5) == b"hello"
        writer.close()


async def test_it_cuts_at_once(echo: Echo) -> None:
    async with no_leaks(), FaultProxy(echo.address) as proxy:
        reader, writer = await connect(proxy, b"ping")
        await reader.readexactly(4)
        proxy.cut()
        with pytest.raises(ConnectionResetError):
            await reader.readexactly(1)
        writer.close()
        assert not await refuses(proxy)


async def test_it_cuts_in_the_middle_and_only_once(echo: Echo) -> None:
    async with no_leaks(), FaultProxy(echo.address) as proxy:
        proxy.cut(after=100)
        reader, writer = await connect(proxy, b"x" * 1000)
        with pytest.raises(ConnectionResetError):
            await reader.readexactly(1000)
        assert echo.received <= 100
        writer.close()
        reader, writer = await connect(proxy, b"y" * 1000)
        assert await reader.readexactly(1000) == b"y" * 1000
        writer.close()


async def test_it_ends_a_stream_in_the_middle_as_a_killed_process_does(echo: Echo) -> None:
    async with no_leaks(), FaultProxy(echo.address) as proxy:
        reader, writer = await connect(proxy, b"x" * 100)
        await reader.readexactly(100)
        proxy.cut(after=70, reset=False)  # 20 there, 20 back, 20 there, and 10 of those that come back
        writer.write(b"y" * 20)
        assert await reader.readexactly(20) == b"y" * 20
        writer.write(b"z" * 20)
        assert await reader.read() == b"z" * 10
        writer.close()


async def test_it_hangs_and_goes_on(echo: Echo) -> None:
    async with no_leaks(), FaultProxy(echo.address) as proxy:
        await proxy.pause()
        reader, writer = await connect(proxy, b"ping")
        reading = asyncio.create_task(reader.readexactly(4))
        assert (await asyncio.wait({reading}, timeout=0.05))[1] == {reading}
        assert echo.received == 0
        await proxy.start()
        assert await reading == b"ping"
        await proxy.pause()
        writer.write(b"pong")
        reading = asyncio.create_task(reader.readexactly(4))
        assert (await asyncio.wait({reading}, timeout=0.05))[1] == {reading}
        await proxy.start()
        assert await reading == b"pong"
        writer.close()


async def test_it_refuses_and_comes_back_at_the_same_address(echo: Echo) -> None:
    async with no_leaks(), FaultProxy(echo.address) as proxy:
        address = proxy.address
        reader, writer = await connect(proxy, b"ping")
        await reader.readexactly(4)
        await proxy.stop()
        await proxy.stop()
        with pytest.raises(ConnectionResetError):
            await reader.readexactly(1)
        writer.close()
        assert proxy.connections == 0
        assert await refuses(proxy)
        await proxy.start()
        await proxy.start()
        assert proxy.address == address
        assert not await refuses(proxy)


async def test_a_target_that_is_away_is_an_end_of_the_connection() -> None:
    async with no_leaks(), FaultProxy("127.0.0.1:1") as proxy:
        reader, writer = await connect(proxy)
        assert await reader.read() == b""
        writer.close()


async def test_leaving_it_ends_everything(echo: Echo) -> None:
    async with no_leaks():
        async with FaultProxy(echo.address) as proxy:
            await proxy.pause()
            reader, writer = await connect(proxy, b"ping")
            address = proxy.address
        with pytest.raises(ConnectionResetError):
            await reader.readexactly(1)
        writer.close()
    host, _, port = address.rpartition(":")
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection(host, int(port))


async def test_it_has_no_address_before_it_is_entered() -> None:
    with pytest.raises(RuntimeError, match="async with"):
        _ = FaultProxy("127.0.0.1:1").address


async def test_it_garbles_what_the_server_says(echo: Echo) -> None:
    async with no_leaks(), FaultProxy(echo.address) as proxy:
        proxy.garble(after=6, size=4)
        proxy.chunk = 4  # the wrong bytes are those of two pieces
        reader, writer = await connect(proxy, b"0123456789abcdef")
        assert await reader.readexactly(16) == b"012345" + bytes(byte ^ 0xFF for byte in b"6789") + b"abcdef"
        writer.write(b"sound")
        assert await reader.readexactly(5) == b"sound"
        writer.close()


async def test_it_garbles_what_clients_say(echo: Echo) -> None:
    async with no_leaks(), FaultProxy(echo.address) as proxy:
        proxy.garble(to_client=False)
        reader, writer = await connect(proxy, b"aa")
        # The server got the wrong byte and sent it back as it was.
        assert await reader.readexactly(2) == b"\x9ea"
        proxy.garble(after=1, size=1, to_client=False)
        proxy.garble(after=1, size=1)
        writer.write(b"bbb")
        assert await reader.readexactly(3) == b"bbb", "inverted twice"
        writer.close()
