"""TLS: who is trusted, who is not, and certificates that change on disk."""

from __future__ import annotations

import asyncio
import logging
import shutil
from typing import Any

import pytest

from pymicro.broker import Ack
from pymicro.errors import BackendUnavailable, ConfigurationError
from pymicro.message import Message
from pymicro.plugins import TLS
from pymicro_testing.clock import ManualClock

PATIENCE = 5.0


async def publish(broker: Any, body: bytes = b"{}") -> None:
    async with asyncio.timeout(PATIENCE):
        await broker.publish("orders", Message(body=body), timeout=PATIENCE)


async def next_of(consumer: Any) -> bytes:
    async with asyncio.timeout(PATIENCE):
        (delivery,) = await consumer.receive(1)
        await consumer.settle(delivery, Ack())
        body: bytes = delivery.message.body
        return body


def own(authority: Any, *hosts: str) -> TLS:
    cert, key = authority.issue("broker", *(hosts or ("127.0.0.1",)))
    return TLS(cert=cert, key=key, ca=authority.ca)


async def test_a_subscription_says_that_it_is_secure(open_broker: Any, registry: Any, authority: Any) -> None:
    tls = own(authority)
    consumer = await (await open_broker(tls=tls)).consume("orders", queue="packing")
    (record,) = await registry.get_service("micro.http.broker")
    assert record.nodes[0].metadata["secure"] == "true"
    for trusting in (tls, TLS(ca=authority.ca)):
        await publish(await open_broker(tls=trusting), b"secret")
        assert await next_of(consumer) == b"secret"


@pytest.mark.parametrize("settings", ["none", "secure", "impostor"])
async def test_an_untrusted_certificate_is_refused(
    open_broker: Any, authority: Any, impostor: Any, settings: str
) -> None:
    await (await open_broker(tls=own(authority))).consume("orders", queue="packing")
    tls = {"none": TLS(), "secure": TLS(secure=True), "impostor": TLS(ca=impostor.ca)}[settings]
    with pytest.raises(BackendUnavailable, match="the TLS certificate is not trusted"):
        await publish(await open_broker(tls=tls))


async def test_a_certificate_of_another_host_is_refused(open_broker: Any, authority: Any) -> None:
    await (await open_broker(tls=own(authority, "other.example"))).consume("orders", queue="packing")
    with pytest.raises(BackendUnavailable, match="certificate is not trusted"):
        await publish(await open_broker(tls=TLS(ca=authority.ca)))


async def test_a_service_with_tls_sends_nothing_in_the_clear(
    open_broker: Any, authority: Any, stranger: Any, caplog: pytest.LogCaptureFixture
) -> None:
    plain, broker = await stranger("orders"), await open_broker(tls=TLS(ca=authority.ca))
    with caplog.at_level(logging.WARNING):
        await publish(broker)
    assert plain.got.empty()
    assert "it does not use TLS, and this service does" in caplog.text


async def test_clients_can_be_required_to_have_a_certificate(open_broker: Any, authority: Any) -> None:
    cert, key = authority.issue("broker", "127.0.0.1")
    strict = TLS(cert=cert, key=key, ca=authority.ca, client_auth=True)
    consumer = await (await open_broker(tls=strict)).consume("orders", queue="packing")
    await publish(await open_broker(tls=strict), b"known")
    assert await next_of(consumer) == b"known"
    with pytest.raises(BackendUnavailable):
        await publish(await open_broker(tls=TLS(ca=authority.ca)))


async def test_new_connections_get_the_certificate_that_is_on_disk(
    open_broker: Any, authority: Any, impostor: Any
) -> None:
    clock = ManualClock()
    cert, key = impostor.issue("broker", "127.0.0.1")
    consumer = await (await open_broker(tls=TLS(cert=cert, key=key), clock=clock)).consume("orders", queue="packing")
    for new, path in zip(authority.issue("renewed", "127.0.0.1"), (cert, key), strict=True):
        shutil.copy(new, path)
    await clock.advance(5)
    await publish(await open_broker(tls=TLS(ca=authority.ca)), b"renewed")
    assert await next_of(consumer) == b"renewed"


async def test_a_subscriber_needs_a_certificate(open_broker: Any, authority: Any) -> None:
    broker = await open_broker(tls=TLS(ca=authority.ca))
    with pytest.raises(ConfigurationError, match="a server needs a certificate"):
        await broker.consume("orders")
    await publish(broker)


async def test_a_peer_that_never_ends_its_handshake_is_given_up(
    open_broker: Any, registry: Any, authority: Any
) -> None:
    await (await open_broker({"request_timeout": 0.1}, tls=own(authority))).consume("orders")
    (record,) = await registry.get_service("micro.http.broker")
    host, _, port = record.nodes[0].address.partition(":")
    async with asyncio.timeout(PATIENCE):
        reader, writer = await asyncio.open_connection(host, int(port))
        assert await reader.read() == b""
        writer.close()
