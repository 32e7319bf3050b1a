"""Credentials, TLS, addresses."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from pymicro.broker import Ack
from pymicro.errors import BackendRefused, BackendUnavailable
from pymicro.message import Message
from pymicro.plugins import TLS
from pymicro_testing.servers import KafkaServer

PATIENCE = 20.0


async def goes_round(broker: Any, topic: str) -> None:
    consumer = await broker.consume(topic, queue=topic)
    await broker.publish(topic, Message(body=b"one"), timeout=PATIENCE)
    async with asyncio.timeout(PATIENCE):
        (delivery,) = await consumer.receive(1)
        await consumer.settle(delivery, Ack())
    assert delivery.message.body == b"one"


@pytest.fixture
def secure(server: Any) -> KafkaServer:
    """It wants TLS with a certificate, user name and password."""
    found: KafkaServer = server("kafka", tls=True, credentials=True)
    return found


def tls_of(server: KafkaServer) -> TLS:
    made = server.certificates
    assert made is not None
    return TLS(ca=str(made.authority), cert=str(made.certificate), key=str(made.key))


@pytest.mark.parametrize("mechanism", ["plain", "scram-sha-256"])
async def test_tls_with_a_certificate_and_credentials(
    open_broker: Any, secure: KafkaServer, topic: str, mechanism: str
) -> None:
    login = {"username": secure.username, "password": secure.password, "sasl_mechanism": mechanism}
    await goes_round(await open_broker(login, addresses=(secure.address,), tls=tls_of(secure), timeout=10.0), topic)


@pytest.mark.parametrize("mechanism", ["plain", "scram-sha-256"])
async def test_a_wrong_password_is_refused(open_broker: Any, secure: KafkaServer, topic: str, mechanism: str) -> None:
    login = {"username": secure.username, "password": "wrong", "sasl_mechanism": mechanism}
    broker = await open_broker(login, addresses=(secure.address,), tls=tls_of(secure))
    with pytest.raises(BackendRefused, match="Authentication"):
        await broker.publish(topic, Message(body=b"x"), timeout=PATIENCE)


async def test_a_server_that_is_not_trusted_is_refused(open_broker: Any, secure: KafkaServer, topic: str) -> None:
    broker = await open_broker({}, addresses=(secure.address,), tls=TLS(secure=True))
    with pytest.raises(BackendRefused, match="certificate is not trusted"):
        await broker.consume(topic)


async def test_the_first_address_that_answers_is_used(open_broker: Any, kafka_server: KafkaServer, topic: str) -> None:
    await goes_round(await open_broker({}, addresses=("127.0.0.1:1", kafka_server.address), timeout=10.0), topic)


async def test_when_no_address_answers_each_is_named(open_broker: Any, topic: str) -> None:
    broker = await open_broker({}, addresses=("127.0.0.1:1", "127.0.0.1:2"))
    with pytest.raises(BackendUnavailable, match=r"127.0.0.1:1: connection refused; 127.0.0.1:2: connection refused"):
        await broker.publish(topic, Message(body=b"x"), timeout=PATIENCE)
