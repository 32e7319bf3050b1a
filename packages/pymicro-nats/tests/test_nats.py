"""What is not seen through the plugins, whose tests are those of connections too."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from contextlib import suppress
from typing import Any

import pytest

from pymicro.errors import BackendUnavailable, ConfigurationError
from pymicro.plugins import Build
from pymicro_nats import NatsOptions, _driver, check_subject, open_link
from pymicro_testing.leaks import no_leaks
from pymicro_testing.servers import NatsServer

PATIENCE = 5.0


def test_importing_the_package_imports_no_driver() -> None:
    program = "import pymicro_nats, sys; sys.exit('nats' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


@pytest.mark.parametrize("text", ["", " ", "a b", "a\n", ".a", "a.", "a..b", "a.*", ">", "$JS.x", "\0"])
def test_what_is_no_subject_is_refused(text: str) -> None:
    with pytest.raises(ConfigurationError, match=r"topic .* cannot be a NATS subject"):
        check_subject(text, "topic")


@pytest.mark.parametrize("text", ["a", "a.b", "größe", "a-b_c=d", "x$", "_INBOX.x"])
def test_what_is_a_subject_is_taken(text: str) -> None:
    check_subject(text, "topic")


async def test_a_cancellation_that_the_driver_swallows_takes_place() -> None:
    entered = asyncio.Event()

    async def swallows() -> None:
        async with _driver.cancellable():
            with suppress(asyncio.CancelledError):
                entered.set()
                await asyncio.Event().wait()

    task = asyncio.create_task(swallows())
    await entered.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_closing_while_a_lost_connection_is_put_away_leaves_nothing(nats_server: NatsServer) -> None:
    async with no_leaks(), asyncio.timeout(PATIENCE):
        link = await open_link(NatsOptions(ping_interval=0.1), Build(addresses=(nats_server.address,)))
        session = await link.session()
        await nats_server.pause()
        await session.lost.wait()
        await link.aclose()


async def test_what_is_written_in_one_turn_arrives_in_order(nats_server: NatsServer) -> None:
    arrived: list[bytes] = []
    link = await open_link(NatsOptions(), Build(addresses=(nats_server.address,)))
    try:
        async with asyncio.timeout(PATIENCE):
            session = await link.session()
            subscription = await session.tap("here", lambda subject, reply, data, headers: arrived.append(data))
            sent = [b"%d" % number * (1 if number % 3 else 10_000) for number in range(100)]
            for data in sent:
                session.write(b"PUB here %d\r\n%b\r\n" % (len(data), data))
            await session.written()
            assert arrived == sent
            await session.forget(subscription)
            session.write(b"PUB here 1\r\n1\r\n")
            await session.written()
            assert arrived == sent
    finally:
        await link.aclose()


async def test_a_subscription_that_the_server_knows_loses_nothing(nats_server: NatsServer) -> None:
    """Also when there are so many at once that the driver lets who subscribes wait after it has sent that."""
    many = 5000
    arrived = 0

    def count(_: Any) -> None:
        nonlocal arrived
        arrived += 1

    link = await open_link(NatsOptions(), Build(addresses=(nats_server.address,)))
    try:
        async with asyncio.timeout(PATIENCE):
            session = await link.session()
            subscribing = [asyncio.create_task(session.take("here", "", count)) for _ in range(many)]
            await asyncio.sleep(0)  # all are sent
            session.write(b"PUB here 1\r\nx\r\n")
            await asyncio.gather(*subscribing)
            await session.written()
            assert arrived == many
    finally:
        await link.aclose()


async def test_who_subscribes_is_cancelled_also_while_the_driver_waits(nats_server: NatsServer) -> None:
    arrived: list[Any] = []
    link = await open_link(NatsOptions(), Build(addresses=(nats_server.address,)))
    try:
        async with asyncio.timeout(PATIENCE):
            session = await link.session()
            subscribing = [asyncio.create_task(session.take("here", "", arrived.append)) for _ in range(2000)]
            await asyncio.sleep(0)  # all are sent, and the last ones wait for the driver
            for each in subscribing:
                each.cancel()
            ends = await asyncio.gather(*subscribing, return_exceptions=True)
            assert {type(end) for end in ends} == {asyncio.CancelledError}
            await session.publish("here", b"x")
            assert not arrived
            await session.confirm()
    finally:
        await link.aclose()


async def test_what_is_taken_is_the_message_that_was_sent(nats_server: NatsServer) -> None:
    """Also with headers, which must not break the protocol."""
    arrived: list[Any] = []
    link = await open_link(NatsOptions(), Build(addresses=(nats_server.address,)))
    try:
        async with asyncio.timeout(PATIENCE):
            session = await link.session()
            await session.take("here", "", arrived.append)
            await session.send("here", b"one", reply="there", headers={"X-G": " ä\r\nX: y "})
            await session.publish("here", b"")
            one, two = (each.native() for each in arrived)
        assert (one.subject, one.reply, one.data, one.headers) == ("here", "there", b"one", {"X-G": "ä  X: y"})
        assert (two.subject, two.reply, two.data, two.headers) == ("here", "", b"", None)
    finally:
        await link.aclose()


@pytest.mark.parametrize(
    ("subject", "headers"), [("a b", {}), ("", {}), ("a\r\nPUB b 0", {}), ("a", {"x y": ""}), ("a", {"": "x"})]
)
async def test_what_would_break_the_protocol_is_refused(
    nats_server: NatsServer, subject: str, headers: dict[str, str]
) -> None:
    link = await open_link(NatsOptions(), Build(addresses=(nats_server.address,)))
    try:
        async with asyncio.timeout(PATIENCE):
            session = await link.session()
            with pytest.raises(ConfigurationError):
                await session.send(subject, b"x", headers=headers)
            await session.confirm()
    finally:
        await link.aclose()


async def test_what_takes_too_long_says_what_it_was(nats_server: NatsServer) -> None:
    link = await open_link(NatsOptions(), Build(addresses=(nats_server.address,)))
    try:
        async with asyncio.timeout(PATIENCE):
            session = await link.session()
            await nats_server.pause()
            with pytest.raises(BackendUnavailable, match=r"trying: no answer from NATS within 0\.1 s"):
                await session.publish("here", b"x", (0.1, "trying"))
            await nats_server.resume()
            await session.publish("here", b"x", (PATIENCE, "trying"))
    finally:
        await link.aclose()


async def test_a_session_that_is_lost_has_no_room(nats_server: NatsServer) -> None:
    link = await open_link(NatsOptions(), Build(addresses=(nats_server.address,)))
    try:
        async with asyncio.timeout(PATIENCE):
            session = await link.session()
            await nats_server.kill()
            await session.lost.wait()
            session.write(b"PUB here 1\r\n1\r\n")  # is lost
            for waiting in (session.room(), session.written()):
                with pytest.raises(BackendUnavailable):
                    await waiting
    finally:
        await link.aclose()
