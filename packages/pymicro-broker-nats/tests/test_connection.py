"""Addresses, credentials, TLS, permissions, fail-over, and a server that says nothing."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote

import nkeys
import pytest

from pymicro.broker import Ack, Consumer
from pymicro.errors import BackendRefused, BackendUnavailable, ConfigurationError
from pymicro.message import Message
from pymicro.plugins import TLS, Build
from pymicro_broker_nats._broker import NatsBroker
from pymicro_testing.leaks import no_leaks
from pymicro_testing.servers import NatsServer

PATIENCE = 5.0
GetServer = Callable[..., NatsServer]


async def publish(broker: Any, topic: str = "orders", body: bytes = b"{}", timeout: float = PATIENCE) -> None:
    async with asyncio.timeout(2 * PATIENCE):
        await broker.publish(topic, Message(body=body), timeout=timeout)


async def next_of(consumer: Consumer) -> bytes:
    async with asyncio.timeout(PATIENCE):
        (delivery,) = await consumer.receive(1)
        await consumer.settle(delivery, Ack())
        return delivery.message.body


async def until_attached(consumer: Consumer, attached: bool) -> None:
    async with asyncio.timeout(PATIENCE):
        while consumer.attached is not attached:  # noqa: ASYNC110  # a consumer has no event for it
            await asyncio.sleep(0.01)


async def works(broker: Any) -> None:
    """What is published arrives."""
    consumer = await broker.consume("orders")
    await publish(broker, body=b"it works")
    assert await next_of(consumer) == b"it works"


# who is there


async def test_the_first_use_fails_at_once_where_nobody_is(open_broker: Any, nats_server: NatsServer) -> None:
    await nats_server.stop()
    broker = await open_broker({"connect_timeout": 30.0})
    async with asyncio.timeout(2.0):
        with pytest.raises(BackendUnavailable, match=f"{nats_server.address}: .*refused"):
            await publish(broker, timeout=30.0)
        with pytest.raises(BackendUnavailable):
            await broker.consume("orders")
    await nats_server.start()
    await works(broker)


async def test_any_of_several_addresses_will_do(open_broker: Any, server: GetServer) -> None:
    down, up = server("nats"), server("nats", number=2)
    await down.stop()
    broker = await open_broker(addresses=(down.address, f"nats://{up.address}"))
    await works(broker)


async def test_all_addresses_are_named_when_none_answers(open_broker: Any, server: GetServer) -> None:
    one, two = server("nats"), server("nats", number=2)
    await one.stop()
    await two.stop()
    with pytest.raises(BackendUnavailable) as raised:
        await publish(await open_broker(addresses=(one.address, two.address)))
    assert one.address in str(raised.value)
    assert two.address in str(raised.value)


async def test_subscriptions_move_to_another_server(open_broker: Any, server: GetServer) -> None:
    one, two = server("nats"), server("nats", number=2)
    await two.stop()
    broker = await open_broker(addresses=(one.address, two.address))
    consumer = await broker.consume("orders")
    await two.start()
    await one.stop()
    async with asyncio.timeout(PATIENCE):
        while not await arrives(broker, consumer):
            pass


async def arrives(broker: Any, consumer: Consumer) -> bool:
    """Whether a message gets through now. Core NATS forgets what is published while nobody is subscribed."""
    with suppress(BackendUnavailable, TimeoutError):
        await publish(broker, body=b"over there")
        async with asyncio.timeout(0.1):
            return await next_of(consumer) == b"over there"
    return False


@pytest.mark.parametrize("text", ["http://host:1", "nats://", "host:port", "user:pass@:1", "nats://host:99999"])
async def test_addresses_that_cannot_be_read_are_refused(text: str) -> None:
    with pytest.raises(ConfigurationError, match="NATS address"):
        async with NatsBroker(None, Build(addresses=(text,))):
            pass


async def test_an_error_about_an_address_shows_no_password() -> None:
    with pytest.raises(ConfigurationError) as raised:
        async with NatsBroker(None, Build(addresses=("http://user:s3cret@host:1",))):
            pass
    assert "s3cret" not in str(raised.value)


@pytest.mark.parametrize("jetstream", [False, True])
async def test_a_server_that_says_nothing_is_left_and_found_again(
    open_broker: Any, nats_server: NatsServer, jetstream: bool, caplog: pytest.LogCaptureFixture
) -> None:
    broker = await open_broker({"jetstream": jetstream, "ping_interval": 0.2, "connect_timeout": 0.5})
    consumer = await broker.consume("orders")
    with caplog.at_level(logging.INFO):
        await nats_server.pause()
        await until_attached(consumer, False)
        with pytest.raises(BackendUnavailable, match=r"within 0.1 s.*the server said nothing"):
            await publish(broker, timeout=0.1)
        await nats_server.resume()
        await until_attached(consumer, True)
    await publish(broker, body=b"back")
    assert await next_of(consumer) == b"back"
    assert [record.message.partition(" address")[0] for record in caplog.records if "connection" in record.message] == [
        "nats connection lost",
        "nats connection works again",
    ]


async def test_what_waits_for_an_answer_hears_at_once_of_a_kill(open_broker: Any, nats_server: NatsServer) -> None:
    broker = await open_broker()
    await publish(broker)
    await nats_server.pause()
    waiting = asyncio.create_task(publish(broker, timeout=60.0))
    done, _ = await asyncio.wait({waiting}, timeout=0.05)
    assert not done
    await nats_server.kill()
    with pytest.raises(BackendUnavailable):
        await waiting


async def test_a_server_that_reads_nothing_costs_bounded_memory(nats_server: NatsServer, open_broker: Any) -> None:
    broker = await open_broker()
    await publish(broker)
    await nats_server.pause()
    large = b"x" * 512 * 1024
    publishing = [publish(broker, body=large, timeout=0.5) for _ in range(100)]
    results = await asyncio.gather(*publishing, return_exceptions=True)
    assert all(isinstance(result, BackendUnavailable) for result in results)
    assert broker._link._session._client.pending_data_size < 8 * 1024**2


async def test_nothing_is_left_of_an_attempt_that_was_cancelled(nats_server: NatsServer) -> None:
    await nats_server.pause()
    async with no_leaks(), NatsBroker(None, Build(addresses=(nats_server.address,))) as broker:
        attaching = asyncio.create_task(broker.consume("orders"))
        await asyncio.wait({attaching}, timeout=0.1)
        attaching.cancel()
        with pytest.raises(asyncio.CancelledError):
            await attaching


# who may come in


async def test_user_and_password(open_broker: Any, server: GetServer) -> None:
    locked = server("nats", credentials=True)
    options = {"username": locked.username, "password": locked.password}
    await works(await open_broker(options, addresses=(locked.address,)))
    user, password = quote(locked.username, safe=""), quote(locked.password, safe="")
    await works(await open_broker(addresses=(f"nats://{user}:{password}@{locked.address}",)))


async def test_wrong_credentials_are_told_with_the_user(open_broker: Any, server: GetServer) -> None:
    locked = server("nats", credentials=True)
    for jetstream in (False, True):
        options = {"username": "mallory", "password": "guess", "jetstream": jetstream}
        broker = await open_broker(options, addresses=(locked.address,))
        for attempt in (publish(broker), broker.consume("orders")):
            with pytest.raises(BackendRefused, match=r"does not let the user 'mallory' in.*Authorization") as raised:
                await attempt
            assert "guess" not in repr(raised.value)
    with pytest.raises(BackendRefused, match="a client without credentials"):
        await publish(await open_broker(addresses=(locked.address,)))


async def test_credentials_that_are_withdrawn_end_the_waiting(open_broker: Any, server: GetServer) -> None:
    locked = server("nats", credentials=True)
    options = {"username": locked.username, "password": locked.password}
    broker = await open_broker(options, addresses=(locked.address,))
    await publish(broker)
    await locked.stop()
    kept, locked.password = locked.password, "changed"
    try:
        await locked.start()
        async with asyncio.timeout(PATIENCE):
            with pytest.raises(BackendRefused, match="does not let the user"):
                await publish(broker, timeout=60.0)
        locked.password = kept
        await locked.restart()
        await until_published(broker)
    finally:
        locked.password = kept
        await locked.restart()


async def until_published(broker: Any) -> None:
    async with asyncio.timeout(PATIENCE):
        while True:
            try:
                await publish(broker)
            except BackendRefused:
                await asyncio.sleep(0.05)
            else:
                return


async def test_a_token(open_broker: Any, server: GetServer) -> None:
    locked = server("nats", settings={"authorization": '{token: "t0ken"}'})
    await works(await open_broker({"token": "t0ken"}, addresses=(locked.address,)))
    await works(await open_broker(addresses=(f"nats://t0ken@{locked.address}",)))
    with pytest.raises(BackendRefused, match="this token"):
        await publish(await open_broker({"token": "wrong"}, addresses=(locked.address,)))


def nkey(seed: bytes = b"1" * 32) -> tuple[str, str]:
    """A user's seed and public key."""
    encoded = nkeys.encode_seed(seed, nkeys.PREFIX_BYTE_USER)
    return encoded.decode(), nkeys.from_seed(bytearray(encoded)).public_key.decode()


