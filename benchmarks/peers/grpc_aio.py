"""grpcio's asyncio side: what most Python services that call each other use."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import grpc
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

DISTRIBUTIONS = ("grpcio", "protobuf")
_METHOD = "/greeter.Greeter/Hello"


def _message(pool: descriptor_pool.DescriptorPool, name: str, field: str) -> Any:
    """The class that protoc makes of `message <name> { string <field> = 1; }`."""
    file = descriptor_pb2.FileDescriptorProto(name=f"{name}.proto", package="greeter", syntax="proto3")
    one = file.message_type.add(name=name).field.add(name=field, number=1)
    one.type = descriptor_pb2.FieldDescriptorProto.TYPE_STRING
    one.label = descriptor_pb2.FieldDescriptorProto.LABEL_OPTIONAL
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(f"greeter.{name}"))


_POOL = descriptor_pool.DescriptorPool()
HelloRequest = _message(_POOL, "HelloRequest", "name")
HelloResponse = _message(_POOL, "HelloResponse", "greeting")


async def _hello(request: Any, context: Any) -> Any:
    return HelloResponse(greeting=f"Hello {request.name}")


async def serve(ready: Callable[[str], None]) -> None:
    """See `Peer`."""
    hello = grpc.unary_unary_rpc_method_handler(
        _hello, request_deserializer=HelloRequest.FromString, response_serializer=HelloResponse.SerializeToString
    )
    server = grpc.aio.server()
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("greeter.Greeter", {"Hello": hello}),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    ready(f"127.0.0.1:{port}")
    try:
        await asyncio.Event().wait()
    finally:
        await server.stop(0)


class Greeter:
    """See `Client`."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._hello: Any = channel.unary_unary(
            _METHOD, request_serializer=HelloRequest.SerializeToString, response_deserializer=HelloResponse.FromString
        )

    async def hello(self, name: str) -> str:
        """See `Client`."""
        greeting: str = (await self._hello(HelloRequest(name=name))).greeting
        return greeting


@asynccontextmanager
async def client(address: str) -> AsyncIterator[Greeter]:
    """See `Peer`."""
    async with grpc.aio.insecure_channel(address) as channel:
        yield Greeter(channel)
