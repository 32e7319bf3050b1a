"""grpcio's asyncio side: what most Python services that call each other use."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import grpc
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

from peers import About

ABOUT = About(
    says="grpcio's asyncio side with protobuf messages, one channel: the reference",
    distributions=("grpcio", "protobuf"),
    shapes=("hello", "echo", "stream"),
)
_STRING, _BYTES = descriptor_pb2.FieldDescriptorProto.TYPE_STRING, descriptor_pb2.FieldDescriptorProto.TYPE_BYTES


def _message(pool: descriptor_pool.DescriptorPool, name: str, field: str, type: Any = _STRING) -> Any:
    """The class that protoc makes of `message <name> { <type> <field> = 1; }`."""
    file = descriptor_pb2.FileDescriptorProto(name=f"{name}.proto", package="greeter", syntax="proto3")
    one = file.message_type.add(name=name).field.add(name=field, number=1)
    one.type = type
    one.label = descriptor_pb2.FieldDescriptorProto.LABEL_OPTIONAL
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(f"greeter.{name}"))


_POOL = descriptor_pool.DescriptorPool()
HelloRequest = _message(_POOL, "HelloRequest", "name")
HelloResponse = _message(_POOL, "HelloResponse", "greeting")
Blob = _message(_POOL, "Blob", "data", _BYTES)


async def _hello(request: Any, context: Any) -> Any:
    return HelloResponse(greeting=f"Hello {request.name}")


async def _echo(request: Any, context: Any) -> Any:
    return Blob(data=request.data)


async def _chat(requests: AsyncIterator[Any], context: Any) -> AsyncIterator[Any]:
    async for request in requests:
        yield HelloResponse(greeting=f"Hello {request.name}")


async def serve(ready: Callable[[str], None]) -> None:
    """See `Peer`."""
    hello = grpc.unary_unary_rpc_method_handler(_hello, HelloRequest.FromString, HelloResponse.SerializeToString)
    echo = grpc.unary_unary_rpc_method_handler(_echo, Blob.FromString, Blob.SerializeToString)
    chat = grpc.stream_stream_rpc_method_handler(_chat, HelloRequest.FromString, HelloResponse.SerializeToString)
    methods = {"Hello": hello, "Echo": echo, "Chat": chat}
    server = grpc.aio.server()
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("greeter.Greeter", methods),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    ready(f"127.0.0.1:{port}")
    try:
        await asyncio.Event().wait()
    finally:
        await server.stop(0)


class Greeter:
    """See `peers.Client`."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        path = "/greeter.Greeter/{}".format
        self._hello: Any = channel.unary_unary(path("Hello"), HelloRequest.SerializeToString, HelloResponse.FromString)
        self._echo: Any = channel.unary_unary(path("Echo"), Blob.SerializeToString, Blob.FromString)
        self._chat: Any = channel.stream_stream(path("Chat"), HelloRequest.SerializeToString, HelloResponse.FromString)

    async def hello(self, name: str) -> str:
        """See `peers.Client`."""
        greeting: str = (await self._hello(HelloRequest(name=name))).greeting
        return greeting

    async def echo(self, data: bytes) -> bytes:
        """See `peers.Client`."""
        same: bytes = (await self._echo(Blob(data=data))).data
        return same

    async def stream(self, names: AsyncIterator[str]) -> AsyncIterator[str]:
        """See `peers.Client`."""
        async for response in self._chat(_requests(names)):
            yield response.greeting


async def _requests(names: AsyncIterator[str]) -> AsyncIterator[Any]:
    async for name in names:
        yield HelloRequest(name=name)


@asynccontextmanager
async def client(address: str) -> AsyncIterator[Greeter]:
    """See `Peer`."""
    async with grpc.aio.insecure_channel(address) as channel:
        yield Greeter(channel)


@asynccontextmanager
async def connections(address: str, count: int) -> AsyncIterator[None]:
    """See `Peer`."""
    options = [("grpc.use_local_subchannel_pool", 1)]  # or all channels would share one connection
    async with AsyncExitStack() as stack:
        for _ in range(count):
            channel = await stack.enter_async_context(grpc.aio.insecure_channel(address, options=options))
            assert await Greeter(channel).hello("John") == "Hello John"
        yield