async def test_an_nkey(open_broker: Any, server: GetServer, tmp_path: Path) -> None:
    seed, public = nkey()
    locked = server("nats", settings={"authorization": f'{{users: [{{nkey: "{public}"}}]}}'})
    path = tmp_path / "seed"
    path.write_text(seed + "\n")
    await works(await open_broker({"nkey_file": str(path)}, addresses=(locked.address,)))
    path.write_text(nkey(b"2" * 32)[0])
    with pytest.raises(BackendRefused, match=f"the nkey of {path}"):
        await publish(await open_broker({"nkey_file": str(path)}, addresses=(locked.address,)))


@pytest.mark.parametrize("option", ["nkey_file", "credentials_file"])
async def test_files_with_credentials_that_do_not_exist_are_told_at_once(open_broker: Any, option: str) -> None:
    with pytest.raises(ConfigurationError, match="there is no file /nowhere"):
        await open_broker({option: "/nowhere"})


PERMISSIONS = """{users: [{user: "reader", password: "p", permissions: {
    publish: {deny: ["secret.>"]}, subscribe: {deny: ["secret.>"]}}}]}"""
READER = {"username": "reader", "password": "p"}


@pytest.mark.parametrize("jetstream", [False, True])
async def test_permissions_are_told_with_user_and_subject(
    open_broker: Any, server: GetServer, jetstream: bool, caplog: pytest.LogCaptureFixture
) -> None:
    locked = server("nats", settings={"authorization": PERMISSIONS})
    broker = await open_broker({**READER, "jetstream": jetstream}, addresses=(locked.address,))
    await works(broker)
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            with pytest.raises(
                BackendRefused, match=r"the user 'reader' may not publish to the subject 'secret\.plan'"
            ):
                await publish(broker, "secret.plan")
    assert caplog.text.count("nats permission denied") == 1
    if not jetstream:
        with pytest.raises(BackendRefused, match=r"may not subscribe to the subject 'secret\.plan'"):
            await broker.consume("secret.plan", queue="q")
    await works(broker)


