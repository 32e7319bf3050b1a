"""The bytes shown are those that go over the wire, in both directions."""

import asyncio
import re
import struct
from pathlib import Path

from pymicro.message import Message
from pymicro.metadata import Headers
from pymicro.record import Node
from pymicro.transport import Socket
from pymicro_transport_http._transport import HttpTransport

ADDRESS = b"10.0.0.5:8080"
LINE = re.compile(r"(client|server) +(\w{8}) (\w{8}) (\w{8}) (\w\w) +(\w\w) *(.*)")
CONSTANT = Headers({"Content-Type": "text/plain"})


def shown(name: str) -> bytes:
    return Path(__file__).with_name(name).read_bytes().replace(b"\n", b"\r\n")


def frames(side: str) -> list[bytes]:
    """The frames of one side; a payload is shown with `|` for NUL."""
    found = []
    for line in Path(__file__).with_name("frames.txt").read_text().splitlines()[1:]:
        match = LINE.fullmatch(line)
        assert match is not None, line
        who, size, channel, value, kind, head, text = match.groups()
        payload = text.replace("|", "\0").encode()
        assert len(payload) == int(size, 16), line
        if who == side:
            found.append(bytes.fromhex(size + channel + value + kind + head) + payload)
    return found


async def one(reader: asyncio.StreamReader) -> bytes:
    """The next frame."""
    head = await reader.readexactly(14)
    return head + await reader.readexactly(struct.unpack(">I", head[:4])[0])


async def test_a_client_sends_what_is_shown_and_takes_the_answers() -> None:
    sent: list[bytes] = []
    done = asyncio.Event()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        sent.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(shown("answer.http"))
        first, second = frames("server")
        sent.append(await one(reader))
        writer.write(first)
        sent.extend([await one(reader), await one(reader)])
        writer.write(second)
        sent.append(await one(reader))
        writer.close()
        done.set()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    address = "{}:{}".format(*server.sockets[0].getsockname())
    async with server, HttpTransport() as transport:
        socket = await transport.dial(Node("x", address, {"channels": "1"}), timeout=5)
        for number in ("7", "8"):
            await socket.send(Message(CONSTANT.extend((("Micro-Id", number),)), b"ping"))
            assert await socket.recv() == Message(Headers(), b"pong")
        await socket.aclose()
        await done.wait()
    assert sent[0].replace(address.encode(), ADDRESS) == shown("request.http")
    assert sent[1:] == frames("client")


async def test_a_server_takes_what_is_shown_and_sends_the_answers() -> None:
    received: list[Message] = []

    async def accept(socket: Socket) -> None:
        while True:
            received.append(await socket.recv())
            await socket.send(Message(Headers(), b"pong"))

    async with HttpTransport() as transport:
        listener = await transport.listen("127.0.0.1:0", accept)
        host, _, port = listener.addresses[0].rpartition(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(shown("request.http"))
        answer = await reader.readuntil(b"\r\n\r\n")
        process = re.compile(rb"(?<=Pymicro-Process: )\w+")
        assert process.sub(b"", answer) == process.sub(b"", shown("answer.http"))
        call, head, again, close = frames("client")
        answers = []
        for data in (call, head + again):
            writer.write(data)
            answers.append(await one(reader))
        assert answers == frames("server")
        writer.write(close)
        assert [(dict(message.headers), message.body) for message in received] == [
            ({"Content-Type": "text/plain", "Micro-Id": number}, b"ping") for number in ("7", "8")
        ]
        writer.close()
        await writer.wait_closed()
