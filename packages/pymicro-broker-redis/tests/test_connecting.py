"""Addresses, logins, TLS, and how the server's refusals are told."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import aclosing

import pytest
from redis.asyncio import Redis

from pymicro.broker import Ack, Consumer
from pymicro.errors import BackendRefused, BackendUnavailable, ConfigurationError
from pymicro.message import Message
from pymicro.plugins import TLS, Build
from pymicro_broker_redis import RedisBrokerOptions
from pymicro_broker_redis._broker import RedisBroker
from pymicro_testing import no_leaks
from pymicro_testing.servers import RedisServer

OpenBroker = Callable[..., Awaitable[RedisBroker]]
GetServer = Callable[..., RedisServer]
NOBODY = "127.0.0.1:9"


async def exchange(broker: RedisBroker, topic: str) -> None:
    """Publish one message and consume it."""
    async with aclosing(await broker.consume(topic)) as consumer:
        await broker.publish(topic, Message(body=b"x"), timeout=5)
        await take(consumer, b"x")


async def take(consumer: Consumer, body: bytes) -> None:
    async with asyncio.timeout(5):
        (delivery,) = await consumer.receive(1)
        assert delivery.message.body == body
        await consumer.settle(delivery, Ack())


@pytest.mark.parametrize("mode", ["streams", "pubsub"])
async def test_the_first_address_that_answers_is_used(
    mode: str, open_broker: OpenBroker, redis_server: RedisServer
) -> None:
    await exchange(await open_broker({"mode": mode}, addresses=(NOBODY, redis_server.address)), "first")


async def test_another_address_takes_over(open_broker: OpenBroker, server: GetServer) -> None:
    one, two = server("redis"), server("redis", number=2)
    broker = await open_broker(addresses=(one.address, two.address))
    async with aclosing(await broker.consume("over", queue="q")) as consumer:
        await broker.publish("over", Message(body=b"1"), timeout=5)
        await take(consumer, b"1")
        await one.kill()
        async with asyncio.timeout(5):
            while True:
                try:
                    await broker.publish("over", Message(body=b"2"), timeout=1)
                    break
                except BackendUnavailable:
                    await asyncio.sleep(0.01)
        await take(consumer, b"2")


async def test_a_replica_is_left_for_the_one_that_writes(open_broker: OpenBroker, server: GetServer) -> None:
    one, two = server("redis"), server("redis", number=2)
    broker = await open_broker(addresses=(one.address, two.address))
    await broker.publish("moved", Message(), timeout=5)
    async with Redis(port=one.port, host="127.0.0.1") as client:
        await client.execute_command("REPLICAOF", "127.0.0.1", two.port)
        try:
            with pytest.raises(BackendUnavailable, match=r"READONLY|read only"):
                await broker.publish("moved", Message(), timeout=5)
            await broker.publish("moved", Message(), timeout=5)
        finally:
            await client.execute_command("REPLICAOF", "NO", "ONE")


async def test_no_address_answers(open_broker: OpenBroker) -> None:
    broker = await open_broker(addresses=(NOBODY, "127.0.0.1:11"))
    with pytest.raises(BackendUnavailable, match=r"127\.0\.0\.1:9, 127\.0\.0\.1:11"):
        await broker.publish("nobody", Message(), timeout=5)


@pytest.mark.parametrize("address", ["redis://127.0.0.1:6379", "localhost", ":6379", "localhost:1-2", "localhost:0"])
async def test_addresses_of_another_form_are_refused(address: str) -> None:
    with pytest.raises(ConfigurationError):
        async with RedisBroker(None, Build(addresses=(address,))):
            pass


async def test_another_database_is_another_world(open_broker: OpenBroker) -> None:
    broker, other = await open_broker(), await open_broker({"database": 3})
    await exchange(other, "third")
    async with aclosing(await broker.consume("third", queue="q")) as consumer:
        await other.publish("third", Message(body=b"there"), timeout=5)
        await broker.publish("third", Message(body=b"here"), timeout=5)
        await take(consumer, b"here")


def tls_of(server: RedisServer) -> TLS:
    files = server.certificates
    assert files is not None
    return TLS(cert=str(files.certificate), key=str(files.key), ca=str(files.authority))


@pytest.mark.parametrize("mode", ["streams", "pubsub"])
async def test_tls_and_a_login(mode: str, open_broker: OpenBroker, server: GetServer) -> None:
    redis = server("redis", tls=True, credentials=True)
    login = {"username": redis.username, "password": redis.password}
    await exchange(await open_broker({"mode": mode, **login}, addresses=(redis.address,), tls=tls_of(redis)), "safe")


async def test_a_password_alone_is_the_default_users(open_broker: OpenBroker, server: GetServer) -> None:
    redis = server("redis", tls=True, credentials=True)
    options = {"password": redis.password}
    await exchange(await open_broker(options, addresses=(redis.address,), tls=tls_of(redis)), "alone")


@pytest.mark.parametrize("login", [{}, {"password": "wrong"}, {"username": "nobody", "password": "wrong"}])
async def test_a_wrong_login_is_refused(
    login: dict[str, str], open_broker: OpenBroker, server: GetServer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    redis = server("redis", credentials=True)
    broker = await open_broker(login, addresses=(redis.address,))
    with pytest.raises(BackendRefused):
        await broker.publish("closed", Message(), timeout=5)
    with pytest.raises(BackendRefused):
        await broker.consume("closed")
    assert "subscription" not in caplog.text  # there was none


async def test_a_server_of_another_authority_is_not_trusted(open_broker: OpenBroker, server: GetServer) -> None:
    redis = server("redis", tls=True, credentials=True)
    for tls in (TLS(secure=True), TLS(ca=tls_of(redis).ca)):  # one distrusts it, one has no certificate to show
        broker = await open_broker({"password": redis.password}, addresses=(redis.address,), tls=tls)
        with pytest.raises(BackendUnavailable):
            await broker.publish("closed", Message(), timeout=5)


async def test_closing_before_a_hanging_server_with_tls_is_bounded(server: GetServer) -> None:
    redis = server("redis", tls=True, credentials=True)
    build = Build(addresses=(redis.address,), tls=tls_of(redis), timeout=0.6)
    options = {"username": redis.username, "password": redis.password}
    async with no_leaks(), asyncio.timeout(5), RedisBroker(RedisBrokerOptions(**options), build) as broker:
        await broker.consume("hanging")
        await redis.pause()
    await redis.resume()


async def test_a_server_without_memory_refuses_publishers_and_serves_consumers(
    open_broker: OpenBroker, server: GetServer
) -> None:
    redis = server("redis", settings={"maxmemory": "100mb", "maxmemory-policy": "noeviction"})
    broker = await open_broker(addresses=(redis.address,))
    async with aclosing(await broker.consume("full", queue="q")) as consumer:
        await broker.publish("full", Message(body=b"1"), timeout=5)
        async with Redis(port=redis.port, host="127.0.0.1") as client:
            await client.execute_command("CONFIG", "SET", "maxmemory", "1kb")
            with pytest.raises(BackendRefused, match="memory"):
                await broker.publish("full", Message(body=b"2"), timeout=5)
            await take(consumer, b"1")
            await client.execute_command("CONFIG", "SET", "maxmemory", "100mb")
        await broker.publish("full", Message(body=b"3"), timeout=5)
        await take(consumer, b"3")


@pytest.mark.parametrize(
    ("mode", "rights"),
    [
        ("streams", "~pymicro:* +@read +@write +@scripting +@connection +time +xinfo +info +client|unblock"),
        ("streams", "~pymicro:* +@read +@write +@scripting +@connection +time"),
        ("pubsub", "&rights +@pubsub +@connection"),
    ],
)
async def test_a_user_needs_few_rights(mode: str, rights: str, open_broker: OpenBroker, server: GetServer) -> None:
    redis = server("redis")
    async with Redis(port=redis.port, host="127.0.0.1") as client:
        await client.execute_command("ACL", "SETUSER", "modest", "reset", "on", ">secret", *rights.split())
    login = {"username": "modest", "password": "secret"}
    await exchange(await open_broker({"mode": mode, **login}, addresses=(redis.address,)), "rights")