async def test_an_account_may_have_inboxes_of_its_own(open_broker: Any, server: GetServer) -> None:
    rules = '{users: [{user: "u", password: "p", permissions: {subscribe: {allow: ["orders", "_MINE.>"]}}}]}'
    locked = server("nats", settings={"authorization": rules})
    options = {"username": "u", "password": "p"}
    await works(await open_broker({**options, "inbox_prefix": "_MINE"}, addresses=(locked.address,)))
    async with asyncio.timeout(PATIENCE):
        with pytest.raises(BackendRefused, match="may not subscribe to the subject '_inbox"):
            await publish(await open_broker(options, addresses=(locked.address,)), timeout=60.0)


# TLS


def client(server: NatsServer) -> TLS:
    files = server.certificates
    assert files is not None
    return TLS(cert=str(files.certificate), key=str(files.key), ca=str(files.authority))


@pytest.mark.parametrize("jetstream", [False, True])
async def test_tls_with_a_client_certificate(open_broker: Any, server: GetServer, jetstream: bool) -> None:
    secure = server("nats", tls=True)
    await works(await open_broker({"jetstream": jetstream}, addresses=(secure.address,), tls=client(secure)))
    await works(await open_broker(addresses=(f"tls://localhost:{secure.port}",), tls=client(secure)))


async def test_a_server_that_is_not_trusted_is_refused(open_broker: Any, server: GetServer) -> None:
    secure = server("nats", tls=True)
    for tls in (TLS(), TLS(secure=True)):
        with pytest.raises(BackendRefused, match="certificate is not trusted"):
            await publish(await open_broker(addresses=(secure.address,), tls=tls))


async def test_without_a_client_certificate_the_server_refuses(open_broker: Any, server: GetServer) -> None:
    secure = server("nats", tls=True)
    tls = TLS(ca=client(secure).ca)
    with pytest.raises((BackendRefused, BackendUnavailable)):
        await publish(await open_broker(addresses=(secure.address,), tls=tls))


@pytest.mark.parametrize("how", ["option", "address"])
async def test_a_service_with_tls_tells_no_secret_in_the_clear(open_broker: Any, server: GetServer, how: str) -> None:
    plain = server("nats", credentials=True, settings={"trace": "true"})
    options = {"username": plain.username, "password": plain.password}
    if how == "option":
        broker = await open_broker(options, addresses=(plain.address,), tls=TLS(secure=True))
    else:
        broker = await open_broker(options, addresses=(f"tls://{plain.address}",))
    with pytest.raises(BackendRefused, match="does not use TLS, and this service does"):
        await publish(broker)
    assert plain.username not in (plain.folder / "log").read_text()
